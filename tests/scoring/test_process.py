"""A reward in a process of its own gives the same values, and can hang, crash or be left without harm."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import SUPERCOT, completion, prompt
from hypothesis import example, given, settings
from hypothesis import strategies as st
from toys import MakeScorer, alive, until, write_plugin

from chainforge.errors import ChainForgeError
from chainforge.plugins import load_plugins
from chainforge.reward_options import RewardOptions
from chainforge.scoring import Scorer, WeightedReward
from chainforge.wiring import make_reward

pytestmark = pytest.mark.slow

SLOW = pytest.mark.slow  # half a second and more of waiting for a limit
ASKED = prompt(1, "6*7=?", "42")
AWAITED = """
import asyncio, sys
loops = set()

async def reward(completion):
    loops.add(asyncio.get_running_loop())
    await asyncio.sleep(0)
    return sys.exit("told to") if completion == "exit" else len(loops)
"""
DIGEST = """
import zlib

def reward(completions, **kwargs):
    return [zlib.crc32(text.encode("utf-8", "surrogatepass")) / 3 if text else None for text in completions]
"""
TOY = """
import ctypes, os, signal, subprocess, sys, threading, time
from pathlib import Path

STARTED = time.monotonic()

def reward(completions, log_metric, log_extra):
    what, _, more = completions[0].partition(" ")
    match what:
        case "pid":
            return [float(os.getpid())]
        case "torch":
            return [float("torch" in sys.modules)]
        case "hang":
            log_metric("pid", os.getpid())
            time.sleep(600)
        case "hold":  # as a fault in native code does: nothing else of the process runs
            if more:
                Path(more, "started").touch()
            ctypes.PyDLL(None).sleep(600)
        case "hold-soon":
            threading.Timer(0.2, ctypes.PyDLL(None).sleep, [60]).start()
        case "babble":
            while True:
                log_metric("again", 1)
        case "exit":
            os._exit(3)
        case "fault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "raise":
            raise ValueError("no digits in \\udc80")
        case "nan":
            return [float("nan")]
        case "print":
            print("printed by print")
            os.write(1, b"written to 1\\n")
            print("printed as an error", file=sys.stderr, flush=True)
            return [float(len(sys.stdin.read()))]
        case "close":
            sys.stdout.close()
        case "input":
            input()
        case "log":
            for n in range(200):
                (log_metric, log_extra)[n % 2](f"n{n}", [n, n / 3, "\\ud800", None])
        case "leave":
            left = subprocess.Popen(["sleep", "600"])
            log_metric("pids", [os.getpid(), left.pid])
        case "wait":
            log_metric("pid", os.getpid())
            Path(more, "started").touch()
            while not Path(more, "go").exists():
                time.sleep(0.01)
    return [1.0]
"""


def score(scorer: Scorer, *texts: str) -> list[float | None]:
    (group,) = scorer.score([ASKED], [[completion(ASKED, text) for text in texts]])
    return [part for score in group.scores for part in score.parts.values()]


@contextmanager
def promptly() -> Iterator[None]:
    """Long before what hangs would end, even on a busy machine."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 200


@pytest.fixture(scope="module")
def digests(make_scorer: MakeScorer) -> tuple[Scorer, Scorer]:
    """The same reward in a process and inline."""
    return make_scorer(DIGEST, isolation="process"), make_scorer(DIGEST)


@pytest.fixture(scope="module")
def logged() -> list[tuple[str, Any]]:
    """What `toy` logs."""
    return []


@pytest.fixture(scope="module")
def toy(make_scorer: MakeScorer, logged: list[tuple[str, Any]]) -> Scorer:
    """A reward that does as the first completion says."""
    return make_scorer(TOY, isolation="process", log=lambda *what: logged.append(what))


