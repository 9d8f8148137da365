"""A published result repeated: GRPO with LoRA on GSM8K, beside verl's numbers. docs/reproduce.md.

    python benchmarks/reproduce.py 0.5b|1.5b [--gsm8k FOLDER] [--dry] [--only-table] [--folder FOLDER]

It runs the needed steps of the graph in a copy of this project, and goes on where it was stopped. The model
comes from inputs/ or the hub; the problems from FOLDER (train.jsonl, test.jsonl) or the hub. `--dry` takes
the same steps with a small model of random weights, a minute on one CPU: it shows that all of it runs, and
no number means anything.
"""

import json
import os
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from chainforge.algorithms.statistics import mean_interval
from chainforge.project.profiles import compose

ROOT = Path(__file__).resolve().parents[1]
# The test score of the log, and of its step 0; verl's table has a hub score beside: 49.6 for 0.5B.
PUBLISHED = {"0.5b": {"base": "0.1", "qwen_rl_ckpt_stage2": "54.3"}, "1.5b": {"qwen_rl_ckpt_stage2": "77.9"}}
NAMES = {"base": "untouched", "qwen_rl_ckpt_stage2": "GRPO, LoRA, 116 steps"}
STEPS = ("evaluate_base@base-reasoning", "evaluate@qwen_rl_ckpt_stage2-reasoning")
RANDOM = "inputs/Qwen2-random"
RESULTS = ("dvc.lock", "plugins.lock.json", "metrics", "plots", "reports")  # of a run: not copied
DRY: dict[str, Any] = {
    "runtime.device": "cpu",
    "runtime.rollout_rows": 20,
    "base_model.model": RANDOM,
    "prompts.reasoning.train": 40,
    "prompts.reasoning.eval": 12,
    "grpo.prompts_per_step": 4,
    "grpo.max_new_tokens": 24,
    "grpo_reasoning.start_from": RANDOM,
    "grpo_reasoning.num_rl_steps": 2,
    "evaluate.max_new_tokens": 24,
}


def main() -> None:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("size", choices=PUBLISHED)
    arguments.add_argument(
        "--gsm8k", type=Path, help="folder with train.jsonl and test.jsonl; default: the hub"
    )
    arguments.add_argument("--dry", action="store_true", help="random weights, a few prompts, on a CPU")
    arguments.add_argument("--only-table", action="store_true", help="print the table of a finished run")
    arguments.add_argument("--folder", type=Path, help="where it runs; default: .bench/reproduce/SIZE")
    given = arguments.parse_args()
    name = f"{given.size}-dry" if given.dry else given.size
    folder = (given.folder or ROOT / ".bench/reproduce" / name).resolve()
    if not given.only_table:
        prepare(folder, given.size, given.gsm8k, dry=given.dry)
        repro(folder)
    print(table(folder, {} if given.dry else PUBLISHED[given.size]))
    if given.dry:
        print("\nA dry run: random weights. It shows that every step runs; its numbers mean nothing.")


def prepare(folder: Path, size: str, gsm8k: Path | None, *, dry: bool) -> None:
    """A copy of the project with the settings of the profile, the model and the problems."""
    if not dry:
        needs_cuda()
    copy_project(folder)
    os.chdir(folder)
    profile = f"qwen2.5-{size}-gsm8k-lora"
    if dry and gsm8k is None:
        gsm8k = write_sums(folder / "inputs/sums")
    changes: dict[str, Any] = dict(DRY) if dry else {}
    if gsm8k is not None:
        changes |= with_problems(gsm8k.resolve(), folder / "inputs/gsm8k")
    write_params(compose(profile), changes)
    if dry:
        write_random_model(folder / RANDOM, folder / "inputs/gsm8k/train.jsonl")
    else:
        bring_model(f"Qwen2.5-{size.upper()}-Instruct", folder)


def needs_cuda() -> None:
    """End here where there is no GPU, before gigabytes are fetched."""
    import torch

    if not torch.cuda.is_available():
        sys.exit(
            "there is no CUDA device on this machine\n  -> make reproduce DRY=1 takes the same steps on a CPU"
        )


