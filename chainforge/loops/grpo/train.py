"""GRPO: sample a group per prompt, score it, push towards what did better than its group.

Source: DeepSeekMath, arXiv 2402.03300, algorithm 1. N prompts, G completions each.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice

from chainforge.algorithms.advantages import zero_variance_N
from chainforge.config.grpo import GrpoSettings
from chainforge.loops.grpo.buffer import RolloutBuffer
from chainforge.loops.grpo.metrics import columns, rollout_metrics, update_metrics
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.loops.grpo.rewards import check_rewards, does_not_apply, rewards_NG
from chainforge.loops.grpo.rows import Row, make_rows, mini_batches
from chainforge.loops.grpo.update import add_logprobs, update
from chainforge.models.allocator import return_freed_memory
from chainforge.models.checkpoint import Policy
from chainforge.models.optimizer import ScheduledOptimizer
from chainforge.records import Group, Prompt
from chainforge.run.metrics import StepTable
from chainforge.run.progress import progress
from chainforge.run.step import Step
from chainforge.run.work import Work

# (prompts, step, place of the first of them among all that were ever drawn) -> scored groups
Rollout = Callable[[Sequence[Prompt], int, int], list[Group]]


def train(
    policy: Policy,
    reference: Policy | None,
    prompts: PromptMix,
    rollout: Rollout,
    settings: GrpoSettings,
    step: Step,
    work: Work,
    *,
    may_fail: Collection[str] = (),
) -> tuple[StepTable, dict[str, float]]:
    """One turn of the body is one rollout and its optimizer steps. Changes the policy in place.

    A reward that is None for all completions so far is an error, unless its name is in `may_fail`.
    Returns the row per step, and the last one as the summary. A resumed run starts inside the rollout
    that was under way: its rows are in the buffer, and so is what its first updates gave.
    """
    table = step.table(columns(settings.rewards))
    optimizer = make_optimizer(policy, settings)
    buffer = RolloutBuffer()
    syncs = {"reference": reference.model} if reference and settings.ref_sync_steps else {}
    work.attach(policy=policy.model, optimizer=optimizer, table=table, buffer=buffer, **syncs)
    first = max(1, buffer.number)
    numbers = range(first, settings.num_rl_steps + 1)
    bar = progress(numbers, step.name, total=settings.num_rl_steps, initial=first - 1)
    for number in bar:
        if number > buffer.number:
            groups, drawn = rollout_with_spread(rollout, prompts, settings, number, buffer.drawn)
            return_freed_memory()
            buffer.applied = sorted({*buffer.applied, *check_rewards(groups, settings.rewards, number)})
            if idle := settings.rewards.keys() - buffer.applied - set(may_fail):
                raise does_not_apply(sorted(idle), number)
            rows = make_rows(policy, groups, settings, step)
            add_logprobs(policy, reference, rows, settings, step)
            buffer.fill(number, rows, rollout_metrics(groups, settings.rewards), drawn)
            work.safe_point()
        for part in islice(parts_of(buffer.rows, settings), len(buffer.updates), None):
            buffer.updates.append(update(policy, optimizer, part, settings, step))
            work.safe_point()
        if reference and settings.ref_sync_steps and number % settings.ref_sync_steps == 0:
            reference.model.load_state_dict(policy.model.state_dict())
        metrics = buffer.metrics | update_metrics(buffer.updates)
        table.add(number, **metrics)
        bar.set_postfix(
            {k: f"{metrics[k]:.3f}" for k in ("reward", "completions/mean_length")}, refresh=False
        )
    return table, {name.replace("/", "_"): round(value, 6) for name, value in metrics.items()}


def parts_of(rows: Sequence[Row], settings: GrpoSettings) -> Iterator[list[Row]]:
    """The rows of every optimizer step on one rollout: its mini-batches, `num_iterations` times."""
    for _ in range(settings.num_iterations):
        yield from mini_batches(rows, settings)


def rollout_with_spread(
    rollout: Rollout, prompts: PromptMix, settings: GrpoSettings, number: int, drawn: int
) -> tuple[list[Group], int]:
    """Groups of this step, and how many prompts were drawn by its end, where `drawn` were before it.

    Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2) replaces groups whose rewards are all equal by
    those of the next prompts, at most `resample_rounds` times.
    """
    kept: list[Group] = []
    flat: list[Group] = []
    for _ in range(settings.resample_rounds + 1):
        wanted = settings.prompts_per_step - len(kept)
        new = rollout(prompts.draw(wanted, drawn), number, drawn)
        drawn += wanted
        equal = zero_variance_N(rewards_NG(new)).tolist()
        kept += [group for group, is_equal in zip(new, equal, strict=True) if not is_equal]
        flat += [group for group, is_equal in zip(new, equal, strict=True) if is_equal]
        if len(kept) == settings.prompts_per_step:
            break
    return [*kept, *flat][: settings.prompts_per_step], drawn


def make_optimizer(policy: Policy, settings: GrpoSettings) -> ScheduledOptimizer:
    """AdamW over as many steps as the settings ask for."""
    return ScheduledOptimizer(
        policy.model,
        learning_rate=settings.learning_rate,
        steps=settings.num_rl_steps * settings.num_iterations * settings.mini_batches,
        beta2=settings.beta2,
        weight_decay=settings.weight_decay,
        schedule=settings.schedule,
        warmup_fraction=settings.warmup_fraction,
        max_grad_norm=settings.max_grad_norm,
    )
