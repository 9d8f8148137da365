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

COMMANDS: dict[str, dict[click.Command, str]] = {
    "A project": {
        init: "Make a project of your own.",
        upgrade: "Show, or take, what a newer ChainForge changes in it.",
        profile: "Whole sets of settings, from a laptop's to a cluster's.",
        plugins: "Rewards, prompt sources, teachers, student models.",
        settings: "Every setting with its type, default and meaning.",
    },
    "Before a run": {
        preflight: "Time, memory and mistakes, from a small try of each step.",
        memory: "What training a profile's model needs, by arithmetic.",
        mock_teacher: "A teacher's API on this machine, to rehearse with.",
    },
    "A run": {
        repro: "Run what has changed: `dvc repro`, sooner.",
        collect: "Ask a teacher for chains of thought, outside of the graph.",
        seeds: "Run the recipe once per seed.",
        watch: "Steps, curves and completions while it runs.",
        timings: "How long each step took.",
        gc: "Remove resume folders that are done with.",
    },
    "What came of it": {
        results: "The held-out results of every checkpoint.",
        doctor: "What is wrong with the run, and the setting to change.",
        compare: "What changed between two runs, and what that did.",
        experiments: "Every experiment, by what differs.",
        chance: "Differences of twins and of seeds beside an effect.",
        trace: "What happened to one problem, from file to answers.",
        completions: "All completions, as a page or as Parquet.",
    },
    "A checkpoint": {
        chat: "Talk with it.",
        evaluate: "Evaluate it, or any other model, by itself.",
        card: "Write its model card.",
        publish: "Send it to the Hugging Face hub.",
    },
}


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


cli.add_sections(COMMANDS)
