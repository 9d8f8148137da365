"""One GRPO step of ChainForge and of TRL's GRPOTrainer on the same work, in turns.

    python benchmarks/grpo.py a c d --trl .bench/trl/bin/python
    python benchmarks/grpo.py b --smollm2 FOLDER --vllm FOLDER/bin/python --rounds 2

Each side is a process of its own that lives through its rounds: a step to warm up, then A B A B. Printed are
medians of CPU seconds, which other processes disturb least; wall-clock seconds are in the JSON beside them.
"""

import json
import platform
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from contestant import Contestant
from grpo_figure import figure
from grpo_work import GROUP, PHASES, PROMPTS, WORKS, floor_s, load_model, measure_machine

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MATCHES = {  # ChainForge's precision: TRL's ways that compete with it
    "float32": ("float32",),
    "bfloat16": ("amp", "bf16"),
}
LABELS = {
    "float32": "TRL float32",
    "amp": "TRL amp",  # bfloat16 products of float32 weights, as ChainForge's bfloat16
    "bf16": "TRL bf16 weights",  # and bfloat16 moments: fastest, and updates less exactly
}
MICRO_BATCHES = (8, 16, 64)


def main() -> None:
    given = parse()
    given.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(given.threads)
    result: dict[str, Any] = {"machine": machine(given), "matches": []}
    for name in given.works:
        for precision in given.precisions:
            match = play(given, name, precision)
            result["matches"].append(match)
            print(table(match), flush=True)
            write(given.output, result)
        if given.vllm:
            match = rollouts(given, name)
            result["matches"].append(match)
            print(table(match), flush=True)
            write(given.output, result)
    print(overview(result["matches"]))
    print(f"\n-> {given.output}/grpo.json, {given.output}/grpo.svg")


def parse() -> Namespace:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("works", nargs="+", choices=WORKS)
    arguments.add_argument("--trl", default=sys.executable, help="the Python that has TRL")
    arguments.add_argument("--vllm", help="a Python that has vLLM: compare rollouts with it as well")
    arguments.add_argument("--smollm2", help="the model folder of work b")
    arguments.add_argument("--precisions", nargs="*", choices=MATCHES, default=list(MATCHES))
    arguments.add_argument("--rounds", type=int, default=3, help="steps of each side after the warm-up")
    arguments.add_argument("--warm-up", type=int, default=1, help="steps of each side before that")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument(
        "--checkpointing", action="store_true", help="ChainForge with gradient checkpointing as well"
    )
    arguments.add_argument(
        "--lora", type=int, metavar="RANK", help="ChainForge with an adapter as well, TRL with one alone"
    )
    arguments.add_argument(
        "--search", action="store_true", help="find TRL's best micro-batch of 8, 16, 64 first"
    )
    arguments.add_argument("--output", type=Path, default=ROOT / ".bench/results")
    given = arguments.parse_args()
    if "b" in given.works and not given.smollm2:
        arguments.error("work b needs --smollm2 FOLDER, a local copy of SmolLM2-135M-Instruct")
    return given


def play(given: Namespace, name: str, precision: str) -> dict[str, Any]:
    """ChainForge against TRL at one precision of products."""
    sides = [chainforge(given, name, precision)]
    if given.checkpointing:
        sides.append(chainforge(given, name, precision, "--checkpointing"))
    adapter = ["--lora", str(given.lora)] if given.lora else []
    if adapter:
        sides.append(chainforge(given, name, precision, *adapter))
    for way in MATCHES[precision]:
        best = search(given, name, way) if given.search else WORKS[name].trl_micro_batch[way]
        sides.append(trl(given, name, way, best, *adapter))
    with ExitStack() as stack:
        for side in sides:
            stack.enter_context(side)
            for _ in range(given.warm_up):
                side.turn()
        for _ in range(given.rounds):
            for side in sides:
                side.rows.append(side.turn())
    check(sides)
    return summary(given, name, precision, sides)


