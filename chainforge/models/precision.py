"""In which precision weights are kept."""

from torch import nn

ROUNDED = "bfloat16-weights"


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
