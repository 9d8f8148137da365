"""In which precision weights are kept, and whether this processor can compute in it."""

from functools import cache
from time import perf_counter

import torch
from torch import Tensor, nn

ROUNDED = "bfloat16-weights"
EMULATED = 3.0  # times as long as in float32; without instructions for bfloat16 it is 7 to 50
FIX = "set run.precision to float32: another result, sooner"


def slowness(precision: str, device_type: str) -> float:
    """How many times as long as in float32 products take here, where they are emulated; 1.0 elsewhere."""
    if device_type != "cpu" or not precision.startswith("bfloat16"):
        return 1.0
    times = _bfloat16_over_float32()
    return times if times > EMULATED else 1.0


@cache
def _bfloat16_over_float32() -> float:
    """Measured, in a few milliseconds: processors do not say how fast they are. Once, so that all who ask in
    this process say the same."""
    matrix = torch.ones(256, 256)
    return _seconds(matrix.bfloat16()) / _seconds(matrix)


def _seconds(matrix: Tensor) -> float:
    """Of a product, the quickest of five: others use the processor, too."""
    found = []
    for _ in range(5):
        start = perf_counter()
        matrix @ matrix
        found.append(perf_counter() - start)
    return min(found)


def settle_precision(precision: str, *models: nn.Module | None) -> None:
    """Keep the weights as `run.precision` says: in bfloat16, or as they are."""
    for model in models:
        if model and precision == ROUNDED:
            round_weights(model)


def round_weights(model: nn.Module) -> None:
    """Make the weights bfloat16, in place. Where some are frozen, only those: an adapter is small, and learns
    better in float32. Buffers stay as they are: rounded, RoPE would turn far tokens by another angle."""
    weights = list(model.parameters())
    frozen = [weight for weight in weights if not weight.requires_grad]
    for weight in frozen or weights:
        weight.data = weight.data.bfloat16()
