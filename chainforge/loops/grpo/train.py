"""GRPO: sample a group per prompt, score it, push towards what did better than its group.

Source: DeepSeekMath, arXiv 2402.03300, algorithm 1. N prompts, G completions each.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from chainforge.config.grpo import GrpoSettings
from chainforge.learner.learner import Learner
from chainforge.loops.grpo.metrics import columns, rollout_metrics, update_metrics
from chainforge.loops.grpo.mismatch import Alarm, correction_of
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.loops.grpo.rollout import Rollout, check_rewards
from chainforge.loops.grpo.rows import RolloutBuffer, Row, make_rows, mini_batches
from chainforge.loops.grpo.update import add_logprobs, update
from chainforge.loops.grpo.watch import Watch
from chainforge.rollout.engine import Engine
from chainforge.run.kept_completions import keep_rollout
from chainforge.run.metrics import StepTable
from chainforge.run.progress import progress
from chainforge.run.step import Step
from chainforge.run.work import Work
from chainforge.scoring import Scorer


def train(
    learner: Learner,
    engine: Engine,
    scorer: Scorer,
    prompts: PromptMix,
    settings: GrpoSettings,
    step: Step,
    work: Work,
    watch: Watch | None = None,
) -> tuple[StepTable, dict[str, float]]:
    """One turn of the body is one rollout and its optimizer steps.

    Returns the row per step, and the last one as the summary. A resumed run starts inside the rollout
    that was under way: its rows are in the buffer, and so is what its first updates gave.
    """
    correction = correction_of(settings, step)
    names = columns(settings.rewards, corrected=correction is not None, watched=watch is not None)
    table, alarm = step.table(names, settings, work.folder), Alarm(settings, step)
    buffer = RolloutBuffer()
    rollout = Rollout(engine, scorer, learner.tokenizer, prompts, settings, step)
    learner.begin(settings.num_rl_steps * settings.num_iterations * settings.mini_batches)
    watched = {"watch": watch} if watch else {}
    work.attach(learner=learner, table=table, buffer=buffer, ahead=rollout.ahead, **watched)
    first = max(1, buffer.number)
    numbers = range(first, settings.num_rl_steps + 1)
    bar = progress(numbers, step.name, total=settings.num_rl_steps, initial=first - 1, live=work.live)
    for number in bar:
        if number > buffer.number:
            if not rollout.ahead.has(buffer.drawn):
                engine.update(learner, number)
            seen = watch.look(engine, learner.tokenizer, number) if watch else {}
            groups, drawn = rollout.groups(number, buffer.drawn)
            work.live.show(groups)
            if settings.max_lag and number < settings.num_rl_steps:
                engine.update(learner, number + 1)
                rollout.begin_next(drawn)
            applied = check_rewards(groups, scorer.rewards, number, buffer.applied)
            rows = make_rows(learner.tokenizer, groups, settings, step)
            add_logprobs(learner, rows, settings, step)
            keep_rollout(number, groups, [row.advantage for row in rows], step)
            buffer.fill(number, rows, rollout_metrics(groups, settings.rewards) | seen, drawn, applied)
            work.safe_point()
        for part in islice(parts_of(buffer.rows, settings), len(buffer.updates), None):
            buffer.updates.append(update(learner, part, settings, step))
            work.safe_point()
        if settings.kl_coeff > 0 and settings.ref_sync_steps and number % settings.ref_sync_steps == 0:
            learner.move_reference()
        metrics = buffer.metrics | update_metrics(buffer.updates)
        table.add(number, **metrics)
        alarm.hear(number, metrics)
        bar.set_postfix(
            {k: f"{metrics[k]:.3f}" for k in ("reward", "completions/mean_length")}, refresh=False
        )
    return table, {name.replace("/", "_"): round(value, 6) for name, value in metrics.items()}


def parts_of(rows: Sequence[Row], settings: GrpoSettings) -> Iterator[list[Row]]:
    """The rows of every optimizer step on one rollout: its mini-batches, `num_iterations` times."""
    for _ in range(settings.num_iterations):
        yield from mini_batches(rows, settings)
