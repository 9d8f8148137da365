"""Which runs are the same settings, which are twins, what a seed's experiment is called, what is said."""

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainforge.cli.run_seeds import LONGEST, ULP, free_name, slug
from chainforge.errors import ChainForgeError
from chainforge.report.compare.problems import Answers
from chainforge.report.seeds.effect import effects, paired_rates, sentence
from chainforge.report.seeds.runs import choose, plain, settings_of

CELL = ("final", "sums")


def params(seed: int = 17, rate: float = 3e-3, kl: float = 0.0, **more: Any) -> dict[str, Any]:
    tree = {"run": {"seed": seed}, "sft": {"learning_rate": rate}, "grpo": {"kl_coeff": kl}}
    return tree | {"runtime": {"device": "cpu"}} | more


def answers(seed: int, rights: list[float]) -> Answers:
    rows = [
        {
            "prompt_id": f"p{i}",
            "question": f"{seed}+{i}?",
            "answer": "1",
            "greedy": None,
            "samples": [{"text": "", "rewards": {"correct": right}}],
        }
        for i, right in enumerate(rights)
    ]
    return Answers(rows, "correct", "there")


def run(name: str, tree: dict[str, Any], rights: list[float] = [1.0, 0.0]) -> Any:  # noqa: B006
    of = answers(tree["run"]["seed"], rights)
    return SimpleNamespace(
        name=name,
        params=tree,
        usable_cells=[CELL],
        is_twin=plain(tree, "") != settings_of(tree, ""),
        revision=SimpleNamespace(answers=lambda *_: of),
    )


@given(st.floats(1e-7, 1.0).map(lambda rate: float(f"{rate:.3g}")), st.integers(1, 16))
def test_a_twin_has_the_settings_of_its_run_and_another_rate_has_not(rate: float, twin: int) -> None:
    nudged = rate * (1 + twin * ULP)
    assert nudged != rate
    assert settings_of(params(rate=nudged)) == settings_of(params(rate=rate))
    assert settings_of(params(rate=rate * 1.01)) != settings_of(params(rate=rate))
    assert run("twin", params(rate=nudged)).is_twin
    assert not run("run", params(rate=rate)).is_twin


def test_neither_the_seed_nor_what_changes_no_result_counts() -> None:
    assert settings_of(params(17)) == settings_of(params(18, runtime={"device": "cuda"}))
    assert settings_of(params(kl=0.05)) != settings_of(params())


def test_settings_and_names_choose_the_same_runs_by_seed() -> None:
    runs = [run(f"kl-{kl}-seed{s}", params(s, kl=kl)) for kl in (0.0, 0.05) for s in (17, 18)]
    runs.append(run("kl-0.0-seed17-twin1", params(17, rate=3e-3 * (1 + ULP))))
    for wanted in ("grpo.kl_coeff=0", "grpo.kl_coeff=0.0,sft.learning_rate=3e-3", "kl-0.0"):
        found = choose(runs, wanted, "run.seed")
        assert {s: r.name for s, r in found.items()} == {17: "kl-0.0-seed17", 18: "kl-0.0-seed18"}
    assert list(choose(runs, "run.seed=18", "grpo.kl_coeff")) == [0.0, 0.05]


def test_runs_that_differ_in_more_than_the_seed_are_refused_with_what_to_name() -> None:
    runs = [run("a-seed17", params(17)), run("a-seed18", params(18, kl=0.05))]
    with pytest.raises(ChainForgeError, match=r"more than run\.seed: grpo\.kl_coeff") as refused:
        choose(runs, "a", "run.seed")
    assert "grpo.kl_coeff=0.05" in str(refused.value)
    with pytest.raises(ChainForgeError, match=r"no run that has ended fits .grpo\.kl_coeff=false"):
        choose(runs, "grpo.kl_coeff=false", "run.seed")


def test_problems_are_paired_by_question_and_doubled_questions_are_two() -> None:
    a, b = answers(17, [1.0, 0.0]), answers(17, [0.0, 0.0])
    assert [*paired_rates(a, b).values()] == [(1.0, 0.0), (0.0, 0.0)]
    assert paired_rates(a, answers(18, [0.0, 0.0])) == {}
    for side in (a, b):
        side.rows["p1"] = {**side.rows["p1"], "question": side.rows["p0"]["question"]}
    assert len(paired_rates(a, b)) == 2


def test_the_sentence_says_can_only_where_the_interval_excludes_0() -> None:
    worse, mixed, better = [0.0] * 40, [1.0, 0.0] * 20, [1.0] * 40
    base = {s: run(f"a{s}", params(s), worse) for s in (1, 2, 3)}
    (clear,) = effects(base, {s: run(f"b{s}", params(s), better) for s in (1, 2, 3)})
    assert sentence(clear).endswith("over 3 seeds can be told from noise.")
    (unclear,) = effects(base, {1: base[1], 2: base[2], 3: run("b3", params(3), mixed)})
    assert "cannot be told from noise; about" in sentence(unclear)
    (same,) = effects(base, base)
    assert sentence(same) == "final on sums: no seed shows a difference."
    with pytest.raises(ChainForgeError, match="no evaluation has two in common"):
        effects(base, {3: base[3], 4: run("b4", params(4))})


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=3))
def test_every_name_is_one_that_git_takes(changes: list[str]) -> None:
    name = f"{slug(changes)}-seed17-twin1"
    assert len(slug(changes)) <= LONGEST
    assert "/" not in name
    assert subprocess.run(["git", "check-ref-format", f"refs/exps/ab/cd/{name}"]).returncode == 0


def test_a_taken_name_gets_a_number() -> None:
    assert free_name("a", []) == "a"
    assert free_name("a", ["a", "a-2"]) == "a-3"
