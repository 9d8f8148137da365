"""The chat format: messages to token ids, and the one place that knows where a response begins."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from chainforge.errors import ChainForgeError
from chainforge.records import Message


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prefill: str = ""
) -> list[int]:
    """Token ids up to where the response begins; `prefill` is an opening tag that is already written."""
    if not tokenizer.chat_template:
        raise ChainForgeError(
            "the tokenizer has no chat template",
            "start from an instruction-tuned model, or add chat_template.jinja",
        )
    text = str(
        tokenizer.apply_chat_template(
            [{"role": m["role"], "content": m["content"]} for m in messages],
            tokenize=False,
            add_generation_prompt=True,
        )
    )
    return list(tokenizer.encode(text + prefill, add_special_tokens=False))


def encode_response(tokenizer: PreTrainedTokenizerBase, response: str) -> list[int]:
    """Token ids of a response with the end-of-sequence token that makes a model stop."""
    ids = list(tokenizer.encode(response, add_special_tokens=False))
    return [*ids, eos_id(tokenizer)]


def eos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a response."""
    if not isinstance(tokenizer.eos_token_id, int):
        raise ChainForgeError("the tokenizer has no EOS token", "set eos_token in tokenizer_config.json")
    return tokenizer.eos_token_id


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of a response without its end-of-sequence token. Tags stay: they are not special tokens."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