def copy_project(folder: Path) -> None:
    """What git knows and what it does not ignore, no results of a run, and a DVC that asks for no git."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file() and name.partition("/")[0] not in RESULTS:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    dvc(folder, "config", "--local", "core.no_scm", "true")


def with_problems(source: Path, target: Path) -> dict[str, Any]:
    """The data set's two files where the profile finds them; as many prompts as they hold, up to all."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("train.jsonl", "test.jsonl"):
        if not (source / name).is_file():
            sys.exit(f"{source} has no {name}\n  -> name a folder with train.jsonl and test.jsonl of GSM8K")
        shutil.copyfile(source / name, target / name)
    return {"prompts.reasoning.source.folder": "inputs/gsm8k"}


def write_sums(folder: Path) -> Path:
    """Made-up problems in the form of GSM8K's files, for a dry run without any."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, first in (("train", 0), ("test", 100)):
        rows = [
            {
                "question": f"Ann has {i} figs and buys 3. How many now?",
                "answer": f"{i}+3={i + 3}\n#### {i + 3}",
            }
            for i in range(first, first + 60)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_params(text: str, changes: dict[str, Any]) -> None:
    """params.yaml with these settings, each by its dotted name, in place of the profile's."""
    yaml = YAML()
    params = yaml.load(text)
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        node = params
        for section in sections:
            node = node[section]
        node[key] = value
    with Path("params.yaml").open("w") as file:
        yaml.dump(params, file)


def write_random_model(folder: Path, problems: Path) -> None:
    """A Qwen2 of random weights, with a tokenizer made of the problems; once."""
    if (folder / "model.safetensors").is_file():
        return
    from chainforge.plugins import load_plugins
    from chainforge.wiring import load_student

    texts = [line for line in problems.read_text(encoding="utf-8").splitlines()[:200]]
    sizes = {"max_positions": 2048}
    model, tokenizer = load_student(load_plugins(), "tiny_qwen2", sizes, seed=17, texts=texts)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def bring_model(name: str, folder: Path) -> None:
    """The model folder: from inputs/ of this project, else from the hub; once."""
    target = folder / "inputs" / name
    if (target / "config.json").is_file():
        return
    if (ROOT / "inputs" / name / "config.json").is_file():
        shutil.copytree(ROOT / "inputs" / name, target)
        return
    from huggingface_hub import snapshot_download

    snapshot_download(f"Qwen/{name}", local_dir=target)
    shutil.rmtree(target / ".cache", ignore_errors=True)  # times of the download, which DVC would watch


def repro(folder: Path) -> None:
    """The two evaluations, and what they need."""
    if code := dvc(folder, "repro", *STEPS):
        sys.exit(
            f"dvc repro ended with {code}\n  -> mend what it says above; the same command goes on from there"
        )


def dvc(folder: Path, *words: str) -> int:
    """The exit code of a command of DVC there."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONHASHSEED": "0"}
    return subprocess.run(["dvc", *words], cwd=folder, env=environment).returncode


def table(folder: Path, published: dict[str, str]) -> str:
    """A row per model: greedy answers to the test problems, by both graders, with 95% intervals."""
    lines = [
        "| model | problems | `####` (strict) | last number (lenient) | verl's |",
        "|---|---:|---|---|---:|",
    ]
    for checkpoint, name in NAMES.items():
        path = folder / "data/eval" / checkpoint / "reasoning.jsonl"
        if not path.is_file():
            sys.exit(f"there is no {path}\n  -> run it first, without --only-table")
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        cells = [share(rows, reward) for reward in ("gsm8k_strict", "gsm8k_lenient")]
        lines.append(f"| {name} | {len(rows):,} | {' | '.join(cells)} | {published.get(checkpoint, '–')} |")
    return "\n".join(lines)


def share(rows: list[dict[str, Any]], reward: str) -> str:
    """How many are right by that reward, in percent."""
    right = [float(row["samples"][0]["rewards"][reward] == 1.0) for row in rows]
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * value for value in mean_interval(right)))


if __name__ == "__main__":
    main()
