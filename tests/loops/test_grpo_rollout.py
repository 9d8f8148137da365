"""Laws of a rollout: which prompts it asks, and what their rewards must be like."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import stdev
from typing import Any

import pytest
from fakes import (
    MadeUp,
    group,
    policy,
    prompt,
)
from grpo_cases import PROMPTS, STEP, by_token, mix, scored, settings_of, train_on
from hypothesis import given
from hypothesis import strategies as st

from chainforge.errors import ChainForgeError
from chainforge.loops.grpo.metrics import rollout_metrics
from chainforge.loops.grpo.rollout import Rollout
from chainforge.loops.grpo.rows import make_rows
from chainforge.records import Group, Prompt
from chainforge.reward_options import RewardOptions
from chainforge.rollout.local_engine import LocalEngine
from chainforge.scoring import WeightedReward


@pytest.mark.slow
@given(
    rounds=st.integers(0, 3),
    wanted=st.integers(1, 5),
    number=st.integers(1, 4),
    before=st.integers(0, 60),
    flat=st.sets(st.integers(0, 79)),
)
def test_groups_without_spread_are_replaced_at_most_so_many_times(
    rounds: int, wanted: int, number: int, before: int, flat: set[int]
) -> None:
    prompts = [prompt(n) for n in range(80)]
    is_flat = {f"p{n}" for n in flat}
    asked: list[list[str]] = []
    settings = settings_of(group_size=2, prompts_per_step=wanted, resample_rounds=rounds)

    class Flat:
        """A scorer that gives some prompts equal rewards."""

        def score(
            self, chosen: Sequence[Prompt], answers: Any, *, global_step: int, max_steps: int
        ) -> list[Group]:
            assert (global_step, max_steps) == (number, settings.num_rl_steps)
            asked.append([p.id for p in chosen])
            rewards = [[0.0, 0.0 if p.id in is_flat else 1.0] for p in chosen]
            return [group(*of) for of in zip(chosen, answers, rewards, strict=True)]

    engine, scorer, tokens = MadeUp(), Flat(), policy().tokenizer
    rollout = Rollout(engine, scorer, tokens, mix(prompts), settings, STEP)  # type: ignore[arg-type]
    groups, drawn = rollout.groups(number, before)
    seeds = [[STEP.seed("completion", place, index) for index in (0, 1)] for place in range(before, drawn)]
    assert [list(request.seeds) for request in engine.asked] == seeds
    everyone = [name for names in asked for name in names]
    assert drawn == before + len(everyone)  # none is skipped
    assert everyone == [p.id for n in range(before, drawn) for p in mix(prompts).draw(1, n)]
    good = [name for name in everyone if name not in is_flat]
    assert len(groups) == wanted
    assert len(set(everyone)) == len(everyone)  # a replacement is another prompt
    assert 1 <= len(asked) <= rounds + 1
    assert [g.prompt.id for g in groups][: len(good)] == good  # whoever has spread is kept
    assert len(good) == wanted or len(asked) == rounds + 1
    for turn, names in enumerate(asked):
        kept_before = sum(name not in is_flat for earlier in asked[:turn] for name in earlier)
        assert len(names) == wanted - kept_before


@given(
    size=st.integers(1, 12),
    extra_size=st.integers(0, 7),
    share=st.floats(0, 1),
    counts=st.lists(st.integers(1, 9), max_size=12),
    seed=st.integers(0, 2**31),
)
def test_no_prompt_comes_again_before_every_other_of_its_set_has_come_as_often(
    size: int, extra_size: int, share: float, counts: list[int], seed: int
) -> None:
    sets = [prompt(n) for n in range(size)], [prompt(n) for n in range(100, 100 + extra_size)]
    mixed, often, first = mix(*sets, share, seed), Counter[str](), 0
    for count in counts:
        for p in mixed.draw(count, first):
            of_its_set = next(prompts for prompts in sets if p in prompts)
            assert often[p.id] == min(often[other.id] for other in of_its_set)
            often[p.id] += 1
        first += count
        from_extra = sum(often[p.id] for p in sets[1])
        assert abs(from_extra - (first * share if extra_size else 0)) <= 0.5 + 1e-9
    assert often.total() == first


@given(share=st.floats(0, 1), count=st.integers(1, 20), first=st.integers(0, 500), seed=st.integers(0, 2**31))
def test_a_draw_depends_on_nothing_but_how_many_came_before(
    share: float, count: int, first: int, seed: int
) -> None:
    extra = [prompt(n) for n in range(100, 107)]
    mixed = mix(PROMPTS, extra, share, seed)
    drawn = mixed.draw(count, first)
    mixed.draw(count, first + 1)
    assert mixed.draw(count, first) == drawn == mix(PROMPTS, extra, share, seed).draw(count, first)
    one_by_one = [p for n in range(first, first + count) for p in mixed.draw(1, n)]
    for prompts in (PROMPTS, extra):  # other numbers at a time mix the sets otherwise, and change no pass
        assert [p for p in drawn if p in prompts] == [p for p in one_by_one if p in prompts]


def test_a_prompt_that_comes_twice_in_a_step_gets_other_completions() -> None:
    toy, settings = policy(), settings_of(prompts_per_step=8, group_size=2)

    def sampled(first: int) -> list[Group]:
        prompts = mix(PROMPTS[:2])
        rollout = Rollout(LocalEngine(toy, STEP), by_token, toy.tokenizer, prompts, settings, STEP)
        return rollout.sample(prompts.draw(8, first), 1, first)

    groups = sampled(3)
    assert Counter(g.prompt.id for g in groups) == {"p1": 4, "p2": 4}
    found = [c.token_ids for g in groups for c in g.completions if len(c.token_ids) > 3]
    assert len(set(found)) == len(found) > 10
    assert {c.token_ids for g in sampled(11) for c in g.completions}.isdisjoint(found)


def test_passes_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(p.id for p in mix(PROMPTS, seed=s).draw(8, 8 * n)) for s in range(4) for n in range(4)}
    assert len(orders) == 16


def test_the_spread_of_a_group_leaves_missing_rewards_out() -> None:
    groups = scored({"correct": 1.0}, {"correct": 0.0}, {"correct": None})
    assert rollout_metrics(groups, ["correct"])["reward_std"] == pytest.approx(0.5**0.5)
    one_left = scored({"correct": 1.0}, {"correct": None}, {"correct": None})
    assert rollout_metrics(groups + one_left, ["correct"])["reward_std"] == pytest.approx(0.5**0.5)
    assert math.isnan(rollout_metrics(one_left, ["correct"])["reward_std"])


@given(rewards=st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=4))
def test_the_spread_is_the_mean_of_those_of_the_groups(rewards: list[list[float]]) -> None:
    groups = [g for of_group in rewards for g in scored(*({"correct": r} for r in of_group))]
    wanted = sum(map(stdev, rewards)) / len(rewards)
    assert rollout_metrics(groups, ["correct"])["reward_std"] == pytest.approx(wanted, abs=1e-6)


def training_on(*parts: dict[str, float | None], may_fail: Sequence[str] = ()) -> None:
    class Given:
        """A scorer that gives these."""

        rewards = tuple(
            WeightedReward(
                name, 1.0, len, "toy", RewardOptions(on_error="none" if name in may_fail else "raise")
            )
            for name in parts[0]
        )

        def score(self, *_: object, **__: object) -> list[Group]:
            return scored(*parts)

    settings = settings_of(rewards=dict.fromkeys(parts[0], 1.0), prompts_per_step=1, num_rl_steps=1)
    train_on(policy(), settings, scorer=Given())  # type: ignore[arg-type]


def test_a_reward_that_applies_to_nothing_is_an_error_that_names_it() -> None:
    with pytest.raises(
        ChainForgeError, match="the reward 'correct' is None for every completion by RL step 1"
    ):
        training_on({"correct": None}, {"correct": None})
    nothing: dict[str, float | None] = {"correct": None, "format": 1.0}
    with pytest.raises(
        ChainForgeError, match="the reward 'correct' is None for every completion by RL step 1"
    ):
        training_on(nothing, nothing)
    training_on(nothing, {"correct": 1.0, "format": None})
    training_on(nothing, nothing, may_fail=["correct"])  # its plugin said on_error="none"
    with pytest.raises(ChainForgeError, match="the rewards correct, format are None for every completion"):
        training_on(*[dict.fromkeys(nothing)] * 2, may_fail=["correct", "format"])


@pytest.mark.slow
@given(size=st.floats(1e16, 1.7e308), sign=st.sampled_from([1, -1]))
def test_a_reward_that_overflows_is_named_and_the_learning_rate_is_not_blamed(size: float, sign: int) -> None:
    with pytest.raises(ChainForgeError, match="the reward 'correct' overflows") as caught:
        training_on({"correct": sign * size}, {"correct": 0.0})
    assert "learning rate" not in str(caught.value)


@pytest.mark.slow
@given(size=st.floats(1e-3, 1e15), scale=st.sampled_from(["group", "batch", "none"]))
def test_a_reward_that_does_not_overflow_gives_finite_advantages(size: float, scale: Any) -> None:
    groups = scored({"correct": size}, {"correct": -size}, {"correct": 0.0}) * 64
    rows = make_rows(policy().tokenizer, groups, settings_of(scale_rewards=scale), STEP)
    assert all(math.isfinite(row.advantage) for row in rows)
    assert math.isfinite(rollout_metrics(groups, ["correct"])["reward_std"])
