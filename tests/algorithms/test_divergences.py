"""Laws of the divergences that distillation minimises."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from chainforge.algorithms.kl import DIVERGENCES, forward_kl, jsd, reverse_kl


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Log-probabilities of two models over the same tokens, in float64."""
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    logit = st.floats(-8, 8)
    table = st.lists(st.lists(logit, min_size=columns, max_size=columns), min_size=rows, max_size=rows)
    student_MV, teacher_MV = (torch.tensor(draw(table), dtype=torch.float64) for _ in range(2))
    return student_MV.log_softmax(-1), teacher_MV.log_softmax(-1)


@pytest.mark.slow
@given(pairs())
def test_none_is_negative_and_the_same_distribution_has_none(pair: tuple[Tensor, Tensor]) -> None:
    student_MV, teacher_MV = pair
    for divergence in DIVERGENCES.values():
        assert divergence(student_MV, teacher_MV) > -1e-9
        assert abs(divergence(teacher_MV, teacher_MV)) < 1e-9


@pytest.mark.slow
@given(pairs())
def test_the_two_directions_mirror_each_other(pair: tuple[Tensor, Tensor]) -> None:
    student_MV, teacher_MV = pair
    assert forward_kl(student_MV, teacher_MV) == reverse_kl(teacher_MV, student_MV)
    torch.testing.assert_close(jsd(student_MV, teacher_MV), jsd(teacher_MV, student_MV))


@pytest.mark.slow
@given(pairs())
def test_jsd_is_bounded(pair: tuple[Tensor, Tensor]) -> None:
    assert jsd(*pair) <= len(pair[0]) * math.log(2) + 1e-9


@pytest.mark.slow
@given(pairs())
def test_they_are_their_definitions(pair: tuple[Tensor, Tensor]) -> None:
    q_MV, p_MV = (logp_MV.exp() for logp_MV in pair)
    mean_MV = (p_MV + q_MV) / 2

    def kl(a_MV: Tensor, b_MV: Tensor) -> Tensor:
        return (a_MV * (a_MV / b_MV).log()).sum()

    torch.testing.assert_close(forward_kl(*pair), kl(p_MV, q_MV))
    torch.testing.assert_close(reverse_kl(*pair), kl(q_MV, p_MV))
    torch.testing.assert_close(jsd(*pair), (kl(p_MV, mean_MV) + kl(q_MV, mean_MV)) / 2, atol=1e-9, rtol=1e-6)


@pytest.mark.peer
@pytest.mark.parametrize(("name", "beta"), [("forward-kl", 0), ("reverse-kl", 1), ("jsd", 0.5)])
def test_they_agree_with_trl_gradients_too(name: str, beta: float) -> None:
    gkd = pytest.importorskip("trl.experimental.gkd", exc_type=ImportError)
    for seed in range(20):
        draw = torch.Generator().manual_seed(seed)
        student_MV, teacher_MV = (3 * torch.randn(5, 9, generator=draw) for _ in range(2))
        student_MV.requires_grad_()
        ours = DIVERGENCES[name](student_MV.log_softmax(-1), teacher_MV.log_softmax(-1))
        theirs = gkd.GKDTrainer.generalized_jsd_loss(student_MV, teacher_MV, beta=beta, reduction="sum")
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        gradients = [torch.autograd.grad(value, student_MV)[0] for value in (ours, theirs)]
        torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)
