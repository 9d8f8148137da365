"""A lack of memory is two lines, however PyTorch says it; other errors stay what they are."""

import pytest
import torch
from fakes import qwen2

from chainforge.config.sampling import SamplingSettings
from chainforge.errors import ChainForgeError
from chainforge.memory import enough_memory
from chainforge.models.optimizer import ScheduledOptimizer
from chainforge.models.training_pass import training_pass
from chainforge.rollout.sampler import Request, sample

LACKS = [
    MemoryError("Unable to allocate 7.11 PiB"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"),
]


@pytest.mark.parametrize("error", LACKS, ids=lambda e: type(e).__name__)
def test_however_it_is_said(error: Exception) -> None:
    with (
        pytest.raises(ChainForgeError, match="not enough memory for all this\n  -> lower it"),
        enough_memory("all this", "lower it"),
    ):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shapes"), KeyError("x"), KeyboardInterrupt()])
def test_other_errors_stay_what_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)), enough_memory("all this", "lower it"):
        raise error


def test_sampling_says_what_to_lower() -> None:
    with pytest.raises(ChainForgeError, match=r"memory for sampling\n  -> lower runtime\.rollout_rows"):
        sample(
            qwen2(),
            [Request([1], [1])],
            SamplingSettings().model_copy(update={"max_new_tokens": 10**15}),
            eos_ids=[0],
            max_rows=4,
        )


def test_training_says_what_to_lower() -> None:
    with (
        pytest.raises(ChainForgeError, match=r"training pass\n  -> lower runtime\.micro_batch_tokens"),
        training_pass(qwen2()),
    ):
        torch.empty(10**15)


def test_the_optimizer_s_moments_too(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = ScheduledOptimizer(
        qwen2(),
        learning_rate=1e-3,
        steps=1,
        beta2=0.9,
        weight_decay=0.0,
        schedule="constant",
        warmup_fraction=0.0,
        max_grad_norm=1.0,
    )

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("chainforge.models.optimizer.clip", fail)
    with pytest.raises(ChainForgeError, match="memory for the optimizer's moments"):
        optimizer.step()
