"""Laws of the GRPO loop: what may change the weights, and what may not."""

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any
from unittest.mock import patch

import pytest
import torch
from fakes import (
    SUPERCOT,
    MadeUp,
    Recording,
    completion,
    group,
    learner_of,
    make_step,
    policy,
    prompt,
    scorer_of,
    weights,
)
from hypothesis import given
from hypothesis import strategies as st

from chainforge.algorithms.losses import LOSSES
from chainforge.config.grpo import GrpoSettings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.errors import ChainForgeError
from chainforge.hookspecs import RewardOptions
from chainforge.learner.learner import Learner
from chainforge.learner.optimizer import NotFinite
from chainforge.loops.grpo.metrics import rollout_metrics
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.loops.grpo.rollout import Rollout
from chainforge.loops.grpo.rows import Row, make_rows, mini_batches
from chainforge.loops.grpo.train import train
from chainforge.loops.grpo.update import add_logprobs, update
from chainforge.models.checkpoint import Policy
from chainforge.records import Group, Prompt
from chainforge.rollout.local_engine import LocalEngine
from chainforge.run.step import Step
from chainforge.run.work import Work
from chainforge.scoring import Scorer, WeightedReward

PROMPTS = [prompt(n) for n in range(1, 9)]
STEP = make_step()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # logs/, plots/ and metrics/ are relative


def settings_of(loss_type: str = "grpo", **changes: Any) -> GrpoSettings:
    needed = {"clip_ratio_high": 1.5} if loss_type == "cispo" else {}
    small = {"group_size": 4, "prompts_per_step": 2, "num_rl_steps": 3, "max_new_tokens": 16, "kl_coeff": 0.0}
    paths = {"output": "out", "start_from": "in", "prompts": "prompts", "rewards": {"correct": 1.0}}
    return GrpoSettings(**paths | small | needed | {"loss_type": loss_type} | changes)


def random_groups(
    seed: int = 0, finish: Callable[[int], str] = lambda n: "stop", reward: Any = None
) -> list[Group]:
    """Three groups of four completions of random tokens and lengths, with random rewards."""
    generator = torch.Generator().manual_seed(seed)
    groups = []
    for number in range(3):
        p = prompt(number, "x" * 7 * number)
        lengths = torch.randint(1, 17, (4,), generator=generator).tolist()
        answers = [
            completion(
                p, token_ids=torch.randint(3, 290, (n,), generator=generator).tolist(), finish=finish(i)
            )
            for i, n in enumerate(lengths)
        ]
        rewards = torch.rand(4, generator=generator).tolist() if reward is None else [reward] * 4
        groups.append(group(p, answers, rewards))
    return groups


def figures() -> list[dict[str, str]]:
    return list(csv.DictReader(Path("plots/grpo_reasoning.csv").read_text().splitlines()))


def gradient_of(
    toy: Policy, rows: Sequence[Row], settings: GrpoSettings, step: Step = STEP
) -> tuple[torch.Tensor, dict[str, float]]:
    learner = learner_of(toy, settings, step)
    with patch("chainforge.learner.local_learner.ScheduledOptimizer", Recording):
        learner.begin(1)
    metrics = update(learner, rows, settings, step)
    return Recording.gradient, metrics


def logprobs_of(
    toy: Policy, rows: Sequence[Row], settings: GrpoSettings, step: Step = STEP
) -> list[list[float]]:
    return learner_of(toy, settings, step).logprobs([row.tokens for row in rows], settings.temperature)


def started(toy: Policy, settings: GrpoSettings, step: Step = STEP) -> Learner:
    """A learner that can take steps."""
    learner = learner_of(toy, settings, step)
    learner.begin(settings.num_rl_steps * settings.num_iterations * settings.mini_batches)
    return learner


def rows_of(
    toy: Policy, groups: Sequence[Group], settings: GrpoSettings, reference: Policy | None
) -> list[Row]:
    """Rows whose sampling log-probabilities are those of a policy a little off, so that clipping happens."""
    rows = make_rows(toy.tokenizer, groups, settings, STEP)
    add_logprobs(learner_of(toy, settings, STEP, reference), rows, settings, STEP)
    older = policy(seed=0, sharpness=0.21)
    for row, logp in zip(rows, logprobs_of(older, rows, settings), strict=True):
        row.old_logp = logp
    return rows


