"""Gates: a checkpoint that is worse than its parent goes no further, and who runs it is told by how much."""

import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.algorithms.statistics import paired_difference
from chainforge.config.gate import GateSettings
from chainforge.errors import ChainForgeError
from chainforge.jsonl import write_rows
from chainforge.report.compare.gate import compare_on_guards, figures_of_gate, is_worse, pass_or_raise

rates = st.sampled_from([i / 4 for i in range(5)])


def gate(**changes: Any) -> GateSettings:
    given_ = {"checkpoint": "trained", "parent": "before", "benches": ["general"], "grader": "exact"}
    return GateSettings(**given_ | changes)


def write(root: Path, checkpoint: str, right: list[bool], bench: str = "general") -> None:
    """An evaluation with one answer per problem, which the training reward likes in any case."""
    rows = [
        {
            "prompt_id": f"p{i}",
            "source": "toy",
            "question": f"{i}?",
            "answer": "42",
            "samples": [{"text": "…", "rewards": {"exact": float(good), "liked": 1.0}}],
            "greedy": None,
        }
        for i, good in enumerate(right)
    ]
    write_rows(root / "data/eval" / checkpoint / f"{bench}.jsonl", rows)


def judge(root: Path, settings: GateSettings) -> str:
    return pass_or_raise("grpo_final", compare_on_guards(root, settings), settings)


def test_a_spoilt_checkpoint_stops_with_by_how_much_and_how_to_go_on(tmp_path: Path) -> None:
    write(tmp_path, "before", [True] * 70 + [False] * 30)
    write(tmp_path, "trained", [True] * 40 + [False] * 60)
    with pytest.raises(ChainForgeError) as caught:
        judge(tmp_path, gate())
    assert str(caught.value) == (
        "trained is worse than its parent before, by exact: general -30.0 points [-39.0, -21.0], from 70.0% "
        "to 40.0% on the same 100 problems. grpo_final does not start\n"
        "  -> train it with other settings; or go on anyway: raise gates.grpo_final.tolerance, or take "
        "gates.grpo_final out of params.yaml, then dvc repro (once: dvc exp run -S '~gates.grpo_final'). "
        "What it wrote is in data/eval/trained/general.jsonl"
    )
    _refusal(
        tmp_path, gate(tolerance=0.2), "on the same 100 problems, and 20 points are tolerated. grpo_final"
    )
    assert "-30.0 points" in judge(tmp_path, gate(tolerance=0.22))
    assert "+0.0 points" in judge(tmp_path, gate(grader="liked"))


def _refusal(root: Path, settings: GateSettings, words: str) -> ChainForgeError:
    with pytest.raises(ChainForgeError, match=re.escape(words)) as caught:
        judge(root, settings)
    return caught.value


def test_chance_does_not_stop_a_run(tmp_path: Path) -> None:
    """Two of a hundred problems lost is what another seed does too."""
    write(tmp_path, "before", [True] * 50 + [False] * 50)
    write(tmp_path, "trained", [True] * 48 + [False] * 52)
    assert judge(tmp_path, gate()) == (
        "trained and its parent before, by exact: general -2.0 points [-4.8, +0.8], from 50.0% to 48.0% "
        "on the same 100 problems"
    )


def test_one_bad_guard_of_several_stops_and_is_the_one_that_is_named(tmp_path: Path) -> None:
    for bench, right in (("general", 60), ("reasoning", 20)):
        write(tmp_path, "before", [True] * 60 + [False] * 40, bench)
        write(tmp_path, "trained", [True] * right + [False] * (100 - right), bench)
    settings = gate(benches=["general", "reasoning"])
    problem = _refusal(tmp_path, settings, "reasoning -40.0 points").problem
    assert "general" not in problem
    figures = figures_of_gate(compare_on_guards(tmp_path, settings))
    assert (figures["reasoning/difference"], figures["general/difference"]) == (pytest.approx(-0.4), 0.0)
    assert figures["reasoning/ci95_lo"] < -0.4 < figures["reasoning/ci95_hi"] < 0
    assert figures["reasoning/n"] == 100


def test_problems_that_are_not_the_same_are_not_compared(tmp_path: Path) -> None:
    write(tmp_path, "before", [True] * 5)
    write_rows(
        tmp_path / "data/eval/trained/general.jsonl",
        [{"prompt_id": "p0", "question": "another?", "answer": "1", "greedy": None,
          "samples": [{"text": "…", "rewards": {"exact": 0.0}}]}],
    )  # fmt: skip
    _refusal(tmp_path, gate(), "have no problem of general in common")
    _refusal(tmp_path, gate(checkpoint="none"), "there is no file")


def test_a_grader_that_the_evaluation_does_not_have_is_named(tmp_path: Path) -> None:
    for checkpoint in ("before", "trained"):
        write(tmp_path, checkpoint, [True])
    _refusal(tmp_path, gate(grader="exat"), "there is no reward called 'exat'")


@given(pairs=st.lists(st.tuples(rates, rates), min_size=1, max_size=60), tolerance=rates)
def test_worse_is_one_way_and_a_tolerance_only_lets_more_through(
    pairs: list[tuple[float, float]], tolerance: float
) -> None:
    mine, theirs = zip(*pairs, strict=True)
    forward, backward = paired_difference(mine, theirs), paired_difference(theirs, mine)
    assert not (is_worse(forward) and is_worse(backward))
    assert is_worse(forward, tolerance) <= is_worse(forward)
    if is_worse(forward):
        assert sum(mine) < sum(theirs)


def test_an_equal_checkpoint_is_stopped_by_chance_about_25_times_in_1000() -> None:
    rng = random.Random(5)
    stopped = 0
    for _ in range(600):
        pairs = [(rng.random() < rate, rng.random() < rate) for rate in (rng.random() for _ in range(60))]
        stopped += is_worse(
            paired_difference(*([float(x) for x in side] for side in zip(*pairs, strict=True)))
        )
    assert stopped / 600 <= 0.05
