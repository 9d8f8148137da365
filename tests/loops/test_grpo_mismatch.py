"""A sampler that is not quite the policy: when it is corrected, what that changes, when the alarm rings."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import learner_of, make_step, policy, weights
from grpo_cases import (
    PROMPTS,
    STEP,
    by_token,
    gradient_of,
    logprobs_of,
    mix,
    random_groups,
    settings_of,
    started,
)

from chainforge.config.correction import FAR, CorrectionSettings
from chainforge.config.engine import EngineSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.loops.grpo.metrics import DRIFT, MASKED, MISMATCH_NAMES
from chainforge.loops.grpo.mismatch import PATIENCE, Alarm, correction_of
from chainforge.loops.grpo.rows import Row, make_rows, mini_batches
from chainforge.loops.grpo.train import train
from chainforge.loops.grpo.update import add_logprobs, update
from chainforge.models.checkpoint import Policy
from chainforge.rollout.local_engine import LocalEngine
from chainforge.run.step import Step
from chainforge.run.work import Work

BFLOAT16 = Step("grpo_reasoning", RunSettings(precision="bfloat16"), RuntimeSettings(device="cpu"))
ALWAYS: Any = {"when": "always"}
FREE: Any = {"when": "always", "token_cap": None, "sequence_band": None}


def corrected(correction: Any, **changes: Any) -> GrpoSettings:
    return settings_of("dapo", sampling_correction=CorrectionSettings(**correction), **changes)


@pytest.mark.parametrize(
    ("step", "engine", "when", "on"),
    [
        (STEP, "local", "auto", False),
        (STEP, "local", "always", True),
        (STEP, "vllm", "auto", True),
        (STEP, "vllm", "never", False),
        (BFLOAT16, "local", "auto", True),
        (BFLOAT16, "local", "never", False),
    ],
)
def test_the_correction_is_on_unless_the_sampler_computes_what_the_learner_does(
    step: Step, engine: Any, when: Any, on: bool
) -> None:
    settings = corrected({"when": when}, engine=EngineSettings(kind=engine))
    assert (correction_of(settings, step) is not None) == on


def rows_sampled_by(
    sampler: Policy, toy: Policy, settings: GrpoSettings, step: Step = STEP, *, parts: bool = True
) -> list[Row]:
    """Rows whose log-probabilities at sampling are those of another policy."""
    rows = make_rows(toy.tokenizer, random_groups(), settings, step)
    for row, logp in zip(rows, logprobs_of(sampler, rows, settings), strict=True):
        row.sampled_logp = logp
    if parts:
        add_logprobs(learner_of(toy, settings, step), rows, settings, step)
    return rows


def test_where_sampler_and_policy_are_one_the_correction_changes_nothing() -> None:
    toy = policy()
    gradients = []
    for correction in (ALWAYS, {"when": "never"}):
        settings = corrected(correction)
        gradients.append(gradient_of(toy, rows_sampled_by(policy(), toy, settings), settings))
    torch.testing.assert_close(gradients[0][0], gradients[1][0], atol=1e-6, rtol=1e-4)
    figures = gradients[0][1]
    assert figures["ratio_min"] == pytest.approx(1, abs=1e-4)
    assert figures["ratio_max"] == pytest.approx(1, abs=1e-4)
    assert figures["masked"] == figures["capped"] == 0
    assert set(gradients[1][1]).isdisjoint(MISMATCH_NAMES)


@pytest.mark.dear
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("tokens", [1, 100, 10**6])
def test_gradient_and_figures_are_those_of_a_weight_per_token_however_the_batch_is_cut(
    tokens: int, parts: int
) -> None:
    toy, sampler = policy(), policy(sharpness=0.21)
    settings = corrected(
        {"when": "always", "token_cap": 1.1, "sequence_band": [0.98, 1.02]}, mini_batches=parts
    )
    rows = mini_batches(rows_sampled_by(sampler, toy, settings), settings)[-1]
    gradient, figures = gradient_of(toy, rows, settings, make_step(micro_batch_tokens=tokens))
    policy_logp = logprobs_of(toy, rows, settings)
    log_ratios = [
        torch.tensor(p) - torch.tensor(row.sampled_logp) for p, row in zip(policy_logp, rows, strict=True)
    ]
    kept = [bool(0.98 <= r.mean().exp() <= 1.02) for r in log_ratios]
    assert 0 < sum(kept) < len(kept)
    assert figures["masked"] == pytest.approx(1 - sum(kept) / len(kept))
    every = torch.cat(log_ratios)
    assert figures["drift"] == pytest.approx(every.abs().mean().item(), rel=1e-4)
    assert figures["ratio_mean"] == pytest.approx(every.exp().clamp(max=1.1).mean().item(), rel=1e-4)
    assert figures["capped"] == pytest.approx((every.exp() > 1.1).double().mean().item())
    loss, count = torch.zeros(()), sum(len(row.tokens.completion) for row in rows)
    for row, log_ratio_T, counts in zip(rows, log_ratios, kept, strict=True):
        prompt, said = list(row.tokens.prompt), list(row.tokens.completion)
        logits_TV = toy.model(torch.tensor([prompt + said])).logits[0, len(prompt) - 1 : -1]
        logp_T = logits_TV.log_softmax(-1).gather(1, torch.tensor(said)[:, None])[:, 0]
        loss = loss - counts * row.advantage / count * (log_ratio_T.exp().clamp(max=1.1) * logp_T).sum()
    expected = torch.autograd.grad(loss, list(toy.model.parameters()))
    torch.testing.assert_close(gradient, torch.cat([g.flatten() for g in expected]), atol=1e-6, rtol=1e-3)


def test_later_mini_batches_compare_the_sampler_with_the_policy_before_the_first_update() -> None:
    toy, sampler = policy(), policy(sharpness=0.21)
    settings = corrected(FREE, mini_batches=3, num_iterations=2, learning_rate=1e-2)
    rows = rows_sampled_by(sampler, toy, settings)
    before = logprobs_of(toy, rows, settings)
    learner = started(toy, settings)
    seen = []
    for _ in range(2):
        seen += [update(learner, part, settings, STEP) for part in mini_batches(rows, settings)]
    for row, logp in zip(rows, before, strict=True):
        assert row.old_logp == pytest.approx(logp, abs=1e-5)
    for first, again in zip(seen[:3], seen[3:], strict=True):
        assert {name: again[name] for name in MISMATCH_NAMES} == pytest.approx(
            {name: first[name] for name in MISMATCH_NAMES}, rel=1e-4
        )


def test_what_a_left_out_completion_says_has_no_influence_and_it_still_counts_in_the_divisor() -> None:
    toy = policy()
    settings = corrected({"when": "always", "token_cap": None, "sequence_band": [0.99, 1.01]})
    found = []
    for odd in (None, 2.0):
        rows = rows_sampled_by(policy(), toy, settings)
        if odd:
            rows[0].sampled_logp = [x - odd for x in rows[0].sampled_logp]
        found.append(gradient_of(toy, rows, settings))
    assert found[1][1]["masked"] == pytest.approx(1 / 12)
    alone = rows_sampled_by(policy(), toy, settings)
    for row in alone[1:]:
        row.advantage = 0.0
    mine, _ = gradient_of(toy, alone, settings)
    torch.testing.assert_close(found[1][0], found[0][0] - mine, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_a_run_in_16_bits_writes_the_figures_and_one_in_float32_has_no_such_columns() -> None:
    for step, names in ((BFLOAT16, set(MISMATCH_NAMES.values())), (STEP, set())):
        toy, settings = policy(), settings_of(max_new_tokens=6, learning_rate=1e-3, mini_batches=2)
        before = weights(toy)
        engine = LocalEngine(toy, step)
        table, _ = train(
            learner_of(toy, settings, step), engine, by_token, mix(PROMPTS), settings, step, Work()
        )
        table.publish(Path("figures.csv"))
        rows = list(csv.DictReader(Path("figures.csv").read_text().splitlines()))
        assert names == set(rows[0]) & set(MISMATCH_NAMES.values())
        for row in rows:
            assert all(row[name] for name in names)
            if names:
                low, mean, high = (
                    float(row[f"sampling/importance_sampling_ratio/{x}"]) for x in ("min", "mean", "max")
                )
                assert 0 < low <= mean <= high <= 2
        assert not all(torch.equal(a, b) for a, b in zip(weights(toy), before, strict=True))


def ring(figures: Sequence[tuple[float, float]], settings: GrpoSettings, step: Step = STEP) -> list[int]:
    """The RL steps after which the alarm had written what it has to say."""
    alarm, log = Alarm(settings, step), Path("logs/grpo_reasoning.mismatch.txt")
    log.unlink(missing_ok=True)
    rung = []
    for number, (drift, masked) in enumerate(figures, start=1):
        alarm.hear(number, {DRIFT: drift, MASKED: masked})
        if log.exists():
            rung.append(number)
            log.unlink()
    return rung


def test_the_alarm_rings_once_when_several_steps_in_a_row_are_far_off(
    capsys: pytest.CaptureFixture[str],
) -> None:
    near, far, starved = (FAR / 2, 0.1), (2 * FAR, 0.0), (FAR / 2, 0.6)
    settings = corrected(ALWAYS)
    assert ring([near] * 20, settings) == []
    assert ring([far, near] * 10, settings) == []
    assert capsys.readouterr().err == ""
    assert ring([near] + [far] * 20, settings) == [1 + PATIENCE]
    assert ring([starved] * 20, settings) == [PATIENCE]
    said = capsys.readouterr().err
    assert "0.2 nats per token" in said
    assert "60% of the completions" in said
    assert "sequence_band" in said
    assert ring([far] * 20, corrected({"when": "never"})) == []


@pytest.mark.parametrize(
    ("step", "changes", "advice"),
    [
        (STEP, {}, "find out why"),
        (BFLOAT16, {}, "float16 on a GPU"),
        (STEP, {"engine": EngineSettings(kind="vllm")}, "runtime.vllm.arguments"),
        (STEP, {"engine": EngineSettings(kind="vllm"), "max_lag": 1}, "set max_lag to 0"),
    ],
)
def test_the_alarm_says_what_to_do(
    step: Step, changes: Any, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ring([(2 * FAR, 0.0)] * PATIENCE, corrected(ALWAYS, **changes), step)
    assert advice in capsys.readouterr().err


def test_a_band_that_does_not_hold_one_is_refused() -> None:
    with pytest.raises(ValueError, match="does not hold 1"):
        CorrectionSettings(sequence_band=[1.01, 0.99])
