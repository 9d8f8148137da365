"""Prompt and response, encoded apart, are the whole conversation encoded at once."""

import copy
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from fakes import SUPERCOT, policy, tokenizer
from hypothesis import assume, given
from hypothesis import strategies as st

from chainforge.errors import ChainForgeError
from chainforge.models.chat import decode_response, encode_prompt, encode_response, eos_ids, opening
from chainforge.pretrained import render
from chainforge.records import Message
from chainforge.response import tag_format

text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30)
turn = st.builds(
    lambda role, content: Message(role=role, content=content), st.sampled_from(["system", "user"]), text
)
conversation = st.lists(turn, min_size=1, max_size=3)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def rendered(messages: Sequence[Message], response: str) -> str:
    """The whole conversation as the template writes it, up to the end of the answer."""
    whole = [*messages, {"role": "assistant", "content": response}]
    written = str(tokenizer().apply_chat_template(whole, tokenize=False))
    assert written.endswith("<|im_end|>\n")
    return written.removesuffix("\n")


@pytest.mark.slow
@given(messages=conversation, reasoning=text, summary=text)
def test_prompt_and_response_together_are_the_whole_conversation(
    messages: list[Message], reasoning: str, summary: str
) -> None:
    assume(not any(mark in part for mark in (*SUPERCOT.tags, *SPECIAL) for part in (reasoning, summary)))
    response = SUPERCOT.render(reasoning, summary)
    apart = encode_prompt(tokenizer(), messages) + encode_response(tokenizer(), response)
    assert apart == tokenizer().encode(rendered(messages, response))


@pytest.mark.slow
@given(messages=conversation, reasoning=text, summary=text)
def test_a_prefilled_tag_moves_from_the_response_to_the_prompt(
    messages: list[Message], reasoning: str, summary: str
) -> None:
    form = tag_format("r1-prefilled")
    assume(not any(mark in part for mark in (*form.tags, *SPECIAL) for part in (reasoning, summary)))
    toy, response = tokenizer(form.tags), form.render(reasoning, summary)
    prompt = encode_prompt(toy, messages, form.prefill)
    assert prompt == encode_prompt(toy, messages) + toy.encode("<think>")
    rest = encode_response(toy, response.removeprefix(form.prefill))
    assert prompt + rest == encode_prompt(toy, messages) + encode_response(toy, response)
    assert form.prefill + decode_response(toy, rest) == response


@given(response=text)
def test_a_response_comes_back_as_it_was_and_ends_with_eos(response: str) -> None:
    assume(not any(mark in response for mark in SPECIAL))
    ids = encode_response(tokenizer(), response)
    assert ids[-1] == tokenizer().eos_token_id
    assert tokenizer().eos_token_id not in ids[:-1]
    assert decode_response(tokenizer(), ids) == decode_response(tokenizer(), ids[:-1]) == response


