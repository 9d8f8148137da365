"""Rollouts by each engine of a step, as a GRPO step asks for them: vLLM through its server, next to our own.

    python benchmarks/engines.py inputs/SmolLM2-135M-Instruct --vllm vllm-env/bin/vllm

Prompts of 32 tokens, eight completions each. Engines take turns, and vLLM's server sleeps in none of them, so
other work on the machine meets both. CPU seconds are those of the step and of all its servers.
"""

import os
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import psutil
import torch

from chainforge.config.engine import EngineSettings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.config.sampling import SamplingSettings
from chainforge.models.checkpoint import load_policy, start_torch
from chainforge.rollout.engine import Engine, Request
from chainforge.rollout.open_engine import open_engine
from chainforge.run.step import Step

GROUP, PROMPT_TOKENS, SEED = 8, 32, 17


class Cost(NamedTuple):
    """What a rollout took."""

    wall_s: float
    cpu_s: float
    tokens: int


def main() -> None:
    given = read_arguments()
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, range(given.threads))))
    print("| rows | engine | wall s | CPU s | tokens per wall s | tokens per CPU s |")
    print("|---:|---|---:|---:|---:|---:|")
    for rows in given.rows:
        costs = measure(given, rows)
        for kind, (wall_s, cpu_s, tokens) in costs.items():
            rates = f"{tokens / wall_s:,.0f} | {tokens / cpu_s:,.0f}"
            print(f"| {rows} | {kind} | {wall_s:.1f} | {cpu_s:.1f} | {rates} |", flush=True)


def read_arguments() -> Namespace:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--vllm", required=True, help="the program that serves")
    arguments.add_argument("--rows", type=int, nargs="+", default=[64, 256], help="completions at once")
    arguments.add_argument("--tokens", type=int, default=128, help="of each completion, at most")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=1)
    return arguments.parse_args()


def measure(given: Namespace, rows: int) -> dict[str, Cost]:
    """Medians per engine, after one rollout to warm up."""
    step = Step(
        "engines_bench",
        RunSettings(seed=SEED, threads=given.threads, precision="bfloat16"),
        RuntimeSettings(device="cpu", rollout_rows=rows, vllm={"command": given.vllm}),
    )
    policy = load_policy(given.model, start_torch(step.settings, step.runtime))
    draw = torch.Generator().manual_seed(SEED)
    prompts = torch.randint(1000, 20_000, (rows // GROUP, PROMPT_TOKENS), generator=draw).tolist()
    requests = [Request(ids, [GROUP * n + i for i in range(GROUP)]) for n, ids in enumerate(prompts)]
    settings = SamplingSettings(max_new_tokens=given.tokens)
    found: dict[str, list[Cost]] = {"local": [], "vllm": []}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        os.chdir(folder)  # logs of the servers
        engines = {
            kind: stack.enter_context(
                closing(
                    open_engine(
                        EngineSettings(kind=kind),
                        policy,
                        step,
                        frozen=True,
                        max_len=lambda: PROMPT_TOKENS + given.tokens,
                    )
                )
            )
            for kind in found
        }
        for engine in engines.values():
            rollout(engine, requests, settings)
        for _ in range(given.rounds):
            for kind, engine in engines.items():
                found[kind].append(rollout(engine, requests, settings))
    return {kind: Cost(*map(median, zip(*costs, strict=True))) for kind, costs in found.items()}


def rollout(engine: Engine, requests: list[Request], settings: SamplingSettings) -> Cost:
    """One of them."""
    wall, cpu = perf_counter(), family_cpu_s()
    answers = engine.generate(requests, settings)
    tokens = sum(len(sampled.token_ids) for group in answers for sampled in group)
    return Cost(perf_counter() - wall, family_cpu_s() - cpu, tokens)


def family_cpu_s() -> float:
    """Of this process and all below it."""
    first = psutil.Process()
    times = [each.cpu_times() for each in (first, *first.children(recursive=True))]
    return sum(each.user + each.system for each in times)


if __name__ == "__main__":
    main()
