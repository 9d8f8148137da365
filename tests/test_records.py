"""Records survive JSON, and a row that is none says which field is wrong."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.records import Completion, Example, Prompt, Trace, check_record, from_json, to_json

text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
message = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": text})
asked = message.filter(lambda m: m["content"].strip())
messages = st.builds(lambda turns, last: (*turns, last), st.lists(message, max_size=2), asked)
finish = st.sampled_from(["stop", "length", "content_filter", "error"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
tokens = st.lists(st.tuples(st.integers(0, 10**6), st.floats(-50, 0)), max_size=5)
prompts = st.builds(
    Prompt, text, text, messages, st.none() | text, st.dictionaries(text, json_values, max_size=3)
)
traces = st.builds(Trace, text, text, text, finish, text)
examples = st.builds(Example, text, messages, text, text)
completions = st.builds(
    lambda p, t, pairs, f, o: Completion(p, t, tuple(i for i, _ in pairs), tuple(x for _, x in pairs), f, o),
    text,
    text,
    tokens,
    finish,
    text,
)
records = st.one_of(prompts, traces, examples, completions)


@pytest.mark.slow
@given(record=records)
def test_a_record_survives_json(record: Any) -> None:
    assert from_json(type(record), json.loads(json.dumps(to_json(record)))) == record


@pytest.mark.slow
@given(record=records)
def test_a_record_is_frozen_and_its_json_has_the_fields_in_order(record: Any) -> None:
    assert list(to_json(record)) == list(type(record).__dataclass_fields__)
    with pytest.raises(AttributeError):
        setattr(record, next(iter(to_json(record))), "changed")


ROLE = "^message 2 of 2 has the unknown role 'bot'; known: system, user, assistant$"
THOUGHT = (
    "^message 1 of 1 has 'reasoning_content': remove it; "
    "what was thought in earlier turns is no part of a prompt$"
)
HELLO: Any = {"role": "user", "content": "hello"}
PROMPT = {"id": "p1", "source": "toy", "messages": [HELLO]}
TRACE = {"prompt_id": "p1", "reasoning": "r", "content": "c", "finish": "stop", "origin": "toy"}
COMPLETION = {
    "prompt_id": "p1", "text": "t", "token_ids": [1], "logprobs": [-0.5], "finish": "stop", "origin": "toy",
}  # fmt: skip


def test_answer_and_columns_may_be_left_out() -> None:
    assert from_json(Prompt, PROMPT) == Prompt("p1", "toy", ({"role": "user", "content": "hello"},), None, {})


@pytest.mark.parametrize(
    ("kind", "row", "complaint"),
    [
        (Prompt, [1], "expected an object, found list"),
        (Prompt, PROMPT | {"anwser": "4"}, "unknown field 'anwser'"),
        (Prompt, {"id": "p1", "source": "toy"}, "missing 1 required positional argument: 'messages'"),
        (Prompt, PROMPT | {"id": 7}, "field 'id' must be a string, found 7"),
        (Prompt, PROMPT | {"answer": 42}, "field 'answer' must be a string or null, found 42"),
        (Prompt, PROMPT | {"columns": [1]}, r"field 'columns' must be an object, found \(1,\)"),
        (Prompt, PROMPT | {"messages": "hello"}, "field 'messages' must be a list, found 'hello'"),
        (Prompt, PROMPT | {"messages": HELLO}, "field 'messages' must be a list, found {'role'"),
        (Prompt, PROMPT | {"messages": []}, "field 'messages' is empty"),
        (Prompt, PROMPT | {"messages": ["hello"]}, "message 1 of 1 must be .*found 'hello'"),
        (Prompt, PROMPT | {"messages": [{"role": "user"}]}, "message 1 of 1 must be .*has no 'content'"),
        (Prompt, PROMPT | {"messages": [HELLO | {"content": None}]}, "its 'content' is not a string: None"),
        (Prompt, PROMPT | {"messages": [HELLO, HELLO | {"role": "bot"}]}, ROLE),
        (Prompt, PROMPT | {"messages": [HELLO | {"reasoning_content": "y" * 90}]}, THOUGHT),
        (Prompt, PROMPT | {"messages": [HELLO | {"name": "x"}]}, "has 'name' too: remove it"),
        (Prompt, PROMPT | {"messages": [HELLO | {"content": " "}]}, "the last message is empty"),
        (
            Completion,
            COMPLETION | {"token_ids": [1, "2"]},
            "'token_ids' must be a list of integers, found '2'",
        ),
        (
            Completion,
            COMPLETION | {"token_ids": [True]},
            "'token_ids' must be a list of integers, found True",
        ),
        (Completion, COMPLETION | {"logprobs": [None]}, "'logprobs' must be a list of numbers, found None"),
        (Trace, TRACE | {"reasoning": None}, "field 'reasoning' must be a string, found None"),
        (Trace, TRACE | {"finish": "done"}, "field 'finish' must be one of .*'stop'.*found 'done'"),
        (Completion, COMPLETION | {"token_ids": "1"}, "field 'token_ids' must be a list, found '1'"),
        (Completion, COMPLETION | {"logprobs": 0.5}, "field 'logprobs' must be a list"),
    ],
)
def test_a_row_that_is_no_record_says_which_field_is_wrong(kind: Any, row: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        from_json(kind, row)


@pytest.mark.slow
@given(record=records)
def test_a_good_record_passes_its_check(record: Any) -> None:
    assert check_record(type(record), record) is record


@pytest.mark.parametrize(
    ("kind", "made", "complaint"),
    [
        (Prompt, PROMPT, "expected a Prompt, found {'id'"),
        (Trace, None, "expected a Trace, found None"),
        (Prompt, Prompt(7, "toy", (HELLO,)), "field 'id' must be a string, found 7"),  # type: ignore[arg-type]
        (Prompt, Prompt("p", "toy", "hello"), "field 'messages' must be a list"),  # type: ignore[arg-type]
        (Prompt, Prompt("p", "toy", (HELLO,), 4), "field 'answer' must be"),  # type: ignore[arg-type]
        (Prompt, Prompt("p", "toy", (HELLO,), None, {"x": {1}}), "field 'columns' holds what JSON cannot"),
        (Trace, Trace("p", None, "c", "stop", "toy"), "field 'reasoning' must be"),  # type: ignore[arg-type]
        (Trace, Trace("p", "r", "c", "banana", "toy"), "field 'finish' must be one of"),  # type: ignore[arg-type]
    ],
)
def test_what_code_from_outside_made_is_checked_like_a_row(kind: Any, made: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_record(kind, made)