def test_a_tokenizer_that_adds_a_start_token_by_itself_adds_it_only_once() -> None:
    from tokenizers.processors import TemplateProcessing

    eager = copy.deepcopy(tokenizer())
    eager.backend_tokenizer.post_processor = TemplateProcessing(  # type: ignore[attr-defined]
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    messages: Any = [{"role": "user", "content": "x"}]
    assert eager.encode("x") != tokenizer().encode("x")
    assert encode_prompt(eager, messages) == encode_prompt(tokenizer(), messages)
    assert encode_response(eager, "x") == encode_response(tokenizer(), "x")


def test_a_tokenizer_without_a_chat_template_is_an_error() -> None:
    bare = copy.deepcopy(tokenizer())
    bare.chat_template = None
    with pytest.raises(ChainForgeError, match=r"has no chat template\n  -> start from an instruction-tuned"):
        encode_prompt(bare, [{"role": "user", "content": "x"}])


# Texts that hold control words


def with_marks(*words: str) -> st.SearchStrategy[str]:
    """Texts in which control words, whole and broken, are likely."""
    pieces = st.one_of(st.sampled_from([*words, *(word[:-1] for word in words), "|>", "\U00100000"]), text)
    return st.lists(pieces, max_size=5).map("".join)


@given(response=with_marks(*SPECIAL))
def test_control_words_in_a_response_are_letters_and_come_back(response: str) -> None:
    ids = encode_response(tokenizer(), response)
    control = {tokenizer().convert_tokens_to_ids(word) for word in SPECIAL}
    assert [token for token in ids if token in control] == [ids[-1]] == [tokenizer().eos_token_id]
    assert decode_response(tokenizer(), ids) == response


@pytest.mark.slow
@given(contents=st.lists(with_marks(*SPECIAL), min_size=1, max_size=3))
def test_control_words_in_messages_are_letters_and_those_of_the_template_are_not(contents: list[str]) -> None:
    messages = [Message(role="user", content=content) for content in contents]
    plain = [Message(role="user", content="x") for _ in contents]
    toy = tokenizer()
    control = {toy.convert_tokens_to_ids(word) for word in SPECIAL}
    found = [token for token in encode_prompt(toy, messages) if token in control]
    assert found == [token for token in encode_prompt(toy, plain) if token in control]
    written = toy.apply_chat_template([dict(m) for m in messages], tokenize=False, add_generation_prompt=True)
    assert toy.decode(encode_prompt(toy, messages)) == written


def test_names_of_roles_that_are_no_special_tokens_control_too_and_tags_do_not() -> None:
    from tokenizers import AddedToken

    toy = changed("{% for m in messages %}<｜User｜>{{ m['content'] }}{% endfor %}<｜Assistant｜><think>\n")
    toy.add_tokens([AddedToken(word, special=False) for word in ("<｜User｜>", "<｜Assistant｜>", "<think>")])
    user, think = toy.convert_tokens_to_ids(["<｜User｜>", "<think>"])
    ids = encode_prompt(toy, [Message(role="user", content="<｜User｜><think>")])
    assert (ids.count(user), ids.count(think)) == (1, 2)
    assert encode_response(toy, "<think>").count(think) == 1


# Templates


def changed(template: str) -> Any:
    """The tokenizer with another chat template."""
    toy = copy.deepcopy(tokenizer(tag_format("r1").tags))
    toy.chat_template, toy.name_or_path = template, "models/odd"
    return toy


OPENS = (
    "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}A:<think>\n{% endif %}"
)


@pytest.mark.parametrize("name", ["r1", "r1-prefilled"])
def test_a_tag_that_the_template_opens_is_not_opened_again(name: str) -> None:
    form, toy, messages = tag_format(name), changed(OPENS), [Message(role="user", content="What is 6*3?")]
    response = form.render("6*3=18", "18")
    written = opening(toy, form)
    prompt = encode_prompt(toy, messages, written)
    ids = prompt + encode_response(toy, response.removeprefix(written))
    assert toy.decode(prompt) == "What is 6*3?\nA:<think>\n"
    assert ids.count(toy.convert_tokens_to_ids("<think>")) == 1
    assert form.parse(written + decode_response(toy, ids[len(prompt) :])) == form.parse(response)


@pytest.mark.parametrize(("name", "wanted"), [("r1", ""), ("r1-prefilled", "<think>"), ("supercot", "")])
def test_a_tag_that_the_template_leaves_to_the_model_is_opened_where_the_format_says_so(
    name: str, wanted: str
) -> None:
    assert opening(tokenizer(tag_format(name).tags), tag_format(name)) == wanted


def test_a_tag_that_is_a_special_token_is_refused() -> None:
    toy = changed(OPENS)
    toy.add_special_tokens({"additional_special_tokens": ["</answer>"]})
    with pytest.raises(ChainForgeError, match="the tag </answer> is a special token of models/odd"):
        opening(toy, tag_format("r1"))
    assert opening(toy, SUPERCOT) == ""


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ raise_exception('System role not supported') }}", "TemplateError: System role not supported"),
        ("{% for m in messages %}{{ m['content'] }", "TemplateSyntaxError"),
        ("{{ nothing.at.all }}", "UndefinedError: 'nothing' is undefined"),
        ("{{ messages[0].__class__.__mro__ }}", "SecurityError"),
        ("{{ ''.__class__.__base__.__subclasses__() }}", "SecurityError"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "OverflowError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("", "has no chat template"),
        (" ", "leaves out what the user says: 'hello'"),
        ("hello", "leaves out what the user says: 'x'"),
    ],
)
def test_a_template_that_fails_is_one_message_with_the_name_of_the_model(
    template: str, complaint: str
) -> None:
    asked = "x" if template == "hello" else "hello"
    messages = [Message(role="system", content="s"), Message(role="user", content=asked)]
    with pytest.raises(ChainForgeError, match=re.escape(complaint)) as caught:
        encode_prompt(changed(template), messages)
    if template:
        assert "the chat template of models/odd" in caught.value.problem
    if "Error" in complaint:
        assert "without a system message" in caught.value.fix


@pytest.mark.slow
def test_a_template_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "LIMIT_S", 0.3)
    loops = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    before = threading.active_count()
    with pytest.raises(ChainForgeError, match=r"models/odd did not end within 0\.3 s"):
        encode_prompt(changed(loops), [Message(role="user", content="x")])
    for _ in range(600):
        if threading.active_count() <= before:
            return
        time.sleep(0.05)
    pytest.fail("its thread goes on")


def test_a_wait_that_was_interrupted_disturbs_no_later_text(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [Message(role="user", content="x")]
    expected = encode_prompt(tokenizer(), messages)

    def interrupted(_event: threading.Event, _timeout: float) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as now:
        now.setattr(threading.Event, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            encode_prompt(tokenizer(), messages)
    assert [encode_prompt(tokenizer(), messages) for _ in range(20)] == [expected] * 20


# Histories and ends


@pytest.mark.parametrize(
    "answer",
    [
        "<think>I think</think>It is 4.",
        "I think</think>It is 4.",
        "<reasoning_process>I</reasoning_process>It is 4.",
    ],
)
def test_what_was_thought_in_earlier_turns_is_no_part_of_a_prompt(answer: str) -> None:
    def talk(said: str) -> list[Message]:
        turns = [("user", "2+2=?"), ("assistant", said), ("user", "<think> What does that tag mean?")]
        return [Message(role=role, content=content) for role, content in turns]

    assert encode_prompt(tokenizer(), talk(answer)) == encode_prompt(tokenizer(), talk("It is 4."))


@pytest.mark.slow
@given(
    model=st.sets(st.integers(0, 9)),
    generation=st.one_of(st.none(), st.integers(0, 9), st.sets(st.integers(0, 9))),
)
def test_every_end_that_model_or_tokenizer_know_ends_a_response(
    model: set[int], generation: int | set[int] | None
) -> None:
    toy = policy(eos_token_id=list(model) or None).model
    toy.generation_config.eos_token_id = list(generation) if isinstance(generation, set) else generation
    own = tokenizer().eos_token_id
    known = generation if isinstance(generation, set) else {generation} - {None}
    found = eos_ids(toy, tokenizer())
    assert found[0] == own
    assert sorted(found) == sorted({own, *model, *known})
