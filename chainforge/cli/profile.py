"""`chainforge profile`: whole sets of settings."""

from pathlib import Path

import click

from chainforge.config.loading import read_params
from chainforge.errors import ChainForgeError
from chainforge.profiles import PROFILES, as_arguments, changed_by_hand, compose, names, use


@click.group()
def profile() -> None:
    """Whole sets of settings, from a laptop's to a cluster's."""


@profile.command("list")
def list_profiles() -> None:
    """List the profiles with the first line of each; * marks the active one."""
    active = read_params().get("profile") if Path("params.yaml").is_file() else None
    for name in names():
        first = (PROFILES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        click.echo(f"{'*' if name == active else ' '} {name:<24}{first}")


@profile.command("show")
@click.argument("name")
def show_profile(name: str) -> None:
    """Print the whole params.yaml that a profile stands for."""
    click.echo(compose(name), nl=False)


@profile.command("use")
@click.argument("name")
@click.option("--force", is_flag=True, help="Overwrite params.yaml even if it was edited by hand.")
def use_profile(name: str, force: bool) -> None:
    """Make a profile the active params.yaml."""
    if not force and (edited := changed_by_hand()):
        raise ChainForgeError(
            f"params.yaml was edited by hand: {', '.join(edited[:5])}",
            f"keep the edits in a profile of your own, or: chainforge profile use {name} --force",
        )
    use(name)
    click.echo(f"params.yaml is now profile {name}. Next: dvc repro")


@profile.command("args")
@click.argument("name")
def profile_arguments(name: str) -> None:
    """Print the -S flags that turn the active params.yaml into a profile, for `dvc exp run --queue`."""
    click.echo(" ".join(as_arguments(name)))
