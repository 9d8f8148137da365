"""The size of a micro-batch that is left to us fits into the memory; otherwise it is that of the settings."""

import gc
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakes import llama, qwen2
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.errors import ChainForgeError
from chainforge.learner import micro_batch_size
from chainforge.learner.footprint import Training, total
from chainforge.learner.footprint import sizes as sizes_of
from chainforge.learner.kept_bytes import kept_bytes_per_token
from chainforge.learner.micro_batch_size import (
    CPU_BYTES,
    LEAST,
    MOST_ON_CPU,
    SHARE,
    Passes,
    plan_passes,
    power_of_two,
)
from chainforge.learner.teacher import Teacher
from chainforge.models.policy_model import PolicyModel
from chainforge.run.step import Step
from chainforge.run.world import World

ADAMW = OptimizerSettings(learning_rate=1e-3)


def plan(model: PreTrainedModel, precision: str = "float32", **options: Any) -> Passes:
    beside = {name: options.pop(name) for name in ("reference", "teacher", "longest") if name in options}
    world = World(0, options.pop("shards", 1), 0, options.pop("on_this_machine", 1))
    runtime = RuntimeSettings(device="cpu", sharding="fully-sharded", **options)
    step = Step("sft", RunSettings(precision=precision), runtime, world)
    if "longest" in beside:
        most = beside["longest"]
        beside["longest"] = lambda: most
    return plan_passes(model, ADAMW, step, **beside)


