"""A device without float64, as Apple's, is never asked for it: sampling and an update of each loss."""

import pytest
import torch
from fakes import learner_of, make_step, policy
from grpo_cases import STEP, random_groups, settings_of
from pretended_gpu import GPU, pretended_gpu

from chainforge.algorithms.losses import LOSSES
from chainforge.config.sampling import SamplingSettings
from chainforge.loops.grpo.rows import make_rows
from chainforge.loops.grpo.update import add_logprobs, update
from chainforge.rollout import draw
from chainforge.rollout.engine import Request
from chainforge.rollout.sampler import sample


def test_the_pretended_device_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_gpu(monkeypatch, float64=False):
        with pytest.raises(TypeError, match="no float64"):
            torch.ones(3, dtype=torch.float64).to(GPU)
        with pytest.raises(TypeError, match="no float64"):
            torch.ones(3, device=GPU).double()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 0.7, "top_p": 0.8, "top_k": 5}, {"temperature": 0.0}]
)
def test_sampling_draws_the_same(changes: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    toy, settings = policy(), SamplingSettings(**{"max_new_tokens": 12} | changes)
    requests = [Request([1, 2, 3], [5, 6, 7]), Request([4], [8])]
    usual = sample(toy.model, requests, settings, eos_ids=[0], max_rows=3)
    with pretended_gpu(monkeypatch, float64=False):
        with pytest.raises(TypeError, match="no float64"):  # where nobody has told it
            sample(toy.model.to(GPU), requests, settings, eos_ids=[0], max_rows=3)
        monkeypatch.setattr(draw, "NO_FLOAT64", {GPU.type})
        found = sample(toy.model, requests, settings, eos_ids=[0], max_rows=3)
    assert [[s.token_ids for s in each] for each in found] == [[s.token_ids for s in each] for each in usual]


@pytest.mark.dearest
@pytest.mark.slow
@pytest.mark.parametrize("loss_type", sorted(LOSSES))
def test_an_update_is_that_of_the_cpu(loss_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, found = settings_of(loss_type, kl_coeff=0.3, temperature=0.8), []
    step = make_step(micro_batch_tokens=64)
    for there in (False, True):
        toy, reference = policy(), policy(seed=1)
        with pretended_gpu(monkeypatch, float64=False):
            if there:
                toy.model.to(GPU), reference.model.to(GPU)
            learner = learner_of(toy, settings, step, reference)
            learner.begin(2)
            rows = make_rows(toy.tokenizer, random_groups(), settings, STEP)
            add_logprobs(learner, rows, settings, STEP)
            metrics = update(learner, rows, settings, STEP)
            found.append((metrics, [w.detach().cpu() for w in toy.model.parameters()]))
    (usual, weights), (metrics, others) = found
    assert metrics == pytest.approx(usual, abs=1e-4)
    for one, other in zip(weights, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