@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize("kl_coeff", [0.0, 0.3])
@pytest.mark.parametrize("loss_type", sorted(LOSSES))
def test_an_update_does_not_depend_on_the_size_of_a_micro_batch(
    loss_type: str, kl_coeff: float, on_policy: bool
) -> None:
    toy, reference = policy(), policy(seed=1)
    settings = settings_of(
        loss_type, kl_coeff=kl_coeff, mini_batches=1 if on_policy else 2, temperature=0.8, mask_truncated=True
    )
    groups = random_groups(finish=lambda n: "length" if n == 2 else "stop")
    rows = rows_of(toy, groups, settings, reference if kl_coeff else None)
    whole, metrics = gradient_of(toy, rows, settings, make_step(micro_batch_tokens=10**6))
    assert whole.norm() > 1e-3
    for tokens in (1, 100, 300):
        gradient, again = gradient_of(toy, rows, settings, make_step(micro_batch_tokens=tokens))
        torch.testing.assert_close(gradient, whole, atol=1e-6, rtol=1e-5)
        assert again == pytest.approx(metrics, rel=1e-4, abs=1e-6)


def test_weights_after_training_do_not_depend_on_the_size_of_a_micro_batch() -> None:
    found = []
    for tokens in (10**6, 64):
        toy = policy()
        train_on(toy, settings_of(), step=make_step(micro_batch_tokens=tokens))
        found.append(weights(toy))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("iterations", "parts"), [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_old_log_probabilities_are_those_of_the_policy_that_sampled_and_cost_no_pass_of_their_own(
    iterations: int, parts: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy, passed = policy(), []
    step = Step("grpo", RunSettings(precision=precision), RuntimeSettings(device="cpu"))  # type: ignore[arg-type]
    settings = settings_of(num_iterations=iterations, mini_batches=parts, learning_rate=1e-2)
    rows = make_rows(toy.tokenizer, random_groups(), settings, step)
    before = logprobs_of(toy, rows, settings, step)
    for row, logp_T in zip(rows, before, strict=True):
        row.sampled_logp = logp_T
    learner = started(toy, settings, step)
    usual = learner.logprobs
    monkeypatch.setattr(learner, "logprobs", lambda of, *a: passed.extend(of) or usual(of, *a))
    add_logprobs(learner, rows, settings, step)
    first, *later = mini_batches(rows, settings)
    later_tokens = [row.tokens for part in later for row in part]
    assert passed == (later_tokens if precision == "bfloat16" else [])
    assert all(row.old_logp is None for row in first)
    figures = update(learner, first, settings, step)
    tolerance = 1e-5 if precision == "float32" else 0.05
    assert figures["drift"] == pytest.approx(0, abs=tolerance)
    assert figures["clip_region"] == 0
    assert not all(torch.equal(a, b) for a, b in zip(weights(toy), weights(policy()), strict=True))
    for row, logp_T in zip(rows, before, strict=True):
        if row in first and iterations == 1:
            assert row.old_logp is None
        else:
            assert row.old_logp == pytest.approx(logp_T, abs=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.02)])
def test_checkpointing_changes_no_gradient(precision: str, tolerance: float) -> None:
    toy, settings, run = policy(), settings_of(), RunSettings(precision=precision)  # type: ignore[arg-type]
    rows = make_rows(toy.tokenizer, random_groups(), settings, STEP)
    found = [
        gradient_of(
            toy, rows, settings, Step("s", run, RuntimeSettings(device="cpu", gradient_checkpointing=on))
        )
        for on in (False, True)
    ]
    assert (found[0][0] - found[1][0]).norm() <= tolerance * found[0][0].norm()
    assert found[0][1] == pytest.approx(found[1][1], rel=tolerance, abs=1e-6)


def mix(
    prompts: Sequence[Prompt], extra: Sequence[Prompt] = (), share: float = 0.5, seed: int = 3
) -> PromptMix:
    return PromptMix(prompts, extra, share, seed)


by_token, equal = scorer_of(lambda ids: float(ids[0] % 3)), scorer_of(lambda ids: 1.0)


def train_on(
    toy: Policy,
    settings: GrpoSettings,
    reference: Policy | None = None,
    *,
    scorer: Scorer = by_token,
    step: Step = STEP,
) -> MadeUp:
    """Train on completions that are made up."""
    engine = MadeUp()
    train(learner_of(toy, settings, step, reference), engine, scorer, mix(PROMPTS), settings, step, Work())
    return engine


def made_up_groups(scorer: Scorer, settings: GrpoSettings) -> list[Group]:
    return Rollout(MadeUp(), scorer, policy().tokenizer, mix(PROMPTS), settings, STEP).sample(PROMPTS, 0, 0)


