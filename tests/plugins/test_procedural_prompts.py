"""Prompt sources `procedural_reasoning` and `procedural_instructions`."""

import hashlib
import json
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import load_plugin, registered

import chainforge as cf
from chainforge.records import to_json

SOURCES = {
    **registered("prompts_procedural", "register_prompt_sources"),
    **registered("prompts_instructions", "register_prompt_sources"),
}
FAMILIES = [
    (name, family)
    for name, plugin in (
        ("procedural_reasoning", "prompts_procedural"),
        ("procedural_instructions", "prompts_instructions"),
    )
    for family in load_plugin(plugin).FAMILIES
]
each_source = pytest.mark.parametrize("source", sorted(SOURCES))


def prompts(source: str, split: str, n: int, seed: int, **more: Any) -> list[cf.Prompt]:
    return list(SOURCES[source](split=split, n=n, seed=seed, **more))


def questions(source: str, split: str, n: int, seed: int) -> set[str]:
    return {prompt.messages[0]["content"] for prompt in prompts(source, split, n, seed)}


@each_source
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), other=st.integers(0, 2**31))
def test_train_and_eval_never_meet_whatever_their_seeds(source: str, seed: int, other: int) -> None:
    assert not questions(source, "train", 300, seed) & questions(source, "eval", 150, other)


@pytest.mark.dear
@each_source
def test_a_big_run_has_no_question_twice_and_ids_are_unique(source: str) -> None:
    train, held_out = prompts(source, "train", 4000, 17), prompts(source, "eval", 1000, 17)
    texts = [prompt.messages[0]["content"] for prompt in train + held_out]
    assert len(set(texts)) == len(texts) == 5000
    assert len({prompt.id for prompt in train + held_out}) == 5000


@each_source
@given(seed=st.integers(0, 2**31), n=st.integers(1, 40), more=st.integers(0, 20))
@settings(max_examples=10)
def test_the_same_seed_gives_the_same_prompts_and_more_of_them_go_on(
    source: str, seed: int, n: int, more: int
) -> None:
    assert prompts(source, "train", n, seed) == prompts(source, "train", n + more, seed)[:n]


@each_source
def test_families_have_equal_shares(source: str) -> None:
    names = [prompt.source for prompt in prompts(source, "eval", 500, 3)]
    assert len({names.count(name) for name in names}) == 1


@pytest.mark.parametrize(("source", "family"), FAMILIES)
def test_a_family_is_the_same_alone_and_in_company(source: str, family: str) -> None:
    together = prompts(source, "train", 50, 5)
    alone = prompts(source, "train", 50, 5, families=[family])
    mine = [prompt for prompt in together if prompt.source == family]
    assert mine
    assert mine == alone[: len(mine)]


@pytest.mark.parametrize(("source", "family"), FAMILIES)
def test_every_prompt_has_an_answer_or_a_check(source: str, family: str) -> None:
    for prompt in prompts(source, "train", 50, 5, families=[family]):
        assert (prompt.answer is None) == ("check" in prompt.columns)
        assert cf.from_json(cf.Prompt, json.loads(json.dumps(to_json(prompt)))) == prompt


def test_a_problem_turned_around_stays_in_its_split() -> None:
    split_of = load_plugin("prompts_procedural").split_of
    assert split_of("addition", "12+35=?") == split_of("addition", "35+12=?")
    assert split_of("sorting", "Sort the digits of 4821.") == split_of("sorting", "Sort the digits of 1284.")


@pytest.mark.parametrize(
    ("source", "digest"),
    [("procedural_reasoning", "b7bf7b981df692e5"), ("procedural_instructions", "ae67716a86291fb8")],
)
def test_prompts_are_the_same_bytes_on_every_machine(source: str, digest: str) -> None:
    rows = [to_json(prompt) for prompt in prompts(source, "train", 200, 17)]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == digest


def test_a_used_up_family_is_named() -> None:
    source = SOURCES["procedural_reasoning"](split="eval", n=10**6, seed=1, families=["binary"])
    with pytest.raises(cf.ChainForgeError, match=r"binary is used up: it has about 2.. different eval"):
        list(source)


@each_source
@pytest.mark.parametrize("families", [[], ["addition", "divination"], ["repeat", "repeat"]])
def test_a_wrong_choice_of_families_is_an_error_that_names_the_known(
    source: str, families: list[str]
) -> None:
    with pytest.raises(cf.ChainForgeError, match="known: "):
        prompts(source, "train", 1, 1, families=families)


@each_source
def test_an_unknown_split_is_an_error(source: str) -> None:
    with pytest.raises(cf.ChainForgeError, match="no split called 'test'"):
        list(islice(SOURCES[source](split="test", n=1, seed=1), 1))
