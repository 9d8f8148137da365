"""Reward `reward_model`: what a model for preferences or classes says to a response; any range.

As DeepSeek-R1 does (arXiv 2501.12948, section 2.3.4): helpfulness is judged by the summary, harmlessness by
the whole response. The model runs in a process of its own, or on a vLLM server (`url`), and sees the
conversation up to there.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import chainforge as cf
from chainforge.providers.classify import Classified, classify

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADDRESS = re.compile(r"https?://(\[[\da-fA-F:]+\]|[^\s/?#:\[]+)(:\d{1,5})?(/[^\s?#]*)?")


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """Settings: a folder or hub name of a sequence-classification model of transformers; which `part` of a
    response it reads; the `label` whose probability counts, where it has several; where it runs. With `url`
    it is the name of a model on that server, whose key, if any, is in the variable `api_key_env`."""

    model: str
    revision: str | None = None
    part: Literal["response", "reasoning", "summary"] = "summary"
    label: str | None = None
    max_tokens: int = 4096
    device: str = "cpu"
    url: str | None = None
    api_key_env: str | None = None

    def __post_init__(self) -> None:
        own = {"url": self.url, "api_key_env": self.api_key_env}
        cf.refuse_keys(own, "reward_settings.reward_model", "api_key_env")
        if self.url is None:
            if self.api_key_env is not None:
                raise cf.ChainForgeError("reward_model: api_key_env is for a server", "set `url` too")
            return
        if not ADDRESS.fullmatch(self.url):
            raise cf.ChainForgeError(
                f"reward_model: url is {self.url!r}", "it is the address of a server: http://localhost:8000"
            )
        if self.revision is not None or self.device != "cpu":
            name = "device" if self.revision is None else "revision"
            raise cf.ChainForgeError(
                f"reward_model: both url and {name} are set",
                f"take {name} out: the server at url decides about that; or take url out",
            )

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
        texts = [response_format.part(messages[0]["content"], self.part) or "" for messages in completions]
        asked = list(zip(prompts, texts, strict=True))
        if self.url is not None:
            return self._ask(self.url, [[*prompt, answer(text)] for prompt, text in asked])
        model, tokenizer = load(self.model, self.revision, self.device)
        place = place_of(self.label, model, self.model)
        return [
            score(model, inputs(tokenizer, prompt, text, self.max_tokens), place) for prompt, text in asked
        ]

    def _ask(self, url: str, conversations: list[list[cf.Message]]) -> list[float | None]:
        key = cf.secret(self.api_key_env) if self.api_key_env else ""
        found = classify(url, self.model, conversations, max_tokens=self.max_tokens, key=key)
        place = place_there(self.label, found, self.model)
        return [each.scores[0] if place is None else probability(each.scores, place) for each in found]


@cache
def load(source: str, revision: str | None, device: str) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The model and its tokenizer, once per process."""
    import torch

    tokenizer = cf.load_tokenizer(source, revision=revision)
    model = cf.load_model(source, revision=revision, device=torch.device(device), task="classify")
    return model.eval(), tokenizer


def answer(text: str) -> cf.Message:
    return {"role": "assistant", "content": text}


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


def place_there(label: str | None, found: Sequence[Classified], model: str) -> int | None:
    """The place of a label of a served model; None for a model with a single score.

    A server names only the label that wins, so a name could not be found before it has won: it is LABEL_0 to
    LABEL_N, by place, whatever the model calls it.
    """
    count = len(found[0].scores) if found else 1
    if count == 1 and label is None:
        return None
    if count == 1:
        raise cf.ChainForgeError(
            f"reward_model: {model} has no label {label!r}", "take `label` out: it has one score"
        )
    places = [f"LABEL_{place}" for place in range(count)]
    if label in places:
        return places.index(label)
    won = {each.winner: places[each.scores.index(max(each.scores))] for each in found if each.winner}
    said = ", ".join(f"{place} is {name!r:.60}" for name, place in won.items()) or "none by name"
    raise cf.ChainForgeError(
        f"reward_model: a server does not say which label of {model} is {label!r}"
        if label
        else f"reward_model: {model} has several labels",
        f"set `label` by its place in id2label of the model's config.json, {places[0]} to {places[-1]}; "
        f"the server has named: {said}",
    )


def probability(scores: Sequence[float], place: int) -> float:
    """Softmax.

    >>> probability([1000.0, 1000.0], 1)
    0.5
    """
    shares = [math.exp(score - max(scores)) for score in scores]
    return shares[place] / sum(shares)


def inputs(
    tokenizer: "PreTrainedTokenizerBase", prompt: list[cf.Message], text: str, most: int
) -> dict[str, list[int]]:
    """The conversation with the answer, by the chat template, or else question and answer as a pair; the last
    `most` tokens of it."""
    if not tokenizer.chat_template:
        pair = tokenizer(prompt[-1]["content"], text, truncation=True, max_length=most)
        return dict(pair)
    rendered = cf.render_chat(tokenizer, [*prompt, answer(text)], to_answer=False)
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
