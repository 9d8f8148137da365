"""A frame as one HTML page that needs no network: texts of models in it are shown, never obeyed."""

from pathlib import Path

from markupsafe import Markup

from chainforge.defuse import defuse
from chainforge.rendering import content_policy, page_templates
from chainforge.watching.completions import read_asked
from chainforge.watching.curves import Curve, thin
from chainforge.watching.run import Run
from chainforge.watching.words import clock, heading, pace_words, reward_words, short, step_lines

HERE = Path(__file__).parent
SCRIPT = (HERE / "poll.js").read_text(encoding="utf-8")
POLICY = content_policy(SCRIPT, "connect-src 'self'")  # it asks this server again
POINTS = 300  # of a curve
MARGIN = 4  # of 100: room for the width of a line


def render_page(run: Run, every: float | None) -> str:
    """The whole page; with `every`, it asks for itself again after so many seconds."""
    templates = page_templates(HERE, clock, points, reward_words, short)
    page = templates.get_template("page.html.j2").render(
        run=run,
        heading=heading(run),
        lines=step_lines(run),
        focus=run.focus,
        pace=pace_words(run.focus, run.now) if run.focus else "",
        asked=read_asked(run.focus.groups) if run.focus else [],
        every=every,
        script=Markup(SCRIPT),
        policy=POLICY,
    )
    return defuse(page)


def points(curve: Curve) -> str:
    """The curve from left to right in a square of 100, low values below."""
    values = thin(curve.values, POINTS)
    low, high = min(values), max(values)
    scale = (100 - 2 * MARGIN) / (high - low) if high > low else 0.0
    across = 100 / max(1, len(values) - 1)
    level = [50.0 if high <= low else 100 - MARGIN - (value - low) * scale for value in values]
    if len(level) == 1:
        level *= 2
        across = 100
    return " ".join(f"{place * across:.1f},{y:.1f}" for place, y in enumerate(level))
