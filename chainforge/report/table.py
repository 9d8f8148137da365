"""The stage table for a terminal."""

from collections.abc import Sequence

from chainforge.report.results import StageRow

HEAD: tuple[str, ...] = (
    "checkpoint", "bench", "n", "pass@1", "95% interval", "greedy", "maj@k", "pass@k", "lenient", "format",
    "tokens", "truncated",
)  # fmt: skip


def format_table(rows: Sequence[StageRow]) -> str:
    """A line per row, without a line break at the end."""
    lines = [HEAD]
    for row in rows:
        interval = f"[{percent(row.ci95_lo)}, {percent(row.ci95_hi)}]" if row.ci95_lo is not None else "–"
        tokens = "–" if row.mean_tokens is None else f"{row.mean_tokens:.1f}"
        scores = map(percent, (row.greedy, row.maj_at_k, row.pass_at_k, row.lenient, row.format_rate))
        start = (row.checkpoint, row.bench, f"{row.n:,}", percent(row.pass_at_1), interval)
        lines.append((*start, *scores, tokens, percent(row.truncated_rate)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(pad(cell, widths[i], left=i < 2) for i, cell in enumerate(line)) for line in lines]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def pad(cell: str, width: int, *, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def percent(fraction: float | None) -> str:
    """38.3%, or a dash where it is unknown."""
    return "–" if fraction is None else f"{100 * fraction:.1f}%"
