"""Materialised prompts: no duplicates, no overlap, and an error that says which two clash."""

import itertools

import pytest
from fakes import prompt
from hypothesis import given
from hypothesis import strategies as st

from chainforge.errors import ChainForgeError
from chainforge.loops.prompts import materialise, unique
from chainforge.records import Prompt

MANY = {"train": 100, "eval": 100}


def asked(*texts: str, first: int = 0) -> list[Prompt]:
    return [prompt(first + n, text) for n, text in enumerate(texts)]


@given(texts=st.lists(st.text(alphabet="abC \n", max_size=4), min_size=1, max_size=12))
def test_prompts_that_differ_only_in_case_and_white_space_are_one(texts: list[str]) -> None:
    kept = unique("prompts.general", "train", asked(*texts), 100)
    normal = [" ".join(text.lower().split()) for text in texts]
    assert [p.id for p in kept] == [f"p{n}" for n, text in enumerate(normal) if text not in normal[:n]]


def test_splits_are_cut_to_what_was_wanted_after_duplicates_are_gone() -> None:
    sources = {"train": asked("a", "A ", "b", "c"), "eval": asked("x", "y", first=10)}
    found = materialise("prompts.general", sources, {"train": 2, "eval": 5})
    assert [p.id for p in found["train"]] == ["p0", "p2"]
    assert [p.id for p in found["eval"]] == ["p10", "p11"]


def test_a_prompt_in_both_splits_is_refused() -> None:
    sources = {"train": asked("a", "What is  6*7?"), "eval": asked("x", "what is 6*7? ", first=10)}
    with pytest.raises(
        ChainForgeError,
        match=r"prompts\.reasoning: .*evaluation prompt 'p11' is also .*training prompt 'p1'\n",
    ):
        materialise("prompts.reasoning", sources, MANY)


def test_a_prompt_that_was_cut_away_cannot_overlap() -> None:
    sources = {"train": asked("a", "b"), "eval": asked("b", first=10)}
    assert materialise("prompts.reasoning", sources, {"train": 1, "eval": 1})["eval"][0].id == "p10"


def test_the_same_last_turn_after_another_history_is_another_prompt() -> None:
    turn, before = {"role": "user", "content": "and now?"}, {"role": "user", "content": "6*7?"}
    one, two = Prompt("a", "toy", (turn,)), Prompt("b", "toy", (before, turn))  # type: ignore[arg-type]
    assert materialise("prompts.general", {"train": [one], "eval": [two]}, MANY) == {
        "train": [one],
        "eval": [two],
    }


def test_an_id_for_two_prompts_is_refused_and_the_same_prompt_twice_is_not() -> None:
    with pytest.raises(
        ChainForgeError, match=r"prompts\.general: the id 'p1' stands for two different train"
    ):
        materialise("prompts.general", {"train": [prompt(1, "a"), prompt(1, "b")], "eval": asked("x")}, MANY)
    assert len(unique("prompts.general", "train", [prompt(1, "a"), prompt(1, "A")], 2)) == 1


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_source_without_prompts_is_refused(split: str) -> None:
    sources = {"train": asked("a"), "eval": asked("x")} | {split: []}
    with pytest.raises(ChainForgeError, match=rf"prompts\.general: the source gave no prompt for {split}"):
        materialise("prompts.general", sources, MANY)


def test_an_endless_source_is_read_no_further_than_needed() -> None:
    taken = iter(prompt(n) for n in itertools.count())
    assert len(unique("prompts.general", "train", taken, 5)) == 5
    assert next(taken).id == "p5"


def test_a_source_that_repeats_itself_for_ever_is_refused() -> None:
    source = (prompt(n, f"text {n % 3}") for n in itertools.count())
    with pytest.raises(ChainForgeError, match="have only 3 different texts\n"):
        unique("prompts.general", "train", source, 4)
