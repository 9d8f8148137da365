"""Several linear layers of one input."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

Weights = tuple[Tensor, Tensor | None]  # weight, bias


class Projection:
    """Weights are cast to the type of the input once, for all passes, if they may be kept.

    `together`: one product for all of them, of a copy of their weights; quicker where there are few rows.
    """

    def __init__(self, *linears: nn.Linear, together: bool, keep: bool) -> None:
        self._linears, self._keep = linears, keep
        self._together = together and len(linears) > 1
        self._sizes = [layer.out_features for layer in linears]
        self._kept: list[Weights] = []

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        """The output of each."""
        weights = self._kept or [
            (weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
            for weight, bias in self._weights()
        ]
        if self._keep:
            self._kept = weights
        outputs = [linear(x, *pair) for pair in weights]
        return outputs[0].split(self._sizes, -1) if self._together else outputs

    def _weights(self) -> list[Weights]:
        if not self._together:
            return [(layer.weight, layer.bias) for layer in self._linears]
        weights: list[Tensor] = [layer.weight for layer in self._linears]
        biases: list[Tensor] = [layer.bias for layer in self._linears if layer.bias is not None]
        return [(torch.cat(weights), torch.cat(biases) if biases else None)]
