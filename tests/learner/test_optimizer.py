"""The optimizer touches each weight once, keeps to its schedule, and refuses what is not a number."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fakes import llama, qwen2
from torch.optim import AdamW, Muon
from transformers import PreTrainedModel

from chainforge.algorithms.schedule import SCHEDULES
from chainforge.config.optimizer import OptimizerSettings
from chainforge.learner.optimizer import NotFinite, ScheduledOptimizer

MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen2": qwen2,
    "tied": lambda: qwen2(tie_word_embeddings=True),
    "llama": llama,
}


def optimizer_of(model: PreTrainedModel, **changes: Any) -> ScheduledOptimizer:
    settings = {"learning_rate": 1e-2, "weight_decay": 0.1} | changes
    return ScheduledOptimizer(model, OptimizerSettings(**settings), steps=10)


def backward(model: PreTrainedModel, scale: float = 1.0) -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0]])
    (scale * model(ids, labels=ids).loss).backward()


def copies(model: PreTrainedModel) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("muon", [0.0, 1e-2])
@pytest.mark.parametrize("kind", MODELS)
def test_every_weight_belongs_to_exactly_one_group(kind: str, muon: float) -> None:
    model = MODELS[kind]()
    inner = optimizer_of(model, muon_learning_rate=muon)._optimizers
    held = [(id(p), type(o)) for o in inner for group in o.param_groups for p in group["params"]]
    assert sorted(i for i, _ in held) == sorted({id(p) for p in model.parameters()})
    by_muon = {i for i, kind_of in held if issubclass(kind_of, Muon)}
    for name, p in model.named_parameters():
        hidden = p.ndim == 2 and "embed" not in name and "lm_head" not in name
        assert (id(p) in by_muon) == (hidden and muon > 0), name
        decayed = [
            g["weight_decay"] for o in inner for g in o.param_groups if any(q is p for q in g["params"])
        ]
        assert decayed == ([0.1] if hidden else [0.0]), name


@pytest.mark.parametrize("muon", [0.0, 1e-2])
@pytest.mark.parametrize("kind", MODELS)
def test_a_step_moves_every_weight_and_clears_the_gradients(kind: str, muon: float) -> None:
    model = MODELS[kind]()
    optimizer, before = optimizer_of(model, muon_learning_rate=muon), copies(model)
    backward(model)
    assert optimizer.step() > 0
    # attention does not feel a constant added to every key
    names = [name for name, _ in model.named_parameters()]
    still = [n for n, a, b in zip(names, before, copies(model), strict=True) if torch.equal(a, b)]
    assert not still
    assert all(p.grad is None for p in model.parameters())


def test_one_step_of_adamw_is_that_of_the_paper() -> None:
    model, twin = qwen2(), qwen2()
    backward(model)
    backward(twin)
    grads = [p.grad for p in twin.parameters()]
    norm = float(torch.stack([g.norm() for g in grads if g is not None]).norm())
    optimizer = optimizer_of(model, max_grad_norm=norm / 2, learning_rate=1e-2)
    assert optimizer.step() == pytest.approx(norm, rel=1e-5)
    for (name, p), old, g in zip(model.named_parameters(), twin.parameters(), grads, strict=True):
        assert g is not None
        clipped = g / 2
        hidden = p.ndim == 2 and "embed" not in name and "lm_head" not in name
        decayed = old.detach() * (1 - 1e-2 * 0.1 * hidden)
        wanted = decayed - 1e-2 * clipped / (clipped.abs() + 1e-8)
        sure = clipped.abs() > 1e-5  # below, the small number in the denominator rules
        torch.testing.assert_close(p.detach()[sure], wanted[sure], atol=2e-5, rtol=0)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("muon", [0.0, 3e-2])
def test_every_group_follows_the_schedule_from_its_own_peak(schedule: str, muon: float) -> None:
    model = qwen2()
    optimizer = optimizer_of(
        model, schedule=schedule, warmup_fraction=0.3, floor_fraction=0.1, muon_learning_rate=muon
    )
    for step in range(1, 11):
        backward(model)
        optimizer.step()
        factor = SCHEDULES[schedule](step, steps=10, warmup_fraction=0.3, floor_fraction=0.1)
        assert optimizer.learning_rate == pytest.approx(1e-2 * factor)
        for inner in optimizer._optimizers:
            peak = muon if isinstance(inner, Muon) else 1e-2
            assert isinstance(inner, Muon | AdamW)
            assert all(group["lr"] == pytest.approx(peak * factor) for group in inner.param_groups)


@pytest.mark.parametrize("muon", [0.0, 1e-2])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_a_number_stops_before_any_weight_moves(muon: float, value: float) -> None:
    model = qwen2()
    optimizer = optimizer_of(model, muon_learning_rate=muon)
    backward(model)
    optimizer.step()
    before = copies(model)
    backward(model)
    last = list(model.parameters())[-1]
    assert last.grad is not None
    last.grad.view(-1)[0] = value
    with pytest.raises(NotFinite, match=r"the gradient norm is (nan|inf)\n  -> lower the learning rate"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, copies(model), strict=True))


def test_a_frozen_weight_stays_as_it_is() -> None:
    model = qwen2()
    frozen = model.get_input_embeddings().weight.requires_grad_(False)
    before = frozen.clone()
    optimizer = optimizer_of(model)
    backward(model)
    optimizer.step()
    assert torch.equal(frozen, before)
