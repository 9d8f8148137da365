"""However sequences are cut into passes, with prompts shared or not: the same values and gradients."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from fakes import llama, mistral, qwen2, qwen3
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from chainforge.learner.forward_passes import (
    MOST_PADDING,
    by_prompt,
    forward_passes,
    full_precision,
    micro_batches,
    mixed_precision,
)
from chainforge.models.batch import Tokens, collate
from chainforge.models.checkpoint import place
from chainforge.models.policy_model import PolicyModel

CPU = torch.device("cpu")
lengths = st.lists(st.integers(1, 60), max_size=30)
ids = st.lists(st.integers(1, 10), min_size=1, max_size=6)
any_sequences = st.lists(st.builds(Tokens, ids, ids), min_size=1, max_size=6)


@pytest.mark.slow
@given(lengths=lengths, most=st.integers(1, 200))
def test_micro_batches_have_every_sequence_once_and_keep_to_the_bound(lengths: list[int], most: int) -> None:
    found = list(micro_batches(lengths, most))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        assert batch
        assert len(batch) * max(lengths[i] for i in batch) <= most or len(batch) == 1


@given(sequences=any_sequences, most=st.integers(1, 40))
def test_on_a_gpu_prompts_and_a_micro_batch_of_completions_are_no_more_than_the_bound(
    sequences: list[Tokens], most: int
) -> None:
    found = []
    for prompts, members, left in by_prompt(sequences, most, device="cuda"):
        taken = len(prompts) * max(map(len, prompts))
        assert taken <= most // 2 or len(prompts) == 1
        for batch in micro_batches([len(sequences[i].completion) for i in members], left):
            width = max(len(sequences[members[i]].completion) for i in batch)
            assert taken + len(batch) * width <= most or len(batch) == 1
        assert {tuple(sequences[i].prompt) for i in members} == set(map(tuple, prompts))
        found += members
    assert sorted(found) == list(range(len(sequences)))


@pytest.mark.slow
@given(lengths=lengths)
def test_micro_batches_put_like_lengths_together_and_open_with_the_largest(lengths: list[int]) -> None:
    order = [lengths[i] for batch in micro_batches(lengths, 64) for i in batch]
    assert order == sorted(lengths, reverse=True)  # what does not fit into memory fails at once


@pytest.mark.slow
@given(lengths=lengths, most=st.integers(1, 200))
def test_only_a_share_of_a_micro_batch_is_padding(lengths: list[int], most: int) -> None:
    for batch in micro_batches(lengths, most):
        padding = len(batch) * max(lengths[i] for i in batch) - sum(lengths[i] for i in batch)
        assert padding <= most * MOST_PADDING


def test_uneven_lengths_are_cut_where_filling_up_would_be_mostly_padding() -> None:
    lengths = [200, 190, 20, 20, 20, 20]
    assert list(micro_batches(lengths, 1280)) == [[0, 1], [2, 3, 4, 5]]


MODEL = PolicyModel(qwen2())


@pytest.mark.slow
@given(sequences=any_sequences, most=st.integers(1, 60))
def test_neither_padding_nor_neighbours_change_a_log_probability(sequences: list[Tokens], most: int) -> None:
    alone = [MODEL(collate([s], CPU)).logp_BT[0] for s in sequences]
    for batch in micro_batches([len(s) for s in sequences], most):
        found = MODEL(collate([sequences[i] for i in batch], CPU), entropy=True)
        for index, logp_T, entropy_T in zip(batch, found.logp_BT, found.entropy_BT, strict=True):
            length = len(sequences[index].completion)
            torch.testing.assert_close(logp_T[:length], alone[index], atol=1e-5, rtol=0)
            assert not logp_T[length:].any()
            assert not entropy_T[length:].any()


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen2": lambda: place(qwen2(sharpness=0.1), CPU),
    "llama": lambda: place(llama(sharpness=0.1), CPU),
    "qwen3": lambda: place(qwen3(sharpness=0.1), CPU),
    "mistral": lambda: place(mistral(sharpness=0.1), CPU),
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
    policy = PolicyModel(model)
    with mixed_precision(precision, CPU):
        for indices, batch in forward_passes(policy, sequences, most, share=share):
            said = policy(batch, entropy=True)
            weight_BT = torch.arange(1.0, said.logp_BT.shape[1] + 1) * torch.tensor(indices).add(1)[:, None]
            with full_precision(CPU):
                (said.logp_BT * weight_BT).sum().backward()
            for row, index in enumerate(indices):
                kept = slice(len(sequences[index].completion))
                found[index] = torch.cat([said.logp_BT[row, kept].detach(), said.entropy_BT[row, kept]])
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return torch.cat([found[index] for index in range(len(sequences))]), gradient


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / one.norm())


@pytest.mark.dear
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


@pytest.mark.slow
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
    hook = (
        model.get_decoder()
        .layers[0]
        .mlp.down_proj.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[:-1].numel()))
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


def test_prompts_stay_where_sharing_does_not_pay() -> None:
    passes = forward_passes(PolicyModel(qwen2()), SEQUENCES[:3], 100)
    assert all(batch.prefix is None for _, batch in passes)


def test_without_gradients_only_values_are_made() -> None:
    model = PolicyModel(qwen2(sharpness=0.1))
    with torch.no_grad():
        for _, batch in forward_passes(model, SEQUENCES, 100):
            assert not model(batch).logp_BT.requires_grad
    assert all(p.grad is None for p in model.parameters())


def by_blocks(kind: str, *, one_block: bool, keep_casts: bool = True, inside: bool = True) -> list[Tensor]:
    """Log-probabilities and gradients of micro-batches, in one block of bfloat16 or in one for each."""
    model = MODELS[kind]()
    policy, found = PolicyModel(model), []
    chosen = list(micro_batches([len(s) for s in SEQUENCES], 20))
    assert len(chosen) > 2
    with mixed_precision("bfloat16", CPU, keep_casts=keep_casts) if one_block else nullcontext():
        for indices in chosen:
            block = nullcontext() if one_block else mixed_precision("bfloat16", CPU, keep_casts=keep_casts)
            with block:
                logp_BT = policy(collate([SEQUENCES[i] for i in indices], CPU)).logp_BT
                if inside:
                    with full_precision(CPU):
                        logp_BT.square().sum().backward()
            if not inside:
                logp_BT.square().sum().backward()
            found.append(logp_BT.detach())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(grad.dtype == torch.float32 for grad in gradients)
    return found + gradients


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_casts_may_be_kept_and_gradients_computed_inside_of_a_block(kind: str) -> None:
    wanted = by_blocks(kind, one_block=False, inside=False)
    for how in (
        {"one_block": True},
        {"one_block": True, "keep_casts": False},
        {"one_block": False, "keep_casts": False},
        {"one_block": False},
    ):
        for found, right in zip(by_blocks(kind, **how), wanted, strict=True):
            assert torch.equal(found, right), how


def test_weights_are_cast_once_for_a_whole_block() -> None:
    model = MODELS["llama"]()
    weight = model.get_decoder().layers[0].mlp.up_proj
    for keep, times in ((True, 1), (False, 2)):
        seen = []
        with mixed_precision("bfloat16", CPU, keep_casts=keep):
            for _ in range(2):
                out = weight(torch.ones(1, 16))
                seen.append(out.grad_fn.next_functions[-1][0].next_functions[0][0])
        assert len(set(seen)) == times
