"""SFT by ChainForge and by TRL's SFTTrainer on the same examples of uneven length, in turns.

    python benchmarks/sft.py a c --trl .bench/trl/bin/python
    python benchmarks/sft.py b --smollm2 FOLDER --rounds 2 --search
    python benchmarks/sft.py a --check

A turn is an epoch: the same examples on every side, each in its own order and batches. TRL takes part with
each of its ways of batching: padded, packed, padding-free. `--check` compares the loss of all examples before
anything is learned, which is the same only if every side trains on the same tokens.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from contestant import Contestant
from grpo import HERE, LABELS, MATCHES, ROOT, machine, medians, row, shared
from sft_work import LONGEST, PHASES, SFT_WORKS

WAYS: dict[str, tuple[int, ...]] = {  # and what --search tries: examples per micro-batch, or tokens per row
    "padded": (4, 8, 16),
    "packed": (LONGEST, 2 * LONGEST, 4 * LONGEST),
    "padding-free": (2, 4, 8),
}
TOLERANCE = {"float32": 1e-5, "amp": 2e-3, "bf16": 2e-2}  # relative, of a loss of about 7 to 12 nats


def main() -> None:
    given = parse()
    given.output.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"machine": machine(given), "matches": []}
    for name in given.works:
        for precision in given.precisions:
            if given.check:
                check(given, name, precision)
                continue
            match = play(given, name, precision)
            result["matches"].append(match)
            print(table(match), flush=True)
            (given.output / "sft.json").write_text(json.dumps(result, indent=1) + "\n")


def parse() -> Namespace:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("works", nargs="+", choices=SFT_WORKS)
    arguments.add_argument("--trl", default=sys.executable, help="the Python that has TRL")
    arguments.add_argument("--smollm2", help="the model folder of work b")
    arguments.add_argument("--precisions", nargs="*", choices=MATCHES, default=list(MATCHES))
    arguments.add_argument("--rounds", type=int, default=3, help="epochs of each side after one to warm up")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--search", action="store_true", help="find TRL's best sizes first")
    arguments.add_argument("--check", action="store_true", help="compare losses instead of times")
    arguments.add_argument("--output", type=Path, default=ROOT / ".bench/results")
    given = arguments.parse_args()
    if "b" in given.works and not given.smollm2:
        arguments.error("work b needs --smollm2 FOLDER, a local copy of SmolLM2-135M-Instruct")
    return given


def play(given: Namespace, name: str, precision: str) -> dict[str, Any]:
    """ChainForge against each of TRL's ways at one precision of products."""
    sides = [chainforge(given, name, precision)]
    for trl_precision in MATCHES[precision]:
        for way in WAYS:
            size = search(given, name, trl_precision, way) if given.search else best(name, trl_precision, way)
            sides.append(trl(given, name, trl_precision, way, size))
    with ExitStack() as stack:
        for side in sides:
            stack.enter_context(side)
            side.turn()
        for _ in range(given.rounds):
            for side in sides:
                side.rows.append(side.turn())
    work = SFT_WORKS[name]
    return {
        "work": name,
        "title": work.model.title,
        "examples": work.batch * work.steps,
        "precision": precision,
        "sides": {side.label: medians(side.rows) | {"epochs": side.rows} for side in sides},
    }


def best(name: str, precision: str, way: str) -> int:
    """The size that served TRL best when it was searched for."""
    return SFT_WORKS[name].trl_best.get(f"{way} {precision}", WAYS[way][1])


def search(given: Namespace, name: str, precision: str, way: str) -> int:
    """The size with the fewest CPU seconds, one epoch each after one to warm up."""
    taken = {}
    for size in WAYS[way]:
        with trl(given, name, precision, way, size) as side:
            side.turn()
            taken[size] = sum(side.turn()["cpu_s"].values())
        print(f"{name}, {side.label}: {taken[size]:.1f} CPU s", file=sys.stderr, flush=True)
    return min(taken, key=taken.__getitem__)


def check(given: Namespace, name: str, precision: str) -> None:
    """The mean loss per token over all examples at the first weights, side by side."""
    with chainforge(given, name, precision, "--whole") as side:
        ours = side.turn()
    print(f"{name}, {side.label}: loss {ours['loss']:.6f} on {ours['trained']:,} tokens")
    for trl_precision in MATCHES[precision]:
        for way in WAYS:
            with trl(given, name, trl_precision, way, best(name, trl_precision, way), "--whole") as side:
                theirs = side.turn()
            off = abs(theirs["loss"] / ours["loss"] - 1)
            print(f"{name}, {side.label}: loss {theirs['loss']:.6f}, {off:.1e} off")
            if theirs["trained"] != ours["trained"] or off > TOLERANCE[trl_precision]:
                sys.exit("not the same work")


def chainforge(given: Namespace, name: str, precision: str, *flags: str) -> Contestant:
    command = [sys.executable, str(HERE / "sft_chainforge.py"), name, precision, *shared(given), *flags]
    log = given.output / f"{name}-sft-chainforge-{precision}.log"
    return Contestant(f"ChainForge {precision}", command, log, {})


def trl(given: Namespace, name: str, precision: str, way: str, size: int, *flags: str) -> Contestant:
    script = [given.trl, str(HERE / "sft_trl.py"), name, precision, way, str(size)]
    log = given.output / f"{name}-sft-trl-{precision}-{way}.log"
    label = f"{LABELS[precision]}, {way} {size}"
    return Contestant(label, [*script, *shared(given), *flags], log, {"HF_HUB_OFFLINE": "1"})


def table(match: Mapping[str, Any]) -> str:
    """CPU seconds of an epoch; in brackets the ratio to ChainForge's."""
    sides = match["sides"]
    ours = next(iter(sides.values()))
    lines = [
        f"\n{match['work']}: SFT of {match['title']}, {match['examples']} examples, {match['precision']}\n",
        row(["side", *PHASES, "epoch", "ratio", "tokens per CPU second", "peak memory, MB"]),
        "|---" * (len(PHASES) + 5) + "|",
    ]
    for label, side in sides.items():
        taken = side["cpu_s"]
        real = median(epoch["real"] for epoch in side["epochs"])
        cells = [f"{taken[phase]:.2f}" for phase in (*PHASES, "step")]
        ratio = f"{taken['step'] / ours['cpu_s']['step']:.2f} ×"
        lines.append(row([label, *cells, ratio, f"{real / taken['step']:,.0f}", f"{side['peak_mb']:,}"]))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
