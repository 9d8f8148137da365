"""Supervised fine-tuning: loss on the response only; optionally KL to a teacher's logits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from chainforge.config.sft import SftSettings
from chainforge.errors import ChainForgeError
from chainforge.loops.sft_batches import batches, split
from chainforge.models.batches import Batch, Tokens, collate, micro_batches
from chainforge.models.chat import encode_prompt, encode_response, opening
from chainforge.models.checkpoint import Policy
from chainforge.models.head import begin_gradient
from chainforge.models.logprobs import completion_logprobs, distillation_kl, mixed_precision
from chainforge.models.micro_batch_size import micro_batch_tokens
from chainforge.models.optimizer import NotFinite, ScheduledOptimizer
from chainforge.models.training_pass import training_pass
from chainforge.records import Example
from chainforge.run.metrics import StepTable
from chainforge.run.progress import progress
from chainforge.run.step import Step
from chainforge.run.work import Work

COLUMNS = ("loss", "eval_loss", "learning_rate", "grad_norm")


@dataclass(slots=True)
class Done:
    """Optimizer steps taken, and the figures of the last one."""

    steps: int = 0
    loss: float = 0.0
    eval_loss: float | None = None

    def state_dict(self) -> dict[str, float | None]:
        """The fields."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the fields."""
        for name, value in state.items():
            setattr(self, name, value)


def train(
    policy: Policy,
    teacher: Policy | None,
    examples: Sequence[Example],
    settings: SftSettings,
    step: Step,
    work: Work,
) -> tuple[StepTable, dict[str, float | None]]:
    """One turn of the body is one optimizer step. Changes the policy in place.

    Returns the row per step, and the summary.
    """
    tokens, too_long = tokenize(policy, examples, settings, opening(policy.tokenizer, step.response_format))
    training, held_out = split(tokens, settings, step)
    steps = max(1, round(settings.num_epochs * len(training) / settings.batch_size))
    optimizer = make_optimizer(policy, settings, steps)
    table = step.table(COLUMNS)
    done = Done()
    work.attach(policy=policy.model, optimizer=optimizer, table=table, done=done)
    left = islice(batches(training, settings.batch_size, steps, step), done.steps, None)
    bar = progress(left, step.name, total=steps, initial=done.steps)
    for number, batch in enumerate(bar, start=done.steps + 1):
        loss = backward(policy, teacher, batch, settings, step)
        grad_norm = optimizer.step()
        due = number % settings.eval_every == 0 or number == steps
        eval_loss = evaluation_loss(policy, held_out, step) if due else None
        table.add(
            number, loss=loss, eval_loss=eval_loss, learning_rate=optimizer.learning_rate, grad_norm=grad_norm
        )
        done.steps, done.loss, done.eval_loss = number, loss, eval_loss
        work.safe_point()
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    summary: dict[str, float | None] = {
        "examples": len(training),
        "held_out": len(held_out),
        "too_long": too_long,
        "steps": steps,
        "parameters": policy.num_parameters,
        "loss": round(done.loss, 6),
        "eval_loss": None if done.eval_loss is None else round(done.eval_loss, 6),
    }
    return table, summary


def tokenize(
    policy: Policy, examples: Sequence[Example], settings: SftSettings, prefill: str
) -> tuple[list[Tokens], int]:
    """Token ids of every example that fits, and how many did not."""
    tokenizer = policy.tokenizer
    tokens = [
        Tokens(
            encode_prompt(tokenizer, e.messages, prefill),
            encode_response(tokenizer, e.response.removeprefix(prefill)),
        )
        for e in examples
    ]
    fitting = [t for t in tokens if len(t) <= settings.max_tokens]
    if not fitting:
        raise ChainForgeError(
            f"none of {len(tokens)} examples fits into {settings.max_tokens} tokens", "raise sft.max_tokens"
        )
    return fitting, len(tokens) - len(fitting)


def backward(
    policy: Policy, teacher: Policy | None, batch: Sequence[Tokens], settings: SftSettings, step: Step
) -> float:
    """Accumulate the gradient of the mean loss per response token; returns that mean in nats."""
    total = sum(len(t.completion) for t in batch)
    loss_sum = 0.0
    with training_pass(policy.model, gradient_checkpointing=step.runtime.gradient_checkpointing):
        begin_gradient(policy.model.get_output_embeddings())
        for piece in pieces(batch, policy, step, teacher):
            with mixed_precision(step.settings.precision, policy.device):
                loss = piece_loss(policy, teacher, piece, settings) / total
            if not loss.isfinite():
                raise NotFinite("the loss", loss.item())
            loss.backward()
            loss_sum += loss.item()
    return loss_sum


def piece_loss(policy: Policy, teacher: Policy | None, piece: Batch, settings: SftSettings) -> Tensor:
    """Cross-entropy summed over response tokens, mixed with the teacher's KL by `logit_kd_weight`."""
    weight = settings.logit_kd_weight if teacher else 0.0
    loss = torch.zeros((), device=policy.device)
    if weight < 1:
        logp_BT = completion_logprobs(policy.model, piece)
        loss = loss - (1 - weight) * logp_BT.sum()
    if teacher and weight > 0:
        loss = loss + weight * distillation_kl(policy.model, teacher.model, piece)
    return loss


@torch.no_grad()
def evaluation_loss(policy: Policy, held_out: Sequence[Tokens], step: Step) -> float | None:
    """Mean cross-entropy per response token on held-out examples, in nats."""
    if not held_out:
        return None
    with training_pass(policy.model), mixed_precision(step.settings.precision, policy.device):
        total = sum(
            -completion_logprobs(policy.model, piece).sum().item() for piece in pieces(held_out, policy, step)
        )
    return total / sum(len(t.completion) for t in held_out)


def pieces(
    batch: Sequence[Tokens], policy: Policy, step: Step, teacher: Policy | None = None
) -> Iterator[Batch]:
    """Padded micro-batches of bounded size."""
    most = micro_batch_tokens(
        policy.model, step.runtime, step.settings.precision, teacher.model if teacher else None
    )
    for indices in micro_batches([len(t) for t in batch], most):
        yield collate([batch[i] for i in indices], policy.device)


def make_optimizer(policy: Policy, settings: SftSettings, steps: int) -> ScheduledOptimizer:
    """AdamW, or Muon beside it, over this many steps."""
    return ScheduledOptimizer(
        policy.model,
        learning_rate=settings.learning_rate,
        muon_learning_rate=settings.muon_learning_rate,
        steps=steps,
        beta2=settings.beta2,
        weight_decay=settings.weight_decay,
        schedule=settings.schedule,
        warmup_fraction=settings.warmup_fraction,
        floor_fraction=settings.floor_fraction,
        max_grad_norm=settings.max_grad_norm,
    )


def check_same_vocabulary(student: Policy, teacher: Policy) -> None:
    """Raise ChainForgeError unless every token id means the same to both."""
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    rows = [p.model.get_output_embeddings().weight.shape[0] for p in (student, teacher)]
    if ours != theirs or rows[0] != rows[1]:
        raise ChainForgeError(
            f"teacher and student do not share a vocabulary ({rows[1]} and {rows[0]} logits, "
            f"{len(ours.items() ^ theirs.items())} tokens differ)",
            "set logit_kd_weight to 0 (distill by samples), or give the student its teacher's tokenizer",
        )