def search(given: Namespace, name: str, way: str) -> int:
    """The micro-batch with the fewest CPU seconds, one step each after a warm-up."""
    taken = {}
    for size in MICRO_BATCHES:
        with trl(given, name, way, size) as side:
            side.turn()
            taken[size] = sum(side.turn()["cpu_s"].values())
        print(f"{name}, {side.label}: {taken[size]:.1f} CPU s", file=sys.stderr, flush=True)
    return min(taken, key=taken.__getitem__)


def rollouts(given: Namespace, name: str) -> dict[str, Any]:
    """ChainForge's rollout against vLLM's in bfloat16; both without any training."""
    folder = ["--smollm2", given.smollm2] if given.smollm2 else []
    script = [given.vllm, str(HERE / "grpo_vllm.py"), name, *folder]
    threads = {"OMP_NUM_THREADS": str(given.threads), "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    sides = [
        chainforge(given, name, "bfloat16", "--only-rollout"),
        *(
            Contestant(label, [*script, *flags], given.output / f"{name}-vllm{len(flags)}.log", threads)
            for label, flags in (("vLLM", []), ("vLLM eager", ["--enforce-eager"]))
        ),
    ]
    for side in sides:  # one after the other: vLLM keeps its threads spinning
        with side:
            side.turn()
            side.rows += [side.whole_turn() for _ in range(given.rounds)]
    check(sides)
    return summary(given, name, "bfloat16", sides)


def chainforge(given: Namespace, name: str, precision: str, *flags: str) -> Contestant:
    command = [sys.executable, str(HERE / "grpo_chainforge.py"), name, precision, *shared(given), *flags]
    label = ", ".join([f"ChainForge {precision}", *notes(flags)])
    log = f"{name}-{label.lower().replace(', ', '-').replace(' ', '-')}.log"
    return Contestant(label, command, given.output / log, {})


def notes(flags: Sequence[str]) -> Iterator[str]:
    """What a label says of the flags."""
    if "--checkpointing" in flags:
        yield "checkpointing"
    if "--lora" in flags:
        yield f"LoRA rank {flags[flags.index('--lora') + 1]}"


def trl(given: Namespace, name: str, way: str, micro_batch: int, *flags: str) -> Contestant:
    size = ["--micro-batch", str(micro_batch)]
    command = [given.trl, str(HERE / "grpo_trl.py"), name, way, *shared(given), *size, *flags]
    label = ", ".join([LABELS[way], *notes(flags), f"micro-batch {micro_batch}"])
    log = given.output / f"{name}-trl-{way}{'-lora' if flags else ''}.log"
    return Contestant(label, command, log, {"HF_HUB_OFFLINE": "1"})


def shared(given: Namespace) -> list[str]:
    folder = ["--smollm2", given.smollm2] if given.smollm2 else []
    return ["--threads", str(given.threads), *folder]


def check(sides: Sequence[Contestant]) -> None:
    """The same work on every side, or no figures at all."""
    done = {side.label: {(row["generated"], row["trained"]) for row in side.rows} for side in sides}
    if len(set().union(*done.values())) != 1:
        sys.exit(f"not the same number of (generated, trained) tokens: {done}")


def summary(given: Namespace, name: str, precision: str, sides: Sequence[Contestant]) -> dict[str, Any]:
    """Medians per phase, with the least seconds that this machine could take."""
    work = WORKS[name]
    model = load_model(work, given.smollm2)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    reached = measure_machine(model, dtype)
    floor = floor_s(model, work.lengths, reached, dtype.itemsize)
    return {
        "work": name,
        "title": work.title,
        "completions": PROMPTS * GROUP,
        "tokens": sides[0].rows[0]["generated"],
        "parameters": model.num_parameters(),
        "precision": precision,
        "gflops_per_s": round(reached.flops_per_s / 1e9, 1),
        "gbytes_per_s": round(reached.bytes_per_s / 1e9, 1),
        "floor_s": {phase: round(seconds / given.threads, 4) for phase, seconds in floor.items()},
        "sides": {side.label: medians(side.rows) | {"steps": side.rows} for side in sides},
    }


