"""Import plugins in another process first: who loops, crashes or exits there is known before any harm.

One process serves all of them; only after a death another one starts, for the rest.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from chainforge.plugins.find import Candidate
from chainforge.providers.secrets import environment_without_keys

LIMIT_S = 60.0  # to import one plugin and let it register; torch alone may take many seconds
NOTICE_S = 10.0  # before a slow plugin is mentioned
FROZEN = "did not end within {:g} s of being imported: it loops, sleeps or waits"
COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from chainforge.plugins.trial_run import main; main()"
)
survived: set[str] = set()  # states of plugins that this process has tried already


def try_plugins(found: Sequence[Candidate], limit_s: float = LIMIT_S) -> dict[str, str]:
    """The reason for each plugin that must not be imported here, by what it is reported as.

    An ordinary exception is no reason: it harms nobody, and is reported when the plugin is really imported.
    """
    lost: dict[str, str] = {}
    left = [one for one in found if _is_new(one)]
    while left:
        culprit, reason = _try(left, limit_s, lost)
        left = [one for one in left if one.who not in lost]
        if culprit is None and reason:  # it happened at the end: try them one by one to find which
            for one in left if len(left) > 1 else ():
                lost |= try_plugins([one], limit_s)
            if len(left) == 1:
                lost[left[0].who] = reason
            break
        if culprit is None:
            break
        lost[culprit] = reason
        left = [one for one in left if one.who != culprit]
    survived.update(one.state for one in found if one.who not in lost and _is_new(one))
    return lost


def _is_new(one: Candidate) -> bool:
    try:
        return one.state not in survived
    except OSError:
        return False  # importing says what is wrong with it


def _try(left: Sequence[Candidate], limit_s: float, lost: dict[str, str]) -> tuple[str | None, str]:
    """Who ended or blocked the process, and how; ("", …) reasons that were told go to `lost`."""
    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-c", COMMAND, json.dumps(sys.path, default=str), str(writing)]
    process = subprocess.Popen(
        [*command, json.dumps([[one.who, one.source, _place(one)] for one in left])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[writing],
        start_new_session=True,
        env=environment_without_keys(),
    )
    os.close(writing)
    trying: str | None = None
    try:
        for what, *rest in _messages(reading, limit_s):
            match what, rest:
                case "trying", [who]:
                    trying = who
                case "tried", _:
                    trying = None
                case "lost", [who, reason]:
                    lost[who] = reason
                case "slow", _:
                    named = trying or "the end of what plugins started"
                    sys.stderr.write(f"waiting for {named}, at most {limit_s:g} s\n")
                case "late", _:
                    return trying, FROZEN.format(limit_s)
                case "done", _:
                    return None, ""
        return trying, f"ended the process that tried it ({_ending(process)})"
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _place(one: Candidate) -> Any:
    if isinstance(one.place, Path):
        return one.place.as_posix()
    return [one.place.name, one.place.value, one.place.group]


def _messages(reading: int, limit_s: float) -> Iterator[list[Any]]:
    """What the process says; ["late"] where it says nothing for too long, ["slow"] before."""
    rest, waited = b"", 0.0
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        while True:
            step = min(NOTICE_S, limit_s - waited)
            if not selector.select(step):
                waited += step
                yield ["late" if waited >= limit_s else "slow"]
                continue
            if not (chunk := os.read(reading, 65536)):
                return
            *lines, rest = (rest + chunk).split(b"\n")
            waited = 0.0
            for line in lines:
                try:
                    yield list(json.loads(line))
                except ValueError:  # a plugin wrote to descriptors that are not its own
                    return


def _ending(process: "subprocess.Popen[bytes]") -> str:
    try:
        code = process.wait(2.0)
    except subprocess.TimeoutExpired:
        return "it closed its connection"
    name = next((s.name for s in signal.Signals if s == -code), f"signal {-code}")
    return f"killed by {name}" if code < 0 else f"exit code {code}"
