"""A step that is forked is, to dvc, the user and itself, what `python -m stages.VERB STEP` is.

The steps here are short, the server imports nothing, and a shell stands for dvc.
"""

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from chainforge.run import warm_start
from chainforge.run.warm_start import start_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="on Linux only")

STEP = '''"""A step, and its fate."""
import ctypes, json, os, signal, sys, time

fate = sys.argv[1]
if fate == "facts":
    print(json.dumps({
        "argv": sys.argv, "path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ),
        "name": __name__, "module": __spec__.name, "names": sorted({*globals()} - {"__annotations__"}),
        "tty": [os.isatty(n) for n in range(3)], "by line": sys.stdout.line_buffering,
        "encoding": sys.stdout.encoding, "hash": hash("a"),
        "ignored": signal.getsignal(signal.SIGHUP) == signal.SIG_IGN,
        "chainforge": "chainforge" in sys.modules, "group": os.getpgrp() == os.getpgid(os.getppid()),
        "read": None if os.isatty(0) else sys.stdin.read(),
    }))
    print("to stderr", file=sys.stderr)
elif fate == "where":
    print(open("/proc/self/cmdline").read())
elif fate == "code":
    sys.exit(7)
elif fate == "words":
    sys.exit("two words")
elif fate == "error":
    raise ValueError("odd")
elif fate == "interrupt":
    raise KeyboardInterrupt
elif fate in ("SIGKILL", "SIGSEGV", "SIGTERM"):
    os.kill(os.getpid(), getattr(signal, fate))
elif fate == "sleep":
    heard = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: heard.append(n))
    os.write(1, f"began {os.getpid()}\\n".encode())
    deadline = time.monotonic() + 60
    while not heard and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.4)
    os.write(1, f"heard {heard}\\n".encode())
    sys.exit(5)
'''
AS_DVC = """
import os, sys
from chainforge.run.warm_start import start_server
server = start_server(os.environ, ())
os.write(1, f"serves {server.process.pid} {server.folder}\\n".encode())
path = f"{server.folder}:{os.environ['PATH']}"
os.execve("/bin/sh", ["sh", "-c", sys.argv[1]], {**os.environ, "PATH": path})
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # as make sets it: two interpreters have one hash
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for folder in ("t", "stages"):
        (tmp_path / folder).mkdir()
    (tmp_path / "stages/sft.py").write_text(STEP, encoding="utf-8")
    return tmp_path


@pytest.fixture
def warm(project: Path) -> Iterator[str]:
    """The PATH of dvc, where this process is dvc."""
    server = start_server(environment(), ())
    assert server
    yield f"{server.folder}:{os.environ['PATH']}"
    server.process.kill()
    server.process.wait()


def environment() -> dict[str, str]:
    """Without what pytest changes all the time."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


