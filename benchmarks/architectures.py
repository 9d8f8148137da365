"""Which architectures are computed rightly: how far learner and engine are from the model's own forward pass.

    python benchmarks/architectures.py

Small random models with what changes the computation as published: windows, scales, caps, experts, RoPE. Nats
per token at most, in float32, in short contexts and in contexts longer than the window; or the refusal.
"""

import sys
from collections import defaultdict
from pathlib import Path

import torch
import transformers

from chainforge.errors import ChainForgeError
from chainforge.models.checkpoint import place
from chainforge.rollout.check_engine import check_engine, deviations

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from zoo import RIGHT, WRONG, make

PARTS = ["the learner", "the learner with shared prompts", "the sampler"]


def main() -> None:
    transformers.logging.set_verbosity_error()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}\n")
    print("| model | class | learner | learner, shared prompts | engine |")
    print("|---|---|---|---|---|")
    for name in RIGHT:
        print(f"| {name} | {measured(*RIGHT[name])} |", flush=True)
    print("\n| model | refused with |\n|---|---|")
    for name, (config, settings, _) in WRONG.items():
        print(f"| {name} | {refused(config, settings)} |", flush=True)


def measured(config: str, settings: dict[str, object]) -> str:
    model = place(make(config, settings, loud=True), torch.device("cpu"))
    most: dict[str, float] = defaultdict(float)
    for part, nats, _ in deviations(model):
        most[part] = max(most[part], nats)
    return " | ".join([f"`{type(model).__name__}`", *(f"{most[part]:.0e}" for part in PARTS)])


def refused(config: str, settings: dict[str, object]) -> str:
    try:
        check_engine(place(make(config, settings, loud=True), torch.device("cpu")))
    except ChainForgeError as error:
        return error.problem
    return "nothing: it is right"


if __name__ == "__main__":
    main()
