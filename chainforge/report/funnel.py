"""What a selection step dropped and kept: rows of a table, or a picture of what each test left."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chainforge.filtering.funnel import sort_reasons
from chainforge.report.evaluations import Funnel
from chainforge.report.figures import BLUE, GREEN, INK, ORANGE, PX, plain_style, to_svg

UNEXPLAINED = "not accounted for"


def funnel_rows(funnel: Funnel) -> list[tuple[str, int, str]]:
    """Label, count and kind of each bar; what the counts leave unexplained gets a bar of its own."""
    dropped = sorted(funnel.dropped.items(), key=lambda item: (-item[1], item[0]))
    rows = [("read", funnel.read, "read"), *((reason, n, "dropped") for reason, n in dropped)]
    rest = funnel.read - funnel.kept - sum(funnel.dropped.values())
    if rest > 0:
        rows.append(("not accounted for", rest, "dropped"))
    return [*rows, ("kept", funnel.kept, "kept")]


def is_sequence(funnel: Funnel) -> bool:
    """Whether the step tests one thing after the other, so that there is something left after each."""
    return funnel.name.startswith("filter_")


def steps(funnel: Funnel) -> list[tuple[str, int, int]]:
    """(test, dropped, left after it) in the order of the tests, for those that dropped something."""
    dropped = {
        reason: funnel.dropped[reason] for reason in sort_reasons(funnel.dropped) if funnel.dropped[reason]
    }
    if (rest := funnel.read - funnel.kept - sum(dropped.values())) > 0:
        dropped[UNEXPLAINED] = rest
    left, rows = funnel.read, []
    for reason, count in dropped.items():
        left -= count
        rows.append((reason, count, left))
    return rows


def in_words(funnel: Funnel) -> str:
    """The same as text."""
    tests = (f"{reason} dropped {count:,}" for reason, count, _ in steps(funnel))
    return "; ".join([f"{funnel.read:,} read", *tests, f"{funnel.kept:,} kept"]) + "."


def funnel_panel(funnel: Funnel, *, width: int = 460) -> str:
    """Bars from the top: what was read, what each test left and took away, what was kept."""
    rows = steps(funnel)
    with plain_style():
        figure = Figure(figsize=(width * PX, (60 + 26 * (len(rows) + 2)) * PX))
        draw(figure.add_subplot(), funnel, rows)
        return to_svg(figure)


def draw(ax: Axes, funnel: Funnel, rows: list[tuple[str, int, int]]) -> None:
    bars = [("read", 0, funnel.read, BLUE), *((r, n, left, BLUE) for r, n, left in rows)]
    bars.append(("kept", 0, funnel.kept, GREEN))
    for place, (_, dropped, left, colour) in enumerate(bars):
        ax.barh(place, left, color=colour, height=0.62)
        ax.barh(place, dropped, left=left, color=ORANGE, height=0.62)
        said = f"{left:,}  (−{dropped:,})" if dropped else f"{left:,}"
        ax.annotate(said, (left + dropped, place), (6, 0), textcoords="offset points", va="center", color=INK)
    ax.set_title(funnel.name)
    ax.set_yticks(range(len(bars)), [label for label, *_ in bars])
    ax.set_ylim(len(bars) - 0.5, -0.5)
    ax.set_xlim(0, 1.42 * max(funnel.read, funnel.kept, 1))
    ax.set_xticks([])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False)
    ax.spines["bottom"].set_visible(False)
