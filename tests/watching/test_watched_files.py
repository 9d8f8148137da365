"""What `chainforge watch` reads while others write: whole rows only, whatever lies there, and no error."""

import json
import math
import os
import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from fakes import completion, prompt
from hypothesis import given
from hypothesis import strategies as st

from chainforge.records import Group, Score
from chainforge.run.live import COMPLETIONS, GROUPS, LONGEST, PROGRESS, Live
from chainforge.run.metrics import StepTable
from chainforge.run.progress import progress
from chainforge.watching.completions import read_asked
from chainforge.watching.curves import BLOCKS, curves, sparkline, thin
from chainforge.watching.pace import in_words, read_pace
from chainforge.watching.read import Reader, parse_table
from chainforge.watching.run import DONE, RUNNING, SILENT_S, STOPPED, WAITING, look

NOW = 2_000_000_000.0
TEXT = "step,reward,kl\n1,0.5,0.25\n2,,0.125\n3,1.5,-1e-05\n"
WHOLE = [[1.0, 2.0, 3.0], [0.5, math.nan, 1.5], [0.25, 0.125, -1e-05]]


@given(st.integers(0, len(TEXT)))
def test_of_a_file_that_is_torn_anywhere_the_whole_rows_are_read(cut: int) -> None:
    rows = max(0, TEXT[:cut].count("\n") - 1)
    found = parse_table(TEXT[:cut])
    if "\n" not in TEXT[:cut]:
        assert found is None
        return
    assert found is not None
    assert list(found) == ["step", "reward", "kl"]
    for name, column in zip(found, WHOLE, strict=True):
        assert list(map(repr, found[name])) == list(map(repr, column[:rows]))


@pytest.mark.slow
@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_no_content_is_an_error(text: str) -> None:
    with TemporaryDirectory() as folder:
        path, reader = Path(folder) / "any", Reader()
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        for read in (reader.table, reader.rows, reader.object):
            assert read(path) == read(path)


def test_a_file_is_read_as_it_grows_shrinks_and_vanishes(tmp_path: Path) -> None:
    path, reader = tmp_path / "a.csv", Reader()
    table = StepTable(path, ["loss"])
    for number in (1, 2, 3):
        table.add(number, loss=number / 2)
        assert reader.table(path) == {
            "step": [*range(1, number + 1)],
            "loss": [n / 2 for n in range(1, number + 1)],
        }
    table.load_state_dict({"rows": "step,loss\n1,0.5\n"})  # the step was killed, and goes on from a save
    assert reader.table(path) == {"step": [1], "loss": [0.5]}
    path.unlink()
    assert reader.table(path) is None
    path.mkdir()
    assert reader.table(path) is None


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    assert Reader().table(tmp_path / "a.csv") is None


def write(path: Path, text: str, at: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (at, at))


def states(logs: Path, *names: str, now: float = NOW) -> dict[str, str]:
    return {step.name: step.state for step in look(logs, names, Reader(), now).steps}


def test_a_step_is_waiting_then_running_then_done_and_stopped_where_its_process_has_gone(
    tmp_path: Path,
) -> None:
    logs, name = tmp_path / "logs", "distill@student"
    logs.mkdir()
    assert states(logs, name) == {name: WAITING}
    now = time.time()
    owner = logs / "locks/distill@student.lock.owner"
    write(owner, f"PID {os.getpid()} on {socket.gethostname()}\n", now)
    assert states(logs, name, now=now) == {name: RUNNING}
    write(owner, f"PID {2**22 + 1} on {socket.gethostname()}\n", now)
    assert states(logs, name, now=now) == {name: STOPPED}
    write(logs / "distill/student.json", '{"step": "distill@student", "wall_s": 5, "peak_mb": 1}', now + 1)
    assert states(logs, name, now=now) == {name: DONE}
    write(owner, f"PID {2**22 + 1} on another-machine\n", now + 2)
    assert states(logs, name, now=now + 60) == {name: RUNNING}
    assert states(logs, name, now=now + 600) == {name: STOPPED}


def test_a_copy_without_a_graph_shows_the_steps_that_wrote_into_it(tmp_path: Path) -> None:
    write(tmp_path / "logs/sft.csv", "step,loss\n1,2\n", NOW - 5)
    write(tmp_path / "logs/distill/a.csv", "step,loss\n1,2\n", NOW)
    run = look(tmp_path / "logs", [], Reader(), NOW + SILENT_S - 2)
    assert {step.name: step.state for step in run.steps} == {"sft": STOPPED, "distill@a": RUNNING}
    assert run.focus
    assert run.focus.step.name == "distill@a", "who wrote last"
    assert look(tmp_path / "nothing", [], Reader(), NOW).focus is None


def test_of_several_that_run_the_one_that_trains_is_shown_whoever_wrote_last(tmp_path: Path) -> None:
    logs, now = tmp_path / "logs", time.time()
    here = f"PID {os.getpid()} on {socket.gethostname()}\n"
    for name, ago in (("sft_refine", 0.3), ("distill@a", 0.2), ("evaluate@a-b", 0.1)):
        write(logs / f"locks/{name}.lock.owner", here, now - ago)
    for last in ("sft_refine.csv", "distill/a.csv", "evaluate/a-b.progress.json"):
        write(logs / last, "", now + 1)
        run = look(logs, [], Reader(), now)
        assert run.focus
        assert run.focus.step.name == "distill@a"
        os.utime(logs / last, (now - 5, now - 5))