def test_the_engine_gets_the_weights_of_each_rollout() -> None:
    assert train_on(policy(), settings_of()).versions == [1, 2, 3]


@pytest.mark.parametrize("loss_type", sorted(LOSSES))
def test_equal_rewards_leave_the_weights_untouched(loss_type: str) -> None:
    toy = policy()
    before = weights(toy)
    train_on(toy, settings_of(loss_type, weight_decay=0.5), scorer=equal)
    assert all(torch.equal(a, b) for a, b in zip(weights(toy), before, strict=True))


def test_equal_rewards_with_a_kl_pull_the_policy_to_its_reference() -> None:
    toy, reference = policy(seed=0, sharpness=0.3), policy(seed=0)
    settings = settings_of(kl_coeff=1.0, num_rl_steps=30, learning_rate=1e-2)
    before, kl_before = weights(reference), kl_between(toy, reference, settings)
    train_on(toy, settings, reference, scorer=equal)
    assert kl_between(toy, reference, settings) < 0.6 * kl_before
    assert all(torch.equal(a, b) for a, b in zip(weights(reference), before, strict=True))


def kl_between(toy: Policy, reference: Policy, settings: GrpoSettings) -> float:
    rows = make_rows(toy.tokenizer, made_up_groups(equal, settings), settings, STEP)
    add_logprobs(learner_of(toy, settings, STEP, reference), rows, settings, STEP)
    return gradient_of(toy, rows, settings)[1]["kl"]


def test_groups_without_spread_can_be_left_out_of_the_kl_too() -> None:
    toy, reference = policy(), policy(seed=1)
    settings = settings_of(kl_coeff=1.0, drop_equal_groups=True)
    before = weights(toy)
    train_on(toy, settings, reference, scorer=equal)
    assert all(torch.equal(a, b) for a, b in zip(weights(toy), before, strict=True))
    one, two, three = random_groups()
    mixed = [one, group(two.prompt, two.completions, [0.5] * 4), three]
    assert [row.learns for row in make_rows(toy.tokenizer, mixed, settings, STEP)] == [True] * 4 + [
        False
    ] * 4 + [True] * 4
    settings = settings_of(kl_coeff=1.0)
    assert all(row.learns for row in make_rows(toy.tokenizer, mixed, settings, STEP))


def test_a_kl_to_itself_pulls_nowhere() -> None:
    toy, reference = policy(), policy()
    settings = settings_of(kl_coeff=1.0)
    groups = random_groups(reward=1.0)
    rows = make_rows(toy.tokenizer, groups, settings, STEP)
    add_logprobs(learner_of(toy, settings, STEP, reference), rows, settings, STEP)
    gradient, metrics = gradient_of(toy, rows, settings)
    assert metrics["kl"] == pytest.approx(0, abs=1e-6)
    assert float(gradient.abs().max()) < 1e-5


def test_the_kl_changes_the_gradient() -> None:
    toy, reference = policy(), policy(seed=1)
    groups = random_groups()
    without, metrics = gradient_of(toy, make_rows(toy.tokenizer, groups, settings_of(), STEP), settings_of())
    assert "kl" not in metrics
    settings = settings_of(kl_coeff=0.5)
    rows = make_rows(toy.tokenizer, groups, settings, STEP)
    add_logprobs(learner_of(toy, settings, STEP, reference), rows, settings, STEP)
    with_kl, metrics = gradient_of(toy, rows, settings)
    assert metrics["kl"] > 0
    assert not torch.allclose(without, with_kl, atol=1e-4)


def test_a_reference_that_is_synchronised_ends_as_the_policy() -> None:
    toy, reference = policy(), policy()
    settings = settings_of(kl_coeff=0.1, ref_sync_steps=3, learning_rate=1e-3)
    train_on(toy, settings, reference)
    assert not all(torch.equal(a, b) for a, b in zip(weights(toy), weights(policy()), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights(toy), weights(reference), strict=True))


