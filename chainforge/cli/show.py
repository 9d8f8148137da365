"""What a command prints: text that nobody's characters can take over, or one JSON object."""

import json
from collections.abc import Mapping
from typing import Any

import click

from chainforge.defuse import defuse

as_json_option = click.option(
    "--json", "as_json", is_flag=True, help="For programs: one JSON object, see docs/experiments.md."
)


def show(text: str, *, err: bool = False) -> None:
    """Print lines for a person."""
    click.echo(defuse(text), err=err)


def show_json(value: Mapping[str, Any]) -> None:
    """Print one object, in ASCII; what JSON has no form for is its text."""
    click.echo(json.dumps(value, indent=2, default=str))