def medians(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Per phase and for whole steps; the peak is that of the process, its imports included."""
    return {
        "peak_mb": max(row["peak_mb"] for row in rows),
        **{
            kind: {phase: median(row[kind][phase] for row in rows) for phase in PHASES}
            | {"step": round(median(sum(row[kind].values()) for row in rows), 4)}
            for kind in ("cpu_s", "wall_s")
        },
    }


def table(match: Mapping[str, Any]) -> str:
    """CPU seconds per side and phase; in brackets, ratio to ChainForge's and share of the roofline."""
    names = list(match["sides"])
    ours = match["sides"][names[0]]["cpu_s"]
    spent = [phase for phase in PHASES if any(side["cpu_s"][phase] for side in match["sides"].values())]
    floor = {phase: match["floor_s"][phase] for phase in spent if phase in match["floor_s"]}
    floor["step"] = sum(floor.values())
    lines = [
        f"\n{match['work']}: {match['title']}, {match['tokens']:,} tokens",
        f"{match['precision']} roofline: {match['gflops_per_s']:,} GFLOP/s, {match['gbytes_per_s']} GB/s\n",
        row(["CPU seconds (ratio; share of the roofline)", "least", *names]),
        "|---" * (len(names) + 2) + "|",
    ]
    for phase in (*spent, "step"):
        least = floor.get(phase)
        cells = []
        for name in names:
            taken = match["sides"][name]["cpu_s"][phase]
            notes = [f"{taken / ours[phase]:.2f} ×"] if name != names[0] and ours[phase] > 0.01 else []
            notes += [f"{least / taken:.0%}"] if least and taken > 0 else []
            cells.append(f"{taken:.2f}" + (f" ({'; '.join(notes)})" if notes and taken else ""))
        lines.append(row([phase, f"{least:.2f}" if least else "", *cells]))
    lines.append(
        row(["wall-clock seconds", "", *(f"{s['wall_s']['step']:.2f}" for s in match["sides"].values())])
    )
    speeds = (f"{match['tokens'] / s['cpu_s']['rollout']:,.0f}" for s in match["sides"].values())
    lines.append(row(["tokens sampled per CPU second", "", *speeds]))
    lines.append(row(["peak memory, MB", "", *(f"{s['peak_mb']:,}" for s in match["sides"].values())]))
    return "\n".join(lines)


def overview(matches: Sequence[Mapping[str, Any]]) -> str:
    """All matches, a row per side: the step, and what the rollout and the memory have to do with it."""
    lines = [
        "",
        row(
            [
                "work",
                "side",
                "step, CPU s",
                "ratio",
                "sampled per CPU s",
                "ratio",
                "peak, MB",
                "of the roofline",
            ]
        ),
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for match in matches:
        ours = next(iter(match["sides"].values()))
        least = sum(seconds for phase, seconds in match["floor_s"].items() if ours["cpu_s"][phase])
        for label, side in match["sides"].items():
            step, rollout = side["cpu_s"]["step"], side["cpu_s"]["rollout"]
            ratios = [f"{step / ours['cpu_s']['step']:.1f} ×", f"{rollout / ours['cpu_s']['rollout']:.1f} ×"]
            lines.append(
                row(
                    [
                        match["work"],
                        label,
                        f"{step:.2f}",
                        "" if side is ours else ratios[0],
                        f"{match['tokens'] / rollout:,.0f}",
                        "" if side is ours else ratios[1],
                        f"{side['peak_mb']:,}",
                        f"{least / step:.0%}",
                    ]
                )
            )
    return "\n".join(lines)


def row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def machine(given: Namespace) -> dict[str, Any]:
    """What the figures hold for."""
    info = Path("/proc/cpuinfo")
    names = [s for s in info.read_text().splitlines() if s.startswith("model name")] if info.exists() else []
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": given.threads,
        "rounds": given.rounds,
        **{name: version(name) for name in ("torch", "transformers")},
    }


def write(folder: Path, result: Mapping[str, Any]) -> None:
    (folder / "grpo.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "grpo.svg").write_text(figure(result["matches"]))


if __name__ == "__main__":
    main()