@pytest.mark.parametrize("kl_coeff", [0.0, 0.1])
@pytest.mark.parametrize("loss_type", sorted(LOSSES))
def test_what_a_masked_completion_says_has_no_influence(loss_type: str, kl_coeff: float) -> None:
    toy, reference = policy(), policy(seed=1) if kl_coeff else None
    settings = settings_of(loss_type, mask_truncated=True, kl_coeff=kl_coeff)
    one, other = random_groups(0), random_groups(1)
    found = []
    for truncated in (one, other):
        groups = [
            group(
                g.prompt,
                [
                    completion(g.prompt, token_ids=t.completions[0].token_ids, finish="length"),
                    *g.completions[1:],
                ],
                [score.total for score in g.scores],
            )
            for g, t in zip(one, truncated, strict=True)
        ]
        rows = make_rows(toy.tokenizer, groups, settings, STEP)
        add_logprobs(learner_of(toy, settings, STEP, reference), rows, settings, STEP)
        found.append(gradient_of(toy, rows, settings)[0])
    torch.testing.assert_close(*found, atol=1e-7, rtol=1e-6)


def test_a_masked_completion_still_shapes_the_baseline_of_its_group() -> None:
    toy, settings = policy(), settings_of(mask_truncated=True)
    p = prompt()
    answers = [
        completion(p, token_ids=[5, 6, 7], finish=finish) for finish in ("length", "stop", "stop", "stop")
    ]
    low, high = (
        make_rows(toy.tokenizer, [group(p, answers, [reward, 0.0, 0.5, 1.0])], settings, STEP)
        for reward in (0.0, 1.0)
    )
    assert not low[0].learns
    assert low[2].advantage > 0 > high[2].advantage


def test_all_masked_is_no_step_at_all() -> None:
    toy, settings = policy(), settings_of(mask_truncated=True)
    before = weights(toy)
    rows = make_rows(toy.tokenizer, random_groups(finish=lambda n: "length"), settings, STEP)
    assert update(started(toy, settings), rows, settings, STEP) == {}
    assert all(torch.equal(a, b) for a, b in zip(weights(toy), before, strict=True))


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
        rollout = Rollout(LocalEngine(toy, STEP), bandit(5), toy.tokenizer, prompts, settings, STEP)
        return rollout.sample(prompts.draw(8, first), 1, first)

    groups = sampled(3)
    assert Counter(g.prompt.id for g in groups) == {"p1": 4, "p2": 4}
    found = [c.token_ids for g in groups for c in g.completions if len(c.token_ids) > 3]
    assert len(set(found)) == len(found) > 10
    assert {c.token_ids for g in sampled(11) for c in g.completions}.isdisjoint(found)


def test_passes_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(p.id for p in mix(PROMPTS, seed=s).draw(8, 8 * n)) for s in range(4) for n in range(4)}
    assert len(orders) == 16


def scored(*parts: dict[str, float | None]) -> list[Group]:
    """One group whose rewards have these parts, weighted as `Scorer` does."""
    p, scorer = (
        prompt(),
        Scorer(tuple(WeightedReward(name, 1.0, len, "toy") for name in parts[0]), SUPERCOT, 1),
    )
    return [Group(p, (completion(p, token_ids=[5]),) * len(parts), tuple(map(scorer.weigh, parts)))]


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


@given(size=st.floats(1e16, 1.7e308), sign=st.sampled_from([1, -1]))
def test_a_reward_that_overflows_is_named_and_the_learning_rate_is_not_blamed(size: float, sign: int) -> None:
    with pytest.raises(ChainForgeError, match="the reward 'correct' overflows") as caught:
        training_on({"correct": sign * size}, {"correct": 0.0})
    assert "learning rate" not in str(caught.value)


@given(size=st.floats(1e-3, 1e15), scale=st.sampled_from(["group", "batch", "none"]))
def test_a_reward_that_does_not_overflow_gives_finite_advantages(size: float, scale: Any) -> None:
    groups = scored({"correct": size}, {"correct": -size}, {"correct": 0.0}) * 64
    rows = make_rows(policy().tokenizer, groups, settings_of(scale_rewards=scale), STEP)
    assert all(math.isfinite(row.advantage) for row in rows)
    assert math.isfinite(rollout_metrics(groups, ["correct"])["reward_std"])


@given(groups=st.integers(1, 12), size=st.integers(2, 4), parts=st.integers(1, 5))
def test_mini_batches_are_even_and_split_no_group(groups: int, size: int, parts: int) -> None:
    rows: Any = [(g, i) for g in range(groups) for i in range(size)]
    settings = settings_of(group_size=size, mini_batches=parts)
    found: Any = mini_batches(rows, settings)
    assert sorted(row for part in found for row in part) == rows
    assert all(set(Counter(g for g, _ in part).values()) <= {size} for part in found)
    sizes = [len(part) for part in found]
    assert max(sizes) - min(sizes) <= size


