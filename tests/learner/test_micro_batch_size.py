"""The size of a micro-batch that is left to us fits into the memory; otherwise it is that of the settings."""

import gc
from types import SimpleNamespace

import pytest
import torch
from fakes import llama, qwen2
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from chainforge.config.run import RuntimeSettings
from chainforge.errors import ChainForgeError
from chainforge.learner import micro_batch_size
from chainforge.learner.micro_batch_size import (
    CPU_BYTES,
    LEAST,
    MOST_ON_CPU,
    SHARE,
    kept_bytes_per_token,
    micro_batch_tokens,
    tokens_that_fit,
)
from chainforge.models.policy_model import PolicyModel


def test_where_not_even_the_smallest_fits_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=2**20))
    monkeypatch.setattr("psutil.swap_memory", lambda: SimpleNamespace(total=0))
    with pytest.raises(
        ChainForgeError, match=r"training does not fit: .* has 0\.0 GB\n  -> set runtime\.grad"
    ):
        micro_batch_tokens(PolicyModel(qwen2()), RuntimeSettings(), "float32")
    assert micro_batch_tokens(PolicyModel(qwen2()), RuntimeSettings(micro_batch_tokens=64), "float32") == 64


def test_a_teacher_s_logits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of student and teacher, log-probabilities of the whole vocabulary are kept for every token."""
    vocab = 20_000
    monkeypatch.setattr(micro_batch_size, "CPU_BYTES", 2**26)
    student, teacher = PolicyModel(qwen2(vocab)), PolicyModel(qwen2(vocab, seed=1))
    alone = kept_bytes_per_token(student, "float32")
    both = kept_bytes_per_token(student, "float32", teacher=teacher)
    assert both >= alone + 2 * 4 * vocab - 16  # but for what the fused head keeps
    alone_most = micro_batch_tokens(student, RuntimeSettings(), "float32")
    assert micro_batch_tokens(student, RuntimeSettings(), "float32", teacher) < alone_most == MOST_ON_CPU
    assert micro_batch_tokens(student, RuntimeSettings(), "float32") == alone_most


def test_a_number_in_the_settings_is_that_number() -> None:
    assert micro_batch_tokens(PolicyModel(qwen2()), RuntimeSettings(micro_batch_tokens=777), "float32") == 777


def test_on_a_cpu_it_depends_on_the_model_alone() -> None:
    small = PolicyModel(qwen2())
    large = PolicyModel(qwen2(num_hidden_layers=3, intermediate_size=20_000))
    assert micro_batch_tokens(small, RuntimeSettings(), "float32") == MOST_ON_CPU
    tokens = micro_batch_tokens(large, RuntimeSettings(), "float32")
    assert LEAST <= tokens < MOST_ON_CPU
    assert tokens * kept_bytes_per_token(large, "float32") <= SHARE * CPU_BYTES


@given(free=st.floats(-1e12, 1e12), per_token=st.floats(1, 1e8))
def test_the_largest_power_of_two_that_fits(free: float, per_token: float) -> None:
    tokens = tokens_that_fit(free, per_token)
    assert tokens & (tokens - 1) == 0
    if tokens:
        assert tokens >= LEAST
        assert tokens * per_token <= SHARE * free < (2 * tokens + 1) * per_token
    else:
        assert SHARE * free < (LEAST + 1) * per_token


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


def test_the_measurement_leaves_nothing_behind() -> None:
    def graphs() -> int:
        return sum(issubclass(type(o), torch.Tensor) and o.grad_fn is not None for o in gc.get_objects())

    model = PolicyModel(qwen2())
    before = graphs()
    kept_bytes_per_token(model, "bfloat16")
    gc.collect()
    assert graphs() == before
