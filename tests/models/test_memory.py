"""A lack of memory is two lines, however PyTorch says it; other errors stay what they are."""

import pytest
import torch
from fakes import make_step, policy, qwen2

from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.sampling import SamplingSettings
from chainforge.errors import ChainForgeError
from chainforge.learner.local_learner import LocalLearner
from chainforge.learner.optimizer import ScheduledOptimizer
from chainforge.memory import enough_memory
from chainforge.models.batch import Tokens
from chainforge.models.policy_model import PolicyModel
from chainforge.rollout.engine import Request
from chainforge.rollout.sampler import sample

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
    def too_large(*_: object) -> None:
        torch.empty(10**15)

    learner = LocalLearner(policy(), OptimizerSettings(learning_rate=1e-3), make_step())
    learner.begin(1)
    with pytest.raises(ChainForgeError, match=r"training pass\n  -> lower runtime\.micro_batch_tokens"):
        learner.step([Tokens([1], [2])], too_large)


def test_log_probabilities_say_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = LocalLearner(policy(), OptimizerSettings(learning_rate=1e-3), make_step())
    monkeypatch.setattr(PolicyModel, "forward", lambda *_, **__: torch.empty(10**15))
    with pytest.raises(ChainForgeError, match=r"forward pass\n  -> lower runtime\.micro_batch_tokens"):
        learner.logprobs([Tokens([1], [2])])


def test_the_optimizer_s_moments_too(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = ScheduledOptimizer(qwen2(), OptimizerSettings(learning_rate=1e-3), steps=1)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("chainforge.learner.optimizer.clip", fail)
    with pytest.raises(ChainForgeError, match="memory for the optimizer's moments"):
        optimizer.step()
