"""A reward with `each_s`: every completion is a call of its own, and one that hangs costs itself alone."""

import os
import threading
import time
from typing import Any

import pytest
from fakes import SUPERCOT, completion, prompt
from toys import MakeScorer, alive, until

from chainforge.errors import ChainForgeError
from chainforge.plugins import load_plugins
from chainforge.scoring import Scorer
from chainforge.scoring.processes import usable_cores
from chainforge.wiring import make_reward

pytestmark = pytest.mark.slow

ASKED = prompt(1, "6*7=?", "42")
TOY = """
import os, signal, time

def reward(completion, log_metric):
    match completion:
        case "hang":
            time.sleep(600)
        case "fault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "raise":
            raise ValueError("no digits")
        case "nan":
            return float("nan")
        case "pid":
            time.sleep(0.05)
            return float(os.getpid())
        case "none":
            return None
    log_metric("length", len(completion))
    return float(len(completion))
"""
EACH: dict[str, Any] = {"isolation": "process", "per_sample": True}


def score(scorer: Scorer, *texts: str) -> list[float | None]:
    (group,) = scorer.score([ASKED], [[completion(ASKED, text) for text in texts]])
    return [part for score in group.scores for part in score.parts.values()]


@pytest.fixture(scope="module")
def logged() -> list[tuple[str, Any]]:
    return []


@pytest.fixture(scope="module")
def toy(make_scorer: MakeScorer, logged: list[tuple[str, Any]]) -> Scorer:
    return make_scorer(TOY, each_s=60.0, on_error="none", log=lambda *what: logged.append(what), **EACH)


def test_values_and_logs_keep_the_order_of_the_completions(
    toy: Scorer, logged: list[tuple[str, Any]]
) -> None:
    texts = ["a" * n for n in (3, 1, 4, 1, 5, 9, 2, 6)]
    logged.clear()
    assert score(toy, *texts, "none") == [*(float(len(text)) for text in texts), None]
    assert logged == [("length", len(text)) for text in texts]
    assert score(toy) == []


def test_the_completions_share_the_processes_that_there_are(toy: Scorer) -> None:
    pids = {pid for _ in range(2) for pid in score(toy, *["pid"] * 8)}
    assert 1 <= len(pids) <= min(usable_cores(), 8)
    assert os.getpid() not in pids


def test_what_crashes_or_raises_costs_its_own_completion(
    toy: Scorer, logged: list[tuple[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    logged.clear()
    toy.failures.clear()
    assert score(toy, "ab", "fault", "abc", "raise", "abcd") == [2.0, None, 3.0, None, 4.0]
    assert ("toy.failed_calls", 2) in logged
    (group,) = toy.score([ASKED], [[completion(ASKED, text) for text in ("ab", "raise", "none")]])
    assert [score.failed for score in group.scores] == [(), ("toy",), ()]
    assert "SIGSEGV) in a call for 1 completion\n" in capsys.readouterr().err


def test_what_hangs_is_killed_and_the_others_have_their_values(
    make_scorer: MakeScorer, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = make_scorer(TOY, each_s=1.5, on_error="none", **EACH)
    assert score(scorer, "hang", "ab", "abc", "hang", "abcd") == [None, 2.0, 3.0, None, 4.0]
    assert scorer.failures == {"toy": 2}
    assert "did not return within 1.5 s for 1 completion\n" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["fault", "raise"])
def test_a_failure_stops_the_run_unless_the_plugin_says_otherwise(make_scorer: MakeScorer, text: str) -> None:
    with pytest.raises(ChainForgeError, match="reward 'toy'"):
        score(make_scorer(TOY, each_s=60.0, **EACH), "ab", text, "abc")


def test_a_wrong_answer_is_an_error_whatever_on_error_says(toy: Scorer) -> None:
    with pytest.raises(ChainForgeError, match=r"reward 'toy' .* returned nan for completion 0"):
        score(toy, "ab", "nan")
    assert score(toy, "ab") == [2.0]


def test_closing_ends_all_processes_and_a_later_call_starts_others(make_scorer: MakeScorer) -> None:
    scorer = make_scorer(TOY, each_s=600.0, **EACH)
    before = {int(pid) for pid in score(scorer, *["pid"] * 4) if pid}
    failed: list[BaseException] = []

    def wait_for_it() -> None:
        try:
            score(scorer, "hang", "hang", "hang")
        except BaseException as error:
            failed.append(error)

    caller = threading.Thread(target=wait_for_it)
    caller.start()
    time.sleep(0.2)
    scorer.close()
    caller.join(60)
    assert failed
    until(lambda: not any(map(alive, before)))
    assert score(scorer, "ab") == [2.0]


PREPARED = """
import chainforge as cf

prepared = []

def reward(completions):
    return [float(len(prepared))] * len(completions)

def prepare():
    prepared.append(1)

def ready():
    if {ready!r}:
        raise cf.ChainForgeError("reward toy needs the package toys", "pip install toys")

def check_answer(answer):
    return "it has no digit" if not any(map(str.isdigit, answer)) else None

@cf.hookimpl
def register_rewards(register):
    register("toy", reward, isolation="process", prepare=prepare, ready=ready, check_answer=check_answer)
"""


def scorer_of(tmp_path: Any, missing: str = "") -> Scorer:
    (tmp_path / "reward_toy.py").write_text(PREPARED.format(ready=missing), encoding="utf-8")
    reward = make_reward(load_plugins(tmp_path).pick("rewards", "toy"))
    return Scorer((reward,), SUPERCOT, 20.0)


def test_a_reward_is_prepared_once_in_its_own_process(tmp_path: Any) -> None:
    with scorer_of(tmp_path) as scorer:
        assert [score(scorer, "a", "b") for _ in range(2)] == [[1.0, 1.0], [1.0, 1.0]]


def test_before_any_work_a_reward_says_what_is_missing_and_which_answer_is_wrong(tmp_path: Any) -> None:
    with (
        scorer_of(tmp_path, "toys") as scorer,
        pytest.raises(ChainForgeError, match=r"needs the package toys\n.*pip install toys"),
    ):
        scorer.check([ASKED])
    with scorer_of(tmp_path) as scorer:
        scorer.check([ASKED, prompt(2, "?", None)])
        for bad in ("none", ""):
            with pytest.raises(ChainForgeError, match=rf"cannot use the answer '{bad}' of prompt .*no digit"):
                scorer.check([ASKED, prompt(3, "?", bad)])