def sh(command: str, path: str | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a command in a shell that dvc starts."""
    seen = environment() | more | {"PATH": path or os.environ["PATH"]}
    return subprocess.run(
        ["/bin/sh", "-c", command], env=seen, input="a line\n", capture_output=True, text=True
    )


@pytest.mark.dear
@pytest.mark.parametrize(
    "fate", ["facts", "code", "words", "error", "interrupt", "SIGKILL", "SIGSEGV", "SIGTERM"]
)
def test_it_sees_and_ends_as_the_usual_one_does(warm: str, fate: str) -> None:
    command = f"python -m stages.sft {fate}"
    usual, forked = sh(command), sh(command, warm)
    assert forked.returncode == usual.returncode
    assert forked.stdout == usual.stdout
    assert forked.stderr.splitlines()[-1:] == usual.stderr.splitlines()[-1:]


@pytest.mark.slow
def test_what_a_shell_says_about_it_is_the_same(warm: str) -> None:
    command = "trap '' HUP; python -m stages.sft facts 2>&1 >said; python -m stages.sft SIGSEGV; echo $?"
    usual = (sh(command).stdout, Path("said").read_text())
    assert (sh(command, warm).stdout, Path("said").read_text()) == usual
    assert '"ignored": true' in usual[1]


def test_other_commands_are_the_usual_ones(warm: str) -> None:
    assert sh("python -c 'import sys; print(sys.argv, sys.executable)'", warm).stdout == (
        f"['-c'] {sys.executable}\n"
    )


def is_forked(path: str, command: str = "python -m stages.sft where", **more: str) -> bool:
    """Whether the step's command line, as the system knows it, is the server's."""
    return "warm_server" in sh(command, path, **more).stdout


@pytest.mark.slow
def test_an_environment_that_libraries_may_have_read_otherwise_is_not_its_own(warm: str) -> None:
    assert is_forked(warm)
    assert is_forked(warm, DVC_STAGE="sft", PYTHONPATH="elsewhere")
    assert not is_forked(warm, OMP_NUM_THREADS="3")
    assert not is_forked(warm, command="PYTHONHASHSEED=4 python -m stages.sft where")


@pytest.fixture
def of_an_interactive_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """What .venv/bin/activate and the modules of a cluster export."""
    for name, value in (("PS1", "(.venv) $ "), ("PS2", "> "), ("BASH_FUNC_ml%%", "() {  :;\n}")):
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("of_an_interactive_shell")  # before the server has its environment
@pytest.mark.parametrize("shell", ["sh -c", "bash --noprofile --norc -c"])
def test_what_dvc_s_shell_takes_out_of_the_environment_costs_nothing(shell: str, warm: str) -> None:
    assert is_forked(warm, command=f"{shell} 'python -m stages.sft where'")


def test_a_program_that_python_runs_still_has_its_steps_forked(warm: str) -> None:
    """As the tests' own `dvc`, which the shell gives to the `python` that it finds."""
    Path("dvc").write_text(
        "#!/usr/bin/env python\nimport subprocess\n"
        "subprocess.run(['/bin/sh', '-c', 'python -m stages.sft where'])\n"
    )
    Path("dvc").chmod(0o755)
    assert is_forked(warm, command="./dvc")


def test_a_closed_stream_is_left_closed(warm: str) -> None:
    assert not is_forked(warm, command="python -m stages.sft where 2>&-")


def test_there_is_none_where_it_would_not_fit(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(warm_start.sys, "platform", "darwin")
        assert start_server(os.environ) is None
    other = project / "other/python"
    other.parent.mkdir()
    other.symlink_to(sys.executable)
    assert start_server({**os.environ, "PATH": f"{other.parent}:{os.environ['PATH']}"}) is None
    monkeypatch.setattr(warm_start.tempfile, "mkdtemp", lambda prefix: str(project / ("long" * 40)))
    assert start_server(os.environ) is None


def start(command: str = "python -m stages.sft sleep; exit $?") -> "Run":
    return Run(subprocess.Popen([sys.executable, "-c", AS_DVC, command], **piped()))


def piped(out: int = subprocess.PIPE) -> dict[str, object]:
    streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT}
    return {**streams, "start_new_session": True}


def wait_until(true: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Run:
    """What stands for dvc, its server, the client, and the step."""

    def __init__(self, dvc: "subprocess.Popen[bytes]", out: int | None = None) -> None:
        self.dvc, self.said = dvc, b""
        assert out or dvc.stdout
        self.out = out or dvc.stdout.fileno()
        self.read_to(rb"began \d+")
        words = self.said.split()
        self.server, self.folder = int(words[1]), Path(os.fsdecode(words[2]))
        self.step = int(words[-1])
        self.waiter = psutil.Process(self.step).ppid()
        everyone = psutil.Process(dvc.pid).children(recursive=True)
        (self.client,) = [p.pid for p in everyone if any("warm_client" in word for word in p.cmdline())]
        assert psutil.Process(self.client).ppid() == dvc.pid
        assert psutil.Process(self.waiter).ppid() == self.server
        self.all = {p.pid: p for p in [psutil.Process(dvc.pid), *everyone]}
        assert {self.step, self.waiter, self.server} <= set(self.all)

    def read_to(self, pattern: bytes | None = None) -> None:
        """To the end, or to what matches."""
        while pattern is None or not re.search(pattern + rb"\r?\n", self.said):
            more = b""
            with suppress(OSError):  # a terminal that nobody holds any more
                more = os.read(self.out, 1000)
            if not more:
                assert pattern is None, self.said
                return
            self.said += more

    def end(self) -> tuple[int, list[int]]:
        """The exit code of what stands for dvc, and what the step heard; nothing is left."""
        code = self.dvc.wait(30)
        self.read_to()
        gone = (psutil.STATUS_ZOMBIE,)  # where nobody adopts orphans
        for process in self.all.values():
            wait_until(lambda p=process: not p.is_running() or p.status() in gone, 5)  # type: ignore[misc]
        wait_until(lambda: not self.folder.exists() or self.server_was_killed)
        if self.dvc.stdout:
            self.dvc.stdout.close()
        heard = re.findall(rb"heard (\[.*\])", self.said)
        return code, json.loads(heard[0]) if heard else []

    server_was_killed = False


@pytest.mark.slow
def test_ctrl_c_at_a_terminal_reaches_the_step_once() -> None:
    ours, theirs = pty.openpty()
    dvc = subprocess.Popen(
        [sys.executable, "-c", AS_DVC, "python -m stages.sft facts; trap '' INT; python -m stages.sft sleep"],
        **{**piped(theirs), "stdin": theirs},
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    run = Run(dvc, ours)
    facts = json.loads(re.findall(rb"{.*}", run.said)[0])
    assert facts["tty"] == [True] * 3
    assert facts["by line"]
    os.write(ours, b"\x03")
    assert run.end() == (5, [signal.SIGINT])
    os.close(ours)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_client_or_to_the_group_reaches_the_step_once(number: signal.Signals) -> None:
    alone = start()
    os.kill(alone.client, number)
    assert alone.end() == (5, [number])
    together = start()
    os.killpg(together.dvc.pid, number)
    _, heard = together.end()
    assert heard == [number], "and not SIGTERM too, although dvc is gone"


@pytest.mark.slow
def test_whatever_is_killed_nothing_is_left() -> None:
    run = start()
    os.kill(run.client, signal.SIGKILL)
    assert run.end() == (128 + signal.SIGKILL, [])
    run = start()
    os.kill(run.waiter, signal.SIGKILL)
    assert run.end() == (128 + signal.SIGKILL, [])
    run = start()
    os.kill(run.step, signal.SIGKILL)
    assert run.end() == (128 + signal.SIGKILL, [])
    run = start()
    os.kill(run.dvc.pid, signal.SIGKILL)
    assert run.end() == (-signal.SIGKILL, [signal.SIGTERM]), "the step is asked to stop, and saves"


@pytest.mark.slow
def test_a_dead_server_costs_no_step() -> None:
    run = start("python -m stages.sft sleep; python -m stages.sft facts; exit $?")
    run.server_was_killed = True
    os.kill(run.server, signal.SIGKILL)
    os.kill(run.client, signal.SIGTERM)
    code, heard = run.end()
    assert (code, heard) == (0, [signal.SIGTERM])
    assert b"to stderr" in run.said, "the second ran in the usual interpreter"
