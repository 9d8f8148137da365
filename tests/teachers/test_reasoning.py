"""Reasoning is found wherever a provider puts it, and stays out of a conversation's history."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.providers.reasoning import TAGS as reasoning_tags
from chainforge.providers.reasoning import split_reasoning, without_reasoning
from chainforge.records import Message

FIELDS = (
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "thinking",
    "thinking_blocks",
    "reasoning_text",
    "content",
)
TAGS = tuple(tag for pair in reasoning_tags for tag in pair)
texts = st.text().filter(lambda text: not any(tag in text for tag in (*TAGS, "<|")))
said = texts.filter(lambda text: text.strip() != "")
odd_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(TAGS),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["text", "summary"]), inner),
    max_leaves=8,
)
fields = st.sampled_from([*FIELDS, "role"])
DIALECTS = {
    "reasoning_content": lambda r, c: {"reasoning_content": r, "content": c},
    "reasoning": lambda r, c: {"reasoning": r, "content": c},
    "reasoning_details": lambda r, c: {
        "reasoning_details": [{"type": "reasoning.text", "text": r}],
        "content": c,
    },
    "reasoning_details, in parts": lambda r, c: {
        "reasoning_details": [{"text": r[: len(r) // 2]}, {"text": r[len(r) // 2 :]}],
        "content": c,
    },
    "reasoning_details, summed up": lambda r, c: {"reasoning_details": [{"summary": r}], "content": c},
    "<think>": lambda r, c: {"content": f"<think>{r}</think>{c}"},
    "<think>, on lines of their own": lambda r, c: {"content": f"\n<think>\n{r}\n</think>\n\n{c}\n"},
    "<think> left out": lambda r, c: {"content": f"{r}</think>{c}"},
    "◁think▷": lambda r, c: {"content": f"◁think▷{r}◁/think▷{c}"},
    "◁think▷ left out": lambda r, c: {"content": f"{r}◁/think▷{c}"},
    "[THINK]": lambda r, c: {"content": f"[THINK]{r}[/THINK]{c}"},
    "<mm:think>": lambda r, c: {"content": f"<mm:think>{r}</mm:think>{c}"},
    "<thought>": lambda r, c: {"content": f"<thought>{r}</thought>\n{c}"},
    "thinking": lambda r, c: {"thinking": r, "content": c},
    "content, in parts": lambda r, c: {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": r}]},
            {"type": "text", "text": c},
        ]
    },
    "channels": lambda r, c: {
        "content": f"<|channel|>analysis<|message|>{r}<|end|>"
        f"<|start|>assistant<|channel|>final<|message|>{c}<|return|>"
    },
    "channels, their first token left out": lambda r, c: {
        "content": f"analysis<|message|>{r}<|end|><|start|>assistant<|channel|>final<|message|>{c}<|return|>"
    },
    "<thinking>": lambda r, c: {"content": f"<thinking>{r}</thinking>{c}"},
    "<reasoning>": lambda r, c: {"content": f"<reasoning>{r}</reasoning>{c}"},
    "<seed:think>": lambda r, c: {"content": f"<seed:think>{r}</seed:think>{c}"},
    "START_THINKING": lambda r, c: {
        "content": f"<|START_THINKING|>{r}<|END_THINKING|><|START_RESPONSE|>{c}<|END_RESPONSE|>"
    },
    "begin_of_thought": lambda r, c: {
        "content": f"<|begin_of_thought|>{r}<|end_of_thought|>\n<|begin_of_solution|>{c}<|end_of_solution|>"
    },
    "<think> twice": lambda r, c: {"content": f"<think>\n<think>{r}</think>{c}"},
    "</think> twice": lambda r, c: {"content": f"<think>{r}</think>\n</think>{c}"},
    "<think>, an empty one first": lambda r, c: {"content": f"<think>\n\n</think><think>{r}</think>{c}"},
    "reasoning_content, a list": lambda r, c: {
        "reasoning_content": [{"type": "text", "text": r}],
        "content": c,
    },
    "reasoning, an object": lambda r, c: {"reasoning": {"content": r, "tokens": 7}, "content": c},
    "thinking_blocks": lambda r, c: {"thinking_blocks": [{"type": "thinking", "thinking": r}], "content": c},
    "reasoning_text": lambda r, c: {"reasoning_text": r, "content": c},
    "content, in typed parts": lambda r, c: {
        "content": [{"type": "reasoning", "text": r}, {"type": "output_text", "text": c}]
    },
    "content, in marked parts": lambda r, c: {"content": [{"text": r, "thought": True}, {"text": c}]},
    "content, with a summary": lambda r, c: {
        "content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": r}]}, c]
    },
    "reasoning_content, and an empty thought": lambda r, c: {
        "reasoning_content": r,
        "content": f"<think>\n\n</think>\n\n{c}",
    },
    "reasoning_content, stray closing tags first": lambda r, c: {
        "reasoning_content": r,
        "content": f"</think>\n</think>\n{c}",
    },
    "reasoning_content, a stray closing tag last": lambda r, c: {
        "reasoning_content": r,
        "content": f"{c}\n</think>",
    },
    "reasoning_content, and its end in the content": lambda r, c: {
        "reasoning_content": r,
        "content": f"so that is it.\n</think>\n\n{c}",
    },
}


@pytest.mark.dear
@pytest.mark.parametrize("dialect", DIALECTS)
@given(reasoning=said, content=texts)
def test_every_dialect_says_the_same(dialect: str, reasoning: str, content: str) -> None:
    found, rest, source = split_reasoning({"role": "assistant"} | DIALECTS[dialect](reasoning, content))
    assert (found, rest) == (reasoning.strip(), content.strip())
    assert source == (dialect.partition(",")[0] if dialect.startswith(FIELDS) else "inline")


@given(reasoning=said, content=said)
def test_an_answer_in_the_field_of_the_reasoning_is_found_there(reasoning: str, content: str) -> None:
    for nothing in (None, "", "\n"):
        message = {"reasoning_content": f"{reasoning}</think>{content}", "content": nothing}
        assert split_reasoning(message) == (reasoning.strip(), content.strip(), "reasoning_content")


def test_channels_without_their_control_tokens_are_told_apart() -> None:
    assert split_reasoning({"content": "analysis6*3=18assistantfinal18"}) == ("6*3=18", "18", "inline")
    for text in ("analysis of it: assistantfinal", "an analysis", "analysis6*3"):
        assert split_reasoning({"content": text})[1] == text


def test_the_first_place_that_has_some_wins() -> None:
    everywhere: dict[str, Any] = {
        "reasoning_content": "A",
        "reasoning": "B",
        "reasoning_details": [{"text": "C"}],
        "content": "<think>D</think>answer",
    }
    order = [("A", "reasoning_content"), ("B", "reasoning"), ("C", "reasoning_details"), ("D", "inline")]
    for field, (reasoning, source) in zip([*everywhere, None], order, strict=False):
        assert split_reasoning(everywhere)[::2] == (reasoning, source)
        everywhere = {key: value for key, value in everywhere.items() if key != field}


@pytest.mark.parametrize("empty", [None, "", " \n", [], {}, 0])
def test_an_empty_field_is_passed_over(empty: Any) -> None:
    message = {"reasoning_content": empty, "reasoning": empty, "reasoning_details": empty, "content": "42"}
    assert split_reasoning(message) == ("", "42", None)
    assert split_reasoning(message | {"reasoning": "6*7"}) == ("6*7", "42", "reasoning")
    assert split_reasoning(message | {"content": "a</think>b"}) == ("a", "b", "inline")


@pytest.mark.parametrize("content", ["<think>", "<think>\n\n", "<think></think>", "\n<think> </think>\n"])
def test_thinking_of_nothing_is_no_reasoning(content: str) -> None:
    assert split_reasoning({"content": content}) == ("", "", None)
    assert split_reasoning({"content": f"{content.partition('</think>')[0]}</think>42"}) == ("", "42", None)


@pytest.mark.parametrize("opening", ["<think>", " \n<think>\n", "◁think▷"])
def test_thinking_that_was_cut_is_all_reasoning(opening: str) -> None:
    assert split_reasoning({"content": f"{opening}6*7 is"}) == ("6*7 is", "", "inline")


def test_what_follows_the_first_closing_tag_is_the_answer() -> None:
    message = {"content": "<think>a</think>write </think> to end <think>"}
    assert split_reasoning(message) == ("a", "write </think> to end <think>", "inline")


def test_an_opening_tag_in_the_middle_of_an_answer_is_text() -> None:
    assert split_reasoning({"content": "use <think> to begin"}) == ("", "use <think> to begin", None)


@pytest.mark.slow
@given(st.dictionaries(fields, odd_json))
def test_odd_json_is_read_without_an_error(message: dict[str, Any]) -> None:
    reasoning, content, source = split_reasoning(message)
    assert reasoning == reasoning.strip()
    assert content == content.strip()
    assert (source is None) == (reasoning == "")


turns = st.lists(
    st.builds(
        Message,
        role=st.sampled_from(["system", "user", "assistant", "tool"]),
        content=st.lists(st.text() | st.sampled_from(TAGS)).map("".join),
    )
)


@pytest.mark.slow
@given(turns)
def test_only_what_an_assistant_thought_leaves_the_history_and_once_is_enough(history: list[Message]) -> None:
    without = without_reasoning(history)
    assert [m["role"] for m in without] == [m["role"] for m in history]
    for before, after in zip(history, without, strict=True):
        if before["role"] != "assistant" or not any(tag in before["content"] for tag in TAGS):
            assert before["content"].strip() == after["content"].strip()
        if before["role"] != "assistant":
            assert before == after
    assert without_reasoning(without) == without


@pytest.mark.slow
@given(st.lists(texts | st.sampled_from(TAGS)), said)
def test_history_never_carries_reasoning(parts: list[str], thought: str) -> None:
    thought = f"thought {thought}"
    for opening, closing in zip(TAGS[::2], TAGS[1::2], strict=True):
        for content in (
            "".join([opening, thought, *parts]),  # closed somewhere, or cut off
            "".join([*parts, opening, thought, closing]),
            thought + closing + "".join(p for p in parts if p not in TAGS),
        ):
            (after,) = without_reasoning([Message(role="assistant", content=content)])
            assert thought.strip() not in after["content"]
            assert not any(tag in after["content"] for tag in TAGS)
            assert split_reasoning(after)[0] == ""


@pytest.mark.parametrize(
    ("said_before", "kept"),
    [
        ("<think>6*7</think>42", "42"),
        ("<think>\n6*7\n</think>\n\n42\n", "42"),
        ("◁think▷6*7◁/think▷42", "42"),
        ("<reasoning_process>6*7</reasoning_process>42", "42"),
        ("<think>a</think>4<think>b</think>2", "42"),
        ("6*7</think>42", "42"),
        ("6*7◁/think▷42", "42"),
        ("42", "42"),
        ("<think>only thought</think>", ""),
        ("<think>a thought that was cut", ""),
        ("◁think▷a thought that was cut", ""),
        ("<reasoning_process>6*7", ""),
        ("6*7</reasoning_process>42", "42"),
        ("<think>6*7</think>42 <think>or is it", "42"),
        ("<thi<think>6*7</think>nk>is it", ""),
        ("<reasoning_process>6*7</reasoning_process><summary>42</summary>", "42"),
        ("<think>6*7</think>\n<answer> 42 </answer>", "42"),
        ("<|begin_of_thought|>6*7<|end_of_thought|><|begin_of_solution|>42<|end_of_solution|>", "42"),
        ("<answer>42</answer>", "<answer>42</answer>"),  # nothing was thought: these are words
        ("<think>6*7</think><answer>42", "<answer>42"),
    ],
)
def test_an_earlier_answer_keeps_its_answer(said_before: str, kept: str) -> None:
    turns = [Message(role=role, content=said_before) for role in ("user", "assistant")]
    assert [m["content"] for m in without_reasoning(turns)] == [said_before, kept]
