"""The router loss is transformers' own of each sequence, whatever it shares a micro-batch with."""

import pytest
import torch
from fakes import qwen2
from torch import Tensor
from transformers import PreTrainedModel
from zoo import RIGHT, make

from chainforge.errors import ChainForgeError
from chainforge.models.batch import Tokens, collate
from chainforge.models.checkpoint import place
from chainforge.models.policy_model import PolicyModel

CPU = torch.device("cpu")
MODELS = ["mixtral", "qwen2 of experts", "qwen3 of experts", "gpt-oss"]
SEQUENCES = [Tokens([3, 1, 4], [1, 5, 9, 2]), Tokens([5], [3]), Tokens([5, 8, 9, 7, 9], [2, 3])]


def of(model: PreTrainedModel, *micro_batches: list[Tokens], checkpointing: bool = False) -> list[Tensor]:
    """The loss, and its gradient by weight."""
    policy = PolicyModel(model, gradient_checkpointing=checkpointing, balances_experts=True)
    total = torch.zeros(())
    for sequences in micro_batches:
        loss = policy(collate(sequences, CPU)).router_loss
        assert loss is not None
        total = total + loss
    grads = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    return [total.detach(), *(grad for grad in grads if grad is not None)]


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_model_s_own_of_each_sequence(name: str) -> None:
    model = place(make(*RIGHT[name], loud=True), CPU)
    own = torch.zeros(())
    for s in SEQUENCES:
        own = own + model(torch.tensor([[*s.prompt, *s.completion]]), output_router_logits=True).aux_loss
    wanted = torch.autograd.grad(own, list(model.parameters()), allow_unused=True)
    for found in (
        of(model, SEQUENCES),
        of(model, SEQUENCES, checkpointing=True),
        of(model, SEQUENCES[:1], SEQUENCES[1:]),
    ):
        for one, other in zip(found, [own, *filter(lambda g: g is not None, wanted)], strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_it_is_made_only_where_it_is_asked_for_and_gradients_are_wanted() -> None:
    model, batch = place(make(*RIGHT["mixtral"], loud=True), CPU), collate(SEQUENCES, CPU)
    assert PolicyModel(model)(batch).router_loss is None
    with torch.no_grad():
        said = PolicyModel(model, balances_experts=True)(batch)
    assert said.router_loss is None
    torch.testing.assert_close(said.logp_BT, PolicyModel(model)(batch).logp_BT)


def test_a_model_without_experts_is_refused() -> None:
    with pytest.raises(
        ChainForgeError, match=r"the architecture qwen2 has no experts .*\n.*router_aux_loss_coef"
    ):
        PolicyModel(qwen2(), balances_experts=True)
