"""`chainforge plugins list`: every name, where it comes from, and which steps use it."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from chainforge.cli.complete import complete, role_names
from chainforge.cli.roles import NAMES, as_role, title
from chainforge.cli.selected import Selected, all_choices, users
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.errors import ChainForgeError
from chainforge.plugins import Entry, load_plugins
from chainforge.project.lock_entry import origin

WIDTH = 100
COLUMNS = ("NAME", "ROLE", "FROM", "USED BY")


@click.command("list")
@click.option(
    "--role", callback=as_role, metavar=NAMES, shell_complete=complete(role_names), help="Only this role."
)
@as_json_option
def list_plugins(role: str | None, as_json: bool) -> None:
    """List what can be named in params.yaml, where it comes from, and which steps use it."""
    found, choices, unknown_use = load_plugins(), [], ""
    try:
        choices = all_choices()
    except ChainForgeError as error:
        unknown_use = f"which steps use them is not known: {error}"
    entries = sorted(found.entries.values(), key=lambda e: (e.role, e.name))
    rows = [describe(e, choices) for e in entries if role in (None, e.role)]
    missing = sorted(
        {
            (title(c.role), c.name): ", ".join(users(choices, c.role, c.name))
            for c in choices
            if (c.role, c.name) not in found.entries and role in (None, c.role)
        }.items()
    )
    if as_json:
        absent = [{"role": kind, "name": name, "used_by": use} for (kind, name), use in missing]
        return show_json({"plugins": rows, "broken": found.broken, "missing": absent})
    show("\n".join(table(rows)))
    for source, reason in sorted(found.broken.items()):
        show(f"does not load: {source}: {reason}")
    for (kind, name), use in missing:
        show(f"does not exist: {kind} {name}, named by {use}")
    if unknown_use:
        show(unknown_use, err=True)


def describe(entry: Entry, choices: list[Selected]) -> dict[str, Any]:
    """One plugin for programs; `version` is null for a file of the project."""
    place = origin(entry)
    return {
        "name": entry.name,
        "role": entry.role,
        "version": place.get("version"),
        "from": place.get("source") or place["distribution"],
        "source": entry.source + (f", instead of {entry.instead_of}" if entry.instead_of else ""),
        "used_by": users(choices, entry.role, entry.name),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Aligned lines; the steps take what is left of the width, on several lines if they must."""
    cells = [(r["name"], title(r["role"]), r["source"]) for r in rows]
    widths = [max(map(len, column)) + 2 for column in zip(COLUMNS, *cells, strict=False)]
    indent = sum(widths[:3])
    yield "".join(map(str.ljust, COLUMNS, [*widths, 0])).rstrip()
    for cell, row in zip(cells, rows, strict=True):
        left = "".join(map(str.ljust, cell, widths))
        steps = textwrap.wrap(
            ", ".join(row["used_by"]), max(24, WIDTH - indent), break_long_words=False, break_on_hyphens=False
        )
        yield (left + (steps[0] if steps else "-")).rstrip()
        yield from (" " * indent + more for more in steps[1:])
