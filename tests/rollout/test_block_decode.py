"""Laws of decoding in blocks of fixed shapes: the completions of one token at a time, fit for a graph."""

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from pretended_gpu import GPU, pretended_gpu
from test_sampler import EOS, MODELS, REQUESTS, assert_same, drawn, requests_of, settings_of

from chainforge.rollout import block_decode
from chainforge.rollout.block_decode import BlockBatch, _Step
from chainforge.rollout.cache import PaddedCache
from chainforge.rollout.decode_batch import DecodeBatch
from chainforge.rollout.sampler import in_any_order, sample

SETTINGS = [{}, {"temperature": 0.7, "top_p": 0.8, "top_k": 5}, {"temperature": 0.0}]


# The blocks that are tried, by the most tokens.
ALL = dict.fromkeys((1, 2, 12, 50), (1, 3, 16, 64))
FEW = {2: (16,), 12: (3, 16)}
PARTS = [
    *(pytest.param(kind, FEW | ({50: (64,)} if kind == "qwen2" else {}), id=kind) for kind in MODELS),
    *(pytest.param(kind, ALL, id=f"all of {kind}", marks=pytest.mark.long) for kind in MODELS),
]


@pytest.mark.dear
@pytest.mark.parametrize(("kind", "parts"), PARTS)
@pytest.mark.parametrize("max_rows", [1, 3, 7, 512])
def test_it_gives_what_one_token_at_a_time_gives(
    kind: str, parts: dict[int, tuple[int, ...]], max_rows: int
) -> None:
    model = MODELS[kind]()
    for limit, blocks in parts.items():
        settings = settings_of(max_new_tokens=limit)
        usual = drawn(model, REQUESTS, settings, max_rows=max_rows)
        for block in blocks:
            found = sample(model, REQUESTS, settings, eos_ids=[EOS], max_rows=max_rows, block=block)
            for a, b in zip(found, usual, strict=True):
                assert_same(a, b)


@pytest.mark.dear
@pytest.mark.parametrize("changes", SETTINGS)
@pytest.mark.parametrize("eos_ids", [[], [3], [0, 7, 9]])
def test_any_end_at_any_place_ends_a_completion(changes: dict[str, Any], eos_ids: list[int]) -> None:
    model, settings = MODELS["qwen2"](), settings_of(max_new_tokens=20, **changes)
    usual, found = (
        sample(model, REQUESTS, settings, eos_ids=eos_ids, max_rows=9, block=block) for block in (None, 8)
    )
    lengths = {len(s.token_ids) % 8 for group in usual for s in group}
    assert len(lengths) > 4 or not eos_ids or changes.get("temperature") == 0
    for a, b in zip(found, usual, strict=True):
        assert_same(a, b)


def test_in_bfloat16_as_well() -> None:
    model = MODELS["llama"]().bfloat16()
    usual, found = (
        sample(model, REQUESTS, settings_of(), eos_ids=[EOS], max_rows=9, block=block) for block in (None, 8)
    )
    same = [
        a.token_ids == b.token_ids
        for x, y in zip(found, usual, strict=True)
        for a, b in zip(x, y, strict=True)
    ]
    assert sum(same) > 0.8 * len(same)  # other shapes round otherwise


@pytest.mark.slow
def test_a_long_queue_moves_columns_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    for name in ("shift", "widen"):
        monkeypatch.setattr(PaddedCache, name, noted(seen, name, getattr(PaddedCache, name)))
    model, settings = MODELS["qwen2"](), settings_of(max_new_tokens=40)
    requests = requests_of(*range(1, 40), completions=2)
    found = sample(model, requests, settings, eos_ids=[EOS], max_rows=4, block=5)
    assert set(seen) == {"shift", "widen"}
    assert seen.count("widen") < 3  # each takes a new graph
    for a, b in zip(found, drawn(model, requests, settings, max_rows=4), strict=True):
        assert_same(a, b)


def noted(seen: list[str], name: str, method: Callable[..., None]) -> Callable[..., None]:
    return lambda *args: seen.append(name) or method(*args)


