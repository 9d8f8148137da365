"""A frame in the terminal."""

from collections.abc import Iterator

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from chainforge.defuse import defuse
from chainforge.watching.completions import Asked, read_asked
from chainforge.watching.curves import BLOCKS, Curve, sparkline
from chainforge.watching.run import RUNNING, SIGNS, STOPPED, WAITING, Focus, Run
from chainforge.watching.words import (
    clock,
    heading,
    pace_words,
    reward_words,
    short,
    step_lines,
)

STYLES = {RUNNING: "bold green", STOPPED: "bold red", WAITING: "dim"}
WIDEST = 60  # signs of a sparkline
FEWEST = 10
ASKED, ANSWERS, TEXT = 2, 2, 600  # shown: prompts, completions of one, characters of a text


def frame(run: Run, width: int, signs: str = BLOCKS) -> RenderableType:
    """What there is to see. `signs` are those of a sparkline."""
    parts: list[RenderableType] = [_line(f"ChainForge · {run.logs} · {clock(run.now)}", "bold")]
    if not run.steps:
        return Group(*parts, _line("nothing here yet: no step has written into that folder", "dim"))
    parts += [_line(heading(run)), _steps(run)]
    if run.focus:
        parts += [Text(), *_focus(run.focus, run.now, width, signs)]
    return Group(*parts)


def _line(text: str, style: str = "") -> Text:
    return Text(defuse(text), style=style, no_wrap=True, overflow="ellipsis")


def _steps(run: Run) -> Columns:
    lines = (
        _line(" ".join(filter(None, (line.sign, line.name, line.said))), STYLES.get(line.state, ""))
        for line in step_lines(run)
    )
    return Columns(lines, padding=(0, 3), column_first=True)


def _focus(focus: Focus, now: float, width: int, signs: str) -> Iterator[RenderableType]:
    title = focus.pace.title if focus.pace and focus.pace.title else focus.step.name
    yield _line(f"{SIGNS[focus.step.state]} {title} ({focus.step.state})", "bold")
    said = _line(pace_words(focus, now))
    if focus.pace and focus.pace.total:
        bar = ProgressBar(total=focus.pace.total, completed=focus.pace.done, width=min(width // 4, 40))
        row = Table.grid(padding=(0, 2))
        row.add_row(bar, said)
        yield row
    elif said:
        yield said
    if focus.curves:
        yield Text()
        yield _curves(focus.curves, width, signs)
    for asked in read_asked(focus.groups)[:ASKED]:
        yield Text()
        yield from _asked(asked)


def _curves(shown: list[Curve], width: int, signs: str) -> Table:
    """A line per metric: its course, where it stands, and between what."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=28)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    room = max(FEWEST, min(WIDEST, width - 28 - 32))
    for curve in shown:
        low, high = min(curve.values), max(curve.values)
        course = Text(sparkline(curve.values, room, signs), style="cyan")
        between = f"{short(low)} to {short(high)}" if high > low else ""
        table.add_row(_line(curve.title), course, Text(short(curve.last), "bold"), between)
    return table


def _asked(asked: Asked) -> Iterator[Text]:
    expected = "" if asked.answer is None else f"  (answer: {_one_line(asked.answer, 60)})"
    yield _line(f"{asked.number}: {_one_line(asked.prompt, 300)}{expected}", "bold")
    for answer in asked.answers[:ANSWERS]:
        yield _line(f"  {reward_words(answer)}", "dim")
        yield Text(defuse(f"  {_one_line(answer.text, TEXT)}"))
    if asked.of > ANSWERS:
        yield _line(f"  and {asked.of - ANSWERS} more", "dim")


def _one_line(text: str, most: int) -> str:
    """White space made one space, and the rest cut off."""
    joined = " ".join(text[: 4 * most].split())
    return joined if len(joined) <= most else f"{joined[: most - 1]}…"
