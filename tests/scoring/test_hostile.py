"""Rewards that do what they must not: each is one error that names it, and nothing else is harmed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from fakes import SUPERCOT, completion, prompt
from toys import MakeScorer

from chainforge.errors import ChainForgeError
from chainforge.reward_options import RewardOptions
from chainforge.scoring import Scorer, WeightedReward
from chainforge.scoring.takes import check_columns

ASKED = [prompt(1, "one?", "1", tags=["a", {"b": [1]}]), prompt(2, "two?", "2")]
WRITTEN = [[completion(one, "1", [5]), completion(one, "2", [6])] for one in ASKED]


def scorer_of(*functions: Callable[..., Any], limit: float = 20.0, **options: Any) -> Scorer:
    return Scorer(
        tuple(
            WeightedReward(f"reward{n}", 1.0, function, "plugins/toy.py", RewardOptions(**options))
            for n, function in enumerate(functions)
        ),
        SUPERCOT,
        limit,
    )


def error_of(function: Callable[..., Any], **options: Any) -> str:
    with pytest.raises(ChainForgeError) as caught:
        scorer_of(function, **options).score(ASKED, WRITTEN)
    return str(caught.value)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raiser(error: BaseException) -> Callable[..., Any]:
    def reward(**_: Any) -> list[float]:
        raise error

    return reward


def exits(**_: Any) -> list[float]:
    os._exit(0)


def swallows(completions: list[str], **_: Any) -> list[float]:
    for _again in range(3):
        with suppress(BaseException):
            time.sleep(20)
    return [1.0] * len(completions)


def masks_the_alarm(completions: list[str], **_: Any) -> list[float]:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(0.4)
    return [1.0] * len(completions)


def takes_the_alarm(completions: list[str], **_: Any) -> list[float]:
    signal.signal(signal.SIGALRM, lambda *_: None)
    time.sleep(0.4)
    return [1.0] * len(completions)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (GeneratorExit("now"), "raised GeneratorExit: now"),
        (SystemExit(0), "raised SystemExit: 0"),
        (Mute(), "raised Mute: (its message cannot be shown: str() raises RuntimeError)"),
    ],
)
def test_whatever_a_reward_raises_is_told_with_its_line(error: BaseException, said: str) -> None:
    told = error_of(raiser(error))
    assert f"reward 'reward0' (plugins/toy.py) {said}" in told
    assert f"{Path(__file__).name}, line " in told


def test_an_exit_is_no_success() -> None:
    assert "raised Left: os._exit was called" in error_of(exits)


def test_a_keyboard_interrupt_is_the_reward_s_own_while_a_step_listens_for_ctrl_c() -> None:
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        assert "raised KeyboardInterrupt" in error_of(raiser(KeyboardInterrupt()))
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(KeyboardInterrupt):
        scorer_of(raiser(KeyboardInterrupt())).score(ASKED, WRITTEN)


@pytest.mark.slow
@pytest.mark.parametrize("function", [swallows, masks_the_alarm, takes_the_alarm])
def test_what_comes_after_the_limit_is_no_answer(function: Callable[..., Any]) -> None:
    handler = signal.getsignal(signal.SIGALRM)
    assert "did not return within 0.1 s for 4 completions" in error_of(function, limit=0.1)
    assert signal.SIGALRM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    scorer = scorer_of(function, limit=0.1, on_error="none")
    assert {score.parts["reward0"] for group in scorer.score(ASKED, WRITTEN) for score in group.scores} == {
        None
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "while True:\n        try: time.sleep(1)\n        except: pass",
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); time.sleep(1000)",
        "sum(itertools.repeat(0))",  # holds the interpreter's lock: no Python runs
    ],
)
def test_what_never_gives_in_ends_the_program_not_with_success(code: str) -> None:
    program = (
        "import itertools, signal, time\nfrom chainforge.scoring import limits\nlimits.LAST_S = 0.5\n"
        f"with limits.time_limit(0.2, 'the toy hangs', give_up_s=0.5):\n    {code}"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ("the toy hangs" in ended.stderr) or ('File "<string>", line 5' in ended.stderr)


def test_a_reward_changes_nothing_for_the_others() -> None:
    seen: list[Any] = []

    def changes(tags: list[Any], trainer_state: Any, info: Any = None, **_: Any) -> list[float]:
        seen.append(deepcopy(tags))
        for tag in filter(None, tags):
            tag[1]["b"].append(2)
            tag.clear()
        trainer_state.max_steps = 0
        os.chdir("/")
        return [1.0] * len(tags)

    folder = os.getcwd()
    scorer = scorer_of(changes, changes)
    scorer.score(ASKED, WRITTEN)
    assert seen == [[["a", {"b": [1]}], ["a", {"b": [1]}], None, None]] * 2
    assert ASKED[0].columns == {"tags": ["a", {"b": [1]}]}
    assert os.getcwd() == folder


def test_gradients_and_the_default_type_of_torch_are_as_before() -> None:
    torch = pytest.importorskip("torch")

    def switches(completions: list[str], **_: Any) -> list[float]:
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        return [1.0] * len(completions)

    scorer_of(switches).score(ASKED, WRITTEN)
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_progress_can_be_divided_outside_of_rl_too() -> None:
    states = []

    def asks(completions: list[str], trainer_state: Any) -> list[float]:
        states.append((trainer_state.global_step / trainer_state.max_steps, trainer_state.epoch))
        return [0.0] * len(completions)

    scorer_of(asks).score(ASKED, WRITTEN)
    scorer_of(asks).score(ASKED, WRITTEN, global_step=3, max_steps=4)
    assert states == [(0.0, 0.0), (0.75, 0.75)]


def by_sample(completion: str, info: Any) -> float:
    return float(len(completion))


def by_place(completions: list[str], /) -> list[float]:
    return []


def by_column(completions: list[str], level: list[str]) -> list[float]:
    return []


def of_messages(completions: Any, **_: Any) -> list[float]:
    return [float(len(completion[0]["content"])) for completion in completions]


def of_texts(completions: Any, **_: Any) -> list[float]:
    return [float(len(completion.strip())) for completion in completions]


@pytest.mark.parametrize(
    ("function", "options", "problem", "fix"),
    [
        (by_sample, {}, "takes 'completion', the value for one completion", "per_sample=True"),
        (
            of_texts,
            {"per_sample": True},
            "takes 'completions', but is registered with per_sample=True",
            "leave",
        ),
        (by_place, {}, "takes 'completions' by its place alone", "take the / out"),
        (by_column, {}, "needs the column 'level', which the prompts do not have", "they have: tags"),
        (min, {}, "what it takes cannot be read", "register a function"),
        (of_messages, {}, "string indices must be integers", "register it with conversational=True"),
        (of_texts, {"conversational": True}, "has no attribute 'strip'", "take completion[0]['content']"),
    ],
)
def test_a_reward_that_is_called_otherwise_than_it_expects_is_told_which_option_or_column_it_is(
    function: Callable[..., Any], options: dict[str, Any], problem: str, fix: str
) -> None:
    told = error_of(function, **options)
    assert problem in told
    assert fix in told
    assert function is min or f"{Path(__file__).name}, line " in told


def test_a_column_that_some_prompts_have_is_none_for_the_others_in_every_batch() -> None:
    def reads(completions: list[str], tags: list[Any]) -> list[float]:
        return [float(tag is None) for tag in tags]

    scorer = scorer_of(reads).check(ASKED)
    (group,) = scorer.score(ASKED[1:], WRITTEN[1:])
    assert [score.total for score in group.scores] == [1.0, 1.0]


def test_columns_can_be_checked_before_there_are_completions() -> None:
    check_columns("reward 'x'", by_column, RewardOptions(), {"level"}, "the prompts")
    with pytest.raises(ChainForgeError, match="needs the column 'level', which the prompts do not have"):
        scorer_of(by_column).check(ASKED)


HOSTILE = """
import ctypes, os, signal, sys, time

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")

