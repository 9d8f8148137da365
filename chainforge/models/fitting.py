"""Whether a model and a tokenizer are what ChainForge needs, and belong together."""

from typing import cast

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chainforge.errors import ChainForgeError
from chainforge.models.chat import eos_id

LOAD = "a student model's `load` returns (model, tokenizer), both of transformers"


def check_parts(model: object, tokenizer: object) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The two, or ChainForgeError: another type, no weights, weights that are not finite, no EOS token, or a
    token that the model has no embedding for."""
    if not isinstance(model, PreTrainedModel):
        raise ChainForgeError(f"the model is a {type(model).__name__}", LOAD)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ChainForgeError(f"the tokenizer is a {type(tokenizer).__name__}", LOAD)
    for name, weight in model.named_parameters():
        if weight.is_meta:
            raise ChainForgeError(f"{name} is on the meta device: it has no values", "load the weights")
        if not weight.isfinite().all():
            raise ChainForgeError(f"{name} has a weight that is not finite", "choose another model")
    eos_id(tokenizer)
    rows = cast(Tensor, model.get_input_embeddings().weight).shape[0]
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= rows:
        raise ChainForgeError(
            f"the tokenizer has a token {highest}, and the model has embeddings for {rows} tokens only",
            "choose the tokenizer that belongs to the model, or call model.resize_token_embeddings",
        )
    return model, tokenizer
