"""Whether sampler and learner compute this model as it computes itself. Run wherever a policy is loaded.

Both call a model's decoder and its output layer, and hide keys by masks of their own: what a config says of
windows, and of scales and caps of the logits, is followed, and what only the model's own code knows is not.
There it would be wrong without an error. So a model is tried before anything is done with it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from chainforge.config.sampling import SamplingSettings
from chainforge.errors import ChainForgeError
from chainforge.learner.forward_passes import forward_passes
from chainforge.memory import enough_memory, is_lack_of_memory
from chainforge.models.batch import Tokens
from chainforge.models.policy_model import PolicyModel
from chainforge.rollout.engine import Request
from chainforge.rollout.model_variants import (
    WINDOW,
    fixed_window,
    in_float32,
    louder,
    narrowed,
    smallest_window,
)
from chainforge.rollout.sampler import sample

TOLERANCE = 0.01  # nats per token, in float32: rounding stays a hundred times below, an error does not
NEW_TOKENS = 5
SHORT = (3, 6)  # lengths of two prompts: one of them is padded
QUIET = 1.0  # standard deviation of logits, below which a wrong computation might not show
HOTTEST = 100.0
MOST_TOKENS = 4096  # of a pass: all of it in one
Result = TypeVar("Result")


class Deviation(NamedTuple):
    """What part is off, by how many nats of a token's log-probability at most, in which contexts."""

    part: str
    nats: float
    where: str = ""


def check_engine(model: PreTrainedModel) -> None:
    """Raise ChainForgeError that names the architecture, where a log-probability is off by `TOLERANCE`.

    Weights of less precision are tried in float32. Nothing is drawn from a global generator.
    """
    with enough_memory("a first try of the model", "choose a smaller model"):
        _attempt(model, "a first try", lambda: _check(model))


def _check(model: PreTrainedModel) -> None:
    for part, nats, where in deviations(model):
        if not nats <= TOLERANCE:  # NaN is not
            raise _refusal(
                model, f"{part} is off by {nats:.2g} nats per token{where} (up to {TOLERANCE} is rounding)"
            )


def deviations(model: PreTrainedModel) -> Iterator[Deviation]:
    """Of sampler and learner from the model's own forward pass, in float32.

    Two completions of two prompts are sampled, then computed by the learner, both ways, and by `model(ids)`.
    Contexts longer than an attention window, or than RoPE's frequencies were made for, are tried on the same
    weights with a limit of a few tokens: that costs as little for a window of 4,096. The logits of a model
    that knows nothing yet are nearly equal and would hide an error: a copy with larger weights is tried then.
    A token of which a model is certain would hide one as well: the temperature is as high as its logits are.
    """
    exact = in_float32(model)
    subject = louder(exact) if _loudness(exact) < QUIET else exact
    temperature = min(max(1.0, _loudness(subject)), HOTTEST)
    _demand_causal(subject)
    yield from _compare(subject, SHORT, temperature, "")
    if window := smallest_window(model):
        beyond = f" in contexts longer than {window:,} tokens"
        length = fixed_window(model) or min(window, WINDOW)
        yield from _compare(narrowed(subject), (length + 3, max(1, length - 2)), temperature, beyond)


def _logits(model: PreTrainedModel) -> Tensor:
    """logits_2PV of two prompts that differ in their last token, by the model itself."""
    ids = _ids(model, 0, 8).repeat(2, 1)
    ids[1, -1] = (ids[1, -1] + 1) % _rows(model)
    with torch.no_grad():
        logits: Tensor = model(ids).logits.float()
    return logits


def _loudness(model: PreTrainedModel) -> float:
    """The standard deviation of its logits."""
    return float(_logits(model).std(-1).mean())


def _demand_causal(model: PreTrainedModel) -> None:
    """An encoder computes a token from those behind it as well, and cannot write."""
    one, two = _logits(model)[:, :-1]
    if float((one - two).abs().max()) > TOLERANCE:
        raise ChainForgeError(
            f"{_name(model)} is not a causal language model: what comes later changes what it says before",
            "choose a model that writes text from left to right, not an encoder",
        )


def _compare(
    model: PreTrainedModel, lengths: Sequence[int], temperature: float, where: str
) -> Iterator[Deviation]:
    prompts = [_ids(model, length, length)[0].tolist() for length in lengths]
    requests = [Request(prompt, [2 * n, 2 * n + 1]) for n, prompt in enumerate(prompts)]
    settings = SamplingSettings(max_new_tokens=NEW_TOKENS, temperature=temperature)
    sampled = _attempt(
        model, "the sampler", lambda: sample(model, requests, settings, eos_ids=(), max_rows=len(prompts) + 1)
    )
    rows = [
        (Tokens(p, s.token_ids), s.logprobs) for p, each in zip(prompts, sampled, strict=True) for s in each
    ]
    sequences = [tokens for tokens, _ in rows]
    truth = _attempt(model, "its own forward pass", lambda: torch.cat(_truth(model, sequences, temperature)))
    found = {"the sampler": torch.tensor([logprobs for _, logprobs in rows])}
    for share, part in ((False, "the learner"), (True, "the learner with shared prompts")):
        found[part] = _attempt(model, part, partial(_learnt, model, sequences, temperature, share=share))
    for part, logp in found.items():
        yield Deviation(part, float((logp - truth).abs().max()), where)


def _truth(model: PreTrainedModel, sequences: Sequence[Tokens], temperature: float) -> list[Tensor]:
    """logp_BT of each prompt's completions, by the model itself and without padding."""
    found = []
    for _, group in groupby(sequences, lambda s: s.prompt):
        ids = torch.tensor([[*s.prompt, *s.completion] for s in group], device=model.device)
        with torch.no_grad():
            logits = model(ids).logits[:, -NEW_TOKENS - 1 : -1].float()
        logp = (logits / temperature).log_softmax(-1)
        found.append(logp.gather(-1, ids[:, -NEW_TOKENS:, None])[..., 0].cpu())
    return found


def _learnt(
    model: PreTrainedModel, sequences: Sequence[Tokens], temperature: float, *, share: bool
) -> Tensor:
    """logp_BT as training computes them, gradients wanted."""
    logp, policy = torch.empty(len(sequences), NEW_TOKENS), PolicyModel(model)
    with torch.enable_grad():
        for indices, batch in forward_passes(policy, sequences, MOST_TOKENS, share=share):
            logp[indices] = policy(batch, temperature).logp_BT.detach().cpu()
    return logp


def _attempt(model: PreTrainedModel, part: str, compute: Callable[[], Result]) -> Result:
    try:
        return compute()
    except ChainForgeError:
        raise
    except Exception as error:
        if is_lack_of_memory(error):
            raise
        reason = (str(error).splitlines() or [""])[0]
        raise _refusal(model, f"{part} stops with {type(error).__name__}: {reason:.120}") from error


def _refusal(model: PreTrainedModel, what: str) -> ChainForgeError:
    return ChainForgeError(
        f"{_name(model)} would be computed wrongly: {what}",
        "choose a model of another architecture; docs/plugins.md lists those that are right",
    )


def _name(model: PreTrainedModel) -> str:
    return f"the architecture {model.config.model_type} ({type(model).__name__})"


def _ids(model: PreTrainedModel, seed: int, length: int) -> Tensor:
    """ids_1S, any tokens: the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(_rows(model), (1, length), generator=generator).to(model.device)


def _rows(model: PreTrainedModel) -> int:
    """Tokens that it has embeddings for."""
    return int(cast(Tensor, model.get_input_embeddings().weight).shape[0])
