"""The chat format: messages to token ids, and the one place that knows where a response begins and ends.

Texts of people, teachers and models may hold the words that control a conversation, such as `<|im_end|>`. In
a text they are letters: only those that the template writes become control tokens. A text without any is
encoded together with the template around it. Where there is one, it is replaced by a mark before the
template is rendered; what lies between marks is encoded as ever, and what a mark stands for is spelt out. A
tokenizer splits at control tokens anyway, so nothing else changes.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chainforge.errors import ChainForgeError
from chainforge.pretrained import render_chat
from chainforge.providers.reasoning import without_reasoning
from chainforge.records import Message
from chainforge.response import TagFormat

PROBE = (Message(role="user", content="x"),)
PRIVATE = range(0x100000, 0x10FFFE)  # characters that mean what one likes
TAG = re.compile(r"</?\w+>")  # a token of this form, unless it is special, is part of what is said


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prefill: str = ""
) -> list[int]:
    """Token ids up to where the response begins, with `prefill` there unless the template has written it.

    What an assistant thought in earlier turns is left out, as in every conversation with a reasoning model:
    https://api-docs.deepseek.com/guides/reasoning_model
    """
    turns = without_reasoning(messages)
    marks = _marks([m["content"] for m in turns], control_words(tokenizer))
    text = render_chat(
        tokenizer, [Message(role=m["role"], content=_mark(m["content"], marks)) for m in turns]
    )
    if not (prefill and text.rstrip().endswith(prefill)):
        text += prefill
    return _encode(tokenizer, text, marks)


def encode_response(tokenizer: PreTrainedTokenizerBase, response: str) -> list[int]:
    """Token ids of a response with the end-of-sequence token that makes a model stop."""
    marks = _marks([response], control_words(tokenizer))
    return [*_encode(tokenizer, _mark(response, marks), marks), eos_id(tokenizer)]


def opening(tokenizer: PreTrainedTokenizerBase, form: TagFormat) -> str:
    """What of a response its prompt already ends with: the tag that the format or the template opens.

    Raises ChainForgeError where decoding would hide a tag.
    """
    check_tags(tokenizer, form)
    opens = render_chat(tokenizer, PROBE).rstrip().endswith(form.tags[0])
    return form.tags[0] if opens else form.prefill


def check_tags(tokenizer: PreTrainedTokenizerBase, form: TagFormat) -> None:
    """Raise ChainForgeError where a tag is a special token: decoding leaves those out."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    if hidden := [tag for tag in form.tags if tag in special.union(tokenizer.all_special_tokens)]:
        raise ChainForgeError(
            f"the tag {hidden[0]} is a special token of {tokenizer.name_or_path or 'the tokenizer'}, and "
            "vanishes where a response is decoded",
            'set "special": false for it in tokenizer.json, or choose another run.response_format',
        )


def eos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a response, by which a model learns to stop."""
    if not isinstance(tokenizer.eos_token_id, int):
        raise ChainForgeError("the tokenizer has no EOS token", "set eos_token in tokenizer_config.json")
    return tokenizer.eos_token_id


def eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """All tokens that end a response when they are sampled: the tokenizer's, then those of the model."""
    found = [eos_id(tokenizer)]
    for config in (model.generation_config, model.config):
        named = getattr(config, "eos_token_id", None)
        found += [named] if isinstance(named, int) else named or []
    return list(dict.fromkeys(found))


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of a response without its end-of-sequence token. Tags stay: they are not special tokens."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def control_words(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """What control tokens look like in a text, the longest first: special tokens, EOS, and the names of roles
    in the template (DeepSeek's are no special tokens). Tags of a response format are none."""
    return _control_words(tokenizer, str(tokenizer.chat_template), tokenizer.eos_token, len(tokenizer))


@lru_cache(maxsize=8)
def _control_words(
    tokenizer: PreTrainedTokenizerBase, template: str, eos: str | None, _size: int
) -> tuple[str, ...]:
    words = {eos} if eos else set()
    for token in tokenizer.added_tokens_decoder.values():
        word = token.content
        in_template = word.startswith(("<", "[")) and word in template and not TAG.fullmatch(word)
        if word.strip() and (token.special or in_template):
            words.add(word)
    return tuple(sorted(words, key=lambda word: (-len(word), word)))


def _marks(texts: Iterable[str], control: Sequence[str]) -> dict[str, str]:
    """Control word -> a private character that none of the texts has; nothing where they need no marks."""
    whole = "".join(texts)
    found = [word for word in control if word in whole]
    free = (chr(code) for code in PRIVATE if chr(code) not in whole)
    return dict(zip(found, free, strict=False))


def _mark(text: str, marks: Mapping[str, str]) -> str:
    for word, mark in marks.items():  # the longest first
        text = text.replace(word, mark)
    return text


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, marks: Mapping[str, str]) -> list[int]:
    """Token ids of a text with marks: between them control words are control tokens, and they are letters."""
    if not marks:
        return list(tokenizer.encode(text, add_special_tokens=False))
    words = {mark: word for word, mark in marks.items()}
    ids: list[int] = []
    for part in filter(None, re.split(f"([{''.join(words)}])", text)):
        if part in words:
            ids += _spelt(tokenizer, words[part])
        else:
            ids += tokenizer.encode(part, add_special_tokens=False)
    return ids


def _spelt(tokenizer: PreTrainedTokenizerBase, word: str) -> list[int]:
    """A control word as letters. Split in two, it is no added token, special or not."""
    return [
        token
        for part in (word[:1], word[1:])
        for token in tokenizer.encode(part, add_special_tokens=False, split_special_tokens=True)
    ]
