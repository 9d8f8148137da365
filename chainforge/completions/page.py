"""One HTML page to look through completions: it opens without a network, and runs its own script alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup

from chainforge.completions.kept import Row
from chainforge.completions.problems import questions
from chainforge.completions.rows import Found
from chainforge.defuse import defuse
from chainforge.rendering import content_policy, page_templates

HERE = Path(__file__).parent
FIELDS = ("iteration", "index", "prompt_id", "tokens", "finish", "total", "advantage", "kept", "right")


def render_page(found: Found, limit: int) -> tuple[str, int, int]:
    """(the page, completions in it, completions there are): at most `limit`, spread evenly over all."""
    total = sum(1 for _ in found.rows())
    rows = list(_spread(found.rows(), total, limit))
    script = (HERE / "page.js").read_text(encoding="utf-8")
    template = page_templates(HERE).get_template("page.html.j2")
    page = template.render(
        policy=content_policy(script),
        script=Markup(script),
        data=Markup(as_data(rows, questions())),
        shown=len(rows),
        total=total,
        reward=found.reward,
        notes=[defuse(note) for note in found.notes],
    )
    return page, len(rows), total


def _spread(rows: Iterator[Row], total: int, limit: int) -> Iterator[Row]:
    """`limit` of the rows, or all of them."""
    share = min(1.0, limit / total)
    yield from (row for place, row in enumerate(rows) if int((place + 1) * share) > int(place * share))


def as_data(rows: list[Row], asked: dict[str, tuple[str, str | None]]) -> str:
    """JSON that no text in it can end: it has no <, and nothing that a reader would obey unseen."""
    steps = list(dict.fromkeys(row["step"] for row in rows))
    rewards = list(dict.fromkeys(name for row in rows for name in row["rewards"]))
    ids = dict.fromkeys(row["prompt_id"] for row in rows)
    value = {
        "steps": steps,
        "rewards": [defuse(name) for name in rewards],
        "questions": {defuse(name): _shown(asked[name]) for name in ids if name in asked},
        "rows": [
            [
                steps.index(row["step"]),
                row["kind"],
                defuse(row["text"]),
                [row["rewards"].get(name) for name in rewards],
                *(_shown(row[field]) for field in FIELDS),
            ]
            for row in rows
        ],
    }
    packed = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return packed.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _shown(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_shown(part) for part in value]
    return defuse(value) if isinstance(value, str) else value
