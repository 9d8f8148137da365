"""Prompt and response, encoded apart, are the whole conversation encoded at once."""

from collections.abc import Sequence
from typing import Any

import pytest
from fakes import SUPERCOT, tokenizer
from hypothesis import assume, given
from hypothesis import strategies as st

from chainforge.errors import ChainForgeError
from chainforge.models.chat import decode_response, encode_prompt, encode_response
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


@given(messages=conversation, reasoning=text, summary=text)
def test_prompt_and_response_together_are_the_whole_conversation(
    messages: list[Message], reasoning: str, summary: str
) -> None:
    assume(not any(mark in part for mark in (*SUPERCOT.tags, *SPECIAL) for part in (reasoning, summary)))
    response = SUPERCOT.render(reasoning, summary)
    apart = encode_prompt(tokenizer(), messages) + encode_response(tokenizer(), response)
    assert apart == tokenizer().encode(rendered(messages, response))


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
    import copy

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
    import copy

    bare = copy.deepcopy(tokenizer())
    bare.chat_template = None
    with pytest.raises(ChainForgeError, match=r"has no chat template\n  -> start from an instruction-tuned"):
        encode_prompt(bare, [{"role": "user", "content": "x"}])
