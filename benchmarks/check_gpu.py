"""The truth about one GPU, by one command: tests marked gpu, then times and peak memory as JSON.

    make check-gpu                      # SMOLLM2=folder takes its weights, else random ones of its shape

The same tests then run with the oldest versions that ChainForge promises, in an environment of their own.
The table is in .bench/gpu/results.json. Without a GPU it says so and fails.
"""

import json
import subprocess
import sys
import time
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

OUT = Path(".bench/gpu")
OLDEST = ("torch==2.11.*", "transformers==5.17.*")
TESTS_S, BENCH_S, INSTALL_S = 420, 420, 300  # at most; three times the first, once each of the others
TURNS = 3
SHAPE = {  # of SmolLM2-135M
    "hidden_size": 576,
    "intermediate_size": 1536,
    "vocab_size": 49_152,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
}


def main() -> int:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--smollm2", help="a folder of SmolLM2-135M-Instruct")
    arguments.add_argument("--bench", help="only this work, in this process: grpo or sft, and a precision")
    given = arguments.parse_args()
    if not torch.cuda.is_available():
        print("there is no GPU that PyTorch can use: nothing was checked", file=sys.stderr)
        return 1
    if given.bench:
        print(json.dumps(measure(*given.bench.split("-"), given.smollm2)))
        return 0
    OUT.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "versions": versions(sys.executable),
        "tests": tests(sys.executable),
        "works": [
            bench(work, precision, given.smollm2)
            for work in ("grpo", "sft")
            for precision in ("float32", "bfloat16")
        ],
        "oldest": oldest(),
    }
    (OUT / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))
    failed = [part for part in (found["tests"], found["oldest"], *found["works"]) if not part["ok"]]
    return 1 if failed else 0


def run(command: list[str], seconds: float) -> tuple[bool, str]:
    """(whether it ended well, the end of what it said)"""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return False, f"took more than {seconds:.0f} s"
    return ended.returncode == 0, (ended.stdout + ended.stderr)[-3000:].strip()


def versions(python: str) -> str:
    code = "import torch, transformers as t; print(torch.__version__, t.__version__, torch.version.cuda)"
    return run([python, "-c", code], 120)[1]


def tests(python: str) -> dict[str, Any]:
    start = time.perf_counter()
    ok, said = run([python, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"], TESTS_S)
    return {"ok": ok, "seconds": round(time.perf_counter() - start), "said": said.splitlines()[-15:]}


def bench(work: str, precision: str, folder: str | None) -> dict[str, Any]:
    """One work in a process of its own: its peak is its own."""
    command = [sys.executable, __file__, "--bench", f"{work}-{precision}"]
    ok, said = run([*command, *(["--smollm2", folder] if folder else [])], BENCH_S / 4)
    named = {"work": work, "precision": precision, "ok": ok}
    return named | (json.loads(said.splitlines()[-1]) if ok else {"said": said.splitlines()[-5:]})


def measure(work: str, precision: str, folder: str | None) -> dict[str, Any]:
    """Median seconds of a step, and the GPU's peak memory, of a model of SmolLM2's shape."""
    import grpo_chainforge
    import sft_chainforge
    from grpo_work import SEED, WORKS
    from sft_work import SFT_WORKS

    from chainforge.config.run import RunSettings, RuntimeSettings
    from chainforge.models.checkpoint import start_torch
    from chainforge.run.step import Step

    step = Step("gpu", RunSettings(seed=SEED, precision=precision), RuntimeSettings(device="cuda"))  # type: ignore[arg-type]
    start_torch(step.settings, step.runtime)
    model = replace(WORKS["b"], sizes={} if folder else SHAPE)
    if work == "grpo":
        turn = grpo_chainforge.ChainForge(model, folder, step).step
    else:
        sft = replace(SFT_WORKS["b"], model=replace(SFT_WORKS["b"].model, sizes=model.sizes))
        turn = sft_chainforge.ChainForge(sft, folder, step, whole=False).turn
    turn()  # to warm up
    rows = []
    for _ in range(TURNS):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        counted = turn()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() // 2**20
        rows.append({"step_s": time.perf_counter() - start, "peak_mib": peak, **counted})
    return sorted(rows, key=lambda row: row["step_s"])[TURNS // 2]


def oldest() -> dict[str, Any]:
    """The tests with the oldest versions, if they can be had."""
    python = OUT / "oldest" / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", str(python.parents[1])], INSTALL_S)
    extras = ["pytest", "hypothesis", "aiohttp", "peft", "trl==1.16.0", "-e", "."]
    ok, said = run([str(python), "-m", "pip", "install", "--quiet", *OLDEST, *extras], INSTALL_S)
    if not ok:
        return {"ok": False, "said": ["the oldest versions could not be installed", *said.splitlines()[-3:]]}
    return {"versions": versions(str(python)), **tests(str(python))}


if __name__ == "__main__":
    sys.exit(main())
