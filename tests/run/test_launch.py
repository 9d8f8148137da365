"""A step that starts its processes: whoever fails, dies or is asked to stop, all end, and it is said once."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from pydantic import BaseModel
from ruamel.yaml import YAML

from chainforge.config.distill import DistillSettings, OnPolicySettings
from chainforge.config.engine import EngineSettings
from chainforge.config.evaluate import EvaluateSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.config.run import RuntimeSettings
from chainforge.config.sample import SampleSettings
from chainforge.config.vllm import VllmSettings
from chainforge.errors import ChainForgeError
from chainforge.project import stage
from chainforge.run.launch import count_processes
from chainforge.run.slurm import as_torchrun
from chainforge.run.world import World, is_launched, this_world

STEP = "grpo_reasoning"
LONGEST_S = 300  # on a busy machine; it takes seconds
SCRIPT = """
import ctypes, os, sys, time
from pathlib import Path
from chainforge.run.ending import watch_ending

if __name__ == "__main__":
    watch_ending("grpo_reasoning")

import torch.distributed as dist
from torch import tensor

from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.project.stage import stage_main
from chainforge.run import launch
from chainforge.run.fingerprint import Inputs
from chainforge.run.progress import progress, say
from chainforge.run.step import Step
from chainforge.run.work import open_work

fate, at_rank = os.environ.get("FATE"), int(os.environ.get("AT", 1))
if fate == "spawn":
    launch.count_gpus = lambda runtime: 2


class Counter:
    value = 0

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def meet_fate():
    if fate == "error":
        raise ValueError("odd")
    if fate == "exit":
        ctypes.CDLL(None)._exit(0)
    if fate == "crash":
        ctypes.string_at(0)
    if fate == "sleep":
        time.sleep(1000)


def main(name):
    step = Step(name, RunSettings(), RuntimeSettings(save_every_s=1000))
    inputs = Inputs(name, {}, {}, {})
    with open_work(inputs, step.runtime) as work, step.output_folder(Path("data/x")) as folder:
        counter = Counter()
        work.attach(counter=counter)
        os.write(1, f"began {step.world.rank} {os.getpid()} {counter.value}\\n".encode())  # in one piece
        for _ in progress(range(counter.value, int(os.environ.get("STEPS", 10))), name):
            counter.value += 1
            if counter.value > 3 and at_rank in (step.world.rank, -1):
                meet_fate()
            total = tensor([float(step.world.rank + 1)])
            dist.all_reduce(total)
            assert total.item() == 3
            time.sleep(0.02)
            work.safe_point()
        (folder / "count").write_text(str(counter.value))
        step.finish({"steps": counter.value})
    say("done")


if __name__ == "__main__":
    sys.argv[0] = "stages/grpo.py"
    stage_main(main, several_processes=True)
