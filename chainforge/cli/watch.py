"""`chainforge watch`: a run as it goes, in the terminal or on a page of this machine."""

import sys
import time
from collections.abc import Callable
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

import click

from chainforge.cli.project import Place, is_project
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.errors import ChainForgeError, unknown
from chainforge.project.graph import read_graph
from chainforge.run.step import LOGS
from chainforge.watching.read import Reader
from chainforge.watching.run import Run, look

EXPERIMENTS = Path(".dvc/tmp/exps")
PORT = 8600


@click.command()
@click.option(
    "--logs", type=Place(), help="The logs/ of another run: a copy, or one of `dvc exp run --temp`."
)
@click.option("--step", metavar="STEP", help="Look at this step; the one that runs, or ran last.")
@click.option("--once", is_flag=True, help="Print one frame and end; with --web, the page.")
@click.option("--every", type=click.FloatRange(0.2, 3600), default=1.0, show_default=True, metavar="SECONDS")
@click.option("--web", is_flag=True, help="Serve it as a page on 127.0.0.1, for a browser on this machine.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0: a free one.")
@as_json_option
def watch(
    logs: Path | None, step: str | None, once: bool, every: float, web: bool, port: int, as_json: bool
) -> None:
    """Watch a run: what is done, curves as they grow, the last completions, the pace, the time left.

    It reads logs/, plots/ and metrics/ beside it, and writes nothing: start and end it at any time.
    Ctrl-C ends it. Without a terminal it prints one frame.
    """
    folder = logs or LOGS
    if not folder.is_dir():
        raise ChainForgeError(
            f"there is no folder {folder}" + ("" if logs else f" in {Path.cwd()}"),
            "start a run (dvc repro) in another terminal, or name a folder: chainforge watch --logs FOLDER",
        )
    look_now = looker(folder, step)
    if step and step not in (known := [seen.name for seen in look_now().steps]):
        raise unknown("step", step, known)
    if as_json:
        show_json(as_object(look_now()))
    elif web:
        show_web(look_now, once, every, port)
    else:
        show_terminal(look_now, once, every)
        if logs is None and (hint := other_runs()):
            show(hint, err=True)


def looker(folder: Path, step: str | None) -> Callable[[], Run]:
    """What gives the run as it is now. The graph is read once: params.yaml may be edited meanwhile."""
    reader, names = Reader(), step_names(folder)
    return lambda: look(folder, names, reader, time.time(), step)


def step_names(folder: Path) -> list[str]:
    """The steps of the project that the folder lies in, in their order; none where it is a mere copy."""
    project = folder.resolve().parent
    if not is_project(project):
        return []
    with chdir(project):
        try:
            return ["lock", *read_graph()]
        except ChainForgeError:  # a run goes on while its settings are being edited
            return []


def show_terminal(look_now: Callable[[], Run], once: bool, every: float) -> None:
    """One frame, or frame after frame until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    from chainforge.watching.curves import BLOCKS, PLAIN
    from chainforge.watching.terminal import frame

    console = Console(highlight=False)
    signs = BLOCKS if "utf" in console.encoding.lower() else PLAIN
    if once or not sys.stdout.isatty():
        if not once:
            show("standard output is no terminal: this is one frame (--once says so beforehand)", err=True)
        console.print(frame(look_now(), console.width, signs))
        return
    with suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(frame(look_now(), console.width, signs), refresh=True)
            time.sleep(every)


def show_web(look_now: Callable[[], Run], once: bool, every: float, port: int) -> None:
    """The page on standard output, or served until Ctrl-C."""
    from chainforge.watching.page import render_page
    from chainforge.watching.serve import serve

    if once:
        click.echo(render_page(look_now(), every=None), nl=False)
        return
    with suppress(KeyboardInterrupt):
        serve(look_now, every, port, lambda url: show(f"watching on {url} (Ctrl-C ends it)"))


def other_runs(root: Path = EXPERIMENTS) -> str:
    """Where experiments run that are not in this folder."""
    found = [path for path in sorted(root.glob("*/logs")) if path.is_dir()]
    told = "".join(f"\n  chainforge watch --logs {path}" for path in found[:5])
    return f"experiments have a folder of their own:{told}" if found else ""


def as_object(run: Run) -> dict[str, Any]:
    """One frame for programs."""
    focus = run.focus
    pace = focus.pace if focus else None
    left = pace.left_s(run.now) if pace else None
    return {
        "steps": [
            {"step": s.name, "state": s.state, "wall_s": s.wall_s, "pass_at_1": s.score} for s in run.steps
        ],
        "step": focus and focus.step.name,
        "done": pace and pace.done,
        "total": pace and pace.total,
        "turns_per_s": pace and pace.turns_per_s,
        "tokens_per_s": pace and pace.tokens_per_s,
        "left_s": None if left is None else round(left, 1),
        "last": {curve.title: curve.last for curve in focus.curves} if focus else {},
    }
