"""The update half of GRPO: completions with advantages in, one optimizer step out.

N completions of an optimizer step, B of a micro-batch, T completion tokens.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from chainforge.algorithms.importance_sampling import importance_weights
from chainforge.algorithms.losses import LossSettings
from chainforge.algorithms.policy_loss import Stats, loss_denominator, policy_loss, stat_means
from chainforge.config.correction import CorrectionSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.learner.learner import Learner
from chainforge.learner.optimizer import NotFinite
from chainforge.loops.grpo.mismatch import correction_of, is_exact, mismatch_of
from chainforge.loops.grpo.rows import Row, mini_batches
from chainforge.models.batch import Batch, pad_rows
from chainforge.models.policy_model import LogProbs
from chainforge.outputs import write_text
from chainforge.run.step import LOGS, Step


def add_logprobs(learner: Learner, rows: Sequence[Row], settings: GrpoSettings, step: Step) -> None:
    """Reference log-probabilities where the KL counts; the policy's where it will have moved by then.

    The first mini-batch needs none of the policy's: its own forward pass gives them. The others' are those of
    the sampler, or are computed where the sampler is not quite the policy.
    """
    learning = [row for row in rows if row.learns]
    if settings.kl_coeff > 0:
        found = learner.reference_logprobs([row.tokens for row in learning], settings.temperature)
        for row, logp in zip(learning, found, strict=True):
            row.ref_logp = logp
    later = [row for part in mini_batches(rows, settings)[1:] for row in part if row.learns]
    old: Sequence[Sequence[float]] = [row.sampled_logp for row in later]
    if not is_exact(settings, step):
        old = learner.logprobs([row.tokens for row in later], settings.temperature)
    for row, old_logp in zip(later, old, strict=True):
        row.old_logp = old_logp


def update(learner: Learner, rows: Sequence[Row], settings: GrpoSettings, step: Step) -> dict[str, float]:
    """One optimizer step on these rows, and its figures; none where no row has a gradient."""
    learning = [row for row in rows if row.learns]
    if not learning:
        return {}
    loss_settings, correction = settings.loss, correction_of(settings, step)
    lengths = [0 if row.masked else len(row.tokens.completion) for row in rows]
    denominator = loss_denominator(loss_settings, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])

    def loss(indices: Sequence[int], found: LogProbs, batch: Batch) -> tuple[Tensor, Stats]:
        total, stats = micro_batch_loss(
            [learning[i] for i in indices], found, batch, loss_settings, settings, correction
        )
        return total / denominator, stats

    # what the policy gives now: the next pass over the rollout compares with it, and so does the correction
    is_first = any(row.old_logp is None for row in learning)
    asked = is_first and (settings.num_iterations > 1 or correction is not None)
    tokens = [row.tokens for row in learning]
    try:
        done = learner.step(tokens, loss, settings.temperature, entropy=True, logprobs=asked)
    except NotFinite:
        dump(learning, step)
        raise
    old: Sequence[Sequence[float] | None] = done.logprobs or [row.old_logp for row in learning]
    if settings.num_iterations > 1:
        for row, logp in zip(learning, old, strict=True):
            row.old_logp = logp
    return {
        **stat_means(done.sums),
        **mismatch_of(old, [row.sampled_logp for row in learning], correction),
        "loss": done.loss,
        "grad_norm": done.grad_norm,
        "learning_rate": done.learning_rate,
    }


def micro_batch_loss(
    rows: Sequence[Row],
    found: LogProbs,
    batch: Batch,
    loss: LossSettings,
    settings: GrpoSettings,
    correction: CorrectionSettings | None = None,
) -> tuple[Tensor, Stats]:
    """The summed loss of one micro-batch and its (sum, count) statistics."""
    logp_BT, mask_BT, device = found.logp_BT, batch.mask_BT, found.logp_BT.device
    width = mask_BT.shape[1]
    sampled_BT = pad_rows([row.sampled_logp for row in rows], width, device)
    old_BT = old_logprobs(rows, logp_BT.detach())
    total, stats = policy_loss(
        logp_BT,
        old_BT,
        pad_rows([row.ref_logp for row in rows], width, device) if settings.kl_coeff > 0 else None,
        torch.tensor([row.advantage for row in rows], device=device),
        mask_BT,
        loss,
        importance_weights(old_BT, sampled_BT, mask_BT, **correction.bounds) if correction else None,
    )
    assert found.entropy_BT is not None
    tokens = mask_BT.sum()
    stats["entropy"] = torch.stack([found.entropy_BT.sum(), tokens])
    stats["drift"] = torch.stack([(logp_BT.detach() - sampled_BT).abs()[mask_BT].sum(), tokens])
    return total, stats


def old_logprobs(rows: Sequence[Row], logp_BT: Tensor) -> Tensor:
    """old_logp_BT: what the rows hold; before the first update what the policy gives now, `logp_BT`."""
    known = [row.old_logp for row in rows if row.old_logp is not None]
    if len(known) == len(rows):
        return pad_rows(known, logp_BT.shape[1], logp_BT.device)
    return logp_BT


def dump(rows: Sequence[Row], step: Step) -> None:
    """Leave the rows of a non-finite update where a person can look at them."""
    path = LOGS / f"{step.file_name}.not-finite.json"
    write_text(path, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
