"""The processes of a step: one locks, saves, writes and shows; all stop at one step and go on from it."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from forked import start_script

from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.errors import ChainForgeError
from chainforge.project.stage import run_stage
from chainforge.run.exclusive import exclusive
from chainforge.run.progress import progress, say
from chainforge.run.step import Step
from chainforge.run.world import World, this_world


@pytest.fixture(autouse=True)
def _in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CHAINFORGE_WORK", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).symlink_to(root / name)


def test_without_a_launcher_there_is_one_process() -> None:
    assert this_world({}) == World(0, 1)
    assert World().is_first
    assert World().share("said") == ["said"]


def test_a_launcher_says_which_process_of_how_many() -> None:
    world = this_world({"RANK": "2", "WORLD_SIZE": "4"})
    assert world == World(2, 4, 2, 4)
    assert this_world({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}) == World(2, 4, 0, 4)
    two_and_two = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    assert this_world(two_and_two) == World(2, 4, 0, 2)
    assert not world.is_first
    assert world.label("sft") == "sft, rank 2 of 4"
    assert this_world({"RANK": "0", "WORLD_SIZE": "1"}) == World()


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"RANK": "1"}, "RANK=1 without WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 without RANK"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2: ranks go from 0"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 and WORLD_SIZE=0: ranks go from 0"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1 and WORLD_SIZE=2: these must be whole numbers"),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE=0: this process is"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "RANK= and WORLD_SIZE=2: these must be whole numbers"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK=one and WORLD_SIZE=2: these must be whole numbers"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(environment: dict[str, str], problem: str) -> None:
    with pytest.raises(ChainForgeError, match=problem):
        this_world(environment)


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> Step:
    """This process is not the first one; the others say what it says."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(World, "share", lambda self, value: [value] * self.size)
    return Step("toy", RunSettings(), RuntimeSettings())


