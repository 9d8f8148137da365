"""`chainforge plugins check`: the contract of a plugin's role, and what a reward says to real completions."""

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from chainforge.cli.complete import complete, plugin_names, reward_names, role_names
from chainforge.cli.project import Place
from chainforge.cli.roles import NAMES, as_role, find, title
from chainforge.cli.selected import FEW, Selected, all_choices, usual_prompts
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.config.yaml import parse_yaml
from chainforge.errors import ChainForgeError
from chainforge.jsonl import read_records
from chainforge.plugins import Entry, Plugins, load_plugins, plugin_settings
from chainforge.records import Prompt
from chainforge.reward_options import RewardOptions


@click.command("check")
@click.argument("name", shell_complete=complete(plugin_names))
@click.option(
    "--role",
    callback=as_role,
    metavar=NAMES,
    shell_complete=complete(role_names),
    help="Where a name has several.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting; for a reward without settings, a column.",
)
@click.option(
    "--prompts",
    type=Place(),
    help="JSONL of prompts to try a reward or a teacher on, instead of samples.",
)
@click.option("--on", type=Place(), help="JSONL of completions: what does the reward say to them?")
@click.option(
    "--against",
    metavar="OTHER",
    shell_complete=complete(reward_names),
    help="Another reward to compare with, under --on.",
)
@as_json_option
@click.pass_context
def check_plugin(
    ctx: click.Context,
    name: str,
    role: str | None,
    assignments: tuple[str, ...],
    prompts: Path | None,
    on: Path | None,
    against: str | None,
    as_json: bool,
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
    from chainforge.testing.contracts import CONTRACTS

    if as_json:
        if on:
            raise ChainForgeError("--on has no JSON form", "leave out --json, or --on")
    else:
        show(f"{title(entry.role)} {name}, from {entry.source}")
    with redirect_stdout(sys.stderr):  # a plugin may print, but standard output is ours
        findings = CONTRACTS[entry.role](entry, **arguments(plugins, entry, values(assignments), prompts))
    holds = all(finding.holds for finding in findings)
    if as_json:
        laws = [asdict(finding) for finding in findings]
        show_json({"name": name, "role": entry.role, "source": entry.source, "holds": holds, "laws": laws})
    else:
        show("\n".join(map(str, findings)))
    if on:
        report_on(plugins, entry, on, against)
    if not holds:
        ctx.exit(1)


def arguments(plugins: Plugins, entry: Entry, given: dict[str, Any], prompts: Path | None) -> dict[str, Any]:
    """What a role's contract takes."""
    asked = read_records(prompts, Prompt)[:FEW] if prompts else None
    choices = all_choices()
    if entry.role == "rewards" and not RewardOptions.of(entry.options).factory:
        return {"columns": given, "prompts": asked}
    settings = settings_of(entry, choices) | given
    try:
        plugin_settings(entry, settings)
    except ChainForgeError as error:
        raise ChainForgeError(error.problem, f"{error.fix}, or here: --set KEY=VALUE") from None
    if entry.role == "rewards":
        return {"settings": settings, "prompts": asked}
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
        found[key] = parse_yaml(text, f"--set {assignment!r}")
    return found


def report_on(plugins: Plugins, entry: Entry, path: Path, against: str | None) -> None:
    """Print what the reward, and another one, say to completions of a run."""
    from chainforge.testing.distribution import disagreements, distribution
    from chainforge.testing.readings import read_groups, score

    other = against or ("correct" if entry.name != "correct" else None)
    if other and not against and ("rewards", other) not in plugins.entries:
        other = None
    read = read_groups(path)
    names = [entry.name, *([other] if other else [])]
    choices = all_choices()
    own = {name: settings_of(plugins.pick("rewards", name), choices) for name in names}
    scores = score(plugins, names, read, own)
    show(f"\non {path}: {read.described}")
    show(distribution(entry.name, scores[entry.name]))
    if other:
        show("\n" + disagreements(entry.name, other, scores, read.pairs))
