"""What samples: the policy's own model in float32, a rounded copy of it in bfloat16."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakes import make_step, policy

from chainforge.config.run import RunSettings
from chainforge.config.sampling import SamplingSettings
from chainforge.models.chat import eos_ids
from chainforge.models.checkpoint import Policy
from chainforge.rollout import local_engine
from chainforge.rollout.engine import Request
from chainforge.rollout.local_engine import LocalEngine, copy_weights
from chainforge.rollout.sampler import sample
from chainforge.run.step import Step

SETTINGS = SamplingSettings(max_new_tokens=6)
REQUESTS = [Request([1, 2, 3], [5, 6]), Request([4], [7])]


def step_of(precision: str, **runtime: Any) -> Step:
    step = make_step(**runtime)
    return Step(step.name, RunSettings(precision=precision), step.runtime)


def models_asked(made: Policy, step: Step, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    monkeypatch.setattr(local_engine, "sample", lambda m, *a, **k: seen.append(m) or sample(m, *a, **k))
    LocalEngine(made, step).generate(REQUESTS, SETTINGS)
    return seen


def test_in_float32_it_is_the_policy_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    made = policy()
    (model,) = models_asked(made, step_of("float32"), monkeypatch)
    assert model is made.model


@pytest.mark.parametrize(("frozen", "copies"), [(True, 1), (False, 3)])
def test_where_weights_never_change_they_are_rounded_once(
    frozen: bool, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, counted = policy(), []
    monkeypatch.setattr(local_engine, "copy_weights", lambda *a: counted.append(a) or copy_weights(*a))
    engine = LocalEngine(made, step_of("bfloat16"), frozen=frozen)
    found = [engine.generate(REQUESTS, SETTINGS) for _ in range(3)]
    assert len(counted) == copies
    wanted = LocalEngine(made, step_of("bfloat16")).generate(REQUESTS, SETTINGS)
    assert found == [wanted] * 3


def test_in_bfloat16_it_is_a_copy_of_the_weights_as_they_are_now(monkeypatch: pytest.MonkeyPatch) -> None:
    made = policy()
    engine = LocalEngine(made, step_of("bfloat16"))
    with torch.no_grad():
        for weight in made.model.parameters():
            weight.mul_(1.5)
    seen: list[Any] = []
    monkeypatch.setattr(local_engine, "sample", lambda m, *a, **k: seen.append(m) or sample(m, *a, **k))
    engine.generate(REQUESTS, SETTINGS)
    for ours, theirs in zip(seen[0].parameters(), made.model.parameters(), strict=True):
        assert torch.equal(ours, theirs.bfloat16())


def source(of: Policy) -> Any:
    return SimpleNamespace(weights=of.model.state_dict().items)


@pytest.mark.parametrize("rows", [1, 2, 512])
def test_it_answers_as_the_sampler_does(rows: int) -> None:
    made = policy()
    engine = LocalEngine(made, make_step(rollout_rows=rows))
    assert engine.rows == rows
    ends = eos_ids(made.model, made.tokenizer)
    assert engine.generate(REQUESTS, SETTINGS) == sample(
        made.model, REQUESTS, SETTINGS, eos_ids=ends, max_rows=rows
    )
    engine.update(source(made), 1)
    engine.close()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_apart_from_the_learner_it_samples_from_what_it_was_told(precision: str) -> None:
    made = policy(tie_word_embeddings=True)
    engine = LocalEngine(made, step_of(precision), apart=True)
    others = policy(seed=1, tie_word_embeddings=True)
    wanted = LocalEngine(others, step_of(precision)).generate(REQUESTS, SETTINGS)
    assert engine.generate(REQUESTS, SETTINGS) != wanted
    engine.update(source(others), 1)
    assert engine.generate(REQUESTS, SETTINGS) == wanted


def test_in_bfloat16_weights_are_rounded_and_nothing_else() -> None:
    made = policy(tie_word_embeddings=True)
    made.model.model.embed_tokens.weight.grad = torch.ones_like(made.model.model.embed_tokens.weight)
    copy = copy_weights(made.model, torch.bfloat16)
    assert copy.dtype == torch.bfloat16
    for ours, theirs in zip(copy.parameters(), made.model.parameters(), strict=True):
        assert torch.equal(ours, theirs.bfloat16())
        assert ours.grad is None
        assert theirs.dtype == torch.float32
    assert copy.get_output_embeddings().weight is copy.get_input_embeddings().weight
    buffers = dict(made.model.named_buffers())
    assert any(name.endswith("inv_freq") for name in buffers)
    for name, buffer in copy.named_buffers():
        assert buffer.dtype == torch.float32
        assert torch.equal(buffer, buffers[name])


def test_a_far_token_turns_by_the_angle_that_training_turns_it_by() -> None:
    made = policy(max_position_embeddings=4096)
    copy = copy_weights(made.model, torch.bfloat16)
    far = torch.tensor([[4000]])
    for ours, theirs in zip(
        copy.model.rotary_emb(torch.zeros(1), far),
        made.model.model.rotary_emb(torch.zeros(1), far),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
