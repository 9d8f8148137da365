"""Run the recipes of spoilt.py through the real steps, and keep what the doctor reads in runs/NAME/.

    python tests/doctor/record_spoilt_runs.py [NAME ...]

Each takes 5 to 40 seconds of one core. What was said in evaluations is left out: the doctor does not read it.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from pipeline.clone import environment  # noqa: E402
from ruamel.yaml import YAML  # noqa: E402
from spoilt import COLD, PLUGINS, RECIPES, Recipe  # noqa: E402
from tree import copy_project  # noqa: E402

RUNS = HERE / "runs"
BY_HAND = HERE.parent / "pipeline/by_hand.py"


def make(folder: Path, recipe: Recipe, cold: Path | None) -> Path:
    """A project in which the recipe was run."""
    if recipe.from_nothing or cold is None:
        copy_project(folder)
        (folder / "plugins/of_the_test.py").write_text(PLUGINS, encoding="utf-8")
    else:
        shutil.copytree(cold, folder)
    write_params(folder, {**recipe.usual, **recipe.change})
    run(folder, ["lock", *recipe.steps])
    return folder


def write_params(folder: Path, change: Mapping[str, Any]) -> None:
    """params.yaml of the profile tiny with these changes, without its comments."""
    yaml = YAML(typ="safe", pure=True)
    params = yaml.load((folder / "profiles/tiny.yaml").read_text(encoding="utf-8"))
    for dotted, value in change.items():
        *above, leaf = dotted.split(".")
        node = params
        for key in above:
            node = node[key]
        node[leaf] = value
    plain = YAML()
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        plain.dump(params, file)


def run(folder: Path, steps: Iterable[str]) -> None:
    """Run steps there, in one process. What they say is shown where one fails."""
    env = environment() | {"PYTHONHASHSEED": "0"}
    command = [sys.executable, str(BY_HAND), *steps]
    ended = subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True)
    if ended.returncode:
        raise SystemExit(f"{folder}: {ended.stdout}{ended.stderr[-3000:]}")


def keep(folder: Path, recipe: Recipe, to: Path) -> None:
    """What the doctor reads of the recipe's own steps."""
    shutil.rmtree(to, ignore_errors=True)
    for path in files_of(folder, recipe.steps):
        copy = to / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(without_texts(path), encoding="utf-8")


def files_of(folder: Path, steps: Iterable[str]) -> Iterator[Path]:
    """The files of these steps that are there."""
    yield folder / "params.yaml"
    for step in steps:
        stem, _, cell = step.partition("@")
        checkpoint, _, bench = cell.partition("-")
        places = [f"plots/{stem}.csv", f"metrics/{stem}.json"]
        if stem == "evaluate":
            places = [f"metrics/eval/{checkpoint}/{bench}.json", f"data/eval/{checkpoint}/{bench}.jsonl"]
        if step == "prompts@reasoning" and steps_use_few(folder):
            places = ["data/prompts/reasoning_train.jsonl"]
        yield from (path for place in places if (path := folder / place).is_file())


def steps_use_few(folder: Path) -> bool:
    """Whether the training prompts are so few that they can be kept."""
    path = folder / "data/prompts/reasoning_train.jsonl"
    return path.is_file() and path.read_bytes().count(b"\n") < 100


def without_texts(path: Path) -> str:
    """The file, if it is an evaluation, without what was asked and said."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".jsonl" or "eval" not in path.parts:
        return text
    rows = [json.loads(line) for line in text.splitlines()]
    for row in rows:
        row |= {"question": "", "answer": None, "messages": []}
        row["samples"] = [
            {key: sample[key] for key in ("finish", "tokens", "rewards")} | {"text": ""}
            for sample in row["samples"]
        ]
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)


def main(names: Iterable[str]) -> None:
    """Record the recipes of these names."""
    with TemporaryDirectory() as temporary:
        cold = make(Path(temporary) / "cold", Recipe(steps=COLD, from_nothing=True), None)
        for name in names:
            sys.stdout.write(f"{name}\n")
            sys.stdout.flush()
            folder = make(Path(temporary) / name, RECIPES[name], cold)
            keep(folder, RECIPES[name], RUNS / name)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1:] or RECIPES)
