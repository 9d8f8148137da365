"""How near `chainforge preflight` comes: what it predicts of a step, and what that step then takes.

    python benchmarks/preflight_check.py tiny
    python benchmarks/preflight_check.py smollm2 --model /models/SmolLM2-135M-Instruct
    python benchmarks/preflight_check.py qwen --work /tmp/somewhere   # random weights in the shape of 0.5B

CPU seconds of the whole process, and its most memory. A prediction and a run take turns, as the speed of a
shared machine changes from minute to minute.
"""

import json
import os
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from contextlib import chdir
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from tree import copy_project

COMMAND = Path(sys.executable).with_name("chainforge")
DATA = (("lock", "lock"), ("prompts", "prompts@reasoning"), ("prompts", "prompts@general"))
DATA += (("collect", "collect_cot"), ("filter", "filter_cot"))
SHORT: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": ("tiny", {"sft_cold_start.num_epochs": 2.0, "grpo_reasoning.num_rl_steps": 10}),
    "smollm2": ("smollm2", {"run.threads": 1, "grpo_reasoning.num_rl_steps": 2}),
    "qwen": (
        "smollm2",
        {
            "run.threads": 1,
            "collect_cot.max_prompts": 24,
            "grpo_reasoning.num_rl_steps": 1,
            "grpo.prompts_per_step": 2,
            "grpo.group_size": 4,
            "grpo.max_new_tokens": 40,
            # random weights get every answer wrong, and without a spread of rewards there is no update
            "grpo_reasoning.rewards": {"length": 1.0},
            "grpo_reasoning.reward_settings": {
                "length": {"at_most": 0, "slack": 1000, "unit": "characters", "part": "response"}
            },
        },
    ),
}
STEPS = (("sft", "sft_cold_start"), ("grpo", "grpo_reasoning"))


def main() -> None:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("case", choices=SHORT)
    arguments.add_argument("--model", type=Path, help="the model's folder; for qwen its tokenizer's")
    arguments.add_argument("--rounds", type=int, default=3, help="a prediction and a run, so often")
    arguments.add_argument("--work", type=Path, help="an empty folder to work in, and keep")
    given = arguments.parse_args()
    with TemporaryDirectory() as temporary:
        folder = given.work or Path(temporary) / "project"
        profile, changes = SHORT[given.case]
        copy_project(folder, profile=profile)
        with chdir(folder):
            if given.model:
                model = given.model.resolve()
                Path("inputs").mkdir()
                Path("inputs/SmolLM2-135M-Instruct").symlink_to(model)  # as the profile names it
                if given.case == "qwen":
                    make_random(model, Path("inputs/random"))
                    changes = changes | {"base_model.model": "inputs/random"}
            change(changes)
            for verb, step in DATA:
                spend([sys.executable, "-m", f"stages.{verb}", step])
            print(
                "| case | step | what | predicted | measured | ratio | each |\n|---|---|---|---|---|---|---|"
            )
            for verb, step in STEPS:
                command = [sys.executable, "-m", f"stages.{verb}", step]
                rows(given.case, step, [(predict(step), spend(command)) for _ in range(given.rounds)])


def rows(case: str, step: str, rounds: list[tuple[dict[str, Any], tuple[float, float]]]) -> None:
    """Medians of the rounds, and the ratio of each: a prediction and the run right after it."""
    for what, predicted, measured in (
        ("CPU s", [told["cpu_s"] for told, _ in rounds], [took[0] for _, took in rounds]),
        ("peak MB", [told["memory"] / 1e6 for told, _ in rounds], [took[1] for _, took in rounds]),
    ):
        ratios = [p / m for p, m in zip(predicted, measured, strict=True)]
        middle = f"{median(predicted):.0f} | {median(measured):.0f} | {median(ratios):.2f}"
        each = ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
        print(f"| {case} | {step} | {what} | {middle} | {each} |", flush=True)


def predict(step: str) -> dict[str, Any]:
    told = subprocess.run([COMMAND, "preflight", step, "--json"], stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(told.stdout)["steps"][0]
    return found


def spend(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak memory in 10⁶ bytes of a process with all that it starts."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(said.decode()[-2000:])
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6


def change(changes: dict[str, Any]) -> None:
    yaml = YAML()
    settings = yaml.load(Path("params.yaml"))
    for dotted, value in changes.items():
        *path, name = dotted.split(".")
        node = settings
        for part in path:
            node = node[part]
        node[name] = value
    yaml.dump(settings, Path("params.yaml"))


def make_random(tokenizer: Path, folder: Path) -> None:
    """Random weights in the shape of Qwen2.5-0.5B, with the files of that tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=151_936,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    for path in tokenizer.iterdir():
        if path.suffix == ".jinja" or path.name.startswith("tokenizer"):
            shutil.copy2(path, folder)


if __name__ == "__main__":
    main()
