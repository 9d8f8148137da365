"""The picture of the GRPO benchmark: a bar per side, made of its phases."""

from collections.abc import Mapping, Sequence
from typing import Any

from grpo_work import PHASES
from matplotlib.figure import Figure

from chainforge.report.figures import BLUE, GREEN, GRID, INK, ORANGE, PX, plain_style, to_svg

COLOURS = dict(zip(PHASES, (BLUE, GRID, ORANGE, GREEN, INK), strict=True))


def figure(matches: Sequence[Mapping[str, Any]]) -> str:
    """SVG text: CPU seconds of a step, a panel per match; the ratio to the first side at the end of a bar."""
    with plain_style():
        heights = [len(match["sides"]) + 1.2 for match in matches]
        made = Figure(figsize=(760 * PX, (34 * sum(heights) + 40) * PX))
        panels = made.subplots(len(matches), 1, squeeze=False, height_ratios=heights)[:, 0]
        for ax, match in zip(panels, matches, strict=True):
            names = list(match["sides"])
            steps = [match["sides"][name]["cpu_s"]["step"] for name in names]
            left = [0.0] * len(names)
            for phase in PHASES:
                widths = [match["sides"][name]["cpu_s"][phase] for name in names]
                if max(widths) > 0.005 * max(steps):
                    ax.barh(names, widths, left=left, color=COLOURS[phase], label=phase, height=0.6)
                left = [a + b for a, b in zip(left, widths, strict=True)]
            for place, taken in enumerate(steps):
                ratio = f"{taken:.3g} s" + (f", {taken / steps[0]:.1f} ×" if place else "")
                ax.annotate(ratio, (taken, place), (5, 0), textcoords="offset points", va="center", color=INK)
            ax.set_title(f"{match['title']}, {match['tokens']:,} tokens, {match['precision']}")
            ax.set_xlim(0, 1.2 * max(steps))
            ax.invert_yaxis()
            ax.grid(visible=False, axis="y")
        panels[-1].set_xlabel("CPU seconds of one step")
        handles = dict(
            (label, handle)
            for ax in panels
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        )
        made.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
        return to_svg(made)
