"""Figures as SVG text: byte-stable, transparent, readable on white and on black."""

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from chainforge.report.evaluations import Curve
from chainforge.report.results import StageRow

INK, GRID, BLUE, ORANGE, GREEN = "#717a85", "#8b949f", "#3c82dc", "#cf6a12", "#2f9459"
THEMED = {INK: "--ink-2", GRID: "--line", BLUE: "--s1", ORANGE: "--s2", GREEN: "--s3"}  # colours of the page
MAX_POINTS = 400  # drawn per line; a longer run is thinned, after smoothing
MAX_DOTS = 300  # raw values drawn beneath it
ROUND = (1, 2, 5, 10)  # what ticks are multiples of
PX = 1 / 72  # SVG units are points: one of these is a CSS pixel of the page

STYLE: Any = {  # keys and values as in a matplotlibrc
    "svg.fonttype": "none", "svg.hashsalt": "chainforge", "text.parse_math": False,
    "font.family": "DejaVu Sans", "font.size": 11, "axes.titlesize": 12, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.titlepad": 10, "axes.labelsize": 11, "legend.frameon": False,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.edgecolor": GRID, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID, "grid.alpha": 0.3, "grid.linewidth": 0.7,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "lines.linewidth": 2, "lines.solid_capstyle": "round", "axes.formatter.use_mathtext": False,
    "figure.constrained_layout.use": True, "legend.fontsize": 10, "axes.unicode_minus": True,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One curve of a panel: smoothed over its raw points, or drawn as it is. "" stays out of the legend."""

    label: str
    colour: str
    steps: Sequence[float]
    values: Sequence[float]
    smooth: bool = True


Panel = tuple[str, Sequence[Line], bool]  # title, curves, whether their values are shares


def line(curve: Curve, column: str, label: str, colour: str, *, smooth: bool = True) -> Line:
    return Line(label, colour, curve.columns["step"], curve.columns[column], smooth)


def panel(
    lines: Sequence[Line], title: str, *, percent: bool = False, width: int = 380, height: int = 250
) -> str:
    """One small figure of curves over steps."""
    with plain_style():
        figure = Figure(figsize=(width * PX, height * PX))
        draw_lines(figure.add_subplot(), lines, title, percent=percent)
        return to_svg(figure)


def accuracy_panel(
    rows: Sequence[StageRow], names: Mapping[str, str], title: str, *, width: int = 460
) -> str:
    """pass@1 of each checkpoint, recipe order from the top, with its 95% interval."""
    with plain_style():
        figure = Figure(figsize=(width * PX, (85 + 32 * len(rows)) * PX))
        draw_accuracy(figure.add_subplot(), rows, names, title)
        return to_svg(figure)


def overview(run: str, panels: Sequence[Panel], rows: Sequence[StageRow], names: Mapping[str, str]) -> str:
    """The figure of the README: the panels of a run side by side, then held-out accuracy."""
    with plain_style():
        widths = [1.0] * len(panels) + [1.3] * bool(rows) or [1.0]
        figure = Figure(figsize=(350 * sum(widths) * PX, 290 * PX))
        axes = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
        for ax, (title, lines, percent) in zip(axes, panels, strict=False):
            draw_lines(ax, lines, title, percent=percent)
            ax.set_xlabel(f"step of {run}")
        if rows:
            draw_accuracy(axes[-1], rows, names, "Held-out pass@1, 95% interval")
            axes[-1].set_xlabel(rows[0].bench)
        if not panels and not rows:
            axes[0].set_axis_off()
            axes[0].text(0.5, 0.5, "nothing to draw: no curve, no evaluation", ha="center")
        return to_svg(figure)


def draw_lines(ax: Axes, lines: Sequence[Line], title: str, *, percent: bool) -> None:
    for item in lines:
        smoothed = moving_average(item.values) if item.smooth else list(item.values)
        if item.smooth:
            x, y = thin(item.steps, item.values, MAX_DOTS)
            ax.plot(x, y, "o", color=item.colour, alpha=0.32, markersize=3, markeredgewidth=0)
        ax.plot(*thin(item.steps, smoothed), color=item.colour, label=item.label or None)
    ax.set_title(title)
    ax.set_xlabel("step")
    ax.margins(x=0.02)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=ROUND))
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    if percent:
        ax.yaxis.set_major_formatter(as_percent)
    if any(item.label for item in lines):
        ax.legend(loc="best", handlelength=1.4)


def draw_accuracy(ax: Axes, rows: Sequence[StageRow], names: Mapping[str, str], title: str) -> None:
    for place, row in enumerate(rows):
        if row.ci95_lo is not None and row.ci95_hi is not None:
            ax.plot([row.ci95_lo, row.ci95_hi], [place, place], color=BLUE, alpha=0.45, linewidth=6)
        ax.plot([row.pass_at_1], [place], "o", color=BLUE, markersize=7)
        edge = row.ci95_hi if row.ci95_hi is not None else row.pass_at_1
        ax.annotate(
            f"{row.pass_at_1:.1%}", (edge, place), (7, 0), textcoords="offset points", va="center", color=INK
        )
    ax.set_title(title)
    ax.set_yticks(range(len(rows)), [names.get(row.checkpoint, row.checkpoint) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    top = max((row.ci95_hi or row.pass_at_1 for row in rows), default=1.0)
    ax.set_xlim(0, min(max(top * 1.22, 0.1), 1.15))
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    ax.xaxis.set_major_formatter(as_percent)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)


def as_percent(fraction: float, _place: float) -> str:
    return f"{100 * fraction:g}%"


def moving_average(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of about a twelfth of the run, cut short at both ends; skips NaN."""
    reach = max(1, len(values) // 24)
    smoothed = []
    for i in range(len(values)):
        window = [value for value in values[max(i - reach, 0) : i + reach + 1] if not math.isnan(value)]
        smoothed.append(math.fsum(window) / len(window) if window else math.nan)
    return smoothed


def thin(x: Sequence[float], y: Sequence[float], most: int = MAX_POINTS) -> tuple[list[float], list[float]]:
    """Every n-th point that has a value, and always the last."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if not math.isnan(b)]
    stride = max(1, math.ceil(len(points) / most))
    kept = points[::-1][::stride][::-1]
    return [a for a, _ in kept], [b for _, b in kept]


@contextmanager
def plain_style() -> Iterator[None]:
    """Our style and nothing of the user's own matplotlibrc, which would change the bytes."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # for measuring only: the viewer supplies the font
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def to_svg(figure: Figure) -> str:
    """SVG text that depends on what is drawn and on nothing else."""
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", metadata=nothing)
    text = re.sub(r"<!DOCTYPE.*?>\s*|<metadata>.*?</metadata>\s*", "", buffer.getvalue(), flags=re.DOTALL)
    text = re.sub(
        r'="[^"]*"', lambda value: re.sub(r"(\.\d\d)\d{3,}", r"\1", value[0]), text
    )  # 0.01 px is enough
    text = text.replace("'DejaVu Sans'", "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif")
    return "\n".join(part.rstrip() for part in text.splitlines()) + "\n"


def inline(svg: str, name: str, description: str) -> str:
    """The figure for use inside a page: ids of its own, the page's colours, a name for screen readers.

    `name` must be an identifier, unique in the page.
    """
    head, _, body = svg[svg.index("<svg") :].partition(">")
    head = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", head)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body).replace('xlink:href="#', f'href="#{name}-')
    for colour, variable in THEMED.items():
        body = body.replace(colour, f"var({variable})")
    return f'{head} role="img" aria-label="{escape(description)}">{body}'
