"""Several linear layers of one input."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class Apart:
    """One product each."""

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        self._linears = linears

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        """Their outputs."""
        return [layer(x) for layer in self._linears]


class Together:
    """One product for all, of a copy of their weights: quicker where there are few rows."""

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        self._weight = torch.cat([layer.weight for layer in linears])
        biases = [layer.bias for layer in linears if layer.bias is not None]
        self._bias = torch.cat(biases) if biases else None
        self._sizes = [layer.out_features for layer in linears]

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        """Their outputs."""
        return linear(x, self._weight, self._bias).split(self._sizes, -1)
