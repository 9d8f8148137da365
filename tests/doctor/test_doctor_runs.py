"""The doctor on real runs: ones that were spoilt on purpose, and ones that were not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from record_spoilt_runs import COLD, RUNS, make
from record_spoilt_runs import keep as keep_run
from spoilt import GOOD, RECIPES, SPOILT, Recipe

from chainforge.doctor.finding import Severity
from chainforge.doctor.table import RULES

Told = Callable[..., dict[str, Any]]
Lay = Callable[[str], Path]


def rules_of(told: Told) -> dict[str, str]:
    """Severity by rule."""
    return {finding["rule"]: finding["severity"] for finding in told()["findings"]}


@pytest.mark.dear
@pytest.mark.parametrize("name", SPOILT)
def test_what_spoilt_a_run_is_found(name: str, lay: Lay, told: Told) -> None:
    lay(name)
    assert set(SPOILT[name].rules) <= set(rules_of(told))


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOD)
def test_a_good_run_is_left_alone(name: str, lay: Lay, told: Told) -> None:
    lay(name)
    assert len(told()["steps"]) == 5, "all was looked at"
    assert rules_of(told) == {}


def test_every_rule_has_a_run_that_it_finds() -> None:
    assert {rule for recipe in SPOILT.values() for rule in recipe.rules} == {rule.name for rule in RULES}


def test_every_recording_has_a_recipe() -> None:
    assert {path.name for path in RUNS.iterdir()} == set(RECIPES)


@pytest.mark.parametrize("name", SPOILT)
def test_a_finding_names_a_setting_with_its_value_or_what_else_to_do(name: str, lay: Lay, told: Told) -> None:
    lay(name)
    for finding in told()["findings"]:
        assert finding["evidence"]
        assert finding["change"]
        assert finding["severity"] in set(Severity)


@pytest.mark.long
def test_a_run_recorded_afresh_has_the_same_verdict(
    lay: Lay, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "limit-too-low"
    lay(name)
    before = rules_of(told)
    cold = make(tmp_path / "cold", Recipe(steps=COLD, from_nothing=True), None)
    afresh = make(tmp_path / "afresh", RECIPES[name], cold)
    keep_run(afresh, RECIPES[name], tmp_path / "kept")
    shutil.copy(afresh / "dvc.yaml", tmp_path / "kept")
    monkeypatch.chdir(tmp_path / "kept")
    assert rules_of(told) == before
