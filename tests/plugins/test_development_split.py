"""The development split meets neither training nor test, whichever bundled source makes the problems."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import registered

from chainforge import ChainForgeError, Prompt
from chainforge.loops.development import development, twin_key
from chainforge.loops.prompts import materialise
from chainforge.records import plain_text

Source = Callable[..., Any]
TRAIN, TEST, DEV = 200, 60, 30
MADE: dict[str, Source] = {
    "arithmetic": registered("prompts_arithmetic", "register_prompt_sources")["arithmetic"],
    "arithmetic of one digit": partial(
        registered("prompts_arithmetic", "register_prompt_sources")["arithmetic"], digits=1, numbers=3
    ),
    "countdown": registered("prompts_countdown", "register_prompt_sources")["countdown"],
    "instructions": registered("prompts_instructions", "register_prompt_sources")["procedural_instructions"],
    "reasoning": registered("prompts_procedural", "register_prompt_sources")["procedural_reasoning"],
}
jsonl = registered("prompts_jsonl", "register_prompt_sources")["jsonl"]


def splits(source: Source, seed: int, side: str) -> dict[str, list[Prompt]]:
    """As the step `prompts` draws them."""
    counts = {"train": TRAIN, "eval": TEST}
    ask = partial(source, seed=seed)
    found = materialise("mine", {split: ask(split=split, n=n) for split, n in counts.items()}, counts)
    pool = ask(split=side, n=counts[side] + DEV)
    return found | {"dev": development("mine", pool, DEV, [*found["train"], *found["eval"]])}


@pytest.mark.dear
@pytest.mark.parametrize("name", MADE)
@given(seed=st.integers(0, 2**63 - 1))
@settings(max_examples=8, deadline=None)
def test_no_problem_is_in_two_splits_not_even_turned_around(name: str, seed: int) -> None:
    found = splits(MADE[name], seed, "eval")
    keys = {split: set(map(twin_key, prompts)) for split, prompts in found.items()}
    assert 0 < len(found["dev"]) <= DEV
    assert not keys["dev"] & (keys["train"] | keys["eval"])
    texts = {split: set(map(plain_text, prompts)) for split, prompts in found.items()}
    assert not texts["train"] & texts["eval"]
    assert not {p.id for p in found["dev"]} & {p.id for p in found["eval"]}


@given(seed=st.integers(0, 2**63 - 1))
@settings(max_examples=8, deadline=None)
def test_sums_of_the_same_numbers_are_on_one_side_of_the_three(seed: int) -> None:
    found = splits(MADE["arithmetic of one digit"], seed, "eval")

    def numbers_and_signs(prompt: Prompt) -> tuple[str, ...]:
        return tuple(sorted(prompt.messages[0]["content"].removesuffix("?").split()))

    of = {split: set(map(numbers_and_signs, prompts)) for split, prompts in found.items()}
    assert not of["train"] & of["eval"]
    assert not of["dev"] & (of["train"] | of["eval"])


@given(seed=st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_of_a_file_it_is_what_training_left_and_the_test_file_stays_unread(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("files")
    for split, count in (("train", TRAIN + DEV), ("test", TEST)):
        rows = ({"question": f"{split} {i * 7}?", "answer": "1"} for i in range(count))
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = partial(jsonl, train=folder / "train.jsonl", eval=folder / "test.jsonl")
    found = splits(source, seed, "train")
    assert len(found["dev"]) == DEV
    assert {p.source for p in found["dev"]} == {"train"}
    assert not {p.id for p in found["dev"]} & {p.id for p in found["train"]}


def test_where_training_took_all_there_is_none_and_the_error_says_so() -> None:
    pool = list(MADE["arithmetic"](split="train", n=20, seed=1))
    with pytest.raises(
        ChainForgeError, match=r"prompts\.mine: no problem is left .*\n.*prompts\.mine\.dev_from"
    ):
        development("prompts.mine", pool, 5, pool)


@pytest.mark.parametrize(
    ("one", "other", "twins"),
    [
        ("What is 12 + 35?", "what is  35 + 12?", True),
        ("What is 12 + 35?", "What is 12 - 35?", False),
        ("What is 12 + 35?", "What is 13 + 25?", False),
    ],
)
def test_twins_differ_in_the_order_of_numbers_alone(one: str, other: str, twins: bool) -> None:
    first, second = (Prompt("x", "x", ({"role": "user", "content": text},), "1") for text in (one, other))
    assert (twin_key(first) == twin_key(second)) == twins
