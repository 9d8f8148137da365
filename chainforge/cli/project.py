"""The project that a command is about: this folder, or the nearest one above, as git finds its own."""

import os
from pathlib import Path
from typing import Any

import click

from chainforge.config.loading import PARAMS
from chainforge.errors import ChainForgeError
from chainforge.project.graph import GRAPH

MOVED_FROM = "chainforge.moved_from"  # where the user stands, in the context's meta


def enter_project(ctx: click.Context, start: Path | None) -> None:
    """Go to the project that `start`, or else this folder, lies in, until the command ends; stay where there
    is none.

    Paths that the user wrote still count from where the user stands: see `Place`.
    """
    here = Path.cwd()
    ctx.call_on_close(lambda: os.chdir(here))
    if start is not None:
        os.chdir(start)
    root = project_above(Path.cwd())
    if root is not None and root != Path.cwd():
        os.chdir(root)
    if Path.cwd() != here:
        ctx.meta[MOVED_FROM] = here


def project_above(folder: Path) -> Path | None:
    """The nearest folder with a graph and settings, this one or one above."""
    return next((at for at in (folder, *folder.parents) if is_project(at)), None)


def is_project(folder: Path) -> bool:
    """Whether a graph and its settings lie there."""
    return (folder / GRAPH).is_file() and (folder / PARAMS).is_file()


class ProjectCommand(click.Command):
    """A command that has nothing to say outside of a project."""

    def invoke(self, ctx: click.Context) -> object:
        """Run it, or raise ChainForgeError."""
        need_project()
        return super().invoke(ctx)


def need_project() -> None:
    """Raise ChainForgeError where there is no project here or above."""
    if not is_project(Path()):
        raise ChainForgeError(
            f"there is no project in {Path.cwd()} or above: no folder with {GRAPH} and {PARAMS}",
            "run this inside of a project, or name it: chainforge -C FOLDER …",
        )


class Place(click.Path):
    """A path that the user wrote: as it is, or absolute where the command went to another folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A Path."""
        return from_here(Path(os.fsdecode(super().convert(value, param, ctx))), ctx)


def from_here(path: Path, ctx: click.Context | None) -> Path:
    """The path as the user meant it."""
    moved_from = ctx.meta.get(MOVED_FROM) if ctx else None
    return moved_from / path if moved_from else path
