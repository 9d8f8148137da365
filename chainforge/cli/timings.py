"""`chainforge timings`: how long each step took."""

from dataclasses import asdict, dataclass
from pathlib import Path

import click
from pydantic import ConfigDict, with_config

from chainforge.cli.project import ProjectCommand
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.errors import ChainForgeError
from chainforge.project.graph import read_graph
from chainforge.run.step import LOGS, file_name


@with_config(ConfigDict(allow_inf_nan=False))
@dataclass(frozen=True, slots=True)
class Timing:
    """One step as it last ran here, its process from start to end."""

    step: str
    wall_s: float
    peak_mb: int
    cpus: int | None = None


@click.command(cls=ProjectCommand)
@as_json_option
def timings(as_json: bool) -> None:
    """Print how long each step took when it last ran here, in the order of the recipe.

    Seconds from the start of the step's process to its end; what DVC does between the steps is not counted.
    """
    found = read_timings()
    total = sum(timing.wall_s for timing in found)
    if as_json:
        return show_json({"timings": [asdict(timing) for timing in found], "wall_s": round(total, 2)})
    for timing in found:
        show(f"{timing.step:<48}{timing.wall_s:>9.1f} s{timing.peak_mb:>8} MB")
    show(f"{'all':<48}{total:>9.1f} s")


def read_timings(logs: Path = LOGS) -> list[Timing]:
    """Of every step of the graph that has run here. Raises ChainForgeError where none has."""
    from chainforge.report.shape import read_shaped

    paths = [logs / f"{file_name(step)}.json" for step in ("lock", *read_graph())]
    fix = "delete that file: the step writes it again when it runs"
    found: list[Timing] = [read_shaped(Timing, path, fix) for path in paths if path.is_file()]
    if not found:
        raise ChainForgeError(f"no step of dvc.yaml has left its time in {logs}/", "run: dvc repro")
    return found
