"""Before hours are spent: costs are lines, a stop comes first, and a try leaves the project as it was."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from a_project import Run
from fakes import SUPERCOT, policy, response
from hypothesis import given
from hypothesis import strategies as st

from chainforge.config.run import RunSettings
from chainforge.jsonl import write_records
from chainforge.models.batch import Tokens
from chainforge.preflight.cost import Cost, Point, fit
from chainforge.preflight.estimate import Estimate, Finding
from chainforge.preflight.judge import judge, ranked
from chainforge.preflight.table import lines
from chainforge.preflight.texts import check_examples, masks_response
from chainforge.project.profiles import compose
from chainforge.records import Example, Message

pytestmark = pytest.mark.slow

SECONDS = st.floats(0.001, 100)
IDS = st.lists(st.integers(0, 9), min_size=1, max_size=12)


@given(fixed=SECONDS, each=SECONDS, sizes=st.lists(st.integers(1, 500), min_size=2, max_size=6, unique=True))
def test_a_line_is_found_again_from_its_points(fixed: float, each: float, sizes: list[int]) -> None:
    points = [Point(1, n, Cost(fixed + each * n, fixed + each * n)) for n in sizes]
    expected = fixed * 3 + each * 700
    assert fit(points).at(3, 700).cpu == pytest.approx(expected, rel=0.01)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99), SECONDS), min_size=1, max_size=6))
def test_no_work_is_predicted_to_give_time_back(points: list[tuple[int, int, float]]) -> None:
    line = fit([Point(r, n, Cost(s, s)) for r, n, s in points if r or n])
    assert min(*line.fixed, *line.each) >= 0


def test_one_measurement_is_scaled() -> None:
    assert fit([Point(10, 100, Cost(5, 5))]).at(20, 200).cpu == pytest.approx(10)


@given(prompt=IDS, completion=IDS)
def test_the_loss_is_on_the_response_and_its_end(prompt: list[int], completion: list[int]) -> None:
    assert masks_response(Tokens(prompt, completion))


def test_examples_in_the_format_are_learnt_as_they_are() -> None:
    example = Example("1", (Message(role="user", content="6*7"),), response(), "test")
    assert check_examples(policy(), [example], SUPERCOT) == []


def test_too_little_memory_stops_and_stops_come_first() -> None:
    small = Estimate("a", parts={"training": Cost(1000, 1000)}, memory=2e9, usable=1e9)
    slow = Estimate("b", parts={"training": Cost(9000, 9000)}, findings=[Finding("slow", "mend", loss=0.9)])
    judge(small, RunSettings(), on_cpu=False)
    assert small.stops
    assert [step for step, _ in ranked([slow, small], [])] == ["a", "b"]


def test_steps_that_wait_for_data_are_not_said_to_be_well() -> None:
    tried, waits = (
        Estimate("a", parts={"training": Cost(1, 1)}),
        Estimate("b", waits_for="no data yet"),
    )
    assert list(lines([tried], []))[-1] == "\nnothing to change was found"
    assert list(lines([tried, waits], []))[-1] == "\nnothing to change was found in what could be tried"


def snapshot(folder: Path) -> dict[Path, bytes]:
    files: Iterable[Path] = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files}


def test_the_quick_check_writes_nothing(project: Path, run: Run) -> None:
    before = snapshot(project)
    assert "nothing to change was found" in run("preflight", "--quick").stdout
    assert snapshot(project) == before


def test_an_unknown_step_is_told(project: Path, run: Run) -> None:
    assert "sft_cold_strat" in run("preflight", "sft_cold_strat", code=1).stderr


def test_a_missing_key_stops_and_no_value_is_ever_shown(
    project: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (project / "params.yaml").read_text()
    teacher = "  teacher:\n    plugin: procedural\n    terse_fraction: 0.35\n    wrong_fraction: 0.03\n"
    assert teacher in text
    other = "  teacher: {plugin: openai_compatible, preset: generic, model: m, key_env: MY_HOUSE_KEY,"
    other += " base_url: 'http://127.0.0.1:9/v1'}\n"
    (project / "params.yaml").write_text(text.replace(teacher, other))
    monkeypatch.setenv("MY_HOUSE_KEY", "sk-not-to-be-seen-0123456789")
    assert "127.0.0.1:9 does not answer" in (told := run("preflight", "--quick", code=1)).stdout
    assert "not-to-be-seen" not in told.output


@pytest.mark.dearest
@pytest.mark.parametrize("step", ["sft_cold_start", "grpo_reasoning", "evaluate@qwen_sft_ckpt-reasoning"])
def test_a_try_predicts_and_leaves_the_project_as_it_was(step: str, project: Path, run: Run) -> None:
    own = compose("smoke").replace("examples: data/cot/accepted.jsonl", "examples: inputs/own.jsonl", 1)
    (project / "params.yaml").write_text(own)
    (project / "inputs").mkdir()
    examples = [
        Example(str(n), (Message(role="user", content=f"{n} + 1"),), response(f"{n}+1", str(n + 1)), "test")
        for n in range(40)
    ]
    write_records(project / "inputs/own.jsonl", examples)
    before = snapshot(project)
    told = json.loads(run("preflight", step, "--json", "--seconds", "0.3").stdout)
    (found,) = told["steps"]
    assert not found["failed"], told["changes"]
    assert not found["waits_for"]
    assert found["cpu_s"] > 0
    assert 0 < found["memory"] < found["usable"]
    assert all(rate["lo"] <= rate["mean"] <= rate["hi"] for rate in found["rates"])
    assert snapshot(project) == before


def test_a_step_whose_examples_nobody_has_yet_waits(project: Path, run: Run) -> None:
    told = json.loads(run("preflight", "sft_cold_start", "--json").stdout)
    assert told["steps"][0]["waits_for"].endswith("dvc repro filter_cot makes it")