def test_rows_are_few_sizes_whatever_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    step_of = BlockBatch._step_of
    monkeypatch.setattr(
        BlockBatch,
        "_step_of",
        lambda batch, rows: sizes.append(len(step_of(batch, rows).number_R)) or step_of(batch, rows),
    )
    requests = requests_of(*[3] * 30, completions=1)
    sample(MODELS["qwen2"](), requests, settings_of(max_new_tokens=40), eos_ids=[EOS], max_rows=30, block=2)
    assert set(sizes) == {30, 16, 8}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_nothing_is_read_from_memory_before_it_is_written(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    model, settings = MODELS[kind](), settings_of(max_new_tokens=40)
    usual = drawn(model, REQUESTS, settings, max_rows=12)
    monkeypatch.setattr("chainforge.rollout.sampler.in_any_order", nullcontext)  # only so is memory filled
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.empty(1).isnan()
        found = sample(model, REQUESTS, settings, eos_ids=[EOS], max_rows=12, block=7)
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(found, usual, strict=True):
        assert_same(a, b)


@pytest.mark.dearest
@pytest.mark.slow
@pytest.mark.parametrize("changes", SETTINGS)
@pytest.mark.parametrize("kind", MODELS)
def test_a_step_is_fit_for_a_graph(
    kind: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for nothing, reads no tensor of the CPU, and its operations go on without the Python code."""
    model, settings = MODELS[kind](), settings_of(max_new_tokens=30, **changes)
    usual = drawn(model, REQUESTS, settings, max_rows=9)
    with pretended_gpu(monkeypatch) as gpu:
        monkeypatch.setattr(block_decode, "captured", lambda step, device: gpu.capture(step))
        found = sample(model.to(GPU), REQUESTS, settings, eos_ids=[EOS], max_rows=9, block=8)
    for a, b in zip(found, usual, strict=True):
        assert_same(a, b)


@pytest.mark.slow
def test_the_host_looks_once_per_block(monkeypatch: pytest.MonkeyPatch) -> None:
    model, settings, waits = MODELS["qwen2"](), settings_of(max_new_tokens=64), []
    with pretended_gpu(monkeypatch) as gpu:
        model.to(GPU)
        for block in (None, 16, 64):
            gpu.waits = 0
            sample(model, requests_of(3, completions=4), settings, eos_ids=[], max_rows=9, block=block)
            waits.append(gpu.waits)
    prompt_and_end = waits[2]  # and one block
    assert waits[0] > 64
    assert (waits[1] - prompt_and_end) / 3 <= 3  # in each of the other blocks


def test_what_waits_for_the_device_is_no_step_of_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_gpu(monkeypatch) as gpu:
        x = torch.ones(3, device=GPU)
        for wrong in (lambda: x.sum().item(), lambda: x[x > 0], lambda: x.nonzero(), lambda: x.cpu()):
            with pytest.raises(AssertionError, match="waits"):
                gpu.capture(wrong)
        gpu.capture(lambda: x.add_(1))()
        assert x.tolist() == [3, 3, 3]


@pytest.mark.parametrize("block", [None, 3])
def test_what_was_held_to_sample_is_given_back_without_a_garbage_collection(
    block: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU it is gigabytes, and the learner's next pass needs them."""
    made: list[weakref.ref[Any]] = []
    for kind in (DecodeBatch, _Step):
        init = kind.__init__

        def noted(self: Any, *args: Any, _init: Any = init, **options: Any) -> None:
            made.append(weakref.ref(self))
            _init(self, *args, **options)

        monkeypatch.setattr(kind, "__init__", noted)
    model, settings = MODELS["qwen2"](), settings_of(max_new_tokens=20)
    gc.disable()
    try:
        sample(model, REQUESTS, settings, eos_ids=[EOS], max_rows=7, block=block)
        left = [ref() for ref in made]
    finally:
        gc.enable()
    assert len(made) >= (2 if block else 1)
    assert left == [None] * len(made)


def test_a_block_is_decoded_without_the_kernels_that_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    decode = BlockBatch.decode

    def noted(self: BlockBatch) -> None:
        seen.add(torch.are_deterministic_algorithms_enabled())
        decode(self)

    monkeypatch.setattr(BlockBatch, "decode", noted)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        sample(MODELS["qwen2"](), REQUESTS, settings_of(max_new_tokens=4), eos_ids=[EOS], max_rows=7, block=3)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        with pytest.raises(ZeroDivisionError), in_any_order():
            _ = 1 / 0
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert seen == {False}
