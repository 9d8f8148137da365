"""Reward `reward_model`: what a model for preferences or classes says to a response; any range.

As DeepSeek-R1 does (arXiv 2501.12948, section 2.3.4): helpfulness is judged by the summary, harmlessness by
the whole response. The model runs in a process of its own, and sees the conversation up to there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import chainforge as cf

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """Settings: a folder or hub name of a sequence-classification model of transformers; which `part` of a
    response it reads; the `label` whose probability counts, where it has several; where it runs."""

    model: str
    revision: str | None = None
    part: Literal["response", "reasoning", "summary"] = "summary"
    label: str | None = None
    max_tokens: int = 4096
    device: str = "cpu"

    def __call__(
        self,
        *,
        prompts: list[list[cf.Message]],
        completions: list[list[cf.Message]],
        response_format: cf.TagFormat,
        **_: object,
    ) -> list[float | None]:
        """One number per completion: the score, or the label's probability.

        Of one without that part an empty answer is judged, so that leaving the format is no way around it.
        """
        model, tokenizer = load(self.model, self.revision, self.device)
        place = place_of(self.label, model, self.model)
        texts = [response_format.part(messages[0]["content"], self.part) or "" for messages in completions]
        return [
            score(model, inputs(tokenizer, prompt, text, self.max_tokens), place)
            for prompt, text in zip(prompts, texts, strict=True)
        ]


@cache
def load(source: str, revision: str | None, device: str) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The model and its tokenizer, once per process."""
    import torch

    tokenizer = cf.load_tokenizer(source, revision=revision)
    model = cf.load_model(source, revision=revision, device=torch.device(device), task="classify")
    return model.eval(), tokenizer


def place_of(label: str | None, model: "PreTrainedModel", source: str) -> int | None:
    """The place of a label among the model's; None for a model with a single score."""
    config: Any = model.config
    labels = [str(config.id2label[i]) for i in range(config.num_labels)]
    if len(labels) == 1 and label is None:
        return None
    if label not in labels:
        raise cf.ChainForgeError(
            f"reward_model: {source} has no label {label!r}" if label else f"{source} has several labels",
            f"set `label` to one of: {', '.join(labels)}"
            if len(labels) > 1
            else "take `label` out: it has one score",
        )
    return labels.index(label)


def inputs(
    tokenizer: "PreTrainedTokenizerBase", prompt: list[cf.Message], text: str, most: int
) -> dict[str, list[int]]:
    """The conversation with the answer, by the chat template, or else question and answer as a pair; the last
    `most` tokens of it."""
    if not tokenizer.chat_template:
        pair = tokenizer(prompt[-1]["content"], text, truncation=True, max_length=most)
        return dict(pair)
    answer: cf.Message = {"role": "assistant", "content": text}
    rendered = cf.render_chat(tokenizer, [*prompt, answer], to_answer=False)
    ids: list[int] = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    return {"input_ids": ids[-most:]}


def score(model: Any, given: dict[str, list[int]], place: int | None) -> float:
    """One at a time: nothing is padded, so that no score depends on its neighbours."""
    import torch

    with torch.inference_mode():
        tensors = {name: torch.tensor([values], device=model.device) for name, values in given.items()}
        logits = model(**tensors).logits[0].float()
        return float(logits[0] if place is None else logits.softmax(-1)[place])


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    options = {"factory": True, "isolation": "process", "conversational": True, "timeout_s": 3600.0}
    register("reward_model", RewardModel, **options)
