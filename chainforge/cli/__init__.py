"""The command line: profiles, plugins, results. The steps themselves run under `dvc repro`."""

from pathlib import Path

import click

from chainforge import __version__
from chainforge.cli.card import card
from chainforge.cli.chance import chance
from chainforge.cli.chat import chat
from chainforge.cli.collect import collect
from chainforge.cli.compare import compare
from chainforge.cli.completions import completions
from chainforge.cli.doctor import doctor
from chainforge.cli.evaluate import evaluate
from chainforge.cli.experiments import experiments
from chainforge.cli.gc import gc
from chainforge.cli.group import Group
from chainforge.cli.init import init
from chainforge.cli.memory import memory
from chainforge.cli.mock_teacher import mock_teacher
from chainforge.cli.plugins import plugins
from chainforge.cli.preflight import preflight
from chainforge.cli.profile import profile
from chainforge.cli.project import enter_project
from chainforge.cli.publish import publish
from chainforge.cli.repro import repro
from chainforge.cli.results import results, settings
from chainforge.cli.seeds import seeds
from chainforge.cli.timings import timings
from chainforge.cli.trace import trace
from chainforge.cli.upgrade import upgrade
from chainforge.cli.watch import watch


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="chainforge")
@click.option(
    "-C",
    "--project",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The project's folder, or one inside of it; this one.",
)
@click.pass_context
def cli(ctx: click.Context, project: Path | None) -> None:
    """ChainForge: a base model to a reasoning model, as one reproducible graph.

    Run the recipe with `dvc repro`, one change with `dvc exp run -S grpo.kl_coeff=0.05`.
    """
    enter_project(ctx, project)


for command in (
    init,
    upgrade,
    profile,
    plugins,
    collect,
    evaluate,
    chat,
    card,
    publish,
    repro,
    results,
    doctor,
    experiments,
    seeds,
    compare,
    chance,
    trace,
    completions,
    gc,
    memory,
    preflight,
    timings,
    watch,
    settings,
    mock_teacher,
):
    cli.add_command(command)
