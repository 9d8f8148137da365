"""A lack of memory is two lines, however PyTorch says it; other errors stay what they are."""

from pathlib import Path

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
from chainforge.models.checkpoint import load_policy, save_policy
from chainforge.models.policy_model import PolicyModel
from chainforge.rollout.engine import Request
from chainforge.rollout.local_engine import LocalEngine
from chainforge.rollout.sampler import sample
from chainforge.run.ending import unforeseen
from chainforge.run.saves import Saves

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


def full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


PHASES = {
    "the weights of": ("transformers.AutoModelForCausalLM.from_pretrained", "choose a smaller model"),
    "a first try of the model": ("chainforge.rollout.check_engine._check", "choose a smaller model"),
    "sampling": ("chainforge.rollout.sampler.DecodeBatch", r"lower runtime\.rollout_rows"),
    "a copy of the weights to sample from": ("chainforge.rollout.local_engine.deepcopy", "lower runtime"),
    "a forward pass": (
        "chainforge.models.policy_model.PolicyModel.forward",
        r"lower runtime\.micro_batch_tokens",
    ),
    "a training pass": ("torch.Tensor.backward", r"lower runtime\.micro_batch_tokens"),
    "the optimizer's moments": ("torch.optim.AdamW.step", "set optimizer to adamw-8bit"),
    "the checkpoint": ("transformers.PreTrainedModel.save_pretrained", "run the same command again"),
}


@pytest.mark.dear
@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_of_a_step_says_what_did_not_fit(
    phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From loading to saving, wherever the memory of a GPU ends."""
    save_policy(policy(), tmp_path / "before")
    where, fix = PHASES[phase]
    monkeypatch.setattr(where, lambda *_, **__: full())

    def a_step() -> None:
        step = make_step()
        loaded = load_policy(tmp_path / "before", torch.device("cpu"))
        engine = LocalEngine(loaded, step, apart=True)
        learner = LocalLearner(loaded, OptimizerSettings(learning_rate=1e-3), step)
        learner.begin(1)
        engine.generate([Request([1], [1])], SamplingSettings(max_new_tokens=2))
        learner.logprobs([Tokens([1], [2])])
        learner.step([Tokens([1], [2])], lambda _, said, __: (-said.logp_BT.sum(), {}))
        learner.save(tmp_path / "after")

    if phase == "a forward pass":  # which the first try and the measurement are, too
        monkeypatch.undo()
        loaded = load_policy(tmp_path / "before", torch.device("cpu"))
        learner = LocalLearner(loaded, OptimizerSettings(learning_rate=1e-3), make_step())
        monkeypatch.setattr(where, lambda *_, **__: full())
        with pytest.raises(ChainForgeError, match=rf"memory for {phase}.*\n  -> {fix}"):
            learner.logprobs([Tokens([1], [2])])
        return
    with pytest.raises(ChainForgeError, match=rf"memory for {phase}.*\n  -> {fix}") as told:
        a_step()
    assert str(told.value).count("\n") == 1


def test_anywhere_else_too() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    told = unforeseen("sft_cold_start", error)
    assert told.startswith(
        "sft_cold_start: there is not enough memory (OutOfMemoryError: CUDA out of memory."
    )
    assert "\n  -> choose a smaller model" in told


def test_a_save_that_does_not_fit_into_memory_is_not_taken_for_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = Saves(tmp_path)
    saves.write({"a": 1})
    monkeypatch.setattr("torch.load", lambda *_, **__: full())
    with pytest.raises(torch.OutOfMemoryError):
        saves.newest()