def test_a_loss_that_is_not_a_number_leaves_its_batch_to_look_at() -> None:
    toy, settings = policy(), settings_of()
    rows = make_rows(toy.tokenizer, random_groups(), settings, STEP)
    with torch.no_grad():
        toy.model.get_output_embeddings().weight[7, 3] = math.nan
    before = weights(toy)
    with pytest.raises(NotFinite, match="the loss is nan"):
        update(
            started(toy, settings, make_step(micro_batch_tokens=10**6)),
            rows,
            settings,
            make_step(micro_batch_tokens=10**6),
        )
    dumped = json.loads(Path("logs/grpo_reasoning.not-finite.json").read_text())
    assert len(dumped) == len(rows)
    assert sorted(row["tokens"]["completion"] for row in dumped) == sorted(
        list(row.tokens.completion) for row in rows
    )
    for a, b in zip(weights(toy), before, strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())


def test_a_gradient_that_is_not_a_number_leaves_its_batch_and_the_weights_alone() -> None:
    toy, settings = policy(), settings_of(learning_rate=0.1)
    before = weights(toy)
    toy.model.get_decoder().norm.weight.register_hook(lambda gradient: gradient * math.inf)
    rows = make_rows(toy.tokenizer, random_groups(), settings, STEP)
    with pytest.raises(NotFinite, match=r"the gradient norm is (nan|inf)"):
        update(started(toy, settings), rows, settings, STEP)
    assert Path("logs/grpo_reasoning.not-finite.json").is_file()
    assert all(torch.equal(a, b) for a, b in zip(weights(toy), before, strict=True))


def bandit(token: int) -> Scorer:
    """Rewards whether the first token is the one."""
    return scorer_of(lambda ids: float(ids[0] == token))


def chance(toy: Policy, token: int) -> float:
    """How likely the token is at the start of a response, on average over the prompts."""
    rows = [
        make_rows(
            toy.tokenizer, [group(p, [completion(p, token_ids=[token])] * 2, [0.0, 0.0])], settings_of(), STEP
        )[0]
        for p in PROMPTS[:4]
    ]
    return sum(math.exp(logp[0]) for logp in logprobs_of(toy, rows, settings_of())) / len(rows)


@pytest.mark.parametrize("loss_type", sorted(LOSSES))
def test_training_raises_the_probability_of_what_is_rewarded(loss_type: str) -> None:
    toy = policy(sharpness=0.4)
    token = max(range(3, 290), key=lambda t: chance(toy, t) if t % 40 == 0 else 0.0)
    before = chance(toy, token)
    assert before < 0.2
    settings = settings_of(
        loss_type,
        max_new_tokens=2,
        group_size=32,
        prompts_per_step=4,
        num_rl_steps=12,
        learning_rate=1e-2,
        num_iterations=2,
    )
    learner, engine = learner_of(toy, settings), LocalEngine(toy, STEP)
    train(learner, engine, bandit(token), mix(PROMPTS[:4]), settings, STEP, Work())
    assert chance(toy, token) > max(2 * before, 0.3)


def test_training_twice_gives_the_same_bytes_and_one_row_of_figures_per_step() -> None:
    found = []
    for _ in range(2):
        toy, settings = policy(), settings_of(max_new_tokens=6, learning_rate=1e-3)
        learner, engine = learner_of(toy, settings), LocalEngine(toy, STEP)
        table, summary = train(learner, engine, HalfRight(), mix(PROMPTS), settings, STEP, Work())  # type: ignore[arg-type]
        STEP.finish(summary, table)
        files = [
            Path(name).read_bytes() for name in ("plots/grpo_reasoning.csv", "metrics/grpo_reasoning.json")
        ]
        found.append((weights(toy), files))
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
    assert found[0][1] == found[1][1]
    rows = figures()
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert all(float(row["reward"]) == 0.5 for row in rows)
    assert float(rows[0]["sampling/sampling_logp_difference/mean"]) < 1e-4  # the sampler's agree with ours
    assert "kl" in rows[0]
    assert rows[0]["kl"] == ""  # never computed
    assert json.loads(Path("metrics/grpo_reasoning.json").read_text())["reward"] == 0.5


class HalfRight:
    """A scorer by which every other completion is right."""

    rewards = by_token.rewards

    def score(self, chosen: Sequence[Prompt], answers: Any, **_: int) -> list[Group]:
        return [
            group(p, each, [1.0, 0.0] * (len(each) // 2)) for p, each in zip(chosen, answers, strict=True)
        ]
