"""Laws of the report: same bytes, exact schema, honest numbers, errors that name the file."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest

from chainforge.errors import ChainForgeError
from chainforge.report.results import read_results
from chainforge.report.subject import Subject
from chainforge.report.table import format_table
from chainforge.report.write import write_report

STAGE_KEYS = [
    "checkpoint", "bench", "n", "pass_at_1", "ci95_lo", "ci95_hi", "maj_at_k", "k", "format_rate",
    "mean_tokens", "truncated_rate", "maj_at_k_ci95_lo", "maj_at_k_ci95_hi",
    *(f"{score}{end}" for score in ("pass_at_k", "greedy", "strict", "lenient")
      for end in ("", "_ci95_lo", "_ci95_hi")),
]  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes(root: Path, tmp_path: Path, subject: Subject) -> None:
    write_report(root=root, out=tmp_path / "one", subject=subject)
    moved = shutil.move(root, tmp_path / "elsewhere")
    with matplotlib.rc_context(
        {"font.size": 30, "svg.fonttype": "path"}
    ):  # as a matplotlibrc of one's own would
        write_report(root=Path(moved), out=tmp_path / "two", subject=subject)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert sorted(contents(tmp_path / "one")) == [
        "curves.svg", "families.json", "index.html", "paired.json", "stages.csv", "stages.json",
        "summary.json",
    ]  # fmt: skip
    assert str(tmp_path).encode() not in b"".join(contents(tmp_path / "two").values())


@pytest.mark.slow
def test_the_machine_readable_files_have_exactly_the_promised_fields(report: Path, subject: Subject) -> None:
    stages = json.loads((report / "stages.json").read_text())
    assert [list(row) for row in stages] == [STAGE_KEYS] * 6
    assert [(row["checkpoint"], row["bench"]) for row in stages] == [
        (checkpoint, bench) for checkpoint in subject.checkpoints for bench in subject.benches
    ]
    assert {key: stages[0][key] for key in STAGE_KEYS[:11]} == {
        "checkpoint": "qwen_sft_ckpt", "bench": "reasoning", "n": 24, "pass_at_1": 0.125, "ci95_lo": 0.0625,
        "ci95_hi": 0.25, "maj_at_k": None, "k": 2, "format_rate": 1.0, "mean_tokens": 31.5,
        "truncated_rate": 0.0,
    }  # fmt: skip
    table = list(csv.DictReader((report / "stages.csv").read_text().splitlines()))
    assert [row["pass_at_1"] for row in table] == [str(row["pass_at_1"]) for row in stages]
    summary = json.loads((report / "summary.json").read_text())
    assert summary["general"] == {r["checkpoint"]: r["pass_at_1"] for r in stages if r["bench"] == "general"}
    paired = json.loads((report / "paired.json").read_text())
    assert list(paired[0]) == [
        "bench", "checkpoint", "parent", "n", "difference", "ci95_lo", "ci95_hi", "p_value",
    ]  # fmt: skip


def test_a_comparison_is_the_difference_of_the_two_accuracies_and_skips_parents_not_evaluated(
    root: Path, subject: Subject
) -> None:
    results = read_results(root, subject)
    accuracy = {(row.checkpoint, row.bench): row.pass_at_1 for row in results.stages}
    assert len(results.paired) == 4
    for row in results.paired:
        expected = accuracy[row.checkpoint, row.bench] - accuracy[row.parent, row.bench]
        assert row.difference == pytest.approx(expected)
        assert row.ci95_lo < row.difference < row.ci95_hi
        assert row.n == 24


def test_families_average_to_the_whole(root: Path, subject: Subject) -> None:
    results = read_results(root, subject)
    for stage in results.stages:
        rows = [r for r in results.families if (r.checkpoint, r.bench) == (stage.checkpoint, stage.bench)]
        assert sum(row.n for row in rows) == stage.n
        assert sum(row.n * row.pass_at_1 for row in rows) / stage.n == pytest.approx(stage.pass_at_1)


@pytest.mark.parametrize(
    "kind", ["metrics/eval/qwen_rl_ckpt_stage2/general.json", "data/eval/qwen_sft_ckpt/general.jsonl"]
)
def test_a_listed_checkpoint_without_its_evaluation_is_an_error_that_names_the_file(
    kind: str, root: Path, tmp_path: Path, subject: Subject
) -> None:
    (root / kind).unlink()
    with pytest.raises(ChainForgeError, match=re.escape(kind)):
        write_report(root=root, out=tmp_path / "out", subject=subject)
    assert not (tmp_path / "out").exists()


def test_a_reward_that_the_evaluation_does_not_have_is_an_error(root: Path, subject: Subject) -> None:
    with pytest.raises(ChainForgeError, match=r"'corect'.*\n.*did you mean 'correct'"):
        read_results(root, subject.model_copy(update={"reward": "corect"}))


def test_an_answer_that_nobody_could_grade_counts_as_neither(root: Path, subject: Subject) -> None:
    path = root / "data/eval/qwen_sft_ckpt/general.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for sample in rows[0]["samples"]:
        sample["rewards"]["correct"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    paired = {(row.checkpoint, row.bench): row.n for row in read_results(root, subject).paired}
    assert paired["qwen_rl_ckpt_stage2", "general"] == 23
    assert paired["qwen_rl_ckpt_stage2", "reasoning"] == 24


def test_the_terminal_table_is_aligned(root: Path, subject: Subject) -> None:
    for table in format_table(read_results(root, subject).stages).split("\n\n"):
        assert len({len(line) for line in table.splitlines()[1:]}) == 1
    title, head, _, first, *_ = format_table(read_results(root, subject).stages).splitlines()
    assert title == "reasoning: 24 problems, 2 samples each"
    assert head.split()[5:8] == ["maj@2", "pass@2", "lenient"]
    assert first.split() == [
        "qwen_sft_ckpt", "12.5%", "6.2–25.0", "25.0%", "–", "–", "–", "100.0%", "31.5", "0.0%",
    ]  # fmt: skip


def test_the_terminal_table_of_the_recipe_fits_in_100_columns(root: Path, subject: Subject) -> None:
    row = read_results(root, subject).stages[0]
    longest = replace(
        row, checkpoint="qwen_student_cold_start", n=2000, k=4, ci95_lo=0.95, ci95_hi=1.0, greedy=1.0,
        maj_at_k=1.0, pass_at_k=1.0, lenient=1.0, truncated_rate=1.0, mean_tokens=1234.5,
    )  # fmt: skip
    assert max(map(len, format_table([longest]).splitlines())) <= 100
    assert "pass@4" in format_table([longest])
