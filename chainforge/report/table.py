"""The stage table for a terminal: one for each bench, so that a row of the recipe fits in 100 columns."""

from collections.abc import Sequence
from itertools import groupby

from chainforge.report.results import StageRow


def format_table(rows: Sequence[StageRow]) -> str:
    """A table per bench, number of problems and k, by their first rows; no line break at the end."""
    kinds = list(dict.fromkeys(map(kind, rows)))
    ordered = sorted(rows, key=lambda row: kinds.index(kind(row)))
    return "\n\n".join(format_bench(list(same)) for _, same in groupby(ordered, key=kind))


def kind(row: StageRow) -> tuple[str, int, int]:
    return row.bench, row.n, row.k


def format_bench(rows: Sequence[StageRow]) -> str:
    """Rows of one kind, under a line that says what they share."""
    bench, n, k = kind(rows[0])
    title = f"{bench}: {n:,} problem{'s' * (n != 1)}, {k} sample{'s' * (k != 1)} each"
    head = ("checkpoint", "pass@1", "95% CI", "greedy", f"maj@{k}", f"pass@{k}", "lenient", "format",
            "tokens", "cut")  # fmt: skip
    if k == 1:
        head = (*head[:5], "pass@k", *head[6:])  # pass@1 is there already
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        interval = f"{number(row.ci95_lo)}–{number(row.ci95_hi)}" if row.ci95_lo is not None else "–"
        tokens = "–" if row.mean_tokens is None else f"{row.mean_tokens:.1f}"
        scores = map(percent, (row.greedy, row.maj_at_k, row.pass_at_k, row.lenient, row.format_rate))
        lines.append(
            (row.checkpoint, percent(row.pass_at_1), interval, *scores, tokens, percent(row.truncated_rate))
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(pad(cell, widths[i], left=i == 0) for i, cell in enumerate(line)) for line in lines]
    return "\n".join([title, text[0], "-" * len(text[0]), *text[1:]])


def pad(cell: str, width: int, *, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def percent(fraction: float | None) -> str:
    """38.3%, or a dash where it is unknown."""
    return "–" if fraction is None else f"{number(fraction)}%"


def number(fraction: float | None) -> str:
    """38.3: the same without its sign."""
    return "–" if fraction is None else f"{100 * fraction:.1f}"
