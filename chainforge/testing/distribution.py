"""What a reward says to many completions, and where two rewards disagree, as text."""

import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, pstdev, quantiles

from chainforge.records import Prompt

BINS = 10
BAR = 40  # characters of the longest bar
SHOWN = 3  # disagreements
WIDTH = 100
LONGEST = 300  # characters of a completion that are shown

Values = Sequence[float | None]


def distribution(name: str, values: Values) -> str:
    """Count, mean, spread and a histogram."""
    known = sorted(value for value in values if value is not None)
    none = f"None {1 - len(known) / len(values):.1%}"
    if not known:
        return f"{name}: n {len(values):,}, {none}: it applies to none of them"
    low, middle, high = quantiles(known, n=4, method="inclusive") if len(known) > 1 else known * 3
    lines = [
        f"{name}: n {len(values):,}, {none}, mean {fmean(known):.4g}, sd {pstdev(known):.4g}",
        f"  min {known[0]:.4g}, quartiles {low:.4g} {middle:.4g} {high:.4g}, max {known[-1]:.4g}",
    ]
    return "\n".join([*lines, *histogram(known)])


def histogram(known: Sequence[float]) -> Iterator[str]:
    """A bar for each value if there are few, else for each tenth of the range."""
    distinct = sorted(set(known))
    if len(distinct) <= BINS:
        bars = [(f"{value:.4g}", known.count(value)) for value in distinct]
    else:
        low, width = known[0], (known[-1] - known[0]) / BINS
        bins = [min(int((value - low) / width), BINS - 1) for value in known]
        edges = [f"{low + i * width:.4g}" for i in range(BINS + 1)]
        bars = [(f"{edges[i]} to {edges[i + 1]}", bins.count(i)) for i in range(BINS)]
    most, margin = max(count for _, count in bars), max(len(label) for label, _ in bars)
    for label, count in bars:
        bar = "#" * max(round(BAR * count / most), count > 0)
        yield f"  {label:>{margin}} |{bar:<{BAR}} {count:,}"


def disagreements(
    name: str, other: str, scores: Mapping[str, Values], pairs: Sequence[tuple[Prompt, str]]
) -> str:
    """Counts of high and low, the correlation, and the completions on which two rewards differ most.

    High is the upper half of a reward's own range on these completions.
    """
    both = [
        (i, a, b)
        for i, (a, b) in enumerate(zip(scores[name], scores[other], strict=True))
        if a is not None and b is not None
    ]
    if not both:
        return f"{name} and {other} apply to no completion both"
    mine, others = scale([a for _, a, _ in both]), scale([b for _, _, b in both])
    cell = {(x, y): 0 for x in (True, False) for y in (True, False)}
    for a, b in zip(mine, others, strict=True):
        cell[a >= 0.5, b >= 0.5] += 1
    width = max(len(f"{name} high"), len(f"{other} high")) + 2
    lines = [
        f"{name} against {other}: both apply to {len(both):,} completions, {correlation(mine, others)}",
        f"{'':<{width}}{f'{other} high':>{width}}{f'{other} low':>{width}}",
        *(
            f"{f'{name} {label}':<{width}}{cell[side, True]:>{width},}{cell[side, False]:>{width},}"
            for label, side in (("high", True), ("low", False))
        ),
    ]
    gaps = sorted(
        ((abs(a - b), i) for (i, _, _), a, b in zip(both, mine, others, strict=True)),
        key=lambda gap: (-gap[0], gap[1]),
    )
    largest: dict[str, int] = {}  # one completion per prompt
    for gap, i in gaps:
        if gap > 0 and len(largest) < SHOWN:
            largest.setdefault(pairs[i][0].id, i)
    for i in largest.values():
        prompt, text = pairs[i]
        lines.append(f"\n{name} {scores[name][i]:.4g}, {other} {scores[other][i]:.4g}: {prompt.id}")
        for part in (prompt.messages[-1]["content"] if prompt.messages else "", text):
            lines += textwrap.wrap(shorten(part), WIDTH, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines)


def scale(values: Sequence[float]) -> list[float]:
    """From 0 to 1 over their own range; a constant is all 1 if it is positive, else all 0."""
    low, high = min(values), max(values)
    return [(v - low) / (high - low) if high > low else float(v > 0) for v in values]


def correlation(a: Sequence[float], b: Sequence[float]) -> str:
    """Pearson's, in words."""
    try:
        return f"correlation {statistics.correlation(a, b):.2f}"
    except statistics.StatisticsError:
        return "no correlation, one of them is constant"


def shorten(text: str) -> str:
    """One line of printable text, its middle left out if it is long."""
    line = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[:half]} … {line[-half:]}"
