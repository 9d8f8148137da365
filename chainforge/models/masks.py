"""Which keys a query sees, for layers that see the whole context and for those that see a window of it.

B sequences, S queries, L keys.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from chainforge.models.attention import additive

Masks = Tensor | Mapping[str, Tensor]  # one for all layers, or one for each type of layer
FULL, WINDOW = "full_attention", "sliding_attention"  # transformers' names of types of layers


class LayerMasks:
    """Makes the masks that a model's layers need."""

    def __init__(self, model: PreTrainedModel) -> None:
        config: Any = model.config.get_text_config()
        types = set(getattr(config, "layer_types", None) or ())
        has_window = WINDOW in types if types else True  # without types, layers are all alike
        self.window: int | None = getattr(config, "sliding_window", None) if has_window else None
        self._differ = len(types) > 1

    def __call__(self, seen_B1SL: Tensor, behind: Callable[[], Tensor], dtype: torch.dtype) -> Masks:
        """0 where a key is seen, -inf where it is not.

        `seen_B1SL` is true where a layer without a window sees the key. `behind` says by how many tokens, not
        columns, the key lies before the query; a model without windows does not ask.
        """
        if not self.window:
            return additive(seen_B1SL, dtype)
        near_B1SL = additive(seen_B1SL & (behind() < self.window), dtype)
        return {FULL: additive(seen_B1SL, dtype), WINDOW: near_B1SL} if self._differ else near_B1SL
