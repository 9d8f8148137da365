"""Supervised fine-tuning: loss on the response only; optionally KL to a teacher's logits."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from chainforge.config.sft import SftSettings
from chainforge.errors import ChainForgeError
from chainforge.learner.learner import Learner, Sums, Update
from chainforge.learner.teacher import Teacher
from chainforge.loops.sft_batches import batches, split
from chainforge.models.batch import Batch, Tokens
from chainforge.models.chat import encode_prompt, encode_response, opening
from chainforge.models.policy_model import LogProbs
from chainforge.records import Example
from chainforge.run.metrics import StepTable
from chainforge.run.progress import progress
from chainforge.run.step import Step
from chainforge.run.work import Work

COLUMNS = ("loss", "eval_loss", "learning_rate", "grad_norm")


class Answers(Protocol):
    """What may stand in the place of a batch of examples."""

    def due(self, number: int, steps: int) -> bool:
        """Whether it does in optimizer step `number`, from 1, of `steps`."""

    def answer(self, learner: Learner, batch: Sequence[Tokens], number: int) -> list[Tokens]:
        """Other completions of the same prompts."""


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
    learner: Learner,
    teacher: Teacher | None,
    examples: Sequence[Example],
    settings: SftSettings,
    step: Step,
    work: Work,
    answers: Answers | None = None,
) -> tuple[StepTable, dict[str, float | None]]:
    """One turn of the body is one optimizer step.

    Returns the row per step, and the summary.
    """
    prefill = opening(learner.tokenizer, step.response_format)
    tokens, too_long = tokenize(learner.tokenizer, examples, settings, prefill)
    training, held_out = split(tokens, settings, step)
    steps = max(1, round(settings.num_epochs * len(training) / settings.batch_size))
    table = step.table(COLUMNS, settings, work.folder)
    done = Done()
    learner.begin(steps)
    work.attach(learner=learner, table=table, done=done)
    left = islice(batches(training, settings.batch_size, steps, step), done.steps, None)
    bar = progress(left, step.name, total=steps, initial=done.steps, live=work.live)
    for number, batch in enumerate(bar, start=done.steps + 1):
        if answers and answers.due(number, steps):
            given = update(learner, teacher, answers.answer(learner, batch, number), teacher_weight=1.0)
        else:
            given = update(learner, teacher, batch, teacher_weight=teacher.weight if teacher else 0.0)
        due = number % settings.eval_every == 0 or number == steps
        eval_loss = evaluation_loss(learner, held_out) if due else None
        table.add(
            number,
            loss=given.loss,
            eval_loss=eval_loss,
            learning_rate=given.learning_rate,
            grad_norm=given.grad_norm,
        )
        done.steps, done.loss, done.eval_loss = number, given.loss, eval_loss
        work.live.count(sum(map(len, batch)))
        work.safe_point()
        bar.set_postfix(loss=f"{given.loss:.3f}", refresh=False)
    summary: dict[str, float | None] = {
        "examples": len(training),
        "held_out": len(held_out),
        "too_long": too_long,
        "steps": steps,
        "parameters": learner.num_parameters,
        "loss": round(done.loss, 6),
        "eval_loss": None if done.eval_loss is None else round(done.eval_loss, 6),
    }
    return table, summary


def tokenize(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], settings: SftSettings, prefill: str
) -> tuple[list[Tokens], int]:
    """Token ids of every example that fits, and how many did not."""
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


def longest_example(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], settings: SftSettings, step: Step
) -> int:
    """Tokens of the longest one that fits."""
    fitting, _ = tokenize(tokenizer, examples, settings, opening(tokenizer, step.response_format))
    return max(map(len, fitting))


def update(
    learner: Learner, teacher: Teacher | None, batch: Sequence[Tokens], *, teacher_weight: float
) -> Update:
    """One optimizer step on the mean loss per response token, in nats: by `teacher_weight` the divergence
    from the teacher, else cross-entropy."""
    total = sum(len(t.completion) for t in batch)
    weight = teacher_weight if teacher else 0.0

    def loss(_: Sequence[int], found: LogProbs, micro_batch: Batch) -> tuple[Tensor, Sums]:
        value = -(1 - weight) * found.logp_BT.sum()
        if teacher and found.logp_MV is not None:
            value = value + weight * teacher.divergence_from(found.logp_MV, micro_batch)
        return value / total, {}

    return learner.step(batch, loss, vocabulary=weight > 0)


def evaluation_loss(learner: Learner, held_out: Sequence[Tokens]) -> float | None:
    """Mean cross-entropy per response token on held-out examples, in nats."""
    if not held_out:
        return None
    return -sum(map(sum, learner.logprobs(held_out))) / sum(len(t.completion) for t in held_out)
