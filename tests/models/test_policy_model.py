"""Log-probabilities are those of a plain softmax over the whole vocabulary, gradients too."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from fakes import llama, qwen2
from torch import Tensor
from transformers import PreTrainedModel

from chainforge.algorithms.kl import forward_kl
from chainforge.learner.forward_passes import micro_batches, mixed_precision
from chainforge.models import decoder, head
from chainforge.models.batch import Tokens, collate
from chainforge.models.policy_model import PolicyModel

CPU = torch.device("cpu")
MODELS = {"qwen2": qwen2, "llama": llama, "tied": lambda: qwen2(tie_word_embeddings=True)}
SEQUENCES = [
    Tokens([3, 1, 4], [1, 5, 9, 2, 6]),
    Tokens([5], [3]),
    Tokens([5, 8, 9, 7, 9, 3], [2, 3, 8]),
    Tokens([4, 6], [2, 6, 4, 3, 3, 8, 3, 2, 7]),
]


def plain(model: PreTrainedModel, s: Tokens, temperature: float) -> tuple[Tensor, Tensor]:
    """(logp_T, entropy_T) by the model's own head, one sequence at a time."""
    logits_SV = model(torch.tensor([[*s.prompt, *s.completion]])).logits[0] / temperature
    logp_TV = logits_SV[len(s.prompt) - 1 : -1].log_softmax(-1)
    entropy_T = -(logp_TV.exp() * logp_TV).sum(-1)
    return logp_TV.gather(-1, torch.tensor(s.completion)[:, None])[:, 0], entropy_T


def logprobs(model: PreTrainedModel, sequences: Sequence[Tokens] = SEQUENCES) -> Tensor:
    return PolicyModel(model)(collate(sequences, CPU)).logp_BT


def kl_of(student: PreTrainedModel, teacher: PreTrainedModel) -> Tensor:
    batch = collate(SEQUENCES, CPU)
    with torch.no_grad():
        by_teacher = PolicyModel(teacher)(batch, vocabulary=True).logp_MV
    return forward_kl(PolicyModel(student)(batch, vocabulary=True).logp_MV, by_teacher)


def gradient(model: PreTrainedModel, value: Tensor) -> Tensor:
    grads = torch.autograd.grad(value, list(model.parameters()))
    return torch.cat([g.flatten() for g in grads])


@pytest.mark.dear
@pytest.mark.parametrize("columns", [1, 4, 2**26])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", MODELS)
def test_log_probabilities_and_gradients_are_those_of_a_full_softmax(
    kind: str, known: bool, temperature: float, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "is_known", lambda _: known)
    tokens = sum(len(s.completion) for s in SEQUENCES)
    monkeypatch.setitem(head.CHUNK_ELEMENTS, "cpu", tokens * columns)
    model = MODELS[kind]()
    said = PolicyModel(model)(collate(SEQUENCES, CPU), temperature, entropy=True)
    logp_BT, entropy_BT = said.logp_BT, said.entropy_BT
    weight_BT = torch.linspace(-1, 2, logp_BT.numel()).reshape(logp_BT.shape)
    wanted = torch.zeros(())
    for row, s in enumerate(SEQUENCES):
        logp_T, entropy_T = plain(model, s, temperature)
        torch.testing.assert_close(logp_BT[row, : len(s.completion)], logp_T, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            entropy_BT[row, : len(s.completion)], entropy_T.detach(), atol=1e-5, rtol=0
        )
        wanted = wanted + (weight_BT[row, : len(s.completion)] * logp_T).sum()
    assert not entropy_BT.requires_grad
    found, true = gradient(model, (weight_BT * logp_BT).sum()), gradient(model, wanted)
    assert (found - true).norm() < 1e-5 * true.norm()
    if not known:  # then the head alone differs
        torch.testing.assert_close(found, true, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("most", [1, 12, 30, 1000])
def test_sum_and_gradient_do_not_depend_on_how_sequences_are_put_into_micro_batches(most: int) -> None:
    model = qwen2()

    def summed(partition: Any) -> tuple[float, Tensor]:
        parts = [logprobs(model, [SEQUENCES[i] for i in indices]).sum() for indices in partition]
        return sum(part.item() for part in parts), sum(
            (gradient(model, part) for part in parts), torch.zeros(())
        )

    whole, whole_gradient = summed([range(len(SEQUENCES))])
    total, total_gradient = summed(micro_batches([len(s) for s in SEQUENCES], most))
    assert total == pytest.approx(whole, abs=1e-4)
    torch.testing.assert_close(total_gradient, whole_gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_whole_vocabulary_says_the_same(temperature: float) -> None:
    model, batch = PolicyModel(qwen2()), collate(SEQUENCES, CPU)
    fused, whole = (model(batch, temperature, entropy=True, vocabulary=v) for v in (False, True))
    assert fused.logp_MV is None
    for one, other in zip(fused[:2], whole[:2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert not whole.entropy_BT.requires_grad
    torch.testing.assert_close(whole.logp_MV.exp().sum(-1), torch.ones(len(whole.logp_MV)))


def test_a_prompt_s_tokens_have_no_log_probability_of_their_own() -> None:
    logp_BT = logprobs(qwen2())
    assert (logp_BT != 0).sum() == sum(len(s.completion) for s in SEQUENCES)
    assert (logp_BT <= 0).all()


def test_the_kl_to_oneself_is_zero_and_has_no_gradient() -> None:
    kl = kl_of(qwen2(), qwen2())
    assert float(kl.detach()) == pytest.approx(0, abs=1e-5)
    model = qwen2()
    found = gradient(model, kl_of(model, qwen2()))
    assert float(found.abs().max()) < 1e-5


def test_the_kl_is_that_of_the_two_distributions_at_every_completion_token() -> None:
    student, teacher = qwen2(seed=0), llama(seed=1)
    wanted = 0.0
    for s in SEQUENCES:
        ids = torch.tensor([[*s.prompt, *s.completion]])
        p, q = (m(ids).logits[0, len(s.prompt) - 1 : -1].double().log_softmax(-1) for m in (teacher, student))
        wanted += float((p.exp() * (p - q)).sum().detach())
    kl = kl_of(student, teacher)
    assert float(kl.detach()) == pytest.approx(wanted, rel=1e-4)
    assert wanted > 0
    kl.backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_bfloat16_is_near_float32_and_keeps_its_results_in_float32() -> None:
    model = qwen2(sharpness=0.1)
    exact = logprobs(model)
    with mixed_precision("bfloat16", CPU):
        coarse = logprobs(model)
    assert coarse.dtype == exact.dtype == torch.float32
    torch.testing.assert_close(coarse, exact, atol=0.05, rtol=0)
    with mixed_precision("float32", CPU):
        again = logprobs(model)
    assert torch.equal(again, exact)
