"""What runs inside of a sandbox, on its own Python: the answer in one sandbox, its tests in another.

Nothing of ChainForge is there: this file's source is handed over, and imports the standard library only.

The verdict is computed where the answer's code never is. Tests call the answer's functions through a pipe,
and compare plain data that came back: the answer cannot see what is expected, and neither an object with a
kind `==` nor a changed library, an early exit or a line written to the pipe makes a test pass. Whatever it
does, it can only answer calls.
"""

from __future__ import annotations

import builtins
import json
import math
import os
import sys
import types
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

LONGEST = 1 << 20  # bytes of one call or its result
SAID = 500  # characters of an error that are passed on
PLAIN = (bool, int, float, str, bytes, list, tuple, set, frozenset, dict)
READY = b"ready\n"
TEXTS: dict[str, Any] = {"int": lambda text: int(text, 16), "float": float, "bytes": bytes.fromhex}
ENDING = ("StopIteration", "StopAsyncIteration")  # they would end a loop of a test in silence


def start(cpu_s: int, memory: int, processes: int, file_bytes: int) -> int:
    """Take the limits on, say that all is well, and let nobody hear anything after that on stderr."""
    import resource  # not on every platform that imports this file

    limits = {"CPU": cpu_s, "AS": memory, "NPROC": processes, "FSIZE": file_bytes, "NOFILE": 64, "CORE": 0}
    for name, limit in limits.items():
        hard = limit + 1 if name == "CPU" else limit  # a program may catch the first signal, not the second
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, hard))
    os.write(2, READY)
    os.dup2(nowhere := os.open(os.devnull, os.O_RDWR), 2)
    return nowhere


def run_program(source_fd: int, *limits: int) -> None:
    """A whole program: its input is stdin, and its output stdout."""
    start(*limits)
    source = os.fdopen(source_fd, encoding="utf-8").read()
    exec(compile(source, "answer", "exec"), _module("__main__").__dict__)


def run_answer(calls_fd: int, results_fd: int, *limits: int) -> None:
    """Run what the first line holds, then answer the calls in those that follow."""
    os.dup2(start(*limits), 1)
    module = _module("answer")
    for line in os.fdopen(calls_fd, "rb"):
        call = json.loads(line)
        try:
            if "source" in call:
                exec(compile(call["source"], "answer", "exec"), module.__dict__)
                result = None
            else:
                named = {name: decoded(value) for name, value in call["kwargs"].items()}
                result = module.__dict__[call["name"]](*map(decoded, call["args"]), **named)
            reply = {"value": encoded(result)}
        except BaseException as error:
            reply = {"raised": type(error).__name__, "said": _said(error)}
        _send(results_fd, reply)


def run_tests(calls_fd: int, results_fd: int, *limits: int) -> None:
    """Read the job on stdin, test the answer at the other end of the pipes, write the verdict to stdout."""
    verdict_fd = os.dup(1)
    os.dup2(start(*limits), 1)
    job = json.loads(sys.stdin.read())
    remote = Remote(calls_fd, os.fdopen(results_fd, "rb"))
    module = _module("tests")
    try:
        exec(compile(job["setup"], "setup", "exec"), module.__dict__)
        tests = [compile(test, "tests", "exec") for test in job["tests"]]
    except BaseException as error:
        return _send(verdict_fd, {"kind": "broken", "said": _told(error)})
    for name in job["names"]:
        setattr(module, name, remote.function(name))
    try:
        remote.ask({"source": job["source"]})
        for test in tests:
            exec(test, module.__dict__)
        verdict = {"kind": "right", "said": ""}
    except BaseException as error:
        verdict = {"kind": "raised" if error is remote.raised else "wrong", "said": _told(error)}
    # An answer that is gone failed, whatever the tests made of it.
    _send(verdict_fd, {"kind": "ended", "said": remote.gone} if remote.gone else verdict)


class Gone(BaseException):
    """The answer does not answer any more. An `except Exception` of a test does not catch it."""


class Remote:
    """The answer, as its tests see it. What it raises is raised here, by the name of a built-in exception."""

    def __init__(self, calls_fd: int, results: BinaryIO) -> None:
        self.calls_fd, self.results, self.gone = calls_fd, results, ""
        self.raised: BaseException | None = None

    def function(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            named = {key: encoded(value) for key, value in kwargs.items()}
            return self.ask({"name": name, "args": [*map(encoded, args)], "kwargs": named})

        return call

    def ask(self, call: dict[str, Any]) -> Any:
        raised, value = self.reply(call)
        if raised is None:
            return value
        known: Any = getattr(builtins, raised, None)
        usual = isinstance(known, type) and issubclass(known, Exception) and raised not in ENDING
        try:
            self.raised = known(value) if usual else Exception(f"{raised}: {value}")
        except TypeError:  # some take more than a text
            self.raised = Exception(f"{raised}: {value}")
        raise self.raised

    def reply(self, call: dict[str, Any]) -> tuple[str | None, Any]:
        """(None, what was returned), or (the name of the exception, what it said)."""
        try:
            _send(self.calls_fd, call)
            line = self.results.readline(LONGEST + 1)
        except BrokenPipeError:
            line = b""
        if not line.endswith(b"\n"):
            self.leave("it returned too much" if len(line) > LONGEST else "it ended before its tests did")
        try:
            reply = json.loads(line)
            if "value" in reply:
                return None, decoded(reply["value"])
            return str(reply["raised"]), str(reply["said"])[:SAID]
        except Exception:
            self.leave("it wrote to the pipe of its tests")

    def leave(self, why: str) -> NoReturn:
        self.gone = self.gone or why
        raise Gone


def encoded(value: Any) -> Any:
    """Plain data as JSON that keeps its types. What is of a class of its own is what it was made from."""
    kind = next((kind for kind in PLAIN if isinstance(value, kind)), None)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        return int(value) if abs(value) < 1 << 62 else {"int": hex(value)}
    if kind is float:
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind is dict:
        return {"dict": [[encoded(key), encoded(item)] for key, item in value.items()]}
    if kind is None:
        raise TypeError(f"{type(value).__name__} is no plain data, such as numbers, texts and lists")
    items = [encoded(item) for item in value]
    return items if kind is list else {kind.__name__: items}


def decoded(value: Any) -> Any:
    """The plain data that `encoded` made this from: of built-in types, and of nothing else."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind in TEXTS:
        return TEXTS[kind](inner)
    kinds: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset, "dict": dict}
    return kinds[kind](map(decoded, inner))


def _module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    sys.modules[name] = module  # dataclasses look their module up there
    return module


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {_said(error)}".rstrip(": ")


def _said(error: BaseException) -> str:
    try:
        return str(error)[:SAID]
    except BaseException:
        return ""


def _send(descriptor: int, message: dict[str, Any]) -> None:
    data = memoryview(json.dumps(message).encode() + b"\n")
    if len(data) > LONGEST:
        data = memoryview(b'{"raised": "ValueError", "said": "the result is too long"}\n')
    while data:
        data = data[os.write(descriptor, data) :]
