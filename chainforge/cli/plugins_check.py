"""`chainforge plugins check`: the contract of a plugin's role, and what a reward says to real completions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from chainforge.cli.roles import NAMES, as_role, find, title
from chainforge.cli.selected import FEW, Selected, selected, usual_prompts
from chainforge.errors import ChainForgeError
from chainforge.jsonl import read_records
from chainforge.plugins import Entry, Plugins, load_plugins, plugin_settings
from chainforge.records import Prompt


@click.command("check")
@click.argument("name")
@click.option("--role", callback=as_role, metavar=NAMES, help="Where a name has several.")
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting; for a reward, a column."
)
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    help="JSONL of prompts to try a reward or a teacher on, instead of samples.",
)
@click.option(
    "--on", type=click.Path(path_type=Path), help="JSONL of completions: what does the reward say to them?"
)
@click.option("--against", metavar="OTHER", help="Another reward to compare with, under --on.")
@click.pass_context
def check_plugin(
    ctx: click.Context,
    name: str,
    role: str | None,
    assignments: tuple[str, ...],
    prompts: Path | None,
    on: Path | None,
    against: str | None,
) -> None:
    """Try the contract of its role on a plugin: a line per law, exit code 1 if one is broken.

    Settings are those of the first step in dvc.yaml that selects the plugin; --set changes them.
    """
    plugins = load_plugins()
    entry = find(plugins, name, role)
    if on and entry.role != "rewards":
        raise ChainForgeError(f"--on is for rewards, and {name!r} is a {title(entry.role)}", "leave it out")
    if against and not on:
        raise ChainForgeError("--against compares on completions", "name a file of them: --on FILE")
    click.echo(f"{title(entry.role)} {name}, from {entry.source}")
    from chainforge.testing.contracts import CONTRACTS

    findings = CONTRACTS[entry.role](entry, **arguments(plugins, entry, values(assignments), prompts))
    for finding in findings:
        click.echo(str(finding))
    if on:
        report_on(plugins, entry, on, against)
    if not all(finding.holds for finding in findings):
        ctx.exit(1)


def arguments(plugins: Plugins, entry: Entry, given: dict[str, Any], prompts: Path | None) -> dict[str, Any]:
    """What a role's contract takes."""
    asked = read_records(prompts, Prompt)[:FEW] if prompts else None
    if entry.role == "rewards":
        return {"columns": given, "prompts": asked}
    choices = selected()
    settings = settings_of(entry, choices) | given
    try:
        plugin_settings(entry, settings)
    except ChainForgeError as error:
        raise ChainForgeError(error.problem, f"{error.fix}, or here: --set KEY=VALUE") from None
    if entry.role != "teachers":
        return {"settings": settings}
    return {"settings": settings, "prompts": asked or usual_prompts(plugins, choices, entry)}


def settings_of(entry: Entry, choices: list[Selected]) -> dict[str, Any]:
    """Those of the first step that selects it; none if nobody does."""
    mine: Mapping[str, Any] = next(
        (c.settings for c in choices if (c.role, c.name) == (entry.role, entry.name)), {}
    )
    return dict(mine)


def values(assignments: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE as YAML has them: `-S` of `dvc exp run` reads them alike."""
    found: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ChainForgeError(f"--set {assignment!r} has no value", "write --set KEY=VALUE")
        try:
            found[key] = YAML(typ="safe", pure=True).load(text)
        except YAMLError as error:
            raise ChainForgeError(
                f"--set {assignment!r}: {error}", "write the value as params.yaml would have it"
            ) from None
    return found


def report_on(plugins: Plugins, entry: Entry, path: Path, against: str | None) -> None:
    """Print what the reward, and another one, say to completions of a run."""
    from chainforge.testing.distribution import disagreements, distribution
    from chainforge.testing.readings import read_groups, score

    other = against or ("correct" if entry.name != "correct" else None)
    if other and not against and ("rewards", other) not in plugins.entries:
        other = None
    read = read_groups(path)
    scores = score(plugins, [entry.name, *([other] if other else [])], read)
    click.echo(f"\non {path}: {read.described}")
    click.echo(distribution(entry.name, scores[entry.name]))
    if other:
        click.echo("\n" + disagreements(entry.name, other, scores, read.pairs))
