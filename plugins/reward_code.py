"""Reward `code`: does the program in the summary pass the prompt's tests? 1.0 or 0.0; None without tests.

The program is the last fenced block of Python in the summary. It runs in a sandbox, and its tests in another
(docs/rewards.md): nothing that it prints, raises, changes or leaves behind makes a test pass. Columns:

- `tests`: Python source, or a list of it: assertions about the functions that the program defines. Or a list
  of `{"input": …, "output": …}`: what a whole program reads, and what it must print;
- `entry_point`: the function that the tests call, where they do not call it by its name alone; optional;
- `setup`: source that stands above the program and above the tests, such as imports; optional.

What became of each program is counted in the log, as `code.right`, `code.wrong`, `code.time` and so on.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import chainforge as cf

FENCE = re.compile(r"[ ]{0,3}(`{3,}|~{3,})\s*([\w+-]*)")
PYTHON = {"", "python", "python3", "py"}
SHOWN = 20  # outcomes of a call that the log tells in full

Tests = str | Sequence[str | Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Code:
    """Settings: how many sandboxes run at once (null: as many as there are cores), and what each may use."""

    sandboxes: int | None = None
    cpu_s: int = 5
    wall_s: float = 15.0
    memory_mb: int = 256
    processes: int = 8

    def __post_init__(self) -> None:
        amounts = (self.sandboxes or 1, self.cpu_s, self.wall_s, self.processes)
        if min(amounts) <= 0 or self.memory_mb < 64:
            raise ValueError(
                "sandboxes, cpu_s, wall_s and processes are above 0, and memory_mb is 64 or more"
            )

    def __call__(
        self,
        *,
        completions: list[str],
        tests: list[Tests | None],
        entry_point: list[str | None] | None = None,
        setup: list[str | None] | None = None,
        response_format: cf.TagFormat,
        log_metric: Callable[[str, float], None],
        log_extra: Callable[[str, Any], None],
        **_: object,
    ) -> list[float | None]:
        """One number per completion."""
        none = [None] * len(completions)
        programs = [program_in(response_format.parse(text)) for text in completions]
        columns = (programs, tests, entry_point or none, setup or none)
        cores = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(self.sandboxes or cores, "sandbox") as pool:
            outcomes = list(pool.map(self.outcome, *columns))
        count = Counter(outcome.kind for outcome in outcomes if outcome)
        for kind in sorted(count):
            log_metric(f"code.{kind}", count[kind])
        failed = [f"{o.kind}: {o.said}" for o in outcomes if o and o.kind != "right"]
        if failed:
            log_extra("code.outcomes", failed[:SHOWN])
        return [None if outcome is None else float(outcome.kind == "right") for outcome in outcomes]

    def outcome(
        self, program: str | None, tests: Tests | None, entry_point: str | None, setup: str | None
    ) -> cf.Outcome | None:
        """How one program does; None where there is nothing to test it by."""
        if tests is None:
            return None
        if not isinstance(tests, str | list) or not tests:
            raise cf.ChainForgeError(
                f"reward code finds no tests in the column tests: {tests!r:.80}",
                "give Python source, a list of it, or a list of {input, output}; null for no tests",
            )
        if program is None:
            return cf.Outcome("wrong", "the summary has no block of Python")
        limits = cf.Limits(self.cpu_s, self.wall_s, self.memory_mb, self.processes)
        checks = [tests] if isinstance(tests, str) else tests
        if all(isinstance(check, str) for check in checks):
            source = [str(check) for check in checks]
            return cf.run_tests(program, source, entry_point=entry_point, setup=setup or "", limits=limits)
        return printed(f"{setup or ''}\n{program}", checks, limits)


def program_in(parsed: cf.Parsed | None) -> str | None:
    """The last fenced block of Python, or of no named language, in a summary; if it is closed."""
    found: str | None = None
    fence, lines = "", list[str]()
    for line in parsed.summary.splitlines() if parsed else ():
        mark = FENCE.match(line)
        if not fence and mark:
            fence, language, lines = mark[1], mark[2].lower(), []
        elif fence and mark and mark[1].startswith(fence) and not mark[2]:
            found = "\n".join(lines) if language in PYTHON else found
            fence = ""
        else:
            lines.append(line)
    return found


def printed(program: str, checks: Sequence[Any], limits: cf.Limits) -> cf.Outcome:
    """Whether a program prints what is expected, but for blanks at the ends of lines; stops where not."""
    for check in checks:
        if not isinstance(check, Mapping) or not {"input", "output"} <= check.keys():
            raise cf.ChainForgeError(
                f"reward code cannot use the test {check!r:.80}", 'write {"input": "…", "output": "…"}'
            )
        outcome = cf.run_program(program, str(check["input"]), limits)
        if outcome.kind != "right":
            return outcome
        if plain(outcome.output) != plain(str(check["output"])):
            return cf.Outcome("wrong", f"it printed {outcome.output!r:.80}")
    return cf.Outcome("right")


def plain(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    # A call ends by itself: each program has its own limits. The process is there so that it has no keys.
    register("code", Code, factory=True, isolation="process", timeout_s=6 * 3600.0, ready=cf.check_sandbox)
