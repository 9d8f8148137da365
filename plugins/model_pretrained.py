"""Student model `pretrained`: a causal language model from a folder or from the Hugging Face hub.

It leaves nothing to chance that makes a model talk on forever: the EOS token is the one with which the
chat template ends a turn, and padding has a token of its own where the vocabulary offers one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chainforge as cf

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BROKEN = "download it again, write it again with save_pretrained, or name another model"
UNREACHABLE = "check its name, revision and the network, or download it once and set `model` to its folder"
PADS = ("<|endoftext|>", "<|finetune_right_pad_id|>", "<pad>", "<|pad|>", "<unk>")


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """`model` is a folder or a hub name; `revision` pins a hub model to a commit."""

    model: str
    revision: str | None = None

    def load(self, *, seed: int, texts: Sequence[str]) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """The model in float32 and its tokenizer; `seed` and `texts` have no effect."""
        self.check_folder()
        fix = BROKEN if Path(self.model).is_dir() else UNREACHABLE
        tokenizer = cf.load_tokenizer(self.model, revision=self.revision, fix=fix)
        model = cf.load_model(self.model, revision=self.revision, fix=fix)
        settle_tokens(tokenizer, self.model)
        settle_ends(model, tokenizer)
        return model, tokenizer

    def check_folder(self) -> None:
        """Tell a folder from a hub name, so that a mistyped path is not looked up on the network."""
        folder = Path(self.model)
        looks_like_path = self.model.startswith((".", "/", "~")) or self.model.count("/") > 1
        if (folder.exists() or looks_like_path) and not (folder / "config.json").is_file():
            raise cf.ChainForgeError(
                f"{self.model} is not a model folder: no config.json",
                "set `model` to a folder that save_pretrained wrote, or to a hub name, user/name",
            )


def settle_tokens(tokenizer: "PreTrainedTokenizerBase", name: str) -> None:
    """Make EOS the chat template's end of turn, and padding a token apart from it if there is one."""
    if not tokenizer.chat_template:
        raise cf.ChainForgeError(
            f"the tokenizer of {name} has no chat template",
            "choose the Instruct variant, or copy its chat_template.jinja into a folder with this model",
        )
    turns = (cf.Message(role="user", content="ask"), cf.Message(role="assistant", content="reply"))
    ending = cf.render_chat(tokenizer, turns, to_answer=False).rpartition("reply")[2].lstrip()
    added = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    if end := next((token for token in added if ending.startswith(token)), None):
        tokenizer.eos_token = end
    if tokenizer.eos_token is None:
        raise cf.ChainForgeError(
            f"{name} has no EOS token, and its chat template ends a turn with {ending!r:.40}",
            "choose a model whose template ends a turn with a token of its vocabulary",
        )
    if tokenizer.pad_token in (None, tokenizer.eos_token):
        vocabulary = tokenizer.get_vocab()
        free = (pad for pad in PADS if pad in vocabulary and pad != tokenizer.eos_token)
        tokenizer.pad_token = next(free, tokenizer.eos_token)


def settle_ends(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Keep every token that ends what the model writes, the one that ends a turn first."""
    ends = [tokenizer.eos_token_id]
    for config in (model.generation_config, model.config):
        ends += config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    known = [end for end in dict.fromkeys(ends) if end is not None]
    for config in (model.config, model.generation_config):
        config.eos_token_id = known if len(known) > 1 else known[0]
        config.pad_token_id = tokenizer.pad_token_id


@cf.hookimpl
def register_student_models(register: Callable[[str, Any], None]) -> None:
    register("pretrained", Pretrained)
