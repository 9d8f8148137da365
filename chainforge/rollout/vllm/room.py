"""How much room a server needs: tokens of context, and memory."""

import psutil
import torch

from chainforge.config.vllm import VllmSettings
from chainforge.errors import ChainForgeError
from chainforge.models.checkpoint import Policy
from chainforge.run.step import Step

APART = 0.9  # of the memory of a GPU that is the server's alone; vLLM itself takes 0.92
SPARE = 2e9  # bytes for two CUDA contexts and what the learner's allocator cannot give back
LEAST = 0.05
MOMENTS_AND_REFERENCE = 3  # times the weights: AdamW's moments, and a second model to compare with
USUAL = 4096  # tokens of context, where the model does not say


def context_len(policy: Policy, wanted: int | None) -> int:
    """Tokens that a server must have room for. Raises ChainForgeError where the model cannot."""
    config = policy.model.config.get_text_config()
    most = int(getattr(config, "max_position_embeddings", 0)) or None
    if wanted and most and wanted > most:
        raise ChainForgeError(
            f"prompts and completions have up to {wanted} tokens, and the model's context is {most}",
            "lower max_new_tokens, or leave the longest prompts out",
        )
    return wanted or most or USUAL


def cache_bytes(policy: Policy, size: int) -> int:
    """Keys and values of one token, with so many bytes for a number."""
    config = policy.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * size)


def memory_for(
    policy: Policy, step: Step, length: int, device: torch.device, gpus: int, *, trains_all: bool
) -> float:
    """See `Plan.memory`, of a server on `gpus` such devices. `trains_all`: the step trains all weights."""
    size = 4 if step.settings.precision == "float32" else 2
    if device.type != "cuda":
        cache = step.runtime.rollout_rows * length * cache_bytes(policy, size)
        return cpu_cache_gib(cache, psutil.virtual_memory().available)
    free, memory = map(float, torch.cuda.mem_get_info(device))
    weights = 4.0 * policy.num_parameters
    shards = step.world.size if step.runtime.sharding == "fully-sharded" else 1
    taken = most_taken(memory - free, weights, MOMENTS_AND_REFERENCE * weights if trains_all else 0, shards)
    needed = size * policy.num_parameters / max(1, gpus)
    return memory_share(step.runtime.vllm, memory, taken, needed)


def most_taken(taken: float, weights: float, coming: float, shards: int) -> float:
    """Bytes that a learner has at most beside a server: `taken` now, where it starts with all `weights`, or
    later, with its part of them and of what is `coming`, which `shards` processes share."""
    return max(taken, taken - weights + (weights + coming) / shards)


def memory_share(settings: VllmSettings, memory: float, taken: float, needed: float) -> float:
    """Of a GPU with `memory` bytes, of which the learner has at most `taken` while a server is awake. Raises
    ChainForgeError where less is left than the `needed` weights of the server."""
    if settings.memory_share != "auto":
        return settings.memory_share
    if settings.gpus:
        return APART
    share = min(APART, round((memory - taken - SPARE) / memory, 3))
    if share < LEAST or share * memory < needed:
        raise ChainForgeError(
            f"a vLLM server needs {needed / 1e9:.1f} GB for the weights alone, and beside the learner "
            f"{max(0.0, share * memory) / 1e9:.1f} of {memory / 1e9:.1f} GB are left on its GPU",
            "train an adapter, give servers GPUs of their own (runtime.vllm.gpus), or take a smaller model",
        )
    return share


def cpu_cache_gib(needed: float, free: float) -> int:
    """Whole GiB for keys and values on a CPU: those of a full batch, at most half of what is free."""
    return max(1, min(-(-int(needed) // 2**30), int(free / 2) // 2**30))
