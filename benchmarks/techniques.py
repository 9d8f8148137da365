"""What each technique of the GRPO step saves: the step with all of them, and without one, in turns.

    python benchmarks/techniques.py c d --precision bfloat16

CPU seconds are medians, as in grpo.py. A technique of which nothing is seen in any work should go.
"""

import json
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from grpo import chainforge, medians, row
from grpo_without import TECHNIQUES
from grpo_work import WORKS


def main() -> None:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("works", nargs="+", choices=WORKS)
    arguments.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    arguments.add_argument("--only", nargs="*", choices=TECHNIQUES, default=list(TECHNIQUES))
    arguments.add_argument("--smollm2", help="the model folder of work b")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--output", type=Path, default=Path(__file__).parents[1] / ".bench/techniques")
    given = arguments.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {}
    for work in given.works:
        print(f"\n{work}: {WORKS[work].title}, {given.precision}\n")
        print(row(["without", "CPU s", "with all", "ratio", "MB", "with all"]))
        print("|---" * 6 + "|")
        for name in given.only:
            without, usual = compare(given, work, name)
            result[f"{work} {name}"] = {"without": without, "usual": usual}
            print(line(name, without, usual), flush=True)
            path = given.output / f"{given.precision}.json"
            path.write_text(json.dumps(result, indent=1) + "\n")


def compare(given: Namespace, work: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Medians without the technique, and with all of them."""
    without = chainforge(given, work, given.precision, "--without", name)
    usual = chainforge(given, work, given.precision)
    without.log = given.output / f"{work}-{name}.log"
    with ExitStack() as stack:
        for side in (without, usual):
            stack.enter_context(side)
            side.turn()
        for _ in range(given.rounds):
            for side in (without, usual):
                side.rows.append(side.turn())
    return medians(without.rows), medians(usual.rows)


def line(name: str, without: dict[str, Any], usual: dict[str, Any]) -> str:
    taken, least = without["cpu_s"]["step"], usual["cpu_s"]["step"]
    return row(
        [
            name.replace("-", " "),
            f"{taken:.2f}",
            f"{least:.2f}",
            f"{taken / least:.2f} ×",
            f"{without['peak_mb']:,}",
            f"{usual['peak_mb']:,}",
        ]
    )


if __name__ == "__main__":
    main()
