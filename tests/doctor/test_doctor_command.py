"""`chainforge doctor`: which files it reads, what it says, how it ends."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tree import ROOT

from chainforge.doctor.finding import PAGE
from chainforge.doctor.table import RULES
from chainforge.project.recorded import md5

Told = Callable[..., dict[str, Any]]
Lay = Callable[[str], Path]
Doctor = Callable[..., Any]
NAME = "limit-too-low"
STEP = "grpo_reasoning"


def test_the_exit_code_is_0_unless_strict(lay: Lay, doctor: Doctor) -> None:
    lay(NAME)
    said = doctor(STEP).stdout
    assert "error: most completions are cut off" in said
    assert "grpo.max_new_tokens, now 4: higher" in said
    assert f"{PAGE}#truncated" in said
    assert doctor(STEP, "--strict", code=1).stdout == said
    assert max(map(len, said.splitlines())) <= 100


def test_strict_minds_errors_alone(lay: Lay, doctor: Doctor) -> None:
    lay("too-short-to-tell")
    assert "note:" in doctor("--strict").stdout


def test_a_step_that_runs_is_looked_at_by_its_log(lay: Lay, told: Told, doctor: Doctor) -> None:
    folder = lay(NAME)
    before = told(STEP)
    (folder / "logs").mkdir()
    (folder / f"plots/{STEP}.csv").rename(folder / f"logs/{STEP}.csv")
    now = told(STEP)
    assert now["findings"] == before["findings"]
    assert "not done" in now["steps"][0]["told"]
    header = (folder / f"logs/{STEP}.csv").read_text().splitlines()[0]
    (folder / f"logs/{STEP}.csv").write_text(f"{header}\n")
    assert "nothing to look at yet" in doctor(STEP, code=1).stderr


def test_settings_are_those_of_the_run_not_of_now(lay: Lay, doctor: Doctor) -> None:
    """dvc.lock has them, for the very table that lies there."""
    folder = lay(NAME)
    params = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(params.replace("max_new_tokens: 4\n", "max_new_tokens: 99\n"))
    assert "now 99" in doctor(STEP).stdout
    from chainforge.config.yaml import parse_yaml

    sections = {name: parse_yaml(params, "x")[name] for name in ("run", "grpo", STEP)}
    plot = f"plots/{STEP}.csv"
    entry = {"params": {"params.yaml": sections}, "outs": [{"path": plot, "md5": md5(folder / plot)}]}
    (folder / "dvc.lock").write_text(json.dumps({"stages": {STEP: entry}}))
    assert "now 4:" in doctor(STEP).stdout
    entry["outs"][0]["md5"] = "0" * 32  # another run's
    (folder / "dvc.lock").write_text(json.dumps({"stages": {STEP: entry}}))
    assert "now 99" in doctor(STEP).stdout
    sections["grpo"]["no_longer"] = 1
    entry["outs"][0]["md5"] = md5(folder / plot)
    (folder / "dvc.lock").write_text(json.dumps({"stages": {STEP: entry}}))
    assert "dvc.lock: the settings of grpo_reasoning" in doctor(STEP, code=1).stderr


@pytest.mark.parametrize("content", ["[", "a: b", "stages: 5", "\x00"])
def test_a_broken_lock_is_named(content: str, lay: Lay, doctor: Doctor) -> None:
    (lay(NAME) / "dvc.lock").write_text(content)
    assert "dvc.lock" in doctor(code=1).stderr


@pytest.mark.parametrize("content", ["", "step\n1,2\n", "a,b\n1,2\n", "step,reward\n1,x\n"])
def test_a_broken_table_is_named(content: str, lay: Lay, doctor: Doctor) -> None:
    (lay(NAME) / f"plots/{STEP}.csv").write_text(content)
    assert f"plots/{STEP}.csv" in doctor(code=1).stderr


def test_a_step_without_rules_is_refused_by_name(lay: Lay, doctor: Doctor) -> None:
    lay(NAME)
    assert "grpo_reasoning" in doctor("grpo_resoning", code=1).stderr
    assert "nothing to look at yet" in doctor("grpo_final", code=1).stderr


def test_an_empty_project_has_nothing_to_look_at(lay: Lay, doctor: Doctor) -> None:
    (lay(NAME) / f"plots/{STEP}.csv").unlink()
    assert "dvc repro" in doctor(code=1).stderr


def test_every_rule_has_its_section_with_its_thresholds() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert [line[4:] for line in page.splitlines() if line.startswith("### ")] == [
        rule.name for rule in RULES
    ]


@pytest.mark.slow
def test_nothing_waits_for_torch() -> None:
    code = (
        "import sys, chainforge.doctor.read, chainforge.doctor.table, chainforge.doctor.text\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
