"""Student model `tiny_qwen2`: a new Qwen2, small enough for a CPU, with a tokenizer made for its texts.

The tokenizer is a byte-level BPE in which every digit is one token. It knows ChatML, and each tag of
the response format is one token too; a tag is not "special", so decoding never hides it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chainforge as cf

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
BYTES = 256
MOST = 10**9  # parameters; more are no tiny model, and memory would end before a word is said
MOST_OF_ONE = {"layers": 1_000, "vocab": 2**20, "max_positions": 2**24}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class TinyQwen2:
    """The default has 0.13 million parameters. Weights are random, and the same for the same seed."""

    hidden: int = 64
    layers: int = 2
    heads: int = 2
    kv_heads: int = 2
    mlp: int = 192
    vocab: int = 400  # tokens, the special ones and the tags among them
    initializer_range: float = 0.08  # Qwen2's own 0.02 learns far slower at this size
    max_positions: int = 512
    tokenizer: Path | None = None  # a checkpoint whose tokenizer to take, to share its vocabulary
    tags: list[str] | None = None  # one token each; those of the response format `supercot` if not given

    def __post_init__(self) -> None:
        sizes = ("hidden", "layers", "heads", "kv_heads", "mlp", "vocab", "max_positions")
        for name in sizes:
            if getattr(self, name) < 1:
                raise cf.ChainForgeError(f"{name} is {getattr(self, name)}", f"{name} must be 1 or more")
        for name, most in MOST_OF_ONE.items():
            if getattr(self, name) > most:
                raise cf.ChainForgeError(f"{name} is {getattr(self, name)}", f"{name} must be {most} or less")
        if not 0 < self.initializer_range < 100:
            raise cf.ChainForgeError(
                f"initializer_range is {self.initializer_range}", "it must be above 0; 0.02 to 0.1 are usual"
            )
        size = self.hidden * (self.vocab + self.layers * (4 * self.hidden + 3 * self.mlp))
        if size > MOST:
            raise cf.ChainForgeError(
                f"hidden {self.hidden}, mlp {self.mlp} and layers {self.layers} make {size:,} parameters",
                f"this model is for up to {MOST:,}; choose smaller sizes",
            )
        if self.hidden % (2 * self.heads) or self.heads % self.kv_heads:
            raise cf.ChainForgeError(
                f"hidden {self.hidden}, heads {self.heads} and kv_heads {self.kv_heads} do not fit together",
                "hidden must be an even multiple of heads, and heads a multiple of kv_heads",
            )
        least = BYTES + 3 + len(self.known_tags)
        if self.tokenizer is None and self.vocab < least:
            raise cf.ChainForgeError(
                f"a vocab of {self.vocab} is too small", f"bytes, special tokens and tags alone need {least}"
            )

    @property
    def known_tags(self) -> list[str]:
        return list(cf.tag_format("supercot").tags) if self.tags is None else self.tags

    def load(self, *, seed: int, texts: Sequence[str]) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """A model with fresh weights, and a tokenizer learnt from `texts` unless one was given."""
        import torch
        from transformers import Qwen2Config, Qwen2ForCausalLM

        tokenizer = self.new_tokenizer(texts) if self.tokenizer is None else read_tokenizer(self.tokenizer)
        config = Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden,
            intermediate_size=self.mlp,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=self.max_positions,
            initializer_range=self.initializer_range,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Qwen2ForCausalLM(config)
        return model, tokenizer

    def new_tokenizer(self, texts: Sequence[str]) -> "PreTrainedTokenizerBase":
        """Learn a vocabulary of at most `vocab` tokens; fewer if the texts have no more to give."""
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        if not texts:
            raise cf.ChainForgeError(
                "tiny_qwen2 has no texts to learn its tokenizer from",
                "set `tokenizer` to a checkpoint folder, or train on at least one example",
            )
        tags, special = self.known_tags, [PAD, START, END]
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab - len(tags),
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        marker = re.compile("|".join(map(re.escape, [*special, *tags])))
        parts = (part for text in texts for part in ("user\n", "assistant\n", *marker.split(text)))
        bpe.train_from_iterator(parts, trainer)
        bpe.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
        make: Callable[..., PreTrainedTokenizerBase] = PreTrainedTokenizerFast
        return make(
            tokenizer_object=bpe,
            eos_token=END,
            pad_token=PAD,
            additional_special_tokens=[START],
            chat_template=CHATML,
            clean_up_tokenization_spaces=False,
            model_max_length=self.max_positions,
        )


def read_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a checkpoint."""
    if not (folder / "tokenizer.json").is_file():
        raise cf.ChainForgeError(
            f"tokenizer: {folder} has no tokenizer.json", "name the folder of a checkpoint, or leave it out"
        )
    return cf.load_tokenizer(folder)


@cf.hookimpl
def register_student_models(register: Callable[[str, Any], None]) -> None:
    register("tiny_qwen2", TinyQwen2)
