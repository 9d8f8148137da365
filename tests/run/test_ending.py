"""No step ends without a word, and none ends well that has not done its work."""

import errno
import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from chainforge.containment import Left, no_leaving
from chainforge.run.crash import log_of, record_crash, tell
from chainforge.run.ending import say_last


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.fixture(autouse=True)
def _in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def raised(error: BaseException) -> BaseException:
    """The error with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


ERRORS = [
    ValueError("odd\nsecond line"),
    Unspeakable(),
    KeyboardInterrupt(),
    GeneratorExit(),
    SystemExit(0),
    RecursionError("deep"),
    MemoryError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_any_error_is_two_lines_and_a_file_with_the_traceback(error: BaseException) -> None:
    told = tell("distill@student", raised(error))
    problem, fix = told.splitlines()
    assert problem.startswith("distill@student: ")
    assert f"{Path(__file__).name}, line " in problem
    assert fix.startswith("  -> ")
    log = Path("logs/distill/student.traceback.txt")
    assert str(log) in fix
    assert "in raised" in log.read_text()


def test_an_error_of_a_plugin_names_its_line() -> None:
    code = compile("def bad():\n    return 1 / 0", "/anywhere/plugins/reward_mine.py", "exec")
    scope: dict[str, object] = {}
    exec(code, scope)
    try:
        scope["bad"]()  # type: ignore[operator]
    except ZeroDivisionError as error:
        told = tell("filter_cot", error)
    assert "ZeroDivisionError: division by zero (/anywhere/plugins/reward_mine.py, line 2, in bad)" in told
    assert "-> mend that plugin" in told


@pytest.mark.parametrize("name", ["../../etc/x", "a b;c", "x" * 400, "\udcff", "..", "a@../../b"])
def test_a_log_lies_in_logs_whatever_the_name(name: str) -> None:
    path = log_of(name)
    assert Path("logs").resolve() in path.resolve().parents
    assert record_crash(name, raised(ValueError("odd"))) == path


def test_where_no_log_can_be_written_it_goes_to_a_temporary_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    Path("logs").write_text("a file is in the way")
    path = record_crash("step", raised(ValueError("odd")))
    assert path is not None
    assert path.parent == tmp_path
    assert "ValueError: odd" in path.read_text()


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("stream", [Full(), None], ids=["full", "closed"])
def test_the_last_word_goes_to_stdout_where_stderr_cannot_have_it(
    stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    say_last("the last word \udcff")
    assert capsys.readouterr().out == "the last word \\udcff"


LEAVE = {
    "_exit": lambda: os._exit(0),
    "execv": lambda: os.execv("/bin/true", ["true"]),
    "execvp": lambda: os.execvp("true", ["true"]),
    "execle": lambda: os.execle("/bin/true", "true", {}),
}


@pytest.mark.parametrize("name", LEAVE)
def test_what_would_end_the_process_is_an_error_in_it(name: str) -> None:
    with no_leaving(), no_leaving(), pytest.raises(Left, match="would end the whole process"):
        LEAVE[name]()
    assert os._exit.__module__ == "posix"


def test_a_child_process_may_still_end_itself() -> None:
    with no_leaving():
        child = os.fork()
        if child == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert subprocess.run([sys.executable, "-c", "import os; os._exit(5)"]).returncode == 5


ENDS = {
    "import os; os.kill(os.getpid(), 9)": "ended without a word",
    "import ctypes; ctypes.CDLL(None)._exit(0)": "ended without a word",
    "import ctypes; ctypes.string_at(0)": "-> where it was: logs/step.traceback.txt",
    "import os; os.abort()": "-> where it was: logs/step.traceback.txt",
    "import os; os._exit(3)": "Left: os._exit was called",
    "import os; os._exit(0)": "Left: os._exit was called",
    "1 / 0": "ZeroDivisionError: division by zero",
    "import atexit, os; atexit.register(lambda: os._exit(0)); raise SystemError": "SystemError",
    "import threading; threading.Thread(target=lambda: 1 / 0).start()": "ZeroDivisionError: division by zero",
    "import atexit; atexit.register(lambda: 1 / 0)": "ZeroDivisionError: division by zero",
    "import resource as r; r.setrlimit(r.RLIMIT_CPU, (1, 9)); e._mind_cpu_limit()\nwhile 1: 0": "ulimit -t",
}


@pytest.mark.slow
@pytest.mark.parametrize("code", ENDS)
def test_whatever_ends_the_process_is_told_on_stderr(code: str) -> None:
    before = "import chainforge.run.ending as e; e.watch_ending('step')\n"
    ended = subprocess.run(
        [sys.executable, "-c", before + code + "\ne.end_with('')"], stderr=subprocess.PIPE, text=True
    )  # returns once the watcher has closed stderr too
    assert ENDS[code] in ended.stderr
    assert "\n  -> " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (ended.returncode == 0) == any(word in code for word in ("ctypes.CDLL", "Thread", "lambda: 1"))


@pytest.mark.slow
def test_an_orderly_end_leaves_nothing_behind() -> None:
    code = textwrap.dedent("""
        from chainforge.run.ending import end_with, watch_ending
        watch_ending("step")
        end_with("")
    """)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert list(Path("logs").iterdir()) == []