def test_a_process_that_is_not_the_first_writes_and_shows_nothing(
    second_of_two: Step, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(tmp_path.rglob("*"))
    table = second_of_two.table(["loss"])
    with second_of_two.output_folder(Path("checkpoints/toy")) as folder:
        for number in progress(range(3), "toy"):
            table.add(number, loss=1.0)
        table.load_state_dict({"rows": "step,loss\n0,1\n"})
        (folder / "model").write_text("weights")
    second_of_two.log("rank", 1)
    second_of_two.finish({"loss": 1.0}, table)
    say("done")
    assert not folder.exists()
    assert set(tmp_path.rglob("*")) == before
    assert capsys.readouterr() == ("", "")


def test_a_step_of_one_process_refuses_several(
    second_of_two: Step, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_: str) -> None:
        pytest.fail("it ran")

    assert run_stage(main, ["stages/lock.py", "lock"]) == 1
    assert "lock, rank 1 of 2: stages.lock runs in one process, not in 2" in capsys.readouterr().err


@pytest.mark.slow
def test_a_launcher_that_makes_no_sense_is_said_in_two_lines() -> None:
    code = "import sys; sys.argv = ['-m', 'prompts']; import stages; import chainforge.project.stage as s\n"
    code += "sys.exit(s.run_stage(print, ['stages/prompts.py', 'prompts']))"
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"RANK": "x", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[0].startswith("prompts: the environment has RANK=x without")


def test_the_word_about_a_process_that_was_killed_says_which() -> None:
    code = "import os, chainforge.run.ending as e; e.watch_ending('toy'); os.kill(os.getpid(), 9)"
    environment = os.environ | {"RANK": "1", "WORLD_SIZE": "2"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == -signal.SIGKILL
    assert "toy, rank 1 of 2: its process ended without a word" in ended.stderr


@pytest.mark.slow
def test_a_process_that_the_launcher_ends_is_not_taken_for_one_that_was_killed() -> None:
    code = "import os, chainforge.run.ending as e; e.watch_ending('toy'); os.kill(os.getpid(), 15)"
    environment = os.environ | {"RANK": "1", "WORLD_SIZE": "2"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert "toy, rank 1 of 2: stopped at once" in ended.stderr
    assert "without a word" not in ended.stderr


TOY = """
import os, signal, sys
from pathlib import Path

import chainforge.run.pace
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.project.stage import run_stage
from chainforge.run.fingerprint import Inputs
from chainforge.run.progress import progress, say
from chainforge.run.step import Step
from chainforge.run import work as work_module
from chainforge.run.work import open_work

work_module.MEET_EVERY_S = 0  # steps of this toy take no time
chainforge.run.pace.EVERY_S = 0.0  # they meet at every safe point
fate, at_rank = sys.argv[1], int(sys.argv[2])  # what happens in the fourth step, and in which process


class Counter:
    value = 0

    def state_dict(self):
        print("gathered", flush=True)
        return {"value": self.value}

    def load_state_dict(self, state):
        if fate == "unfit":
            raise KeyError("weights")
        self.value = state["value"]


def meet_fate():
    if fate == "signal":
        os.kill(os.getpid(), signal.SIGTERM)
    elif fate == "error":
        raise ValueError("odd")


def main(name):
    step = Step("toy@one", RunSettings(), RuntimeSettings(save_every_s=1000))
    inputs = Inputs(step.name, {"changed": fate == "changed" and step.world.rank}, {}, {})
    with open_work(inputs, step.runtime) as work, step.output_folder(Path("checkpoints/one")) as folder:
        counter, table, journal = Counter(), step.table(["loss"]), work.journal("rows")
        work.attach(counter=counter, table=table)
        print("from", counter.value, len(journal.rows), flush=True)
        for _ in progress(range(counter.value, 10), name):
            counter.value += 1
            table.add(counter.value, loss=0.5)
            journal.append(counter.value)
            step.log("rank", step.world.rank)
            if counter.value == 4 and step.world.rank == at_rank:
                meet_fate()
            work.safe_point()
        print("to", counter.value, flush=True)
        (folder / "model").write_text(str(counter.value))
        step.finish({"steps": counter.value}, table)
    say("done")


code = run_stage(main, ["stages/lock.py", "lock"], several_processes=True)
sys.exit(code)
"""


@dataclass
class Ended:
    """How one of the processes ended."""

    code: int | None
    out: list[str]
    err: str


def run_two(fate: str = "none", at_rank: int = -1) -> list[Ended]:
    """The toy step in two processes, as a launcher starts them."""
    Path("toy.py").write_text(TOY)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    launched = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    streams = [(Path(f"out-{rank}"), Path(f"err-{rank}")) for rank in range(2)]
    started = [
        start_script(
            ["toy.py", fate, str(at_rank)], os.environ | launched | {"RANK": str(rank)}, *streams[rank]
        )
        for rank in range(2)
    ]
    for process in started:
        process.join(300)
        process.kill()  # one that hangs; for one that has ended it does nothing
        process.join()
    return [
        Ended(process.exitcode, out.read_text().splitlines(), err.read_text())
        for process, (out, err) in zip(started, streams, strict=True)
    ]


def saves() -> list[str]:
    return [path.name for path in Path(".work").glob("*/*.pt")]


@pytest.mark.dearest
@pytest.mark.slow
@pytest.mark.parametrize("at_rank", [0, 1])
def test_a_signal_to_one_process_stops_all_at_the_same_step_and_all_go_on_from_it(at_rank: int) -> None:
    first, second = run_two("signal", at_rank)
    assert (first.code, second.code) == (1, 1)
    assert first.out == second.out == ["from 0 0", "gathered"], "a save asks every process for its part"
    assert "stopped (SIGTERM); its work is in .work/toy@one-" in first.err
    assert second.err == ""
    assert saves() == ["0.pt"]
    assert len(Path("logs/toy/one.csv").read_text().splitlines()) == 1 + 4

    first, second = run_two()
    assert (first.code, second.code) == (0, 0), (first.err, second.err)
    assert first.out == second.out == ["gathered", "from 4 4", "to 10"]
    assert "going on from the state" in first.err
    assert second.err == ""
    assert len(Path("plots/toy/one.csv").read_text().splitlines()) == 1 + 10
    assert json.loads(Path("metrics/toy/one.json").read_text()) == {"steps": 10}
    assert Path("checkpoints/one/model").read_text() == "10"
    assert (
        list(map(json.loads, Path("logs/toy/one.rewards.jsonl").read_text().splitlines()))
        == [{"name": "rank", "value": 0}] * 10
    )
    (journal,) = Path(".work").glob("*/rows.jsonl")
    assert list(map(json.loads, journal.read_text().splitlines())) == list(range(1, 11))
    assert [path.name for path in Path(".work").glob("*/finished")] == ["finished"]


@pytest.mark.dearest
@pytest.mark.slow
@pytest.mark.parametrize("at_rank", [0, 1])
def test_who_fails_says_why_and_the_others_end_too(at_rank: int) -> None:
    ended = run_two("error", at_rank)
    assert [each.code for each in ended] == [1, 1]
    failed, other = ended[at_rank], ended[1 - at_rank]
    name = "lock" if at_rank == 0 else "lock, rank 1 of 2"
    assert f"\n{name}: ValueError: odd (" in failed.err
    assert "\n  -> " not in other.err, "on one machine, it is said once"
    assert not list(Path(".work").glob("*/finished"))
    assert not Path("checkpoints").exists() or not list(Path("checkpoints").iterdir())


@pytest.mark.slow
def test_a_save_that_does_not_fit_is_set_aside_once() -> None:
    run_two("signal", 0)
    first, second = run_two("unfit")
    assert (first.code, second.code) == (1, 1)
    assert "does not fit this step: its counter (KeyError: 'weights')" in first.err
    assert second.err == ""
    assert [path.name for path in Path(".work").glob("*/unfit/*")] == ["0.pt"]
    assert saves() == []


@pytest.mark.slow
def test_one_lock_keeps_all_processes_of_a_second_run_out() -> None:
    with exclusive(Path("logs/locks/toy@one.lock"), "toy@one"):
        first, second = run_two()
    assert (first.code, second.code) == (1, 1)
    assert f"toy@one is already running: PID {os.getpid()}" in first.err
    assert second.err == ""
    assert first.out == second.out == []


@pytest.mark.slow
def test_processes_with_different_inputs_do_not_begin() -> None:
    first, second = run_two("changed")
    assert (first.code, second.code) == (1, 1)
    assert "its processes do not have the same inputs" in first.err
    assert first.out == second.out == []
