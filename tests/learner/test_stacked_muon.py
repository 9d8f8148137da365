"""Muon in stacks is torch's Muon, weight by weight."""

from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Muon

from chainforge.learner.stacked_muon import StackedMuon, orthogonalize

RATE = 0.05
side = st.integers(1, 24)


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(st.tuples(side, side), min_size=1, max_size=5),
    copies=st.integers(1, 3),
    steps=st.integers(1, 4),
    nesterov=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_it_is_torchs_muon(
    shapes: list[tuple[int, int]], copies: int, steps: int, nesterov: bool, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    ours = [Parameter(torch.randn(shape, generator=draw)) for shape in shapes * copies]
    theirs = [Parameter(weight.detach().clone()) for weight in ours]
    options: dict[str, Any] = {"lr": RATE, "weight_decay": 0.1, "nesterov": nesterov}
    stacked, single = StackedMuon(ours, **options), Muon(theirs, **options)
    for step in range(steps):
        for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            a.grad = None if (place, step) == (0, 0) else torch.randn(a.shape, generator=draw)
            b.grad = None if a.grad is None else a.grad.clone()
        stacked.step()
        with patch.object(Tensor, "bfloat16", Tensor.double):  # rounded finer than ours is
            single.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    single.load_state_dict(stacked.state_dict())  # a save of the one goes on in the other


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 24, 8), (1, 5, 40)])
def test_a_direction_has_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    updates = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    found = orthogonalize(updates, (3.4445, -4.775, 2.0315), 5, 1e-7)
    assert found.shape == shape
    values = torch.linalg.svdvals(found.float())
    assert values.max() < 1.3
    assert values.median() > 0.6
    assert not orthogonalize(torch.zeros(shape), (3.4445, -4.775, 2.0315), 5, 1e-7).any()
