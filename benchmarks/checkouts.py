"""One GRPO step of this checkout and of another one, in turns: what a change costs or saves.

    git worktree add /tmp/before main~20 && make bench-before BEFORE=/tmp/before

CPU seconds are medians, as in grpo.py; `least` is the ratio of the quickest steps, which other work on the
machine disturbs least.
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from contestant import Contestant
from grpo import medians, row
from grpo_work import WORKS

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("before", type=Path, help="the folder of the other checkout")
    arguments.add_argument("works", nargs="+", choices=WORKS)
    arguments.add_argument("--precisions", nargs="*", default=["float32", "bfloat16"])
    arguments.add_argument("--smollm2", help="the model folder of work b")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--output", type=Path, default=HERE / ".bench/checkouts")
    given = arguments.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    print(row(["work", "CPU s", "before", "ratio", "least", "rollout", "training", "MB", "before"]))
    print("|---" * 9 + "|")
    for work in given.works:
        for precision in given.precisions:
            print(line(f"{work} {precision}", *compare(given, work, precision)), flush=True)


def compare(given: Namespace, work: str, precision: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Medians of this checkout, and of the other one."""
    sides = [side(given, root, work, precision) for root in (HERE, given.before.resolve())]
    with ExitStack() as stack:
        for each in sides:
            stack.enter_context(each)
            each.turn()
        for number in range(given.rounds):
            for each in sides if number % 2 else reversed(sides):
                each.rows.append(each.turn())
    now, before = (medians(each.rows) | {"least": min(map(cpu_s, each.rows))} for each in sides)
    return now, before


def cpu_s(row: dict[str, Any]) -> float:
    """Of a whole step."""
    return sum(row["cpu_s"].values())


def side(given: Namespace, root: Path, work: str, precision: str) -> Contestant:
    """A worker that runs the other checkout's own benchmark on its own code."""
    extra = ["--smollm2", given.smollm2] if given.smollm2 else []
    script = str(root / "benchmarks/grpo_chainforge.py")
    log = given.output / f"{work}-{precision}-{'now' if root == HERE else 'before'}.log"
    paths = os.pathsep.join(map(str, (root, root / "benchmarks")))
    return Contestant(
        str(root), [sys.executable, script, work, precision, *extra], log, {"PYTHONPATH": paths}
    )


def line(name: str, now: dict[str, Any], before: dict[str, Any]) -> str:
    least = f"{now['least'] / before['least']:.2f} ×"
    ratios = [
        f"{now['cpu_s'][phase] / before['cpu_s'][phase]:.2f} ×"
        for phase in ("step", "rollout", "forward + backward")
    ]
    taken = [f"{each['cpu_s']['step']:.2f}" for each in (now, before)]
    return row([name, *taken, ratios[0], least, *ratios[1:], f"{now['peak_mb']:,}", f"{before['peak_mb']:,}"])


if __name__ == "__main__":
    main()
