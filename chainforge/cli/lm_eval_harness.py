"""Standard tasks by lm-eval, on local data: its prompts and its graders, an independent check of ours."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from chainforge.algorithms.statistics import mean_interval
from chainforge.cli.project import from_here
from chainforge.errors import ChainForgeError, unknown
from chainforge.jsonl import count_rows, write_rows
from chainforge.outputs import write_json, write_text
from chainforge.report.evaluations import Cell
from chainforge.report.results import StageRow, stage_row

BATCH = 16
UNKNOWN = ("maj_at_k", "format_rate", "mean_tokens", "truncated_rate")


@dataclass(frozen=True)
class Task:
    """A task of lm-eval, the local file in place of its test data, and one of examples, if any are shown."""

    name: str
    test: Path
    shots: Path | None


def read_task(text: str, ctx: click.Context) -> Task:
    """TASK=FILE or TASK=FILE,EXAMPLES. Raises ChainForgeError where a file or lm-eval is missing."""
    if find_spec("lm_eval") is None:
        raise ChainForgeError(
            "--harness lm-eval needs the package lm-eval", "pip install 'chainforge-r1[lm-eval]'"
        )
    name, _, files = text.partition("=")
    test, _, shots = files.partition(",")
    task = Task(name, from_here(Path(test), ctx), from_here(Path(shots), ctx) if shots else None)
    for path in filter(None, (task.test, task.shots)):
        count_rows(path)
    return task


def run_task(
    task: Task, model: str, revision: str | None, folder: Path, max_new_tokens: int, limit: int | None
) -> list[StageRow]:
    """Greedy decoding with the model's chat template; a row per filter. The files go to `folder`."""
    if Path(model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with redirect_stdout(sys.stderr):
        found = _evaluate(task, model, revision, folder, max_new_tokens, limit)
    samples = found["samples"][task.name]
    name = Path(model).name
    rows: list[StageRow] = []
    told: dict[str, float] = {}
    for title, values in _scores(samples):
        mean, lo, hi = mean_interval(values)
        told |= {title: mean, f"{title}_ci95_lo": lo, f"{title}_ci95_hi": hi}
        interval = {"ci95_lo": lo, "ci95_hi": hi}
        greedy = {"greedy": mean, "greedy_ci95_lo": lo, "greedy_ci95_hi": hi}
        known = {"n": len(values), "k": 1, "pass_at_1": mean, **interval, **greedy}
        rows.append(stage_row(Cell(name, f"{task.name}, {title}", known | dict.fromkeys(UNKNOWN), {})))
    plain = [json.loads(json.dumps(sample, default=str)) for sample in samples]
    write_rows(folder / f"{task.name}.lm-eval.jsonl", plain)
    write_json(folder / f"{task.name}.lm-eval.json", told)
    record = {"harness": f"lm-eval {version('lm-eval')}", "model": model, "config": found["configs"]}
    write_text(folder / f"{task.name}.lm-eval.record.json", json.dumps(record, indent=2, default=str) + "\n")
    return rows


def _evaluate(
    task: Task, model: str, revision: str | None, folder: Path, max_new_tokens: int, limit: int | None
) -> Any:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    known = TaskManager().task_index
    if task.name not in known:
        raise unknown("task of lm-eval", task.name, known)
    shown = task.shots or task.test
    config = {
        "include": str(known[task.name].yaml_path),
        "task": task.name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {"train": str(shown.resolve()), "validation": str(task.test.resolve()),
                           "test": str(task.test.resolve())}
        },
    } | ({} if task.shots else {"num_fewshot": 0})  # fmt: skip
    path = folder / f"{task.name}.lm-eval.yaml"
    write_text(path, json.dumps(config, indent=2) + "\n")  # JSON is YAML
    return simple_evaluate(
        model="hf",
        model_args={"pretrained": model, "dtype": "float32", "device": _device()}
        | ({"revision": revision} if revision else {}),
        tasks=[str(path)],
        batch_size=BATCH,
        limit=limit,
        bootstrap_iters=0,
        apply_chat_template=True,
        gen_kwargs={"do_sample": False, "max_gen_toks": max_new_tokens},
    )


def _device() -> str:
    from chainforge.config.loading import load_settings
    from chainforge.config.run import RuntimeSettings
    from chainforge.models.checkpoint import choose_device

    return choose_device(load_settings(RuntimeSettings, "runtime").device).type


def _scores(samples: list[dict[str, Any]]) -> Iterator[tuple[str, list[float]]]:
    """(title, a value of 0…1 per problem) for every filter and metric."""
    for kept in dict.fromkeys(sample["filter"] for sample in samples):
        mine = [sample for sample in samples if sample["filter"] == kept]
        for metric in mine[0]["metrics"]:
            values = [sample[metric] for sample in mine]
            if all(isinstance(value, int | float) and 0 <= value <= 1 for value in values):
                yield f"lm-eval {metric} {kept}", [float(value) for value in values]
