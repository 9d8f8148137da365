"""The fused head is a plain linear layer with log-softmax and gather, in values and gradients."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Linear
from torch.nn.functional import linear

from chainforge.models import head as fused
from chainforge.models.head import token_logprobs
from chainforge.models.output_layer import OutputLayer

COLUMNS = st.sampled_from([1, 3, 8, 1000])


@contextmanager
def columns_at_once(columns: int, tokens: int) -> Iterator[None]:
    before = fused.CHUNK_ELEMENTS["cpu"]
    fused.CHUNK_ELEMENTS["cpu"] = columns * tokens
    try:
        yield
    finally:
        fused.CHUNK_ELEMENTS["cpu"] = before


def plain(head: Linear, hidden_MH: Tensor, targets_M: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logp_MV = (head(hidden_MH).float() / temperature).log_softmax(-1)
    return logp_MV.gather(-1, targets_M[:, None])[:, 0], -(logp_MV.exp() * logp_MV).sum(-1)


def gradients(logp_M: Tensor, head: Linear, hidden_MH: Tensor) -> list[Tensor]:
    weight_M = torch.linspace(-1, 2, len(logp_M))
    return list(torch.autograd.grad((weight_M * logp_M).sum(), [hidden_MH, *head.parameters()]))


def setting(seed: int, tokens: int, hidden: int, vocab: int, bias: bool) -> tuple[Linear, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    head = Linear(hidden, vocab, bias=bias)
    for weight in head.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
    hidden_MH = torch.randn(tokens, hidden, generator=generator).requires_grad_()
    return head, hidden_MH, torch.randint(0, vocab, (tokens,), generator=generator)


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**31),
    tokens=st.integers(1, 9),
    hidden=st.integers(1, 8),
    vocab=st.integers(1, 30),
    columns=COLUMNS,
    temperature=st.floats(0.2, 3),
    bias=st.booleans(),
)
def test_values_and_gradients_are_those_of_the_plain_formula(
    seed: int, tokens: int, hidden: int, vocab: int, columns: int, temperature: float, bias: bool
) -> None:
    head, hidden_MH, targets_M = setting(seed, tokens, hidden, vocab, bias)
    with columns_at_once(columns, tokens):
        logp_M, entropy_M = token_logprobs(head, hidden_MH, targets_M, temperature=temperature, entropy=True)
        found = gradients(logp_M, head, hidden_MH)
        alone_M, nothing = token_logprobs(head, hidden_MH, targets_M, temperature=temperature, entropy=False)
    wanted_M, wanted_entropy_M = plain(head, hidden_MH, targets_M, temperature)
    torch.testing.assert_close(logp_M, wanted_M, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(entropy_M, wanted_entropy_M, atol=5e-4, rtol=1e-4)  # of logits up to 100
    for one, other in zip(found, gradients(wanted_M, head, hidden_MH), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert torch.equal(alone_M, logp_M)
    assert nothing.numel() == 0
    assert not entropy_M.requires_grad
    assert (logp_M <= 1e-6).all()


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**31),
    columns=COLUMNS,
    temperature=st.floats(0.2, 3),
    bias=st.booleans(),
    scale=st.sampled_from([1.0, 0.0625, 3.0]),
    cap=st.sampled_from([None, 2.0, 30.0]),
    inside=st.booleans(),
)
def test_scaled_and_capped_logits_have_the_values_and_gradients_of_their_formula(
    seed: int, columns: int, temperature: float, bias: bool, scale: float, cap: float | None, inside: bool
) -> None:
    head, hidden_MH, targets_M = setting(seed, 7, 5, 23, bias)
    output = OutputLayer(head, scale, cap)
    logits_MV = scale * linear(hidden_MH, head.weight, head.bias)
    logits_MV = logits_MV if cap is None else cap * (logits_MV / cap).tanh()
    torch.testing.assert_close(output.logits(hidden_MH), logits_MV, atol=1e-5, rtol=1e-5)
    apart_VH = torch.zeros_like(head.weight) if inside else None
    with columns_at_once(columns, 7):
        logp_M, entropy_M = output.token_logprobs(
            hidden_MH, targets_M, temperature=temperature, entropy=True, gradient_VH=apart_VH
        )
        weight_M = torch.linspace(-1, 2, 7)
        (weight_M * logp_M).sum().backward()
    weights = [hidden_MH, *head.parameters()]
    found = [apart_VH if w is head.weight and inside else w.grad for w in weights]
    logp_MV = (logits_MV / temperature).log_softmax(-1)
    wanted_M = logp_MV.gather(-1, targets_M[:, None])[:, 0]
    torch.testing.assert_close(logp_M, wanted_M, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(entropy_M, -(logp_MV.exp() * logp_MV).sum(-1), atol=5e-4, rtol=1e-4)
    for one, other in zip(found, torch.autograd.grad((weight_M * wanted_M).sum(), weights), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@given(seed=st.integers(0, 2**31), columns=COLUMNS)
def test_in_bfloat16_it_is_as_near_to_float32_as_the_plain_formula(seed: int, columns: int) -> None:
    head, hidden_MH, targets_M = setting(seed, 16, 32, 40, bias=False)
    values = plain(head, hidden_MH, targets_M, 1.0)
    exact = [*values, *gradients(values[0], head, hidden_MH)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain_M, plain_entropy_M = plain(head, hidden_MH, targets_M, 1.0)
        with columns_at_once(columns, 16):
            logp_M, entropy_M = token_logprobs(head, hidden_MH, targets_M, temperature=1.0, entropy=True)
    assert logp_M.dtype == entropy_M.dtype == torch.float32
    ours = [logp_M, entropy_M, *gradients(logp_M, head, hidden_MH)]
    theirs = [plain_M, plain_entropy_M, *gradients(plain_M, head, hidden_MH)]
    for one, other, right in zip(ours, theirs, exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - right).norm() <= 1.5 * (other - right).norm() + 1e-3


def test_a_sure_model_keeps_its_small_gradient_in_bfloat16() -> None:
    head, hidden_MH, targets_M = setting(0, 6, 8, 20, bias=False)
    with torch.no_grad():  # logits of the targets become so high that p rounds to 1 in bfloat16
        head.weight[targets_M] += 7 * hidden_MH / hidden_MH.square().sum(-1, keepdim=True)
    exact = gradients(plain(head, hidden_MH, targets_M, 1.0)[0], head, hidden_MH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logp_M, _ = token_logprobs(head, hidden_MH, targets_M, temperature=1.0, entropy=False)
    for one, right in zip(gradients(logp_M, head, hidden_MH), exact, strict=True):
        assert (one - right).norm() < 0.05 * right.norm()


@pytest.mark.parametrize("frozen", [True, False])
def test_what_needs_no_gradient_gets_none(frozen: bool) -> None:
    head, hidden_MH, targets_M = setting(0, 4, 8, 11, bias=True)
    head.requires_grad_(not frozen)
    logp_M, _ = token_logprobs(head, hidden_MH, targets_M, temperature=1.0, entropy=False)
    logp_M.sum().backward()
    assert hidden_MH.grad is not None
    assert (head.weight.grad is None) == (head.bias.grad is None) == frozen


def test_nothing_as_large_as_tokens_by_vocabulary_is_kept() -> None:
    head, hidden_MH, targets_M = setting(0, 50, 8, 5000, bias=False)
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        token_logprobs(head, hidden_MH, targets_M, temperature=0.7, entropy=True)
    assert max(sizes) == head.weight.numel() < 50 * 5000


def test_a_logit_that_is_not_a_number_shows() -> None:
    head, hidden_MH, targets_M = setting(0, 4, 8, 11, bias=False)
    with torch.no_grad():
        head.weight[3, 2] = torch.nan
    for context in (nullcontext(), torch.autocast("cpu", dtype=torch.bfloat16)):
        with context:
            logp_M, _ = token_logprobs(head, hidden_MH, targets_M, temperature=1.0, entropy=False)
        assert logp_M.isnan().all()


def test_logits_far_from_zero_overflow_nowhere() -> None:
    head, hidden_MH, targets_M = setting(0, 4, 8, 11, bias=False)
    with torch.no_grad():
        head.weight *= 100
    logp_M, entropy_M = token_logprobs(head, hidden_MH, targets_M, temperature=0.5, entropy=True)
    wanted_M, wanted_entropy_M = plain(head, hidden_MH, targets_M, 0.5)
    torch.testing.assert_close(logp_M, wanted_M, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(entropy_M, wanted_entropy_M, atol=1e-3, rtol=1e-3)