def reward(completions, **_):
    match completions[0]:
        case "interrupt": raise KeyboardInterrupt
        case "base": raise BaseException("of all")
        case "mute": raise Mute
        case "close": os.closerange(0, 4096)
        case "segfault": ctypes.string_at(0)
        case "exit": os._exit(0)
        case "garbage" | "json" as what:
            text = b"no json" if what == "garbage" else b'["values", ["a"]]'
            for fd in range(3, 64):
                try: os.write(fd, len(text).to_bytes(4, "big") + text)
                except OSError: pass
            time.sleep(30)
        case "mask":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(60)
        case name: return [float(name in os.environ)]
"""


@pytest.mark.slow
def test_in_a_process_of_its_own_too(make_scorer: MakeScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DEEPSEEK_API_KEY", "HF_TOKEN", "MY_SECRET", "HOUSE", "JUDGE_API_KEY"):
        monkeypatch.setenv(variable, "sk-123456789")
    scorer = make_scorer(HOSTILE, isolation="process", limit=5.0, keys=("JUDGE_API_KEY",))
    scorer.background.keys = frozenset({"HOUSE"})

    def said(what: str) -> Any:
        try:
            (group,) = scorer.score(ASKED[:1], [[completion(ASKED[0], what)]])
        except ChainForgeError as error:
            return error.problem.partition(") ")[2]
        return group.scores[0].total

    assert said("interrupt") == "raised KeyboardInterrupt: "
    assert said("base") == "raised BaseException: of all"
    assert said("mute") == "raised Mute: (its message cannot be shown: str() raises RuntimeError)"
    assert said("close").startswith("ended its process (exit code 1)")
    assert said("segfault").startswith("ended its process (killed by SIGSEGV)")
    assert said("exit").startswith("ended its process (exit code 0)")
    assert said("garbage") == "wrote to the connection of its own process"
    assert "returned 'a'" in said("json")
    assert said("mask").startswith("did not return within 5 s")
    assert [said(name) for name in ("DEEPSEEK_API_KEY", "HF_TOKEN", "MY_SECRET", "HOUSE")] == [0.0] * 4
    assert [said(name) for name in ("PATH", "JUDGE_API_KEY")] == [1.0, 1.0]
