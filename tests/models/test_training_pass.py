"""What saves time or memory in a training pass changes neither values nor gradients."""

from collections.abc import Callable, Sequence

import pytest
import torch
from fakes import llama, qwen2
from torch import Tensor
from torch.nn import Dropout
from transformers import PreTrainedModel

from chainforge.models import training_pass as passes
from chainforge.models.batches import Tokens, collate
from chainforge.models.logprobs import completion_logprobs, mixed_precision
from chainforge.models.training_pass import short_attention, training_pass

CPU = torch.device("cpu")
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen2": lambda: qwen2(sharpness=0.1),
    "llama": lambda: llama(sharpness=0.1),
    "sliding window": lambda: qwen2(
        sharpness=0.1, use_sliding_window=True, sliding_window=4, max_window_layers=0
    ),
}
SEQUENCES = [Tokens([3, 1, 4], [1, 5, 9, 2, 6, 5, 3]), Tokens([5], [3]), Tokens([5, 8, 9, 7], [2, 3, 8])]


def run(
    model: PreTrainedModel, precision: str, *, checkpointing: bool, sequences: Sequence[Tokens] = SEQUENCES
) -> tuple[Tensor, Tensor]:
    with training_pass(model, gradient_checkpointing=checkpointing):
        with mixed_precision(precision, CPU):
            logp_BT = completion_logprobs(model, collate(sequences, CPU))
        logp_BT.square().sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return logp_BT.detach(), gradient


def kept(model: PreTrainedModel, *, checkpointing: bool) -> int:
    """Bytes that autograd keeps for the backward pass."""
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes if not isinstance(tensor, torch.nn.Parameter) else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        run(model, "float32", checkpointing=checkpointing)
    return sum(sizes)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", MODELS)
def test_checkpointing_gives_the_same_values_and_gradients(kind: str, precision: str) -> None:
    model = MODELS[kind]()
    for one, other in zip(
        run(model, precision, checkpointing=False), run(model, precision, checkpointing=True), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_checkpointing_runs_every_layer_again_and_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    model = qwen2(num_hidden_layers=6)
    calls: list[bool] = []
    layer = model.get_decoder().layers[0].mlp
    layer.register_forward_pre_hook(lambda *_: calls.append(layer.training))
    whole = kept(model, checkpointing=False)
    assert calls == [False]
    assert kept(model, checkpointing=True) < 0.5 * whole
    assert calls == [False, False, False]  # twice now, and inside of a layer nothing is in training mode


def test_a_model_comes_back_as_it_was_even_after_an_error() -> None:
    model = qwen2()
    before = model.config.to_json_string()
    with pytest.raises(ZeroDivisionError), training_pass(model, gradient_checkpointing=True):
        raise ZeroDivisionError
    assert model.config._attn_implementation == "sdpa"
    assert model.config.to_json_string() == before
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert not any(module.training for module in model.modules())


def test_dropout_stays_off_while_layers_run_again() -> None:
    model = qwen2(attention_dropout=0.5)
    model.get_decoder().layers[0].mlp.add_module("extra", Dropout(0.5).eval())
    one, other = (run(model, "float32", checkpointing=True) for _ in range(2))
    assert torch.equal(one[0], other[0])
    torch.testing.assert_close(one[0], run(model, "float32", checkpointing=False)[0])


@pytest.mark.parametrize("kind", MODELS)
def test_float32_is_what_it_is_without(kind: str) -> None:
    model = MODELS[kind]()
    found, gradient = run(model, "float32", checkpointing=False)
    logp_BT = completion_logprobs(model, collate(SEQUENCES, CPU))
    assert torch.equal(found, logp_BT)
    logp_BT.square().sum().backward()
    assert torch.equal(
        gradient, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    )


@pytest.mark.parametrize("kind", MODELS)
def test_bfloat16_is_as_near_to_float32_as_it_is_without(kind: str) -> None:
    model = MODELS[kind]()
    exact, exact_gradient = run(model, "float32", checkpointing=False)
    found, gradient = run(model, "bfloat16", checkpointing=False)
    torch.testing.assert_close(found, exact, atol=0.03, rtol=0)
    assert (gradient - exact_gradient).norm() < 0.03 * exact_gradient.norm()


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_short_attention_is_causal_attention(heads: int, kv_heads: int, scaling: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    module = torch.nn.Module()
    module.num_key_value_groups = heads // kv_heads  # type: ignore[assignment]
    found, gradients = [], []
    for dtype in (torch.float32, torch.bfloat16):
        generator.manual_seed(0)
        q, k, v = (
            torch.randn(2, h, 9, 8, generator=generator).requires_grad_() for h in (heads, kv_heads, kv_heads)
        )
        with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
            out, _ = short_attention(module, q, k, v, None, scaling)
        out.float().square().sum().backward()
        found.append(out.detach().float())
        gradients.append([x.grad for x in (q, k, v)])
    torch.testing.assert_close(found[1], found[0], atol=0.03, rtol=0.03)
    for one, other in zip(*gradients, strict=True):
        assert (one - other).norm() < 0.03 * one.norm()


def test_long_rows_go_to_the_usual_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = qwen2(), []
    usual = passes.sdpa_attention_forward
    monkeypatch.setattr(
        passes, "sdpa_attention_forward", lambda *a, **k: seen.append(a[1].shape[2]) or usual(*a, **k)
    )
    long = [Tokens([1] * 500, [2] * 100)]
    run(qwen2(max_position_embeddings=1024), "bfloat16", checkpointing=False, sequences=long)
    assert seen == [600, 600]
    seen.clear()
    run(model, "bfloat16", checkpointing=False)
    assert seen == []
