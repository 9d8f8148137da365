"""The most memory that this process has had, and what it may have."""

import resource

import torch

from chainforge.learner.micro_batch_size import usable_memory
from chainforge.models.checkpoint import Policy
from chainforge.run.step import Step


def peak_memory(device: torch.device) -> float:
    """Bytes on the device."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def usable(device: torch.device, step: Step) -> float:
    """Bytes that a process of the step may have."""
    return usable_memory(device, step.world.local_size)


def bytes_per_cached_token(policy: Policy, step: Step) -> float:
    """Keys and values of a token in every layer."""
    config = policy.model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = 4 if step.settings.precision == "float32" else 2
    return float(size * 2 * config.num_hidden_layers * config.num_key_value_heads * width)
