"""The update half of GRPO: completions with advantages in, one optimizer step out.

N completions of an optimizer step, B of a micro-batch, T completion tokens.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from chainforge.algorithms.losses import LossSettings
from chainforge.algorithms.policy_loss import Stats, loss_denominator, policy_loss, stat_means
from chainforge.config.grpo import GrpoSettings
from chainforge.loops.grpo.rows import Row, mini_batches
from chainforge.models.batches import Batch, pad_rows
from chainforge.models.checkpoint import Policy
from chainforge.models.head import begin_gradient
from chainforge.models.logprobs import completion_logprobs, logprobs_and_entropy, mixed_precision
from chainforge.models.micro_batch_size import micro_batch_tokens
from chainforge.models.optimizer import NotFinite, ScheduledOptimizer
from chainforge.models.passes import passes
from chainforge.models.training_pass import training_pass
from chainforge.outputs import write_text
from chainforge.run.step import LOGS, Step


def add_logprobs(
    policy: Policy, reference: Policy | None, rows: Sequence[Row], settings: GrpoSettings, step: Step
) -> None:
    """Reference log-probabilities where the KL counts; the policy's where it will have moved by then.

    The first mini-batch needs none of the policy's: its own forward pass gives them. The others' are those of
    the sampler, or are computed where the sampler's are too coarse.
    """
    learning = [row for row in rows if row.learns]
    if reference:
        for row, logp in zip(learning, logprobs_of(reference, learning, settings, step), strict=True):
            row.ref_logp = logp
    later = [row for part in mini_batches(rows, settings)[1:] for row in part if row.learns]
    is_exact = step.settings.precision == "float32"
    old = [row.sampled_logp for row in later] if is_exact else logprobs_of(policy, later, settings, step)
    for row, old_logp in zip(later, old, strict=True):
        row.old_logp = old_logp


@torch.no_grad()
def logprobs_of(policy: Policy, rows: Sequence[Row], settings: GrpoSettings, step: Step) -> list[list[float]]:
    """Log-probabilities of the rows' completion tokens, in the order of the rows."""
    found: list[list[float]] = [[] for _ in rows]
    most = micro_batch_tokens(policy.model, step.runtime, step.settings.precision)
    with training_pass(policy.model):
        for indices, batch in passes(
            policy.model, [row.tokens for row in rows], most, step.settings.precision
        ):
            with mixed_precision(step.settings.precision, policy.device):
                logp_BT = completion_logprobs(policy.model, batch, temperature=settings.temperature)
            for index, logp_T in zip(indices, logp_BT.tolist(), strict=True):
                found[index] = logp_T[: len(rows[index].tokens.completion)]
    return found


def update(
    policy: Policy, optimizer: ScheduledOptimizer, rows: Sequence[Row], settings: GrpoSettings, step: Step
) -> dict[str, float]:
    """One optimizer step on these rows; the result does not depend on the size of a micro-batch."""
    learning = [row for row in rows if row.learns]
    if not learning:
        return {}
    loss_settings = settings.loss
    lengths = [0 if row.masked else len(row.tokens.completion) for row in rows]
    denominator = loss_denominator(
        loss_settings, (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])
    )
    most = micro_batch_tokens(policy.model, step.runtime, step.settings.precision)
    totals: dict[str, Tensor] = {}
    checkpointing = step.runtime.gradient_checkpointing
    with training_pass(policy.model, gradient_checkpointing=checkpointing):
        begin_gradient(policy.model.get_output_embeddings())
        sequences = [row.tokens for row in learning]
        for indices, batch in passes(
            policy.model, sequences, most, step.settings.precision, share=not checkpointing
        ):
            chosen = [learning[i] for i in indices]
            loss, stats = micro_batch_loss(policy, chosen, batch, loss_settings, settings, step)
            if not loss.isfinite():
                dump(chosen, step)
                raise NotFinite("the loss", loss.item())
            (loss / denominator).backward()
            stats["loss"] = torch.stack([loss.detach() / denominator, torch.ones_like(loss.detach())])
            for name, value in stats.items():
                totals[name] = totals.get(name, torch.zeros_like(value)) + value
    loss_total = totals.pop("loss")[0].item()
    try:
        grad_norm = optimizer.step()
    except NotFinite:
        dump(learning, step)
        raise
    return stat_means(totals) | {
        "loss": loss_total,
        "grad_norm": grad_norm,
        "learning_rate": optimizer.learning_rate,
    }


def micro_batch_loss(
    policy: Policy, rows: Sequence[Row], batch: Batch, loss: LossSettings, settings: GrpoSettings, step: Step
) -> tuple[Tensor, Stats]:
    """The summed loss of one micro-batch and its (sum, count) statistics."""
    with mixed_precision(step.settings.precision, policy.device):
        logp_BT, entropy_BT = logprobs_and_entropy(policy.model, batch, temperature=settings.temperature)
    width = batch.mask_BT.shape[1]
    sampled_BT = pad_rows([row.sampled_logp for row in rows], width, policy.device)
    total, stats = policy_loss(
        logp_BT,
        old_logprobs(rows, logp_BT.detach(), settings),
        pad_rows([row.ref_logp for row in rows], width, policy.device) if settings.kl_coeff > 0 else None,
        torch.tensor([row.advantage for row in rows], device=policy.device),
        batch.mask_BT,
        loss,
    )
    tokens = batch.mask_BT.sum()
    stats["entropy"] = torch.stack([entropy_BT.sum(), tokens])
    stats["drift"] = torch.stack([(logp_BT.detach() - sampled_BT).abs()[batch.mask_BT].sum(), tokens])
    return total, stats


def old_logprobs(rows: Sequence[Row], logp_BT: Tensor, settings: GrpoSettings) -> Tensor:
    """old_logp_BT: what the rows hold; before the first update what the policy gives now, `logp_BT`."""
    known = [row.old_logp for row in rows if row.old_logp is not None]
    if len(known) == len(rows):
        return pad_rows(known, logp_BT.shape[1], logp_BT.device)
    if settings.num_iterations > 1:  # the next pass over the rollout compares with these
        for row, logp_T in zip(rows, logp_BT.tolist(), strict=True):
            row.old_logp = logp_T[: len(row.tokens.completion)]
    return logp_BT


def dump(rows: Sequence[Row], step: Step) -> None:
    """Leave the rows of a non-finite update where a person can look at them."""
    path = LOGS / f"{step.file_name}.not-finite.json"
    write_text(path, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
