"""The fixtures for who writes a plugin: there without asking, quick to load, clear about every breach."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import chainforge as cf
from chainforge.plugins import import_file

Contract = Callable[..., Any]


def one(completions: list[str], **_: Any) -> list[float]:
    return [1.0]


def half(completion: str) -> float:
    return 0.5


def module(folder: Path, *names: str) -> ModuleType:
    (folder / "mine.py").write_text(
        "import chainforge as cf\n\n@cf.hookimpl\ndef register_rewards(register):\n"
        + "".join(f"    register({name!r}, lambda completions: [0.5] * len(completions))\n" for name in names)
    )
    return import_file(folder / "mine.py")


@pytest.mark.slow
def test_pytest_loads_nothing_slow_for_them() -> None:
    code = "import sys, chainforge.pytest_plugin; print({'torch', 'transformers', 'dvc'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_a_breach_is_an_assertion_error_that_names_the_law(reward_contract: Contract) -> None:
    with pytest.raises(AssertionError) as caught:
        reward_contract(one)
    first, *laws = str(caught.value).splitlines()
    assert first == f"one ({__name__}) breaks its contract:"
    assert laws[0].startswith("FAILED  one finite number, or None, per completion: ")
    assert "returned 1 values for 28 completions" in laws[0]


@pytest.mark.slow
def test_what_may_be_a_name_a_module_or_a_function_with_its_options(
    reward_contract: Contract, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    assert all(finding.holds for finding in reward_contract("correct"))
    assert all(finding.holds for finding in reward_contract(module(tmp_path, "mine")))
    assert all(finding.holds for finding in reward_contract(half, per_sample=True))
    with pytest.raises(cf.ChainForgeError, match="there is no reward called 'corect'"):
        reward_contract("corect")
    with pytest.raises(AssertionError, match="has not one of rewards, but: a, b"):
        reward_contract(module(tmp_path, "a", "b"))


@pytest.mark.slow
def test_the_other_contracts_take_settings(
    prompt_source_contract: Contract,
    teacher_contract: Contract,
    student_model_contract: Contract,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(root)
    prompt_source_contract("procedural_reasoning")
    teacher_contract("procedural", terse_fraction=1.0)
    student_model_contract("tiny_qwen2", hidden=16)
    with pytest.raises(AssertionError, match="there is no setting called 'teerse'"):
        teacher_contract("procedural", teerse=1.0)
    with pytest.raises(AssertionError, match="FAILED  loads in float32 on the CPU: hidden 7, "):
        student_model_contract("tiny_qwen2", hidden=7)
    asked = [cf.Prompt("p1", "s", ({"role": "user", "content": "Who are you?"},))]
    with pytest.raises(AssertionError, match="cannot read prompt 'p1'"):
        teacher_contract("procedural", prompts=asked)
    with pytest.raises(AssertionError, match="FAILED  gives whole prompts for both splits: "):
        prompt_source_contract("jsonl")


@pytest.mark.slow
def test_values_come_from_a_call_as_in_a_run(
    reward_values: Contract, response_format: cf.TagFormat, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    right, wrong = (response_format.render("So.", answer) for answer in ("47", "48"))
    assert reward_values("correct", [right, wrong, ""]) == [1.0, 0.0, 0.0]
    assert reward_values("correct", [right], answer=None) == [None]
    assert reward_values(half, ["", "x"], options={"per_sample": True}) == [0.5, 0.5]

    def level(completions: list[str], level: list[int]) -> list[int]:
        return level

    assert reward_values(level, ["a", "b"], level=3) == [3.0, 3.0]


def test_columns_are_what_a_reward_is_called_with(completion_columns: Contract) -> None:
    columns = completion_columns(["a", "b"], answer="7", level="easy")
    assert columns["completions"] == ["a", "b"]
    assert (columns["answer"], columns["level"]) == (["7", "7"], ["easy", "easy"])
    assert columns["trainer_state"].global_step == 0
    assert columns["log_metric"]("name", 1.0) is None
    assert len(columns["prompts"]) == len(columns["completion_ids"]) == 2