"""


@pytest.fixture(autouse=True)
def _in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CHAINFORGE_WORK", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "dvc.yaml").symlink_to(root / "dvc.yaml")
    params = YAML(typ="safe", pure=True).load((root / "params.yaml").read_text())
    params["runtime"]["processes"] = 2
    YAML(typ="safe", pure=True).dump(params, tmp_path / "params.yaml")
    (tmp_path / "script.py").write_text(SCRIPT)


@dataclass
class Running:
    """The step under way."""

    process: subprocess.Popen[str]

    def ranks(self) -> dict[int, int]:
        """Process id of each rank, once all have begun."""
        deadline = time.monotonic() + LONGEST_S
        while True:
            is_late = self.process.poll() is not None or time.monotonic() > deadline
            began = re.findall(r"began (\d+) (\d+)", Path("said").read_text())
            if len(began) == 2:
                return {int(rank): int(pid) for rank, pid in began}
            if is_late:
                break
            time.sleep(0.05)
        pytest.fail(f"the ranks have not begun: {Path('said').read_text()}")

    def end(self) -> str:
        """Wait for its end, and for that of all its processes. Returns what it said."""
        ranks = list(self.ranks().values())
        self.process.wait(LONGEST_S)
        wait_until_gone(ranks)
        return Path("said").read_text()


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [psutil.Process(pid).status() for pid in pids if psutil.pid_exists(pid)]
        if all(status == psutil.STATUS_ZOMBIE for status in found):  # where nobody adopts orphans
            return
        time.sleep(0.05)
    pytest.fail(f"processes are left: {pids}")


def start(fate: str = "none", *command: str, **environment: str) -> Running:
    """Run the script."""
    command = command or (sys.executable, "script.py", STEP)
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # else a child inherits that it is ignored
    with open("said", "w") as said:
        process = subprocess.Popen(
            command,
            env={**os.environ, "FATE": fate, **environment},
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    signal.signal(signal.SIGINT, before)
    return Running(process)


def problems(said: str) -> list[str]:
    """The first lines of errors; nothing of torchrun may be among what is said."""
    for foreign in (
        "Traceback",
        "torchelastic",
        "ChildFailedError",
        "failed (exitcode",
        "Gloo",
        "gloo",
        "W1",
    ):
        assert foreign not in said
    return our_problems(said)


def our_problems(said: str) -> list[str]:
    lines = said.replace("\r", "\n").splitlines()
    return [before for before, line in pairwise(lines) if line.startswith("  -> ")]


@pytest.mark.dearest
@pytest.mark.slow
@pytest.mark.parametrize("fate", ["none", "spawn"])
def test_processes_start_share_out_and_write_once(fate: str) -> None:
    step = start(fate)
    said = step.end()
    assert step.process.returncode == 0, said
    assert problems(said) == []
    assert said.count("done") == 1
    assert said.count("| 0/10 ") == 1, "one bar"
    assert Path("data/x/count").read_text() == "10"
    assert json.loads(Path("metrics/grpo_reasoning.json").read_text()) == {"steps": 10}
    record = json.loads(Path("logs/grpo_reasoning.json").read_text())
    assert record["processes"] == 2
    assert record["peak_mb"] > 100


@pytest.mark.dearest
@pytest.mark.slow
@pytest.mark.parametrize(("at", "who"), [("0", STEP), ("1", f"{STEP}, rank 1 of 2"), ("-1", STEP)])
def test_an_error_is_told_once_wherever_it_happens(at: str, who: str) -> None:
    step = start("error", AT=at)
    said = step.end()
    assert step.process.returncode == 1
    (problem,) = problems(said)
    assert problem.startswith(("grpo_reasoning: ValueError: odd", f"{who}: ValueError: odd"))
    assert not Path("data/x").exists()
    assert not list(Path(".").rglob("*.partial"))


@pytest.mark.dearest
@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_who_is_killed_is_named_and_the_others_end_while_they_wait_for_each_other(killed: int) -> None:
    step = start("sleep", AT=str(killed))  # so the other one is inside of a collective operation
    ranks = step.ranks()
    time.sleep(1)
    os.kill(ranks[killed], signal.SIGKILL)
    said = step.end()
    assert step.process.returncode == 128 + signal.SIGKILL
    (problem,) = problems(said)
    assert problem == (f"{STEP}: rank {killed} of 2 was killed (signal 9), most often for want of memory")


@pytest.mark.slow
def test_a_process_that_hangs_in_the_kernel_or_a_debugger_is_ended_too() -> None:
    step = start("sleep", AT="1")
    ranks = step.ranks()
    os.kill(ranks[1], signal.SIGSTOP)
    os.kill(ranks[0], signal.SIGKILL)
    assert "rank 0 of 2 was killed" in problems(step.end())[0]


@pytest.mark.dearest
@pytest.mark.slow
@pytest.mark.parametrize(
    ("fate", "at", "told"),
    [
        ("crash", "1", "rank 1 of 2 was ended by signal 11"),
        ("exit", "1", "ended without a word"),
        ("exit", "-1", "ended without a word"),
    ],
)
def test_native_code_that_ends_a_process_is_no_success(fate: str, at: str, told: str) -> None:
    step = start(fate, AT=at)
    (problem,) = problems(step.end())
    assert told in problem
    assert step.process.returncode not in (0, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to_group", "reason"),
    [(signal.SIGINT, True, "Ctrl-C"), (signal.SIGINT, False, "Ctrl-C"), (signal.SIGTERM, False, "SIGTERM")],
)
def test_a_request_to_stop_saves_in_all_and_it_goes_on(
    number: signal.Signals, to_group: bool, reason: str
) -> None:
    step = start(STEPS="5000")
    step.ranks()
    time.sleep(1)
    (os.killpg if to_group else os.kill)(step.process.pid, number)
    said = step.end()
    assert step.process.returncode == 1
    assert said.count("stopping as soon as the work is saved") == 1
    (problem,) = problems(said)
    assert f"stopped ({reason}); its work is in .work/" in problem
    (save,) = Path(".work").glob("*/*.pt")
    assert save.exists()
    again = start(STEPS="0")
    assert "going on from the state" in again.end()
    assert again.process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["none", "sleep"])  # on its way, or held where no signal is handled
def test_a_second_request_stops_at_once(fate: str) -> None:
    step = start(fate, STEPS="5000")
    step.ranks()
    time.sleep(1)
    step.process.send_signal(signal.SIGINT)
    step.process.send_signal(signal.SIGINT)
    time.sleep(0.01)
    with suppress(ProcessLookupError):
        step.process.send_signal(signal.SIGINT)
    said = step.end()
    assert step.process.returncode == 1
    assert "stopped" in said
    assert len(problems(said)) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["none", "sleep"])
def test_the_processes_do_not_outlive_who_started_them(fate: str) -> None:
    step = start(fate, STEPS="5000")
    step.ranks()
    step.process.kill()
    # whoever looks into the launcher's store at that very moment has C++ words of it, too
    assert our_problems(step.end())[:1] in (
        [],  # the shell that says it may be a moment later
        [f"{STEP}: its process ended without a word: killed, most often for want of memory, or ended by "
         "native code of a plugin"],
    )  # fmt: skip


@pytest.mark.slow
def test_it_joins_those_that_torchrun_started_and_starts_no_more() -> None:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    step = start("none", *launcher, "script.py", STEP, OMP_NUM_THREADS="1")
    said = step.end()
    assert step.process.returncode == 0, said
    assert len(re.findall("began", said)) == 2
    assert said.count("done") == 1


@pytest.mark.slow
def test_a_death_under_torchrun_ends_the_others_and_is_told() -> None:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    step = start("sleep", *launcher, "script.py", STEP, OMP_NUM_THREADS="1")
    os.kill(step.ranks()[1], signal.SIGKILL)
    said = step.end()
    assert step.process.returncode not in (0, None)
    assert f"{STEP}, rank 1 of 2: its process ended without a word: killed" in said


SRUN = {
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "0",
}


@pytest.mark.slow
def test_it_joins_those_that_srun_started() -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "script.py", STEP],
            env={
                **os.environ,
                **SRUN,
                "SLURM_JOB_ID": str(os.getpid()),
                "SLURM_PROCID": n,
                "SLURM_LOCALID": n,
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in "01"
    ]
    said = [process.communicate(timeout=LONGEST_S)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert [text.split()[:2] for text in said] == [["began", "0"], ["began", "1"]]


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu7", "gpu7"),
        ("gpu[03-05,9],cpu1", "gpu03"),
        ("a1,a2", "a1"),
        ("rack2-[1,4]", "rack2-1"),
        ("n[1-2]-ib[0-1]", "n1-ib0"),
    ],
)
def test_the_first_of_slurms_nodes_is_where_they_meet(nodes: str, first: str) -> None:
    task = {**SRUN, "SLURM_STEP_NODELIST": nodes, "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
    assert as_torchrun(task)["MASTER_ADDR"] == first
    assert this_world(task) == World(1, 2, 0, 2)
    assert is_launched(task)


@pytest.mark.parametrize(("node", "count"), [("0", 8), ("1", 8), ("2", 4), ("3", 20), ("", 20)])
def test_slurm_says_how_many_tasks_are_on_this_machine(node: str, count: int) -> None:
    """Where it does not, all of them are taken to be: then none takes more than its share."""
    tasks = {"SLURM_STEP_NUM_TASKS": "20", "SLURM_STEP_TASKS_PER_NODE": "8(x2),4", "SLURM_NODEID": node}
    task = {**SRUN, **tasks, "SLURM_PROCID": "17", "SLURM_LOCALID": "1"}
    assert this_world(task) == World(17, 20, 1, count)


BATCH = {"SLURM_JOB_ID": "17", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    "environment",
    [BATCH, {**BATCH, **SRUN, "SLURM_STEP_NUM_TASKS": "1"}, {**BATCH, **SRUN, "SLURM_PTY_PORT": "3"}],
    ids=["sbatch", "one task", "a shell"],
)
def test_a_batch_script_or_a_shell_of_slurm_starts_its_own(environment: Mapping[str, str]) -> None:
    assert this_world(environment) == World()
    assert not is_launched(environment)


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    return


@pytest.mark.usefixtures("four_gpus")
def test_auto_is_one_process_for_each_gpu_and_more_are_refused() -> None:
    assert count_processes(RuntimeSettings(processes="auto")) == 4
    assert count_processes(RuntimeSettings(processes="auto", device="cpu")) == 1
    assert count_processes(RuntimeSettings(processes=8, device="cpu")) == 8
    assert count_processes(RuntimeSettings(processes=3)) == 3
    with pytest.raises(ChainForgeError, match="is 8, and there are 4 GPUs"):
        count_processes(RuntimeSettings(processes=8))


@pytest.mark.usefixtures("four_gpus")
def test_the_last_gpus_are_not_for_processes_where_servers_have_them() -> None:
    assert count_processes(RuntimeSettings(processes="auto"), 3) == 1
    assert count_processes(RuntimeSettings(processes=2), 2) == 2
    with pytest.raises(ChainForgeError, match=r"is 3, and there are 2 GPUs for them"):
        count_processes(RuntimeSettings(processes=3), 2)


@pytest.mark.usefixtures("four_gpus")
def test_where_vllm_samples_a_step_that_learns_nothing_has_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each would load the whole model, to do nothing with it."""

    def count(kind: type[BaseModel], settings: Mapping[str, Any], **vllm: Any) -> int:
        made = kind.model_construct(**settings)
        monkeypatch.setattr(stage, "settings_of", lambda *_: made)
        main: Any = SimpleNamespace(settings_class=kind)
        return stage._count_processes(
            main, "step", RuntimeSettings(processes="auto", vllm=VllmSettings(**vllm))
        )

    by_vllm = {"engine": EngineSettings(kind="vllm")}
    for kind in (SampleSettings, EvaluateSettings):
        assert count(kind, {"engine": EngineSettings()}) == 4
        assert count(kind, by_vllm) == 1
    assert count(GrpoSettings, by_vllm) == 4
    assert count(GrpoSettings, by_vllm, gpus=3) == 1
    assert count(DistillSettings, {"on_policy": OnPolicySettings.model_construct(**by_vllm)}, gpus=1) == 3
    assert count(DistillSettings, {"on_policy": None}, gpus=1) == 4


def test_auto_is_one_process_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert count_processes(RuntimeSettings(processes="auto")) == 1
    assert count_processes(RuntimeSettings()) == 1
    assert count_processes(RuntimeSettings(processes=2)) == 2
