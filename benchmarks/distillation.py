"""Ways to distill, on the same examples and for as many optimizer steps: by samples, by logits, on-policy.

    python benchmarks/distillation.py RUN [RUN …] [--problems 1000]

Each RUN is the folder of a finished default run (`make run`), with a seed of its own. Its student is trained
again in a copy, once per way, and evaluated on held-out problems of `reasoning`. One process and one thread.
"""

import json
import os
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from ruamel.yaml import YAML

HERE = Path(__file__).resolve().parents[1]
STUDENT = "qwen_distilled_student"
OWN = {"share": 0.5, "max_new_tokens": 110}
WAYS: Mapping[str, dict[str, Any]] = {
    "samples": {},
    "logits, forward KL": {"logit_kd_weight": 1.0},
    "on-policy, reverse KL": {"divergence": "reverse-kl", "on_policy": OWN},
    "on-policy, JSD": {"divergence": "jsd", "on_policy": OWN},
}


def main() -> None:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("runs", nargs="+", type=Path)
    arguments.add_argument("--problems", type=int, default=1000)
    arguments.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    given = arguments.parse_args()
    print("| distilled | seed | pass@1 | 95% interval | training, s |")
    print("|---|---:|---:|---|---:|")
    for way in given.ways:
        for run in given.runs:
            seed, seconds, found = distill(run.resolve(), WAYS[way], given.problems)
            interval = f"{found['ci95_lo']:.1%} – {found['ci95_hi']:.1%}"
            print(f"| {way} | {seed} | {found['pass_at_1']:.1%} | {interval} | {seconds:.0f} |", flush=True)


def distill(run: Path, way: Mapping[str, Any], problems: int) -> tuple[int, float, dict[str, float]]:
    """(seed, seconds of training, the evaluation's figures)."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("stages", "plugins", "chainforge", "profiles", "dvc.yaml"):
            (folder / part).symlink_to(HERE / part)
        for part in ("data", "checkpoints"):
            shutil.copytree(run / part, folder / part)
        shutil.copy(run / "dvc.lock", folder)
        seed = read(run / "params.yaml")["run"]["seed"]
        write_params(folder / "params.yaml", seed, way, problems)
        seconds = 0.0
        for stage, step in (
            ("lock", "lock"),
            ("distill", f"distill@{STUDENT}"),
            ("evaluate", f"evaluate@{STUDENT}-reasoning"),
        ):
            began = perf_counter()
            subprocess.run(
                [sys.executable, "-m", f"stages.{stage}", step],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(folder)},
                check=True,
                stdout=subprocess.DEVNULL,
            )
            seconds = perf_counter() - began if stage == "distill" else seconds
        return seed, seconds, json.loads((folder / f"metrics/eval/{STUDENT}/reasoning.json").read_text())


def write_params(path: Path, seed: int, way: Mapping[str, Any], problems: int) -> None:
    """The default profile with this way to distill."""
    params = read(HERE / "profiles/tiny.yaml")
    params["run"]["seed"] = seed
    params["distill"].update(way)
    params["evaluate"].update({"max_prompts": problems, "greedy": False})
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(params, file)


def read(path: Path) -> Any:
    return YAML().load(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
