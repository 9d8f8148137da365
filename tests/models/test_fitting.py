"""A model and a tokenizer belong together, or it is said why not."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from fakes import policy, qwen2, tokenizer

from chainforge.errors import ChainForgeError
from chainforge.models.checkpoint import make_policy

CPU = torch.device("cpu")


def without_eos() -> Any:
    toy = deepcopy(tokenizer())
    toy.eos_token = None
    return toy


def empty() -> Any:
    with torch.device("meta"):
        return qwen2(len(tokenizer()))


def infinite() -> Any:
    model = qwen2(len(tokenizer()))
    with torch.no_grad():
        next(model.parameters())[0, 0] = torch.inf
    return model


@pytest.mark.parametrize(
    ("model", "toy", "complaint"),
    [
        (lambda: "text", tokenizer, "the model is a str"),
        (lambda: qwen2(len(tokenizer())), lambda: None, "the tokenizer is a NoneType"),
        (lambda: qwen2(20), tokenizer, r"a token \d+, and the model has embeddings for 20 tokens only"),
        (empty, tokenizer, r"embed_tokens\.weight is on the meta device"),
        (infinite, tokenizer, r"embed_tokens\.weight has a weight that is not finite"),
        (lambda: qwen2(len(tokenizer())), without_eos, "EOS"),
    ],
)
def test_parts_that_do_not_fit_are_refused(model: Any, toy: Any, complaint: str) -> None:
    with pytest.raises(ChainForgeError, match=complaint) as caught:
        make_policy(model(), toy(), CPU)
    assert len(str(caught.value).splitlines()) == 2


def test_parts_that_fit_are_a_policy() -> None:
    made = make_policy(qwen2(len(tokenizer())).train(), tokenizer(), CPU)
    assert not made.model.training
    assert made.num_parameters == policy().num_parameters
