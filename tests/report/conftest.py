"""A made-up graph: what the steps before the report would have left behind."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chainforge.report.subject import Subject
from chainforge.report.write import write_report
from chainforge.response import PRESETS

CHECKPOINTS = ("qwen_sft_ckpt", "qwen_rl_ckpt_stage2", "my<own>$ckpt$")
BENCHES = ("reasoning", "general")
RL_COLUMNS = (
    "step", "reward", "reward_std", "frac_reward_zero_std", "rewards/correct/mean", "rewards/format/mean",
    "kl", "entropy", "completions/mean_length", "completions/clipped_ratio", "grad_norm", "learning_rate",
)  # fmt: skip
HOSTILE = (
    "<script>alert('x')</script></pre></details><img src=x onerror=y> \"&amp; 数 \u202e \x00 ]]> {{ 7*7 }}"
)


@pytest.fixture(scope="session")
def subject() -> Subject:
    return Subject(
        checkpoints=CHECKPOINTS,
        benches=BENCHES,
        parents={
            CHECKPOINTS[1]: CHECKPOINTS[0],
            CHECKPOINTS[2]: CHECKPOINTS[1],
            CHECKPOINTS[0]: "a base model",
        },
        reward="correct",
        response_format=PRESETS["supercot"],
        profile="tiny",
        seed=17,
        note="made-up <b>numbers</b>",
        samples_per_bench=3,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A graph of one's own, to break."""
    return build(tmp_path / "graph")


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory, subject: Subject) -> Path:
    """The folder of a finished report, to look at."""
    folder = tmp_path_factory.mktemp("report")
    write_report(root=build(folder / "graph"), out=folder / "out", subject=subject)
    return folder / "out"


def build(folder: Path) -> Path:
    for level, checkpoint in enumerate(CHECKPOINTS):
        for bench in BENCHES:
            write_cell(folder, checkpoint, bench, lambda i, level=level: (i + level) % 4 < 1 + level)  # type: ignore[misc]
    for name in ("grpo_reasoning", "grpo_final"):
        rows = [
            [s, s / 60, 0.3, 0.5, s / 60, 0.98, "", 0.9 - s / 100, 20 + s, 0, 1, 1e-4] for s in range(1, 41)
        ]
        write_table(folder / "plots" / f"{name}.csv", RL_COLUMNS, rows)
    sft = ("step", "loss", "eval_loss", "learning_rate", "grad_norm")
    losses = [[s, math.exp(-s / 9), "" if s % 5 else 0.5, 1e-3, 1] for s in range(1, 31)]
    for name in ("sft_cold_start", "distill/student"):
        write_table(folder / "plots" / f"{name}.csv", sft, losses)
    counts = {"read": 10, "kept": 6, "dropped/wrong": 3, "dropped/<i>odd</i>": 1}
    for name in ("filter_cot", "rejection_sampling", "distill_data"):
        write_json(folder / "metrics" / f"{name}.json", counts)
    return folder


def write_cell(root: Path, checkpoint: str, bench: str, right: Callable[[int], bool], n: int = 24) -> None:
    """`right` says which problems are solved, in the first of two samples and greedily."""
    rows = [problem(i, bench, right(i)) for i in range(n)]
    rate = sum(row["greedy"]["rewards"]["correct"] for row in rows) / n
    write_json(
        root / "metrics" / "eval" / checkpoint / f"{bench}.json",
        {"n": n, "k": 2, "pass_at_1": rate / 2, "ci95_lo": rate / 4, "ci95_hi": rate, "greedy": rate,
         "greedy_ci95_lo": 0.1, "greedy_ci95_hi": 0.9, "maj_at_k": None, "format_rate": 1.0,
         "mean_tokens": 31.5, "truncated_rate": 0.0, "seconds": 3.0},
    )  # fmt: skip
    path = root / "data" / "eval" / checkpoint / f"{bench}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def problem(i: int, bench: str, right: bool) -> dict[str, Any]:
    text = PRESETS["supercot"].render(f"steps {HOSTILE}", "42 <b>") if i % 3 else HOSTILE
    sample = {
        "text": text,
        "finish": "stop",
        "tokens": 12,
        "rewards": {"correct": float(right), "format": None},
    }
    other = {**sample, "finish": "length", "rewards": {"correct": 0.0, "format": 1.0}}
    return {
        "prompt_id": f"{bench}-{i}", "source": ("sorting", "<u>sum</u>")[i % 2],
        "question": f"{i}? {HOSTILE}",
        "answer": None if i % 5 == 0 else "42", "samples": [sample, other], "greedy": sample,
    }  # fmt: skip


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_table(path: Path, columns: tuple[str, ...], rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
