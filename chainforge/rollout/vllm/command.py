"""What `vllm serve` is called with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chainforge.config.vllm import VllmSettings
from chainforge.rollout.vllm.gpus import Gpus

MODEL = "policy"  # the name under which each server that we start serves
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # for which vLLM has kernels
# Of the launcher and of our Python: with them a server would take itself for one of the step's processes.
OURS = (
    "RANK",
    "WORLD_SIZE",
    "GROUP_",
    "ROLE_",
    "LOCAL_",
    "MASTER_",
    "TORCHELASTIC_",
    "CHAINFORGE_",
    "PYTHON",
)
MOST_TOKENS = 4096  # of prompts that are read at once on a CPU
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_SERVER_DEV_MODE": "1",  # sleep, wake_up, reset_prefix_cache, collective_rpc
}


@dataclass(frozen=True)
class Plan:
    """What one server is to serve, and with what."""

    folder: Path
    dtype: str
    rows: int
    max_len: int  # tokens of prompt and completion
    seed: int
    port: int
    gpus: Gpus = ()
    memory: float = 0.0  # share of each GPU's, or GiB for keys and values on a CPU
    adapter_rank: int | None = None
    sleeps: bool = False


def serve_arguments(plan: Plan, settings: VllmSettings) -> list[str]:
    """All but the program's name."""
    arguments = ["serve", str(plan.folder), "--served-model-name", MODEL]
    arguments += ["--host", "127.0.0.1", "--port", str(plan.port), "--dtype", plan.dtype]
    arguments += ["--max-model-len", str(plan.max_len), "--max-num-seqs", str(plan.rows)]
    arguments += ["--seed", str(plan.seed), "--generation-config", "vllm"]
    arguments += ["--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1"]
    arguments += ["--disable-uvicorn-access-log"]
    if plan.gpus:
        arguments += ["--tensor-parallel-size", str(len(plan.gpus))]
        arguments += ["--gpu-memory-utilization", f"{plan.memory:.3f}"]
    else:
        arguments += ["--enforce-eager"]  # on a CPU compiling takes minutes, and gains nothing
        # Each prompt at once: in pieces, with a seed, it ends the engine (0.32: "CPU Generator does not use
        # offset").
        arguments += ["--no-enable-chunked-prefill"]
        arguments += ["--max-num-batched-tokens", str(max(MOST_TOKENS, plan.max_len))]
    if plan.sleeps:
        arguments += ["--enable-sleep-mode"]
    if plan.adapter_rank is not None:
        rank = next((rank for rank in RANKS if rank >= plan.adapter_rank), plan.adapter_rank)
        arguments += ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", "1"]
    return [*arguments, *settings.arguments]


def serve_environment(plan: Plan, environment: Mapping[str, str]) -> dict[str, str]:
    """Of the step's own, which has no keys any more, what a server is to see."""
    seen = {name: value for name, value in environment.items() if not name.startswith(OURS)}
    seen |= QUIET
    if plan.gpus:
        seen["CUDA_VISIBLE_DEVICES"] = ",".join(plan.gpus)
    else:
        seen.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, round(plan.memory))))
    if plan.adapter_rank is not None:
        seen["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    return seen
