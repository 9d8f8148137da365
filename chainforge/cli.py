"""The command line: profiles, plugins, results. The steps themselves run under `dvc repro`."""

import json
from pathlib import Path

import click

from chainforge.config.loading import read_params
from chainforge.errors import ChainForgeError
from chainforge.plugins import ROLES, load_plugins
from chainforge.profiles import PROFILES, as_arguments, changed_by_hand, compose, names, use


class Group(click.Group):
    """Shows a ChainForgeError as two lines and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ChainForgeError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """ChainForge: a base model to a reasoning model, as one reproducible graph.

    Run the recipe with `dvc repro`, one change with `dvc exp run -S grpo.kl_coeff=0.05`.
    """


@cli.group()
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


@cli.group()
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


@cli.command()
def results() -> None:
    """Print every checkpoint's held-out results, and where the report is."""
    from chainforge.report.results import format_table, stage_rows

    path = Path("reports/stages.json")
    if not path.is_file():
        raise ChainForgeError("there are no results yet", "run: dvc repro")
    click.echo(format_table(stage_rows(path)))
    click.echo(f"\nThe report: {Path('reports/index.html').resolve()}")


@cli.command()
def settings() -> None:
    """Print docs/settings.md: every setting with its type, default and meaning."""
    from chainforge.settings_page import settings_page

    click.echo(settings_page(), nl=False)


@cli.command()
def timings() -> None:
    """Print how long each step took when it last ran here."""
    records = [
        json.loads(path.read_text()) for path in Path("logs").rglob("*.json") if "not-finite" not in path.name
    ]
    for record in records:
        click.echo(f"{record['step']:<48}{record['wall_s']:>9.1f} s{record['peak_mb']:>8} MB")
    click.echo(f"{'all':<48}{sum(r['wall_s'] for r in records):>9.1f} s")
