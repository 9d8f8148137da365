"""Prompts computed once give the same log-probabilities and gradients as with every completion."""

from collections.abc import Callable

import pytest
import torch
from fakes import llama, mistral, qwen2, qwen3
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from chainforge.models.batches import Tokens
from chainforge.models.logprobs import logprobs_and_entropy, mixed_precision
from chainforge.models.passes import passes
from chainforge.models.training_pass import training_pass

MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen2": lambda: qwen2(sharpness=0.1),
    "llama": lambda: llama(sharpness=0.1),
    "qwen3": lambda: qwen3(sharpness=0.1),
    "mistral": lambda: mistral(sharpness=0.1),
}
WINDOW = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
PROMPTS = ([3, 1, 4], [5, 8, 9, 7, 9, 3], [2])
SEQUENCES = [
    Tokens(prompt, [(7 * length + place + len(prompt)) % 11 for place in range(length)])
    for length in (5, 1, 9, 2)
    for prompt in PROMPTS
]


def run(
    model: PreTrainedModel,
    sequences: list[Tokens],
    *,
    share: bool,
    most: int = 10**6,
    precision: str = "float32",
) -> tuple[Tensor, Tensor]:
    """(log-probabilities of all completions, gradient of a sum that weighs every one differently)."""
    found: dict[int, Tensor] = {}
    with training_pass(model):
        for indices, batch in passes(model, sequences, most, precision, share=share):
            with mixed_precision(precision, model.device):
                logp_BT, entropy_BT = logprobs_and_entropy(model, batch)
            weight_BT = torch.arange(1.0, logp_BT.shape[1] + 1) * torch.tensor(indices).add(1)[:, None]
            (logp_BT * weight_BT).sum().backward()
            for row, index in enumerate(indices):
                kept = slice(len(sequences[index].completion))
                found[index] = torch.cat([logp_BT[row, kept].detach(), entropy_BT[row, kept]])
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return torch.cat([found[index] for index in range(len(sequences))]), gradient


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / one.norm())


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.02)])
@pytest.mark.parametrize("most", [1, 6, 20, 10**6])
@pytest.mark.parametrize("kind", MODELS)
def test_shared_prompts_change_no_value_and_no_gradient(
    kind: str, most: int, precision: str, tolerance: float
) -> None:
    model = MODELS[kind]()
    for one, other in zip(
        run(model, SEQUENCES, share=False, precision=precision),
        run(model, SEQUENCES, share=True, most=most, precision=precision),
        strict=True,
    ):
        assert distance(one, other) <= tolerance


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    completions=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    most=st.integers(1, 60),
)
def test_of_any_lengths(lengths: list[int], completions: list[int], most: int) -> None:
    prompts = [[number + 2] * length for number, length in enumerate(lengths)]
    sequences = [Tokens(prompt, range(3, 3 + length)) for prompt in prompts for length in completions]
    model = qwen2(sharpness=0.1)
    for one, other in zip(
        run(model, sequences, share=False), run(model, sequences, share=True, most=most), strict=True
    ):
        assert distance(one, other) <= 2e-6


def computed(model: PreTrainedModel, share: bool) -> int:
    """Tokens that go through the layers, padding counted."""
    seen: list[int] = []
    hook = model.get_decoder().register_forward_hook(
        lambda _, __, kwargs, ___: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    run(model, SEQUENCES, share=share)
    hook.remove()
    return sum(seen)


def test_a_prompt_is_computed_once() -> None:
    longest = max(len(s.completion) for s in SEQUENCES)
    model = qwen2()
    assert computed(model, share=True) <= len(PROMPTS) * max(map(len, PROMPTS)) + len(SEQUENCES) * (
        longest - 1
    )
    assert computed(model, share=False) > computed(model, share=True)


@pytest.mark.parametrize("sequences", [SEQUENCES[:3], SEQUENCES], ids=["nothing shared", "sliding window"])
def test_prompts_stay_where_sharing_is_not_exact_or_does_not_pay(sequences: list[Tokens]) -> None:
    model = qwen2(**WINDOW) if sequences is SEQUENCES else qwen2()
    assert all(batch.hidden_before is None for _, batch in passes(model, sequences, 100, "float32"))


def test_without_gradients_only_values_are_made() -> None:
    model = qwen2(sharpness=0.1)
    with torch.no_grad():
        for _, batch in passes(model, SEQUENCES, 100, "float32"):
            assert not logprobs_and_entropy(model, batch)[0].requires_grad
    assert all(p.grad is None for p in model.parameters())
