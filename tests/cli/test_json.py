"""`--json`: one object, ASCII, the same facts as the table; broken files are refused in words."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from a_project import ROW, Run, write_log, write_results

from chainforge.outputs import write_json
from chainforge.report.results import ADDED, StageRow

HOSTILE = "évil\x1b[2J\u202e"


def told(run: Run, *arguments: str, code: int = 0) -> dict[str, Any]:
    """The one object."""
    text = run(*arguments, "--json", code=code).stdout
    assert text.isascii()
    assert text.endswith("}\n")
    found: dict[str, Any] = json.loads(text)
    return found


def test_results_are_those_of_the_report(project: Path, run: Run) -> None:
    rows = [ROW, {**ROW, "checkpoint": HOSTILE}]
    write_results(project, rows)
    assert told(run, "results") == {"results": rows, "report": str(project / "reports/index.html")}
    assert list(rows[0]) == [*StageRow.__dataclass_fields__]
    assert "\x1b" not in run("results").stdout
    write_results(project, [{name: value for name, value in ROW.items() if name not in ADDED}])
    assert told(run, "results")["results"] == [ROW | dict.fromkeys(ADDED)], "as an earlier version left it"


@pytest.mark.parametrize(("split", "said"), [({}, False), ({"split": "dev"}, True)])
def test_results_of_the_development_split_say_so(
    split: dict[str, str], said: bool, project: Path, run: Run
) -> None:
    write_results(project, [ROW])
    record = project / "data/eval/qwen_sft_ckpt/reasoning.record.json"
    record.parent.mkdir(parents=True)
    write_json(record, {"prompts": {"count": 3} | split})
    assert ("development split" in run("results").stdout) == said


@pytest.mark.parametrize(
    "content",
    ["garbage", "", "{}", "5", [5], [{}], [{**ROW, "n": "24"}], [{**ROW, "pass_at_1": None}], "[" * 50_000],
    ids=lambda content: str(content)[:30],
)
def test_results_of_another_shape_are_named(content: Any, project: Path, run: Run) -> None:
    write_results(project, content)
    for flags in ((), ("--json",)):
        assert "reports/stages.json" in run("results", *flags, code=1).stderr


def test_timings_are_in_the_order_of_the_recipe(project: Path, run: Run) -> None:
    steps = ("prompts@general", "sft_cold_start", "grpo_final", "distill@qwen_distilled_student", "report")
    for place, step in enumerate(reversed(steps)):
        write_log(project, step, {"step": step, "wall_s": place + 0.5, "peak_mb": 60 + place, "cpus": 2})
    write_log(project, "grpo_final-not-finite", {"what": "is not finite"})
    write_log(project, "a_step_that_is_gone", {"step": "a_step_that_is_gone", "wall_s": 9, "peak_mb": 9})
    found = told(run, "timings")
    assert [row["step"] for row in found["timings"]] == list(steps)
    assert found["wall_s"] == sum(row["wall_s"] for row in found["timings"]) == 12.5
    lines = run("timings").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [*steps, "all"]


@pytest.mark.parametrize(
    "record",
    [[], {}, {"step": "prompts@general"}, {"step": "prompts@general", "wall_s": "1", "peak_mb": 1}],
    ids=str,
)
def test_a_timing_of_another_shape_is_named(record: Any, project: Path, run: Run) -> None:
    write_log(project, "prompts@general", record)
    assert "logs/prompts/general.json" in run("timings", code=1).stderr


def test_without_a_run_there_are_no_timings(project: Path, run: Run) -> None:
    assert "dvc repro" in run("timings", code=1).stderr


def test_experiments_come_with_what_differs(project: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    shown = [commit("workspace", 17, 0.5), commit("old", 17, None), commit("older", 18, None, ("exp", 0.25))]
    ended = subprocess.CompletedProcess((), 0, json.dumps(shown), "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    rows = told(run, "experiments")["experiments"]
    assert [(row["name"], row["baseline"]) for row in rows] == [
        ("workspace", True), ("old", True), ("older", True), ("exp", False),
    ]  # fmt: skip
    assert rows[0]["pass_at_1"] == {"reasoning": {"qwen_sft_ckpt": 0.5}}
    assert [row["settings"] for row in rows] == [{"run.seed": seed} for seed in (17, 17, 18, 18)]
    names = [row["name"] for row in told(run, "experiments", "-A")["experiments"]]
    assert names == ["workspace", "older", "exp"], "but those of an experiment with results"
    assert "old " not in run("experiments", "-A").stdout


def commit(name: str, seed: int, rate: float | None, *below: tuple[str, float]) -> dict[str, Any]:
    """As `dvc exp show --json` has it."""

    def data(rate: float | None) -> dict[str, Any]:
        metrics = {"metrics/eval/qwen_sft_ckpt/reasoning.json": {"data": {"pass_at_1": rate}}}
        params = {"params.yaml": {"data": {"run": {"seed": seed}}}}
        return {"params": params, "metrics": metrics if rate is not None else {}}

    runs = [{"name": n, "revs": [{"rev": n, "data": data(r)}]} for n, r in below]
    return {"name": name, "rev": name, "data": data(rate), "experiments": runs}


@pytest.mark.slow
def test_a_check_has_its_laws(project: Path, run: Run) -> None:
    found = told(run, "plugins", "check", "format")
    assert (found["name"], found["role"], found["holds"]) == ("format", "rewards", True)
    assert {"law", "holds", "detail"} == set(found["laws"][0])
    assert f"format, from {found['source']}" in run("plugins", "check", "format").stdout


@pytest.mark.slow
def test_a_difference_has_its_steps_and_exit_code(project: Path, run: Run) -> None:
    lock = {"prompts": {"general": {"code": "0", "plugins": {}}}}
    (project / "plugins.lock.json").write_text(json.dumps(lock))
    found = told(run, "plugins", "diff", code=1)
    assert not found["same"]
    assert "prompts.general" in found["changes"]["code of ChainForge changed"]
    assert "code of ChainForge changed (prompts.general" in run("plugins", "diff", code=1).stdout
