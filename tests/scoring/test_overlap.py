"""`begin` starts what can run elsewhere; `result` runs the rest here, and alone raises."""

import asyncio
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from fakes import SUPERCOT, completion, prompt
from hypothesis import given
from hypothesis import strategies as st
from toys import MakeScorer, until

from chainforge.errors import ChainForgeError
from chainforge.records import Completion, Prompt
from chainforge.reward_options import RewardOptions
from chainforge.scoring import Scorer, WeightedReward

pytestmark = pytest.mark.slow

WAITS = """
import os, time
from pathlib import Path

def reward(completions, answer, log_metric):
    folder = Path(answer[0])
    log_metric("process", 0)
    (folder / "started").touch()
    while not (folder / "go").exists():
        time.sleep(0.005)
    log_metric("process", 1)
    return [float(len(text)) for text in completions]
"""


def step(folder: Path) -> tuple[list[Prompt], list[list[Completion]]]:
    """Two prompts whose answer is a folder to meet in, with two completions and one."""
    prompts = [prompt(1, "one?", str(folder)), prompt(2, "two?", str(folder))]
    return prompts, [
        [completion(prompts[0], "1"), completion(prompts[0], "one")],
        [completion(prompts[1], "two")],
    ]


def rewarded(name: str, function: Any, **options: Any) -> WeightedReward:
    return WeightedReward(name, 1.0, function, f"plugins/{name}.py", RewardOptions(**options))


def parts(groups: Any, name: str) -> list[float | None]:
    return [score.parts[name] for group in groups for score in group.scores]


@pytest.fixture(scope="module")
def waits(make_scorer: MakeScorer) -> WeightedReward:
    """A reward in a process: it says that it started, then waits for a file."""
    return make_scorer(WAITS, isolation="process").rewards[0]


async def waits_awaited(completions: list[str], answer: list[str], log_metric: Any) -> list[float]:
    log_metric("awaited", 0)
    Path(answer[0], "started-awaited").touch()
    while not Path(answer[0], "go").exists():
        await asyncio.sleep(0.005)
    log_metric("awaited", 1)
    return [float(len(text)) for text in completions]


def test_what_runs_elsewhere_starts_at_begin_and_the_rest_at_result_in_this_thread(
    tmp_path: Path, waits: WeightedReward
) -> None:
    threads: list[Any] = []
    logged: list[tuple[str, int]] = []

    def inline(completions: list[str], log_metric: Any) -> list[float]:
        threads.append(threading.current_thread())
        log_metric("inline", len(logged))
        (tmp_path / "go").touch()  # they still wait as this one runs
        return [0.5] * len(completions)

    rewards = (waits, rewarded("awaited", waits_awaited), rewarded("inline", inline))
    with Scorer(rewards, SUPERCOT, 20.0, lambda *what: logged.append(what)) as scorer:
        pending = scorer.begin(*step(tmp_path))
        until((tmp_path / "started").exists)
        until((tmp_path / "started-awaited").exists)
        assert threads == logged == []
        groups = pending.result()
        assert pending.result() is groups
    assert threads == [threading.current_thread()]
    assert parts(groups, "toy") == parts(groups, "awaited") == [1.0, 3.0, 3.0]
    assert parts(groups, "inline") == [0.5] * 3
    assert logged == [("inline", 0), ("process", 0), ("process", 1), ("awaited", 0), ("awaited", 1)]


def test_steps_that_were_begun_are_answered_each_by_its_own(tmp_path: Path, waits: WeightedReward) -> None:
    (tmp_path / "go").touch()
    prompts, completions = step(tmp_path)
    swapped = [[completion(prompts[0], "four")], []]
    with Scorer((waits, rewarded("awaited", waits_awaited)), SUPERCOT, 20.0) as scorer:
        first, second = scorer.begin(prompts, completions), scorer.begin(prompts, swapped)
        assert parts(second.result(), "toy") == parts(second.result(), "awaited") == [4.0]
        assert parts(first.result(), "toy") == parts(first.result(), "awaited") == [1.0, 3.0, 3.0]
        assert first.result() == scorer.score(prompts, completions)
    assert [group.prompt for group in first.result()] == prompts
    assert [list(group.completions) for group in first.result()] == completions


