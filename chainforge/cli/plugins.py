"""`chainforge plugins`: what params.yaml can name."""

import json

import click

from chainforge.plugins import ROLES, load_plugins


@click.group()
def plugins() -> None:
    """Rewards, prompt sources, teachers and student models."""


@plugins.command("list")
@click.option("--role", type=click.Choice(ROLES), help="Only this role.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_plugins(role: str | None, as_json: bool) -> None:
    """List what can be named in params.yaml, and where it comes from."""
    found = load_plugins()
    entries = [e for e in found.entries.values() if role in (None, e.role)]
    rows = [
        {"role": e.role, "name": e.name, "source": e.source}
        for e in sorted(entries, key=lambda e: (e.role, e.name))
    ]
    if as_json:
        click.echo(json.dumps({"plugins": rows, "broken": found.broken}, indent=2, sort_keys=True))
        return
    for row in rows:
        click.echo(f"{row['role']:<16}{row['name']:<28}{row['source']}")
    for source, reason in sorted(found.broken.items()):
        click.echo(f"does not load: {source}: {reason}", err=True)
