"""Prompt source and reward `reasoning_gym`."""

import re
import subprocess
import sys
from typing import Any

import pytest
from fakes import SUPERCOT
from loading import FOLDER, load_plugin, registered

import chainforge as cf

PLUGIN = load_plugin("prompts_reasoning_gym")
FAMILIES = ["gcd", "chain_sum", "letter_counting"]
installed = pytest.mark.skipif(PLUGIN.find_spec("reasoning_gym") is None, reason="needs reasoning-gym")


def prompts(split: str = "train", n: int = 30, seed: int = 17, families: Any = FAMILIES) -> list[cf.Prompt]:
    source = registered("prompts_reasoning_gym", "register_prompt_sources")["reasoning_gym"]
    return list(source(split=split, n=n, seed=seed, families=families))


def reward(asked: cf.Prompt, *summaries: str) -> list[float | None]:
    many = len(summaries)
    found: list[float | None] = PLUGIN.solved(
        completions=[SUPERCOT.render("So.", summary) for summary in summaries],
        prompts=[asked.messages[-1]["content"]] * many,
        reasoning_gym=[asked.columns.get("reasoning_gym")] * many,
        response_format=SUPERCOT,
    )
    return found


@installed
def test_families_take_turns_and_ids_are_unique() -> None:
    found = prompts()
    assert [prompt.source for prompt in found] == FAMILIES * 10
    assert len({prompt.id for prompt in found}) == len({p.messages[0]["content"] for p in found}) == 30


@installed
def test_splits_never_meet_and_the_same_seed_gives_the_same() -> None:
    texts = {split: {p.messages[0]["content"] for p in prompts(split, 60)} for split in ("train", "eval")}
    others = {p.messages[0]["content"] for p in prompts("eval", 60, seed=18)}
    assert not texts["train"] & (texts["eval"] | others)
    assert prompts("train", 20) == prompts("train", 30)[:20]


@installed
def test_settings_of_a_family_are_those_of_the_package() -> None:
    found = prompts(
        families={"chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}}
    )
    for asked in found:
        assert [len(number) for number in re.findall(r"\d+", asked.messages[0]["content"])] == [1, 1]
    with pytest.raises(cf.ChainForgeError, match="family chain_sum does not take these settings"):
        prompts(families={"chain_sum": {"terms": 2}})


@pytest.mark.parametrize("family", ["countdown", "n_queens", "codeio", "game_of_life_halting", "gdc"])
@installed
def test_families_that_are_not_safe_or_not_there_are_refused_by_name(family: str) -> None:
    told = pytest.raises(cf.ChainForgeError, match=f"family '?{family}.*\n.*: .*gcd")
    with told:
        prompts(families=[family])
    origin = {"family": family, "settings": {}, "seed": 1, "index": 0}
    with told:  # whoever wrote the prompts
        reward(
            cf.Prompt("p", "toy", ({"role": "user", "content": "?"},), "1", {"reasoning_gym": origin}), "1"
        )


@installed
def test_only_full_marks_count() -> None:
    (asked,) = prompts(n=1, families=["gcd"])
    right = str(asked.answer)
    answers = (f" {right} ", rf"So \boxed{{{right}}}.", f"The answer is {right}.", f"**Answer:** {right}")
    assert reward(asked, *answers[:3]) == [1.0] * 3
    assert reward(asked, " ".join(map(str, range(100))), f"{right} or 1000", "zzz", "") == [0.0] * 4


@installed
def test_every_family_that_is_allowed_gives_its_own_answer_full_marks_and_nonsense_none() -> None:
    for family in ("basic_arithmetic", "spell_backward", "count_bits", "number_sorting", "base_conversion"):
        for asked in prompts(n=3, families=[family]):
            assert reward(asked, str(asked.answer), "zzz") == [1.0, 0.0], family


@installed
def test_a_problem_of_another_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (asked,) = prompts(n=1)
    monkeypatch.setattr(PLUGIN, "problem", lambda origin: (None, {"question": "Another?", "answer": "1"}))
    with pytest.raises(cf.ChainForgeError, match=r"problem .* of gcd is not what the prompt asks"):
        reward(asked, "1")


def test_a_prompt_of_another_source_has_no_value_and_the_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = cf.Prompt("p", "toy", ({"role": "user", "content": "6*7?"},), "42")
    assert reward(asked, "42") == [None]
    monkeypatch.setattr(PLUGIN, "find_spec", lambda name: None)
    with pytest.raises(cf.ChainForgeError, match=r"needs the package reasoning-gym\n.*\[reasoning-gym\]"):
        prompts()


@installed
@pytest.mark.slow
def test_another_hash_seed_gives_the_same_prompts() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r})\nimport prompts_reasoning_gym as g\n"
        f"print(list(g.problems(split='eval', n=30, seed=5, families={FAMILIES})))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": seed}
        )
        for seed in ("0", "12345")
    ]
    assert said[0].stdout == said[1].stdout == f"{prompts('eval', 30, 5)}\n", said[1].stderr