def test_a_finished_table_is_read_from_plots_where_logs_has_none(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    write(tmp_path / "plots/sft.csv", "step,loss\n1,2\n", NOW)
    run = look(tmp_path / "logs", ["sft"], Reader(), NOW, "sft")
    assert run.focus
    assert (run.focus.step.state, run.focus.table) == (DONE, {"step": [1.0], "loss": [2.0]})


def a_group(number: int, text: str = "x", samples: int = 12, total: float = 1.0) -> Group:
    asked = prompt(number, "6*7=?", "42")
    return Group(asked, [completion(asked, text)] * samples, [Score(total, {"correct": total})] * samples)


@pytest.mark.slow
def test_the_last_completions_are_kept_and_the_file_never_grows_beyond_them(tmp_path: Path) -> None:
    live = Live(tmp_path / "logs/grpo")
    sizes = []
    for number in live.follow(range(1, 31), "grpo", "step", 30, 0):
        live.show([a_group(place, "a" * 50_000) for place in range(5)])
        sizes.append((tmp_path / f"logs/grpo{COMPLETIONS}").stat().st_size)
        asked = read_asked(Reader().rows(tmp_path / f"logs/grpo{COMPLETIONS}"))
        assert asked[0].number == number
    assert len(asked) == GROUPS
    assert max(sizes) < GROUPS * 8 * (LONGEST + 500)
    assert asked[0].of == 12
    live.clear()
    assert not list((tmp_path / "logs").iterdir())


@pytest.mark.parametrize("total", [math.nan, math.inf])
def test_a_reward_that_is_no_number_is_shown_as_none(tmp_path: Path, total: float) -> None:
    live = Live(tmp_path / "grpo")
    live.show(
        [
            Group(
                prompt(1, "?", None),
                [completion(prompt(1, "?", None), "\ud800")],
                [Score(total, {"a": None})],
            )
        ]
    )
    (asked,) = read_asked(Reader().rows(tmp_path / f"grpo{COMPLETIONS}"))
    assert (asked.answers[0].reward, asked.answers[0].rewards) == (None, {"a": None})


def test_a_bar_says_how_far_it_is_and_a_folder_that_cannot_be_written_stops_no_step(tmp_path: Path) -> None:
    path = tmp_path / f"sft{PROGRESS}"
    for _ in progress(range(3), "sft", total=5, initial=2, live=Live(tmp_path / "sft")):
        assert path.exists()
    pace = read_pace(json.loads(path.read_text()))
    assert pace
    assert (pace.title, pace.unit, pace.done, pace.total) == ("sft", "step", 5, 5)
    (tmp_path / "file").write_text("")
    live = Live(tmp_path / "file/sft")
    assert list(progress(range(3), "sft", live=live)) == [0, 1, 2]
    live.show([a_group(1)])
    live.clear()


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=20), st.integers(1, 1000))
def test_at_an_even_pace_the_time_left_is_the_work_left_over_the_pace(
    seconds: list[float], tokens: int
) -> None:
    each = seconds[0]
    marks = [[1000 + each * n, n, n * tokens] for n in range(len(seconds) + 1)]
    pace = read_pace({"title": "t", "unit": "step", "total": len(seconds) + 10, "marks": marks})
    assert pace
    assert pace.turns_per_s == pytest.approx(1 / each)
    assert pace.tokens_per_s == pytest.approx(tokens / each)
    assert pace.left_s(pace.marked_at) == pytest.approx(10 * each)
    assert pace.left_s(pace.marked_at + 10**6) == 0


@pytest.mark.parametrize(
    "said", [None, {}, {"marks": 5}, {"marks": [[1], "a", [None, 1, 2]]}, {"marks": [[1e400, 1, 1]]}]
)
def test_a_progress_of_another_shape_is_none(said: dict[str, Any] | None) -> None:
    assert read_pace(said) is None


@given(st.lists(st.floats(-1e90, 1e90), min_size=1, max_size=300), st.integers(1, 80))
def test_a_sparkline_fits_and_its_ends_are_least_and_greatest(values: list[float], width: int) -> None:
    found, means = sparkline(values, width), thin(values, width)
    assert len(found) == len(means) == min(width, len(values))
    if max(means) > min(means):
        assert found[means.index(min(means))] == BLOCKS[0]
        assert found[means.index(max(means))] == BLOCKS[-1]


def test_curves_are_those_of_the_columns_that_have_a_value() -> None:
    table = {
        "step": [1.0, 2.0],
        "rewards/correct/mean": [math.nan, 0.5],
        "kl": [math.nan] * 2,
        "odd": [1.0, 1.0],
    }
    (curve,) = curves(table)
    assert (curve.title, curve.steps, curve.values) == ("reward correct", [2.0], [0.5])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (3600, "1 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
