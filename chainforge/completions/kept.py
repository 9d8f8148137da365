"""What `runtime.keep_completions` has left in logs/completions/, and whether it is of this run."""

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chainforge.config.sample import SampleSettings
from chainforge.errors import ChainForgeError
from chainforge.project.graph import GraphStep, settings_of
from chainforge.report.evaluations import read_numbers
from chainforge.run.kept_completions import completions_folder
from chainforge.run.step import file_name

Row = dict[str, Any]
LOOSE = 1e-5  # the table has six digits, of sums in float32
NEEDED = {"group", "prompt_id", "index", "text", "tokens", "finish", "rewards", "total", "logprob_sum"}


def kept_files(step: str) -> list[Path]:
    """Those of a step, in the order in which it sampled."""
    return sorted(completions_folder(step).glob("*.jsonl.gz"))


def read_kept(path: Path) -> Iterator[Row]:
    """The rows of one file. Raises ChainForgeError where it is damaged."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as lines:
            for number, line in enumerate(lines, start=1):
                row = json.loads(line)
                if not isinstance(row, dict) or not row.keys() >= NEEDED:
                    raise ValueError(f"line {number} is no completion")
                yield row
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise ChainForgeError(
            f"{path} is damaged: {error}", "remove it: the other files of that folder stay of use"
        ) from error


def of_another_run(step: GraphStep) -> str | None:
    """Where the kept completions of a finished step are not those that its result was made of: what differs.

    DVC brings results back from its cache, but not logs/. So what is kept is held against the figures that
    the step has published: the mean reward of each RL step, or how many samples there were.
    """
    if step.verb == "grpo":
        return _other_rollouts(step.name)
    return _other_samples(step.name)


def _other_rollouts(step: str) -> str | None:
    path = Path("plots") / f"{file_name(step)}.csv"
    if not path.is_file():
        return None  # under way
    with path.open(encoding="utf-8", newline="") as table:
        rewards = {int(row["step"]): float(row["reward"] or "nan") for row in csv.DictReader(table)}
    for file in kept_files(step):
        number = int(file.name.partition(".")[0])
        totals = [row["total"] for row in read_kept(file) if row["total"] is not None]
        found, told = math.fsum(totals) / len(totals) if totals else math.nan, rewards.get(number, math.nan)
        same = math.isclose(found, told, rel_tol=LOOSE, abs_tol=LOOSE)
        if not same and not (math.isnan(found) and math.isnan(told)):
            return f"RL step {number} has a mean reward of {found:.6g} there, and of {told:.6g} in {path}"
    return None


def _other_samples(step: str) -> str | None:
    path = Path("metrics") / f"{file_name(step)}.json"
    if not path.is_file():
        return None
    told = read_numbers(path)
    settings = settings_of(SampleSettings, step)
    accepted = settings.output.read_bytes().count(b"\n") if settings.output.is_file() else 0
    rows = [row for file in kept_files(step) for row in read_kept(file)]
    read, kept = len(rows), sum(bool(row.get("kept")) for row in rows)
    if (read, kept) != (told.get("read"), told.get("kept")) or kept != accepted:
        said = f"{path} says {told.get('read')} and {told.get('kept')}"
        return f"it has {read} samples, {kept} of them kept; {said}"
    return None