def have(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    """A machine with that much memory."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=int(size)))
    monkeypatch.setattr("psutil.swap_memory", lambda: SimpleNamespace(total=0))


def needed(model: PreTrainedModel, **options: Any) -> float:
    """Bytes from which on the step begins."""
    low, high = 0.0, 1e12
    while high - low > 1e3:
        middle = (low + high) / 2
        with pytest.MonkeyPatch.context() as patched:
            have(patched, middle)
            try:
                plan(model, **options)
                high = middle
            except ChainForgeError:
                low = middle
    return high


def test_where_not_even_the_smallest_fits_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, 2**20)
    with pytest.raises(ChainForgeError, match=r"training does not fit: .* 0\.0 GB .*\n  -> set adapter to"):
        plan(qwen2())
    with pytest.raises(ChainForgeError, match=r"\n  -> set runtime\.gradient_checkpointing to auto; or"):
        plan(qwen2(), gradient_checkpointing=False)
    assert plan(qwen2(), micro_batch_tokens=64) == (True, 64)  # who says so may try


@pytest.mark.slow
def test_checkpointing_comes_on_where_it_does_not_fit_without(monkeypatch: pytest.MonkeyPatch) -> None:
    model = qwen2(num_hidden_layers=8)
    with_it, without = (needed(model, gradient_checkpointing=on) for on in (True, False))
    assert with_it < without
    have(monkeypatch, without)
    assert plan(model) == (False, MOST_ON_CPU)
    assert plan(model, gradient_checkpointing=True) == (True, MOST_ON_CPU)
    have(monkeypatch, (with_it + without) / 2)
    assert plan(model).checkpointing
    assert plan(model) == plan(model)
    have(monkeypatch, with_it - 1e4)
    with pytest.raises(ChainForgeError, match="training does not fit"):
        plan(model)


@pytest.mark.slow
def test_the_longest_sequence_has_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never cut, so it would end a run hours after its start."""
    model = qwen2(num_hidden_layers=8)
    without, long = (needed(model, gradient_checkpointing=False, longest=n) for n in (LEAST, 8 * LEAST))
    assert without < long
    have(monkeypatch, (without + long) / 2)
    assert not plan(model, longest=LEAST).checkpointing
    assert plan(model, longest=8 * LEAST).checkpointing
    assert plan(model, longest=8 * LEAST, micro_batch_tokens=LEAST) == (True, LEAST)
    said = rf"the longest sequence, of {800 * LEAST} tokens, need about .*\n  -> lower max_new_tokens"
    with pytest.raises(ChainForgeError, match=said):
        plan(model, longest=800 * LEAST)


@pytest.mark.slow
def test_all_that_lies_beside_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained weights take 16 bytes each, frozen ones 4, those of a reference and a teacher too."""
    sizes = {"hidden_size": 64, "intermediate_size": 512, "num_attention_heads": 4}
    model = qwen2(**sizes)
    count = sum(p.numel() for p in model.parameters())
    alone = needed(model)
    assert needed(model, reference=qwen2(**sizes)) - alone == pytest.approx(4 * count, abs=4e3)
    taught = needed(model, teacher=Teacher(PolicyModel(qwen2(**sizes)), 11)) - alone
    assert (
        taught >= 4 * count + LEAST * 2 * 4 * 11
    )  # and two distributions over the vocabulary for each token
    # of two that share: half of the weights, but embeddings and two layers whole while they are computed
    assert needed(model, shards=2) < alone + 4 * count
    held = total(Training(sizes_of(model), "float32", ADAMW).held(checkpointing=False))
    assert held == 16 * count
    for name, weight in model.named_parameters():
        weight.requires_grad_("lm_head" in name)
    frozen = count - model.lm_head.weight.numel()
    assert held - total(Training(sizes_of(model), "float32", ADAMW).held(checkpointing=False)) == 12 * frozen
    assert needed(model) < alone - 12 * frozen  # and activations that nobody needs are not kept


@pytest.mark.slow
def test_processes_share_the_memory_of_their_machine() -> None:
    """Each gets its part of it: together they take no more than there is."""
    model = qwen2(num_hidden_layers=4)
    assert needed(model, on_this_machine=2) == pytest.approx(2 * needed(model), abs=4e3)
    # of eight that share the weights, two of them here: the others' parts are on other machines
    both = needed(model, shards=8, on_this_machine=2)
    assert both == pytest.approx(2 * needed(model, shards=8), abs=4e3)


@pytest.mark.slow
def test_a_teacher_s_logits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of student and teacher, log-probabilities of the whole vocabulary are kept for every token."""
    vocab = 20_000
    monkeypatch.setattr(micro_batch_size, "CPU_BYTES", 2**26)
    student, teacher = qwen2(vocab), Teacher(PolicyModel(qwen2(vocab, seed=1)), vocab)
    alone = kept_bytes_per_token(PolicyModel(student), "float32")
    both = kept_bytes_per_token(PolicyModel(student), "float32", teacher=teacher)
    assert both >= alone + 2 * 4 * vocab - 16  # but for what the fused head keeps
    alone_most = plan(student).most_tokens
    assert plan(student, teacher=teacher).most_tokens < alone_most == MOST_ON_CPU
    assert plan(student).most_tokens == alone_most
    # and where the vocabulary's logits are what does not fit, it is said
    have(monkeypatch, needed(student) + 4 * sizes_of(teacher.model.model).all + LEAST * 4 * vocab)
    with pytest.raises(ChainForgeError, match="training does not fit"):
        plan(student, teacher=teacher)


def test_a_number_in_the_settings_is_that_number() -> None:
    assert plan(qwen2(), micro_batch_tokens=777) == (False, 777)


@pytest.mark.slow
def test_on_a_cpu_it_depends_on_the_model_alone() -> None:
    large = qwen2(num_hidden_layers=3, intermediate_size=20_000)
    assert plan(qwen2()) == (False, MOST_ON_CPU)
    tokens = plan(large).most_tokens
    assert LEAST <= tokens < MOST_ON_CPU
    assert tokens * kept_bytes_per_token(PolicyModel(large), "float32") <= SHARE * CPU_BYTES


@given(number=st.floats(0, 1e15))
def test_the_largest_power_of_two_that_fits(number: float) -> None:
    found = power_of_two(number)
    assert found & (found - 1) == 0
    assert found <= number < 2 * max(found, 1 / 2)


@pytest.mark.parametrize("model", [qwen2(), llama()], ids=["qwen2", "llama"])
def test_a_token_keeps_what_its_layers_need(model: PreTrainedModel) -> None:
    """At least the input of every product, at most twice the inputs and outputs of everything in a layer."""
    config = model.config
    layer = 2 * config.hidden_size + config.intermediate_size
    kept = kept_bytes_per_token(PolicyModel(model), "float32")
    assert 4 * config.num_hidden_layers * layer <= kept
    assert kept <= 4 * config.num_hidden_layers * 12 * layer


def test_checkpointing_keeps_less() -> None:
    usual, saving = (
        kept_bytes_per_token(PolicyModel(qwen2(), gradient_checkpointing=on), "float32")
        for on in (False, True)
    )
    assert saving < usual / 3


def test_the_measurement_leaves_no_gradient_and_works_where_gradients_are_off() -> None:
    model = PolicyModel(qwen2())
    with torch.no_grad():
        assert kept_bytes_per_token(model, "bfloat16") > 0
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.slow
def test_the_measurement_leaves_nothing_behind() -> None:
    def graphs() -> int:
        return sum(issubclass(type(o), torch.Tensor) and o.grad_fn is not None for o in gc.get_objects())

    model = PolicyModel(qwen2())
    before = graphs()
    kept_bytes_per_token(model, "bfloat16")
    gc.collect()
    assert graphs() == before
