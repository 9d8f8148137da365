"""A program's output, or a verdict on functions: each in sandboxes that are gone when the call returns."""

import ast
import builtins
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from subprocess import Popen, TimeoutExpired
from typing import IO, Literal

from chainforge.errors import ChainForgeError
from chainforge.sandbox.bubblewrap import Limits, complaint, end, start, used_mb

Kind = Literal["right", "wrong", "raised", "ended", "cpu", "memory", "time", "output"]
LOOK_S = 0.25  # between two looks at the memory of a sandbox
OUTPUT = 1 << 20  # bytes that a program may print
CPU_SIGNAL = 128 + 24  # how a process ends that used its time


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went, in one word, and what is to be said about it. `output` is what a program printed."""

    kind: Kind
    said: str = ""
    output: str = ""


def run_program(source: str, stdin: str = "", limits: Limits = Limits()) -> Outcome:  # noqa: B008 - frozen
    """Run a whole program on an input: "right" says that it ended with exit code 0.

    Raises ChainForgeError where it could not be run in a sandbox.
    """
    with ExitStack() as stack:
        text, given, printed = (stack.enter_context(_file(content)) for content in (source, stdin, ""))
        process = start("run_program", text.fileno(), limits=limits, stdin=given, stdout=printed)
        stack.callback(end, process)
        reason = _wait(process, [process], limits)
        end(process)
        _check_started(process)
        output = _content(printed)
    if len(output) > OUTPUT:
        return Outcome("output", f"it printed more than {OUTPUT} bytes")
    if reason is None and process.returncode:
        reason = _ending(process.returncode)
    return reason or Outcome("right", output=output.decode(errors="replace"))


def run_tests(
    answer: str,
    tests: Sequence[str],
    *,
    entry_point: str | None = None,
    setup: str = "",
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Outcome:
    """Test the functions that the source `answer` defines: "right" if no test raises.

    Tests are Python source, in one module, below `setup`; the answer stands below `setup` too. They see
    `entry_point`, or all names that nothing else defines, as functions that take and return plain data.
    Raises ChainForgeError for tests that do not run at all, or where there is no sandbox.
    """
    names = [entry_point] if entry_point else _unknown_names(setup, tests)
    job = {"source": f"{setup}\n{answer}", "setup": setup, "tests": list(tests), "names": names}
    with ExitStack() as stack:
        given, told = (stack.enter_context(_file(content)) for content in (json.dumps(job), ""))
        with _pipes() as (calls, called, results, returned):
            answering = start("run_answer", calls, returned, limits=limits)
            stack.callback(end, answering)
            testing = start("run_tests", called, results, limits=limits, stdin=given, stdout=told)
            stack.callback(end, testing)
        reason = _wait(testing, [answering, testing], limits)
        if reason is None:
            _settle(answering)
        code = answering.poll()
        end(testing)
        end(answering)
        _check_started(testing, answering)
        verdict = _content(told)
    return reason or _verdict(verdict, code)


def _verdict(told: bytes, code: int | None) -> Outcome:
    try:
        verdict = json.loads(told)
        kind, said = verdict["kind"], verdict["said"]
    except (ValueError, TypeError, KeyError):
        return Outcome("wrong", "its tests came to no verdict")
    if kind == "broken":
        raise ChainForgeError(
            f"tests do not run, whatever the answer is: {said}", "mend the tests, or their setup"
        )
    if kind == "raised" and said.startswith("MemoryError"):
        return Outcome("memory", said)
    if kind == "ended" and code:
        return _ending(code, said)
    return Outcome(kind, said)


def _ending(code: int, said: str = "") -> Outcome:
    if code == CPU_SIGNAL:
        return Outcome("cpu", "it used up its processor time")
    how = f"signal {code - 128}" if code > 128 else f"exit code {code}"
    return Outcome("ended", f"{said or 'it ended'} ({how})")


def _wait(process: "Popen[bytes]", members: Sequence["Popen[bytes]"], limits: Limits) -> Outcome | None:
    """Wait until it has ended; why it is to be ended where it does not by itself."""
    deadline = time.monotonic() + limits.wall_s
    while (left := deadline - time.monotonic()) > 0:
        try:
            process.wait(min(LOOK_S, left))
            return None
        except TimeoutExpired:
            if any(used_mb(member) > limits.memory_mb for member in members):
                return Outcome("memory", f"it used more than {limits.memory_mb} MiB")
    return Outcome("time", f"it did not end within {limits.wall_s:g} s")


def _settle(process: "Popen[bytes]") -> None:
    """Leave an answer whose tests are over a moment to end, so that its exit code is its own."""
    try:
        process.wait(LOOK_S)
    except TimeoutExpired:
        return


def _check_started(*processes: "Popen[bytes]") -> None:
    for why in filter(None, [complaint(process) for process in processes]):
        raise ChainForgeError(
            f"a sandbox did not start: {why}",
            "see that `bwrap --unshare-all --ro-bind / / true` works for this user; containers, and some "
            "systems, forbid user namespaces",
        )


def _unknown_names(setup: str, tests: Sequence[str]) -> list[str]:
    """The names that tests use and neither they nor their setup nor Python defines."""
    used, bound = set(), set(dir(builtins))
    try:
        trees = [ast.parse(source) for source in (setup, *tests)]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ChainForgeError(f"tests are not Python: {error}", "mend the tests, or their setup") from error
    for number, tree in enumerate(trees):
        for node in ast.walk(tree):
            match node:
                case ast.Name(id=name, ctx=ast.Load()) if number:
                    used.add(name)
                case (
                    ast.Name(id=name)
                    | ast.arg(arg=name)
                    | ast.FunctionDef(name=name)
                    | ast.ClassDef(name=name)
                ):
                    bound.add(name)
                case ast.alias(name=name, asname=other):
                    bound.add((other or name).partition(".")[0])
    return sorted(used - bound)


@contextmanager
def _pipes() -> Iterator[tuple[int, int, int, int]]:
    """Two pipes, whose ends are nobody's but the sandboxes' afterwards."""
    ends = (*os.pipe(), *os.pipe())
    try:
        yield ends
    finally:
        for descriptor in ends:
            os.close(descriptor)


def _file(content: str) -> IO[bytes]:
    """A file in memory, ready to be read; what a sandbox writes to it stops at the bound of its files."""
    file = os.fdopen(os.memfd_create("sandbox"), "w+b")
    file.write(content.encode(errors="replace"))
    file.seek(0)
    return file


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(OUTPUT + 1)