def raises(completions: list[str]) -> list[float]:
    raise ValueError("no digits")


async def raises_awaited(completions: list[str]) -> list[float]:
    raise ValueError("no digits")


CRASHES = "import os\ndef reward(completions): os._exit(3)\n"


@pytest.mark.parametrize("way", ["inline", "awaited", "process"])
def test_an_error_waits_for_result(tmp_path: Path, make_scorer: MakeScorer, way: str) -> None:
    reward = {
        "inline": lambda: rewarded("toy", raises),
        "awaited": lambda: rewarded("toy", raises_awaited),
        "process": lambda: make_scorer(CRASHES, isolation="process").rewards[0],
    }[way]()
    with Scorer((reward,), SUPERCOT, 20.0) as scorer:
        pending = scorer.begin(*step(tmp_path))
        for call in pending._calls:
            until(lambda call=call: call.future is None or call.future.done())
        for _ in range(2):
            with pytest.raises(ChainForgeError, match=r"^reward 'toy' \("):
                pending.result()


def test_of_several_errors_the_one_from_here_is_told_then_the_first(tmp_path: Path) -> None:
    elsewhere = [rewarded(f"awaited{n}", raises_awaited) for n in range(2)]
    with (
        Scorer((*elsewhere, rewarded("here", raises)), SUPERCOT, 20.0) as scorer,
        pytest.raises(ChainForgeError, match=r"^reward 'here' "),
    ):
        scorer.score(*step(tmp_path))
    with (
        Scorer(tuple(elsewhere), SUPERCOT, 20.0) as scorer,
        pytest.raises(ChainForgeError, match=r"^reward 'awaited0' "),
    ):
        scorer.score(*step(tmp_path))


def test_a_step_that_nobody_asks_about_harms_no_later_one(tmp_path: Path, waits: WeightedReward) -> None:
    logged: list[Any] = []
    with Scorer((waits,), SUPERCOT, 20.0, lambda *what: logged.append(what)) as scorer:
        scorer.begin(*step(tmp_path))
        (tmp_path / "go").touch()
        assert parts(scorer.score(*step(tmp_path)), "toy") == [1.0, 3.0, 3.0]
    assert logged == [("process", 0), ("process", 1)]


VALUE = st.none() | st.floats(-1e6, 1e6)


@given(
    table=st.lists(st.lists(st.tuples(VALUE, VALUE), max_size=4), max_size=4),
    weights=st.tuples(st.floats(-10, 10), st.floats(-10, 10)),
)
def test_groups_are_rebuilt_from_their_parts(
    table: list[list[tuple[float | None, float | None]]], weights: tuple[float, float]
) -> None:
    prompts = [prompt(n) for n in range(len(table))]
    completions = [
        [completion(asked, f"{n}") for n in range(len(rows))]
        for asked, rows in zip(prompts, table, strict=True)
    ]
    columns = [[row[column] for rows in table for row in rows] for column in (0, 1)]

    async def second(**_: Any) -> list[float | None]:
        return columns[1]

    rewards = (
        WeightedReward("b", weights[0], lambda **_: columns[0], "toy"),
        WeightedReward("a", weights[1], second, "toy"),
    )
    with Scorer(rewards, SUPERCOT, 20.0) as scorer:
        groups = scorer.score(prompts, completions)
    stored = [[dict(sorted(score.parts.items())) for score in group.scores] for group in groups]
    rebuilt = [
        scorer.rebuild(group.prompt, group.completions, kept)
        for group, kept in zip(groups, stored, strict=True)
    ]
    assert [group.prompt for group in rebuilt] == prompts
    assert repr(rebuilt) == repr(groups)  # NaN is NaN, and the order of the parts is that of the rewards
    for group, rows in zip(groups, table, strict=True):
        for score, row in zip(group.scores, rows, strict=True):
            assert tuple(score.parts.values()) == row
            assert math.isnan(score.total) == (row == (None, None))
