"""A few optimizer steps of an SFT or distillation step, and what all of them will take."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from chainforge.config.distill import DistillSettings
from chainforge.config.sft import SftSettings
from chainforge.learner.local_learner import LocalLearner
from chainforge.learner.teacher import Teacher, load_teacher
from chainforge.loops.sft import evaluation_loss, longest_example, tokenize, update
from chainforge.loops.sft_batches import batches, split
from chainforge.models.batch import Tokens
from chainforge.models.chat import opening
from chainforge.models.checkpoint import start_torch
from chainforge.preflight.cost import Point, fit, since_start, spent, timed
from chainforge.preflight.estimate import Estimate, Finding
from chainforge.preflight.kept import add_kept
from chainforge.preflight.loaded import load_like
from chainforge.preflight.memory import peak_memory, usable
from chainforge.preflight.stand_in import Inputs
from chainforge.preflight.texts import check_examples, format_rate, rate
from chainforge.records import Example
from chainforge.run.step import Step

MOST_BATCHES = 24
EVALUATED = 32  # held-out examples


def try_supervised(
    step: Step, settings: SftSettings, inputs: Inputs, seconds: float, section: str
) -> Estimate:
    """Predict the step from batches of its own examples. The model that is trained here is thrown away."""
    given = [inputs.examples(p) for p in (settings.examples, settings.extra_examples) if p]
    examples = [example for found, _ in given for example in found]
    more = sum(count for _, count in given) / len(examples)  # than there are here
    device = start_torch(step.settings, step.runtime)
    texts = ["\n".join([*(m["content"] for m in e.messages), e.response]) for e in examples]
    start = since_start()
    (policy, name, _), load = timed(
        lambda: load_like(settings.start_from, settings.new_model, texts, inputs, step, device)
    )
    estimate = Estimate(step.name, name, parts={"start": start, "model": load}, notes=inputs.notes)
    teacher = None
    if isinstance(settings, DistillSettings) and settings.asks_teacher:
        if settings.teacher and not settings.teacher.exists():
            estimate.notes.append(f"{settings.teacher} is not there: its part of time and memory is missing")
        else:
            teacher = load_teacher(settings, policy, device)
        if settings.on_policy:
            estimate.notes.append("the student's own answers are not in the time")
    estimate.findings += check_examples(policy, examples, step.response_format)
    longest = partial(longest_example, policy.tokenizer, examples, settings, step)
    learner, build = timed(lambda: LocalLearner(policy, settings, step, teacher=teacher, longest=longest))
    prefill = opening(learner.tokenizer, step.response_format)
    (tokens, too_long), reading = timed(lambda: tokenize(learner.tokenizer, examples, settings, prefill))
    training, held_out = split(tokens, settings, step)
    steps = max(1, round(settings.num_epochs * len(training) * more / settings.batch_size))
    learner.begin(max(steps, MOST_BATCHES))  # the schedule knows no step beyond
    estimate.parts |= {"model": load.plus(build), "tokens": reading.times(more)}
    _add_training(estimate, learner, teacher, training, settings, step, steps, seconds, device.type)
    evaluations = len({*range(settings.eval_every, steps + 1, settings.eval_every), steps})
    few = held_out[:EVALUATED]
    if few:
        _, cost = timed(lambda: evaluation_loss(learner, few))
        share = sum(map(len, held_out)) / sum(map(len, few))
        estimate.parts["evaluation loss"] = cost.times(evaluations * share * more)
    _rate_examples(estimate, examples, too_long, step, section)
    add_kept(estimate, learner, step.runtime.save_every_s)
    estimate.memory, estimate.usable = peak_memory(device), usable(device, step)
    return estimate


def _rate_examples(
    estimate: Estimate, examples: Sequence[Example], too_long: int, step: Step, section: str
) -> None:
    """What of them is in the format, and what is dropped."""
    estimate.rates = [
        replace(format_rate(examples, step.response_format), name="examples in format"),
        rate("longer than max_tokens", [1.0] * too_long + [0.0] * (len(examples) - too_long)),
    ]
    if too_long:
        estimate.findings.append(
            Finding(
                f"{too_long} of {len(examples)} examples are longer than max_tokens, and dropped",
                f"raise {section}.max_tokens",
                loss=too_long / len(examples),
            )
        )
    if estimate.rates[0].mean < 1:
        wrong = 1 - estimate.rates[0].mean
        estimate.findings.append(
            Finding(
                f"{wrong:.0%} of the examples are not in the format {step.settings.response_format}",
                "make them anew with the filter step, or set run.response_format to theirs",
                loss=wrong,
            )
        )


def _add_training(
    estimate: Estimate,
    learner: LocalLearner,
    teacher: Teacher | None,
    training: Sequence[Tokens],
    settings: SftSettings,
    step: Step,
    steps: int,
    seconds: float,
    kind: str,
) -> None:
    """The largest batch first, which takes the most memory; then some of every size while there is time."""
    an_epoch = max(1, min(steps, round(len(training) / settings.batch_size)))
    real = sorted(islice(batches(training, settings.batch_size, an_epoch, step), an_epoch), key=_size)
    weight = teacher.weight if teacher else 0.0
    points: list[Point] = []
    spread = [real[-1], real[len(real) // 2], real[0], real[-1]]
    spread += [real[len(real) * i // MOST_BATCHES] for i in range(len(spread), MOST_BATCHES)]
    used = 0.0
    for batch in spread:
        _, cost = timed(partial(update, learner, teacher, batch, teacher_weight=weight))
        points.append(Point(1, _size(batch), cost))
        used += spent(cost, kind)
        if len(points) > 2 and used + spent(cost, kind) > seconds:
            break
    line = fit(points[1:])  # the first one makes the optimizer's moments
    estimate.parts["warm-up"] = points[0].cost.beyond(line.at(1, points[0].size))
    estimate.parts["training"] = line.at(steps, steps * sum(map(_size, real)) / len(real))
    estimate.tokens_per_s["trained"] = points[-1].size / max(points[-1].cost.wall, 1e-9)
    estimate.notes.append(f"{steps:,} optimizer steps; {len(points)} were tried")


def _size(batch: Sequence[Tokens]) -> int:
    return sum(map(len, batch))
