"""Linear layers rounded to 4 bits (nf4), by bitsandbytes: what an adapter of kind qlora lies over.

Source: QLoRA, arXiv 2305.14314; https://huggingface.co/docs/bitsandbytes/reference/nn/linear4bit
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

FOUR_BIT = "Params4bit"  # by name: whoever imports this needs no bitsandbytes


def four_bit_names(model: nn.Module) -> set[str]:
    """Names of the weights that are rounded to 4 bits."""
    return {name for name, weight in model.named_parameters() if type(weight).__name__ == FOUR_BIT}


def round_to_four_bits(model: PreTrainedModel, layers: Mapping[str, nn.Module]) -> None:
    """Round these layers of the model, in place: where they are moved to the GPU."""
    import bitsandbytes as bnb

    for name, module in layers.items():
        if type(module) is nn.Linear:
            made = bnb.nn.Linear4bit(
                module.in_features,
                module.out_features,
                bias=module.bias is not None,
                compute_dtype=torch.bfloat16,
                quant_type="nf4",
                device="meta",
            )
            made.bias = module.bias
            made.weight = bnb.nn.Params4bit(
                module.weight.detach(), requires_grad=False, quant_type="nf4", module=made
            )
            model.set_submodule(name, made.to(model.device))
    # peft takes its layers for them, and num_parameters counts right
    cast(Any, model).is_loaded_in_4bit = True


def in_full(weight: Any) -> Tensor:
    """The weight that 4 bits stand for."""
    import bitsandbytes as bnb

    full: Tensor = bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
    return full
