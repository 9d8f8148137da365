"""The load-balancing loss of a model's routers, which keeps experts in use. It is transformers' own.

Of each sequence by itself: then it does not depend on which sequences share a micro-batch or a process.
B sequences, S their width, E experts. Source: Switch Transformer, arXiv 2101.03961, equations 4 to 6.
"""

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from chainforge.errors import ChainForgeError
from chainforge.models.batch import Batch


def router_loss(model: PreTrainedModel, logits_by_layer: Sequence[Tensor], batch: Batch) -> Tensor:
    """The sum over the batch's sequences, padding left out. Logits are [B·S, E], or [B, S, E]."""
    rows = len(batch.tokens_BS)
    layers_BSE = [logits.view(rows, -1, logits.shape[-1]) for logits in logits_by_layer]
    length_B = batch.tokens_BS.shape[1] - batch.target_BS.flip(-1).int().argmax(-1)
    losses = [
        load_balancing_loss_func(
            cast(tuple[Tensor], tuple(layer_BSE[row, :length] for layer_BSE in layers_BSE)),
            layers_BSE[0].shape[-1],
            experts_per_token(model),
        )
        for row, length in enumerate(length_B.tolist())
    ]
    return cast(Tensor, sum(losses))


def experts_per_token(model: PreTrainedModel) -> int:
    """How many experts a token goes to. Raises ChainForgeError for a model that has none to balance."""
    config: Any = model.config.get_text_config()
    chosen = getattr(config, "num_experts_per_tok", None)
    recorded = getattr(model.get_decoder(), "_can_record_outputs", None) or {}
    if not chosen or "router_logits" not in recorded:
        raise ChainForgeError(
            f"the architecture {model.config.model_type} has no experts whose load could be balanced",
            "set router_aux_loss_coef to 0",
        )
    return int(chosen)
