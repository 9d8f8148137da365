"""The contract of a student model. It is loaded twice, one after the other."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from chainforge.plugins import Entry, plugin_settings
from chainforge.pretrained import render_chat
from chainforge.records import Message, Prompt
from chainforge.testing.imports import imports_nothing_slow, imports_the_public_api
from chainforge.testing.laws import Finding, Law, check, demand
from chainforge.testing.samples import sample_prompts
from chainforge.testing.subjects import response_format

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TURNS = (Message(role="user", content="12+35=?"),)


@dataclass(frozen=True)
class StudentCase:
    """A student model with its settings."""

    entry: Entry
    settings: Mapping[str, Any]

    def load(self, seed: int = 17) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """The model and its tokenizer, made afresh."""
        student = self.entry.component(**plugin_settings(self.entry, self.settings))
        demand(hasattr(student, "load"), f"makes {type(student).__name__}, which has no `load`")
        loaded = student.load(seed=seed, texts=texts(sample_prompts()))
        demand(isinstance(loaded, tuple) and len(loaded) == 2, "load returns (model, tokenizer)")
        model, tokenizer = loaded
        return model, tokenizer

    @cached_property
    def loaded(self) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """Loaded once for several laws."""
        return self.load()


def texts(prompts: Sequence[Prompt]) -> list[str]:
    """Examples as a step renders them."""
    form = response_format()
    answers = [form.render("I work it out step by step.", p.answer or "Gladly.") for p in prompts]
    return [f"{p.messages[-1]['content']}\n{answer}" for p, answer in zip(prompts, answers, strict=True)]


def check_student_model(entry: Entry, settings: Mapping[str, Any] | None = None) -> list[Finding]:
    """A finding per law."""
    return check(LAWS, StudentCase(entry, settings or {}))


def quick_import(case: StudentCase) -> str | None:
    return imports_nothing_slow(case.entry)


def public_api(case: StudentCase) -> str | None:
    return imports_the_public_api(case.entry)


def float32_on_the_cpu(case: StudentCase) -> str | None:
    import torch
    from transformers import PreTrainedModel

    model, _ = case.loaded
    demand(isinstance(model, PreTrainedModel), f"{type(model).__name__} is no model of transformers")
    weights = dict(model.named_parameters())
    demand(weights, "the model has no weights")
    for name, weight in weights.items():
        demand(weight.device.type == "cpu", f"{name} is on {weight.device}, not on the CPU")
        demand(weight.dtype == torch.float32, f"{name} is {weight.dtype}, not torch.float32")
    return f"{sum(weight.numel() for weight in weights.values()):,} parameters"


def template_and_eos(case: StudentCase) -> str | None:
    import torch

    model, tokenizer = case.loaded
    demand(tokenizer.chat_template, "the tokenizer has no chat template")
    demand(isinstance(tokenizer.eos_token_id, int), "the tokenizer has no EOS token")
    rows = int(model.config.vocab_size)
    demand(len(tokenizer) <= rows, f"the tokenizer has {len(tokenizer)} tokens, the model knows {rows}")
    text = render_chat(tokenizer, TURNS)
    ids = tokenizer.encode(text, add_special_tokens=False)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits
    demand(bool(torch.isfinite(logits).all()), "its logits are not finite")
    return f"EOS {tokenizer.eos_token!r}, {len(tokenizer):,} tokens"


def tags_come_back(case: StudentCase) -> str | None:
    from chainforge.models.chat import check_tags, decode_response, encode_response

    _, tokenizer = case.loaded
    form = response_format()
    check_tags(tokenizer, form)
    text = form.render("1 + 1 is 2.", "The answer is 2.")
    found = decode_response(tokenizer, encode_response(tokenizer, text)[:-1])
    demand(form.parse(found), f"its tokens cannot spell the tags of the response format: {found!r:.100}")
    return " ".join(form.tags)


def computed_as_it_should(case: StudentCase) -> str | None:
    from chainforge.rollout.check_engine import TOLERANCE, check_engine

    model, _ = case.loaded
    check_engine(model.eval())
    return f"to {TOLERANCE} nats"


def same_seed(case: StudentCase) -> str | None:
    first = digest(*case.loaded)
    del case.__dict__["loaded"]  # so that one model at a time is in memory
    demand(digest(*case.load()) == first, "the same seed gives another model or tokenizer")
    return None


def digest(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> str:
    """Of all weights and the vocabulary."""
    hasher = hashlib.sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
    for name, weight in sorted(model.state_dict().items()):
        hasher.update(name.encode() + weight.float().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()


LAWS: tuple[Law[StudentCase], ...] = (
    ("imports neither torch nor transformers", quick_import),
    ("imports nothing of ChainForge but its public API", public_api),
    ("loads in float32 on the CPU", float32_on_the_cpu),
    ("speaks with a chat template and stops with an EOS token", template_and_eos),
    ("tags are there after decoding", tags_come_back),
    ("is sampled and trained as it computes itself", computed_as_it_should),
    ("the same seed gives the same model", same_seed),
)
