"""`chainforge init`: a project of one's own in a new folder."""

from pathlib import Path

import click

from chainforge.cli.project import Place
from chainforge.cli.show import show


@click.command("init")
@click.argument("folder", type=Place())
@click.option(
    "--profile", default="tiny", show_default=True, metavar="NAME", help="The settings to start from."
)
@click.option("--no-git", is_flag=True, help="Neither a git repository nor a first commit.")
def init(folder: Path, profile: str, no_git: bool) -> None:
    """Make a project of your own in FOLDER, which must be new or empty.

    It gets the graph, the settings, the stage scripts, the profiles, an example reward with its test, a
    Makefile, git and DVC. The bundled plugins stay in the installed package, and a file in plugins/ takes the
    place of the bundled one of that name. `chainforge upgrade` brings the files to a later version.

    Profiles: tiny (a demonstration, 13 minutes), smoke (every step, under two minutes), smollm2 and qwen2.5-…
    (real models; `chainforge profile list` in the project describes them).
    """
    from chainforge.own_project.create import create_project

    number = create_project(folder, profile, git=not no_git)
    show(f"{folder}/ is a project with {number} files and the settings of profile {profile}. Next:\n")
    if folder != Path("."):
        show(f"  cd {folder}")
    show("  make run     # makes .venv there, runs the recipe, prints the results")
    show("  dvc repro    # or this, where the environment that has ChainForge is active")