@pytest.fixture
def fresh(logged: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """What `toy` logs in this test."""
    logged.clear()
    return logged


TEXT = st.text(st.one_of(st.characters(exclude_categories=[]), st.sampled_from("\0\n\ud800\udfff🧮")))


@given(texts=st.lists(TEXT))
@settings(max_examples=25)
@example([])
@example(["", "\0", "\ud800", "\udfff\ud800", "🧮 emoji", '"\\', "\r\n\u2028"])
@example(["x🧮\ud800\0" * 250_000, "y"])
def test_a_process_gives_the_values_that_this_one_gives(
    digests: tuple[Scorer, Scorer], texts: list[str]
) -> None:
    assert score(digests[0], *texts) == score(digests[1], *texts)


def test_one_process_answers_all_calls_without_torch(toy: Scorer) -> None:
    pids = {score(toy, "pid")[0] for _ in range(3)}
    assert len(pids) == 1
    assert os.getpid() not in pids
    assert score(toy, "torch") == [0.0]


def test_what_a_reward_prints_or_reads_is_not_taken_for_an_answer(
    toy: Scorer, capfd: pytest.CaptureFixture[str]
) -> None:
    toy.close()  # the next process writes where this test looks
    assert score(toy, "print") == [0.0]
    said = capfd.readouterr()
    assert sorted(said.out.splitlines()) == ["printed by print", "written to 1"]
    assert said.err == "printed as an error\n"
    with pytest.raises(ChainForgeError, match="raised EOFError"):
        score(toy, "input")
    assert score(toy, "close") == score(toy, "next") == [1.0]
    toy.close()  # and the one after that where its own test looks


def test_what_a_reward_logs_arrives_in_order(toy: Scorer, fresh: list[tuple[str, Any]]) -> None:
    score(toy, "log")
    assert fresh == [(f"n{n}", [n, n / 3, "\ud800", None]) for n in range(200)]


def test_an_error_does_not_end_the_process(toy: Scorer) -> None:
    pid = score(toy, "pid")
    with pytest.raises(ChainForgeError) as caught:
        score(toy, "raise")
    assert caught.value.problem.endswith("raised ValueError: no digits in \udc80")
    with pytest.raises(ChainForgeError, match="returned nan for completion 0"):
        score(toy, "nan")
    assert score(toy, "pid") == pid


@pytest.mark.parametrize("per_sample", [True, False])
def test_an_async_reward_has_one_event_loop_in_its_process(make_scorer: MakeScorer, per_sample: bool) -> None:
    batch = "\nsample = reward\nasync def reward(completions): return [await sample(c) for c in completions]"
    code = AWAITED if per_sample else AWAITED + batch
    scorer = make_scorer(code, isolation="process", per_sample=per_sample)
    for _ in range(2):
        assert score(scorer, "a", "b") == [1.0, 1.0]
        with pytest.raises(ChainForgeError, match="raised SystemExit: told to"):
            score(scorer, "a", "exit")


@pytest.mark.parametrize(
    ("how", "ending"), [("exit", r"\(exit code 3\)"), ("fault", r"\(killed by SIGSEGV\)")]
)
def test_a_crash_is_one_error_and_the_next_call_works(toy: Scorer, how: str, ending: str) -> None:
    with pytest.raises(ChainForgeError, match=f"ended its process {ending} in a call for 2 ") as caught:
        score(toy, how, "")
    assert caught.value.problem.startswith("reward 'toy' (")
    assert "reward_toy.py" in caught.value.problem
    assert score(toy, "next") == [1.0]


def test_a_crash_between_calls_costs_nothing(toy: Scorer) -> None:
    (pid,) = map(int, filter(None, score(toy, "pid")))
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # all of its threads; the parent is to find it out
    assert score(toy, "next") == [1.0]


@pytest.mark.parametrize("how", [("exit", "fault"), pytest.param(("hang", "hang"), marks=SLOW)], ids="-".join)
def test_a_crash_or_hang_is_none_where_the_plugin_asks_for_it(
    make_scorer: MakeScorer, capsys: pytest.CaptureFixture[str], how: tuple[str, str]
) -> None:
    scorer = make_scorer(TOY, isolation="process", timeout_s=0.5, on_error="none")
    assert score(scorer, how[0], "") == [None, None]
    assert score(scorer, how[1]) == [None]
    assert score(scorer, "next") == [1.0]
    said = capsys.readouterr().err
    assert said.count("reward 'toy' (") == said.count("toy.failed_calls") == 1


@pytest.mark.parametrize(
    "how", ["hang", pytest.param("hold", marks=SLOW), pytest.param("babble", marks=SLOW)]
)
def test_a_hang_is_killed_and_the_next_call_works(make_scorer: MakeScorer, how: str) -> None:
    scorer = make_scorer(TOY, isolation="process", timeout_s=0.5)
    (pid,) = map(int, filter(None, score(scorer, "pid")))
    with promptly(), pytest.raises(ChainForgeError) as caught:
        score(scorer, how, "")
    problem, fix = str(caught.value).splitlines()
    assert problem.startswith("reward 'toy' (")
    assert problem.endswith("reward_toy.py) did not return within 0.5 s for 2 completions")
    assert fix == "  -> make it faster, or raise its timeout_s"
    assert not alive(pid)
    assert score(scorer, "next") == [1.0]


@SLOW
def test_a_process_that_reads_no_call_is_killed_at_its_time(make_scorer: MakeScorer) -> None:
    scorer = make_scorer(TOY, isolation="process", timeout_s=0.5)
    assert score(scorer, "hold-soon") == [1.0]
    time.sleep(0.4)  # now it is stuck, and a long text fits no buffer
    with promptly(), pytest.raises(ChainForgeError, match=r"did not return within 0\.5 s"):
        score(scorer, "x" * 10**6)
    assert score(scorer, "x" * 10**6) == [1.0]


def test_nothing_is_left_after_close(toy: Scorer, fresh: list[tuple[str, Any]]) -> None:
    score(toy, "leave")
    ((_, pids),) = fresh
    assert all(map(alive, pids))
    with promptly():
        toy.close()
    until(lambda: not any(map(alive, pids)))
    assert not [thread for thread in threading.enumerate() if thread.name == toy.rewards[0].who]
    toy.close()  # once more does nothing
    assert score(toy, "next") == [1.0]


def test_closing_in_a_call_ends_it_at_once(toy: Scorer, fresh: list[tuple[str, Any]], tmp_path: Path) -> None:
    pending = toy.begin([ASKED], [[completion(ASKED, f"wait {tmp_path}")]])
    queued = toy.begin([ASKED], [[completion(ASKED, "next")]])
    until((tmp_path / "started").exists)
    with promptly():
        toy.close()
    with pytest.raises(ChainForgeError, match="killed by SIGKILL"):
        pending.result()
    with pytest.raises(CancelledError):
        queued.result()
    until(lambda: not alive(fresh[0][1]))
    assert score(toy, "next") == [1.0]


def test_a_scorer_that_is_forgotten_leaves_nothing(tmp_path: Path) -> None:
    write_plugin(tmp_path, TOY, "toy", "reward", isolation="process")
    scorer = Scorer((make_reward(load_plugins(tmp_path).pick("rewards", "toy")),), SUPERCOT, 20.0)
    (pid,) = map(int, filter(None, score(scorer, "pid")))
    assert alive(pid)
    del scorer
    until(lambda: not alive(pid))


PARENT = """
import signal, sys
from pathlib import Path
from chainforge.plugins import load_plugins
from chainforge.records import Completion, Prompt
from chainforge.response import tag_format
from chainforge.scoring import Scorer
from chainforge.wiring import make_reward

asked = Prompt("p1", "toy", ({"role": "user", "content": "?"},))
reward = make_reward(load_plugins(Path(sys.argv[1])).pick("rewards", "toy"))
say = lambda *what: print(*what, flush=True)
scorer = Scorer((reward,), tag_format("supercot"), 60.0, lambda name, value: say(value))

def call(text):
    pending = scorer.begin([asked], [[Completion("p1", text, (), (), "stop", "toy")]])
    say(*[score.total for group in pending.result() for score in group.scores])

call("pid")
default = signal.signal(signal.SIGINT, lambda *_: say("interrupted"))
call(sys.argv[2])
signal.signal(signal.SIGINT, default)
call(sys.argv[3])
"""


@contextmanager
def parent(folder: Path, how: str = "wait") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A program with a process reward that waits for files in `first`, then `then`; and that reward's pid."""
    write_plugin(folder, TOY, "toy", "reward", isolation="process")
    meetings = [folder / "first", folder / "then"]
    for meeting in meetings:
        meeting.mkdir()
    command = [sys.executable, "-c", PARENT, folder, *(f"{how} {meeting}" for meeting in meetings)]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with program:
        try:
            assert program.stdout
            yield program, int(float(program.stdout.readline()))
        finally:
            program.kill()


@pytest.mark.parametrize("how", ["wait", "hold"])
def test_it_dies_with_its_parent(tmp_path: Path, how: str) -> None:
    if how == "hold" and sys.platform != "linux":
        pytest.skip("elsewhere a reward stuck in native code ends after its time")
    with parent(tmp_path, how) as (program, pid):
        until((tmp_path / "first/started").exists)
        assert alive(pid)
        program.kill()
        until(lambda: not alive(pid))


def test_ctrl_c_is_the_parents_to_decide_about(tmp_path: Path) -> None:
    with parent(tmp_path) as (program, pid):
        until((tmp_path / "first/started").exists)
        assert os.getsid(pid) != os.getsid(program.pid)
        os.killpg(program.pid, signal.SIGINT)
        os.kill(pid, signal.SIGINT)  # even so
        assert program.stdout
        (tmp_path / "first/go").touch()
        lines = [program.stdout.readline().strip() for _ in range(3)]
        assert sorted(lines) == sorted(["interrupted", "1.0", str(pid)])
        until((tmp_path / "then/started").exists)
        os.killpg(program.pid, signal.SIGINT)
        assert program.wait(10) in (-signal.SIGINT, 130, 1)
        assert not alive(pid)


def test_a_plugin_of_the_project_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plugin(tmp_path / "plugins", TOY, "toy", "reward", isolation="process")
    monkeypatch.chdir(tmp_path)
    reward = make_reward(load_plugins().pick("rewards", "toy"), 0.5)
    monkeypatch.chdir("/")
    assert reward.who == "reward 'toy' (plugins/reward_toy.py)"
    with Scorer((reward,), SUPERCOT, 20.0) as scorer:
        assert score(scorer, "next") == [1.0]


def test_a_plugin_that_is_installed_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plugin(tmp_path, TOY, "installed", "reward", isolation="process")
    (tmp_path / "reward_installed.py").rename(tmp_path / "some_rewards.py")
    metadata = tmp_path / "some_rewards-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: some-rewards\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text("[chainforge]\nsome = some_rewards\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        reward = make_reward(load_plugins(tmp_path / "none").pick("rewards", "installed"))
        with Scorer((reward,), SUPERCOT, 20.0) as scorer:
            assert score(scorer, "next") == [1.0]
            with pytest.raises(
                ChainForgeError, match=r"^reward 'installed' \(some-rewards 1\.2\) ended its "
            ):
                score(scorer, "exit")
    finally:
        sys.modules.pop("some_rewards", None)


LOADING = {
    "raises": ("raise OSError('no model')", "does not load in a process of its own: OSError: no model"),
    "exits": ("os._exit(4)", r"ended its process \(exit code 4\) as it loaded"),
    "is slow": ("time.sleep(600)", r"did not load within 0\.5 s"),
}


@pytest.mark.parametrize("how", [pytest.param(how, marks=SLOW if "slow" in how else ()) for how in LOADING])
def test_a_plugin_that_loads_only_here_is_an_error_that_names_it(
    make_scorer: MakeScorer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    code, complaint = LOADING[how]
    if how == "is slow":
        monkeypatch.setattr("chainforge.scoring.process.STARTUP_S", 0.5)
    scorer = make_scorer(
        f"import os, time\nif {os.getpid()} != os.getpid():\n    {code}\ndef reward(completions): pass\n",
        isolation="process",
        on_error="none",
    )
    for _ in range(2):
        with pytest.raises(ChainForgeError, match=rf"^reward 'toy' \(.*reward_toy\.py\) {complaint}"):
            score(scorer, "next")


def test_a_reward_that_cannot_be_sent_is_an_error_each_time() -> None:
    options = RewardOptions(isolation="process")
    reward = WeightedReward("toy", 1.0, lambda **_: [1.0], "toy", options, lambda: lambda **_: [1.0])
    with Scorer((reward,), SUPERCOT, 20.0) as scorer:
        for _ in range(2):
            with promptly(), pytest.raises(Exception, match="pickle"):
                score(scorer, "next")


def test_the_time_may_be_as_long_as_one_likes(make_scorer: MakeScorer) -> None:
    for way in ("process", "inline"):
        assert score(make_scorer(DIGEST, isolation=way, timeout_s=1e300), "") == [None]
