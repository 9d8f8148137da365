"""How far the graders agree with judged answers, and how fast `math` is.

    python benchmarks/graders.py [FILE.jsonl …]
    python benchmarks/graders.py --speed

Without a file, the pairs of the tests. A line has `category`, `gold`, `response` (a summary) and `correct`.
The grader is the one that fits the reference; `grader` names another.
"""

import argparse
import time
from collections import Counter
from pathlib import Path

import chainforge as cf
from chainforge.plugins import load_plugins
from chainforge.records import Completion, Prompt
from chainforge.response import tag_format
from chainforge.scoring import Scorer
from chainforge.wiring import make_reward

ROOT = Path(__file__).resolve().parents[1]
PAIRS = [ROOT / "tests/plugins" / name for name in ("answer_pairs.jsonl", "chat_answers.jsonl")]
FITTING = {"number": "numeric", "choice": "choice", "moment": "correct", "several": "math", "formula": "math"}
SUPERCOT = tag_format("supercot")
HOSTILE = [r"\boxed{9^{9^{9^{9^9}}}}", r"\boxed{\sum_{k=1}^{10^{12}} \frac{1}{k^2 + \sin k}}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--speed", action="store_true")
    arguments = parser.parse_args()
    if arguments.speed:
        speed()
    else:
        print("\n".join(table(arguments.files or PAIRS)))


def table(files: list[Path]) -> list[str]:
    """Agreement by category, in Markdown."""
    pairs = [pair for path in files for _, pair in cf.read_rows(path)]
    right, said = Counter[tuple[str, str, bool]](), Counter[tuple[str, str, bool]]()
    for grader in dict.fromkeys(map(grader_of, pairs)):
        its = [pair for pair in pairs if grader_of(pair) == grader]
        for pair, value in zip(its, grade(grader, its), strict=True):
            key = (grader, pair["category"], pair["correct"])
            right[key] += 1
            said[key] += (value == 1.0) is pair["correct"]
    lines = ["| grader | category | right answers taken | wrong answers refused |", "|---|---|---|---|"]
    for grader, category in dict.fromkeys(key[:2] for key in right):
        cells = [f"{said[grader, category, ok]} of {right[grader, category, ok]}" for ok in (True, False)]
        lines.append(f"| `{grader}` | {category} | {' | '.join(cells)} |")
    sums = [f"{total(said, ok)} of {total(right, ok)}" for ok in (True, False)]
    return [*lines, f"| all | | {' | '.join(sums)} |"]


def total(counts: "Counter[tuple[str, str, bool]]", ok: bool) -> int:
    return sum(count for key, count in counts.items() if key[2] is ok)


def grader_of(pair: dict[str, str]) -> str:
    """The grader that fits the reference."""
    return pair.get("grader") or FITTING[cf.answer_kind(pair["gold"])]


def scorer(name: str) -> Scorer:
    reward = make_reward(load_plugins(ROOT / "plugins").pick("rewards", name))
    return Scorer((reward,), SUPERCOT, 600.0)


def grade(name: str, pairs: list[dict[str, str]]) -> list[float | None]:
    """What a reward says to the summaries, called as in a run."""
    prompts = [
        Prompt(str(n), "pairs", ({"role": "user", "content": "?"},), pair["gold"], {})
        for n, pair in enumerate(pairs)
    ]
    texts = [SUPERCOT.render("so", pair["response"]) for pair in pairs]
    completions = [
        [Completion(prompt.id, text, (), (), "stop", "pairs")]
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    with scorer(name) as rewards:
        groups = rewards.score(prompts, completions)
    return [group.scores[0].parts[name] for group in groups]


def speed() -> None:
    """Easy answers per second, and how long hostile ones keep easy ones waiting."""
    easy = [{"gold": str(n), "response": rf"So the total is $\boxed{{{n + n % 2}}}$."} for n in range(20_000)]
    print(f"{seconds(easy[:8]):.1f} s to start and for 8 answers")
    took = seconds(easy) - seconds(easy[:8])
    print(f"{len(easy) / took:,.0f} easy answers per second")
    for text in HOSTILE:
        hostile = {"gold": r"2\sqrt{3}", "response": text}
        print(f"{seconds([hostile, *easy[:500]]) - seconds(easy[:500]):.1f} s later with {text}")


def seconds(pairs: list[dict[str, str]]) -> float:
    started = time.monotonic()
    grade("math", pairs)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
