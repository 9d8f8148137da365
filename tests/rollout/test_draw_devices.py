"""Drawing where a device has no float64: the same tokens, by way of the CPU."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from fakes import qwen2
from torch.overrides import TorchFunctionMode

from chainforge.config.sampling import SamplingSettings
from chainforge.rollout import draw as drawing
from chainforge.rollout.engine import Request
from chainforge.rollout.sampler import sample

SETTINGS = [
    SamplingSettings(max_new_tokens=12),
    SamplingSettings(max_new_tokens=12, temperature=0.7, top_p=0.8, top_k=5),
    SamplingSettings(max_new_tokens=12, temperature=0.0),
]
REQUESTS = [Request([1, 2, 3], [5, 6, 7]), Request([4], [8])]


class NoFloat64(TorchFunctionMode):
    """Refuses what such a device refuses: a float64 tensor on it, made or moved there."""

    def __init__(self, device: str) -> None:
        self._device = device

    def __torch_function__(self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if (
            isinstance(found, torch.Tensor)
            and found.device.type == self._device
            and found.dtype == torch.float64
        ):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return found


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_same_tokens_are_drawn(monkeypatch: pytest.MonkeyPatch, settings: SamplingSettings) -> None:
    usual = sample(qwen2(), REQUESTS, settings, eos_ids=[0], max_rows=3)
    monkeypatch.setattr(drawing, "NO_FLOAT64", {"cpu"})
    assert sample(qwen2(), REQUESTS, settings, eos_ids=[0], max_rows=3) == usual


def test_what_is_exact_is_on_a_device_that_can() -> None:
    assert drawing.exact_device(torch.device("mps")) == torch.device("cpu")
    assert drawing.exact_device(torch.device("cpu")) == torch.device("cpu")
    assert drawing.exact_device(torch.device("cuda", 0)) == torch.device("cuda", 0)
    table = drawing.uniform_table([1, 2], 3, torch.device("mps"))
    assert (table.device.type, table.dtype) == ("cpu", torch.float64)


@pytest.mark.gpu
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_gpu_that_refuses_float64_draws_the_same(
    monkeypatch: pytest.MonkeyPatch, settings: SamplingSettings
) -> None:
    model = qwen2().to("cuda")
    usual = sample(model, REQUESTS, settings, eos_ids=[0], max_rows=3)
    monkeypatch.setattr(drawing, "NO_FLOAT64", {"cuda"})
    with NoFloat64("cuda"):
        found = sample(model, REQUESTS, settings, eos_ids=[0], max_rows=3)
    assert [[s.token_ids for s in each] for each in found] == [[s.token_ids for s in each] for each in usual]
