"""The seconds of a GRPO step of Qwen2.5 on one H100, from arithmetic alone; nothing here was measured on one.

    python benchmarks/predict.py

Rates are those of the H100 SXM data sheet; the shares of them that a program reaches are assumptions, and
the host's time per layer and token was measured on a CPU (docs/performance.md).
"""

import random
from dataclasses import dataclass

FLOPS, BYTES = 989e12, 3.35e12  # per second: dense bfloat16, HBM3
TRAINING_SHARE, DECODING_SHARE = 0.40, 0.60
VLLM_HOST_S = 4e-3  # of a decode step of vLLM: its scheduler and its results for hundreds of rows; assumed
HANDED_OVER = 1e9  # bytes per second, weights written to /dev/shm and read from it again; assumed
HOST_S_PER_LAYER = 120e-6  # of a decode step: Python and the launch of its kernels
PROMPTS, GROUP, PROMPT_TOKENS, MEAN, CAP = 32, 16, 120, 256, 1024


@dataclass(frozen=True)
class Model:
    """Sizes from the model's config.json."""

    name: str
    parameters: float
    hidden: int
    layers: int
    kv_width: int  # key-value heads × head size
    vocab: int
    tied: bool
    rows: int  # decoded at once: runtime.rollout_rows of its profile; vLLM, which pages its cache, takes all

    @property
    def multiplied(self) -> float:
        """Weights of a token's matrix products: all but the input embedding."""
        return self.parameters - (0 if self.tied else self.vocab * self.hidden)


MODELS = (
    Model("Qwen2.5-1.5B", 1.54e9, 1536, 28, 256, 151_936, True, 256),
    Model("Qwen2.5-7B", 7.62e9, 3584, 28, 512, 152_064, False, 64),
)


def main() -> None:
    lengths = draw_lengths()
    tokens = sum(lengths) + PROMPTS * PROMPT_TOKENS
    print(
        f"{PROMPTS} prompts of {PROMPT_TOKENS} tokens, {GROUP} completions each, "
        f"mean {sum(lengths) / len(lengths):.0f} tokens, longest {max(lengths)}\n"
    )
    print(
        "| seconds | decoding: device | decoding: host | weights handed over | reference pass "
        "| forward + backward | step |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for model in MODELS:
        forward_s = 2 * model.multiplied * tokens / (FLOPS * TRAINING_SHARE)
        device_s, steps = decoding_s(model, lengths, model.rows)
        ours = (device_s, steps * HOST_S_PER_LAYER * model.layers, 0.0)
        device_s, steps = decoding_s(model, lengths, len(lengths))
        vllm = (device_s, steps * VLLM_HOST_S, 2 * model.parameters / HANDED_OVER)
        for engine, (device_s, host_s, sync_s) in (("local", ours), ("vllm", vllm)):
            step_s = max(device_s, host_s) + sync_s + 4 * forward_s
            cells = (device_s, host_s, sync_s, forward_s, 3 * forward_s, step_s)
            print(f"| {model.name}, {engine} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")


def draw_lengths() -> list[int]:
    draw = random.Random(17)
    return [min(CAP, max(2, round(draw.lognormvariate(5.3, 0.7)))) for _ in range(PROMPTS * GROUP)]


def decoding_s(model: Model, lengths: list[int], rows: int) -> tuple[float, int]:
    """(seconds of the device, decode steps): what waits takes the place of what has ended."""
    waiting = list(lengths)
    device_s, steps = 0.0, 0
    alive: list[tuple[int, int]] = []  # (tokens so far, tokens in the end)
    while waiting or alive:
        while waiting and len(alive) < rows:
            alive.append((0, waiting.pop()))
        columns = sum(PROMPT_TOKENS + done for done, _ in alive)
        cache = 2 * 2 * model.layers * model.kv_width * columns
        device_s += (2 * model.multiplied + cache) / (BYTES * DECODING_SHARE)
        steps += 1
        alive = [(done + 1, end) for done, end in alive if done + 1 < end]
    return device_s, steps


if __name__ == "__main__":
    main()
