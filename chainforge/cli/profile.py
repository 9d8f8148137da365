"""`chainforge profile`: whole sets of settings."""

from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from chainforge.cli.complete import complete, profile_names
from chainforge.cli.project import ProjectCommand
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.config.collector import collector_settings
from chainforge.config.loading import PARAMS, load_settings, read_params
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.config.verbs import VERBS
from chainforge.errors import ChainForgeError
from chainforge.project.graph import GRAPH, read_graph
from chainforge.project.profiles import (
    PROFILES,
    as_arguments,
    changed_by_hand,
    compose,
    edits,
    names,
    read_profile,
    shown,
    use,
)


@click.group()
def profile() -> None:
    """Whole sets of settings, from a laptop's to a cluster's."""


@profile.command("list")
def list_profiles() -> None:
    """List the profiles with the first line of each; * marks the active one."""
    active = read_params().get("profile") if Path("params.yaml").is_file() else None
    for name in names():
        try:
            first = read_profile(name).splitlines()[0].lstrip("# ")
        except ChainForgeError as error:
            first = f"cannot be used: {error.problem}"
        show(f"{'*' if name == active else ' '} {name:<24}{first}")


@profile.command("show")
@click.argument("name", shell_complete=complete(profile_names))
def show_profile(name: str) -> None:
    """Print the whole params.yaml that a profile stands for."""
    click.echo(compose(name), nl=False)


@profile.command("use")
@click.argument("name", shell_complete=complete(profile_names))
@click.option("--force", is_flag=True, help="Overwrite params.yaml even if it was edited by hand.")
def use_profile(name: str, force: bool) -> None:
    """Make a profile the active params.yaml."""
    check_settings(name)
    if not force and (edited := changed_by_hand()):
        raise ChainForgeError(
            f"params.yaml was edited by hand: {', '.join(edited[:5])}",
            f"keep the edits in a profile of your own, or: chainforge profile use {name} --force",
        )
    use(name)
    show(f"params.yaml is now profile {name}. Next: dvc repro")


@profile.command("args")
@click.argument("name", shell_complete=complete(profile_names))
def profile_arguments(name: str) -> None:
    """Print the -S flags that turn the active params.yaml into a profile, for `dvc exp run --queue`."""
    click.echo(" ".join(as_arguments(name)))


@profile.command("diff", cls=ProjectCommand)
@click.argument("name", required=False, shell_complete=complete(profile_names))
@as_json_option
def profile_diff(name: str | None, as_json: bool) -> None:
    """Print the settings in which params.yaml differs from a profile: NAME, or the one that it names."""
    name = name or str(read_params().get("profile"))
    found = list(edits(name))
    if as_json:
        changed = {key: {"profile": before, "params": now} for key, before, now in found}
        return show_json({"profile": name, "changed": changed})
    for key, before, now in found:
        show(f"{key}: {shown(before)} -> {shown(now)}")
    if not found:
        show(f"params.yaml is profile {name}, unchanged")


def check_settings(name: str) -> None:
    """Raise ChainForgeError unless every step of the graph here can take its settings from that profile."""
    text, graph = compose(name), GRAPH.resolve()
    if not graph.is_file():
        return
    try:
        load_all(text, graph)
    except ChainForgeError as error:
        raise ChainForgeError(
            f"profile {name}: {error.problem}", f"correct it in {PROFILES / name}.yaml; nothing was changed"
        ) from None


def load_all(text: str, graph: Path) -> None:
    """Every step's settings from a params.yaml that is not written yet."""
    with TemporaryDirectory() as folder, chdir(folder):
        PARAMS.write_text(text, encoding="utf-8")
        GRAPH.symlink_to(graph)
        for section, kind in (("run", RunSettings), ("runtime", RuntimeSettings)):
            load_settings(kind, section)
        collector_settings()
        for step in read_graph().values():
            if step.verb in VERBS:
                load_settings(VERBS[step.verb], *step.sections)
