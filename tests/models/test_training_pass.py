"""What saves time or memory in a training pass changes neither values nor gradients."""

from collections.abc import Callable, Sequence

import pytest
import torch
from fakes import llama, qwen2, qwen3
from torch import Tensor
from torch.nn import Dropout
from transformers import PreTrainedModel

from chainforge.models import head
from chainforge.models.batches import Tokens, collate
from chainforge.models.decoder import quick
from chainforge.models.logprobs import completion_logprobs, mixed_precision
from chainforge.models.training_pass import training_pass

CPU = torch.device("cpu")
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen2": lambda: qwen2(sharpness=0.1),
    "llama": lambda: llama(sharpness=0.1),
    "qwen3": lambda: qwen3(sharpness=0.1),
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


@pytest.mark.parametrize("kind", MODELS)
def test_checkpointing_keeps_less(kind: str) -> None:
    model = MODELS[kind]()
    assert kept(model, checkpointing=True) < 0.5 * kept(model, checkpointing=False)


def test_transformers_layers_run_again_and_nothing_inside_of_them_is_in_training_mode() -> None:
    model, calls = MODELS["sliding window"](), []
    layer = model.get_decoder().layers[0].mlp
    layer.register_forward_pre_hook(lambda *_: calls.append(layer.training))
    run(model, "float32", checkpointing=True)
    assert calls == [False, False]


def test_a_model_comes_back_as_it_was_even_after_an_error() -> None:
    model = qwen2()
    before = model.config.to_json_string()
    with pytest.raises(ZeroDivisionError), training_pass(model, gradient_checkpointing=True):
        raise ZeroDivisionError
    assert model.config._attn_implementation == "sdpa"
    assert model.config.to_json_string() == before
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert not any(module.training or "forward" in vars(module) for module in model.modules())


def test_dropout_stays_off_while_layers_run_again() -> None:
    model = qwen2(attention_dropout=0.5)
    model.get_decoder().layers[0].mlp.add_module("extra", Dropout(0.5).eval())
    one, other = (run(model, "float32", checkpointing=True) for _ in range(2))
    assert torch.equal(one[0], other[0])
    torch.testing.assert_close(one[0], run(model, "float32", checkpointing=False)[0])


@pytest.mark.parametrize("kind", MODELS)
def test_float32_is_what_transformers_computes(kind: str) -> None:
    model = MODELS[kind]()
    found, gradient = run(model, "float32", checkpointing=False)
    logp_BT = completion_logprobs(model, collate(SEQUENCES, CPU))
    torch.testing.assert_close(found, logp_BT, atol=1e-6, rtol=1e-6)
    logp_BT.square().sum().backward()
    wanted = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert (gradient - wanted).norm() < 1e-6 * wanted.norm()


@pytest.mark.parametrize("kind", MODELS)
def test_bfloat16_is_as_near_to_float32_as_it_is_without(kind: str) -> None:
    model = MODELS[kind]()
    exact, exact_gradient = run(model, "float32", checkpointing=False)
    found, gradient = run(model, "bfloat16", checkpointing=False)
    torch.testing.assert_close(found, exact, atol=0.03, rtol=0)
    assert (gradient - exact_gradient).norm() < 0.03 * exact_gradient.norm()


@pytest.mark.parametrize("tied", [True, False])
def test_the_gradient_of_a_large_vocabulary_adds_up_in_place(
    tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients = []
    for least in (0, 10**9):
        monkeypatch.setattr(head, "LARGE", least)
        monkeypatch.setattr(quick, "LARGE", least)
        model = qwen2(sharpness=0.1, tie_word_embeddings=tied)
        weight = model.get_output_embeddings().weight
        with training_pass(model):
            head.begin_gradient(model.get_output_embeddings())
            begun = weight.grad
            assert (begun is not None) == (least == 0)
            for sequences in (SEQUENCES[:1], SEQUENCES[1:]):
                completion_logprobs(model, collate(sequences, CPU)).square().sum().backward()
        assert weight.grad is begun or least > 0
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)
