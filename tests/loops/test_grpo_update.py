"""Laws of one update: what changes its gradient, and what must not."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import (
    completion,
    group,
    learner_of,
    make_step,
    policy,
    prompt,
    weights,
)
from grpo_cases import STEP, gradient_of, logprobs_of, random_groups, settings_of, started
from hypothesis import given
from hypothesis import strategies as st

from chainforge.algorithms.losses import LOSSES
from chainforge.config.grpo import GrpoSettings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.learner.optimizer import NotFinite
from chainforge.loops.grpo.rows import Row, make_rows, mini_batches
from chainforge.loops.grpo.update import add_logprobs, update
from chainforge.models.checkpoint import Policy
from chainforge.records import Group
from chainforge.run.step import Step


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


@pytest.mark.slow
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


@pytest.mark.dear
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
    for row, logp_T in zip(rows, logprobs_of(toy, rows, settings), strict=True):
        row.sampled_logp = logp_T
    found = [
        gradient_of(
            toy, rows, settings, Step("s", run, RuntimeSettings(device="cpu", gradient_checkpointing=on))
        )
        for on in (False, True)
    ]
    assert (found[0][0] - found[1][0]).norm() <= tolerance * found[0][0].norm()
    assert found[0][0].norm() > 1e-3
    assert found[0][1] == pytest.approx(found[1][1], rel=tolerance, abs=1e-6)


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


@pytest.mark.dear
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
