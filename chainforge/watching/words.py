"""The figures of a frame in words, the same in the terminal and on the page."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from chainforge.watching.completions import Answer
from chainforge.watching.pace import in_words
from chainforge.watching.run import DONE, RUNNING, SIGNS, STOPPED, WAITING, Focus, Run, StepSeen

SOON_S = 10  # a sign of life as young as this goes without saying


@dataclass(frozen=True, slots=True)
class Line:
    """A step, or all steps `verb@…` together."""

    sign: str
    state: str
    name: str
    said: str


def step_lines(run: Run) -> list[Line]:
    """The steps in their order; those of one family in one line, but for one that runs or has stopped."""
    families: dict[str, list[StepSeen]] = {}
    for step in run.steps:
        families.setdefault(step.name.partition("@")[0], []).append(step)
    return [line for name, steps in families.items() for line in _family(name, steps)]


def _family(name: str, steps: list[StepSeen]) -> Iterator[Line]:
    if len(steps) == 1:
        yield Line(SIGNS[steps[0].state], steps[0].state, steps[0].name, _said(steps[0]))
        return
    done = sum(step.state == DONE for step in steps)
    busy = [step for step in steps if step.state in (RUNNING, STOPPED)]
    state = DONE if done == len(steps) else WAITING if not busy else busy[-1].state
    yield Line(SIGNS[state], state, name, f"{done} of {len(steps)}")
    yield from (Line(SIGNS[step.state], step.state, step.name, _said(step)) for step in busy)


def _said(step: StepSeen) -> str:
    if step.state != DONE:
        return "" if step.state == WAITING else step.state
    return "" if step.wall_s is None else in_words(step.wall_s)


def heading(run: Run) -> str:
    """12 of 34 steps done"""
    said = f"{run.count(DONE)} of {len(run.steps)} steps done"
    stopped = run.count(STOPPED)
    return f"{said}, {stopped} stopped before the end" if stopped else said


def pace_words(focus: Focus, now: float) -> str:
    """30 of 150 steps (20%) · 0.52 steps/s · 4,100 tokens/s · 3 min 50 s left"""
    parts: list[str] = []
    if pace := focus.pace:
        of = "" if pace.total is None else f" of {pace.total:,}"
        share = f" ({pace.done / pace.total:.0%})" if pace.total else ""
        parts.append(f"{pace.done:,}{of} {plural(pace.unit)}{share}")
        if pace.turns_per_s:
            parts.append(rate(pace.turns_per_s, pace.unit))
        if pace.tokens_per_s:
            parts.append(f"{pace.tokens_per_s:,.0f} tokens/s")
        left = pace.left_s(now)
        if left is not None and focus.step.state == RUNNING and pace.done != pace.total:
            parts.append(f"{in_words(left)} left" if left else "any moment now")
    if focus.step.state in (RUNNING, STOPPED) and now - focus.step.seen_at > SOON_S:
        parts.append(f"last sign {in_words(now - focus.step.seen_at)} ago")
    return " · ".join(parts)


def plural(unit: str) -> str:
    """steps, batches"""
    return f"{unit}es" if unit.endswith("ch") else f"{unit}s"


def rate(per_s: float, unit: str) -> str:
    """0.52 steps/s, or 12 s per step where one takes more than ten seconds."""
    return f"{per_s:.3g} {plural(unit)}/s" if per_s >= 0.1 else f"{in_words(1 / per_s)} per {unit}"


def reward_words(answer: Answer) -> str:
    """reward 1.2 · correct 1 · format 0.2 · 31 tokens"""
    parts = [
        f"reward {short(answer.reward)}",
        *(f"{name} {short(value)}" for name, value in answer.rewards.items()),
    ]
    tokens = f"{answer.tokens:,} tokens" + (", cut off" if answer.is_cut else "")
    return " · ".join([*parts, tokens])


def short(value: float | None) -> str:
    """A number in few characters."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def clock(seconds: float) -> str:
    """15:04:05, where this machine stands."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))
