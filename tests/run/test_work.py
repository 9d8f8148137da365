"""The resume folder: keyed by the inputs, held by one process, kept until DVC has the result."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from chainforge.config.run import RuntimeSettings
from chainforge.errors import ChainForgeError
from chainforge.run.fingerprint import Inputs
from chainforge.run.finished import FINISHED, GONE, recorded, sweep
from chainforge.run.step import reward_log
from chainforge.run.stopping import Stopped
from chainforge.run.work import Work, open_work, work_root

INPUTS = Inputs("grpo_final", {"grpo": {"kl_coeff": 0.001}}, {"code": "abc"}, {"data/prompts.jsonl": "123"})
RUNTIME = RuntimeSettings(save_every_s=0)


class Counter:
    """The least that has a state."""

    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]


@pytest.fixture(autouse=True)
def _in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CHAINFORGE_WORK", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)


def interrupted(inputs: Inputs, steps: int) -> None:
    """A run that breaks after this many steps."""
    with suppress(RuntimeError), open_work(inputs, RUNTIME) as work:
        counter = Counter()
        work.attach(counter=counter)
        for _ in range(steps):
            counter.value += 1
            work.safe_point()
        raise RuntimeError("killed")


def signalled(number: signal.Signals) -> None:
    """A run that gets a signal in its fourth step of ten."""
    with open_work(INPUTS, RuntimeSettings(save_every_s=1000)) as work:
        counter = Counter()
        work.attach(counter=counter)
        for _ in range(10):
            counter.value += 1
            if counter.value == 4:
                os.kill(os.getpid(), number)
            work.safe_point()


def goes_on_at(inputs: Inputs) -> int:
    with open_work(inputs, RUNTIME) as work:
        counter = Counter()
        work.attach(counter=counter)
        return counter.value


def test_the_same_inputs_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(INPUTS, 3)
    assert goes_on_at(INPUTS) == 3
    assert "going on" in capsys.readouterr().err


def test_the_log_of_the_rewards_begins_where_the_step_does() -> None:
    log = reward_log(INPUTS.step)
    log.parent.mkdir()
    log.write_text("of a run before\n")
    interrupted(INPUTS, 3)
    assert not log.exists()
    log.write_text("of the first three steps\n")
    assert goes_on_at(INPUTS) == 3
    assert log.read_text() == "of the first three steps\n"
    goes_on_at(replace(INPUTS, params={}))
    assert not log.exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (replace(INPUTS, params={"grpo": {"kl_coeff": 0.05}}), "grpo.kl_coeff 0.001 -> 0.05"),
        (replace(INPUTS, lock={"code": "xyz"}), "code changed"),
        (replace(INPUTS, files={"data/prompts.jsonl": "456"}), "data/prompts.jsonl changed"),
    ],
)
def test_a_changed_input_starts_afresh_and_says_so(
    changed: Inputs, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(INPUTS, 3)
    assert goes_on_at(changed) == 0
    message = capsys.readouterr().err
    assert "starting afresh" in message
    assert said in message
    assert goes_on_at(INPUTS) == 3, "it goes on when the inputs come back"


class Renamed(Counter):
    """A part whose state another program has changed."""

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["number"]


@pytest.mark.parametrize("parts", [{"counter": Renamed()}, {"model": Counter()}], ids=["shape", "keys"])
def test_a_state_that_does_not_fit_is_set_aside_and_the_step_starts_afresh(parts: dict[str, Counter]) -> None:
    interrupted(INPUTS, 3)
    with (
        pytest.raises(ChainForgeError, match=r"does not fit this step.*\n  -> it is in .*unfit now"),
        open_work(INPUTS, RUNTIME) as work,
    ):
        work.attach(**parts)
    (aside,) = work_root().glob("*/unfit")
    assert list(aside.glob("*.pt")), "nothing is deleted"
    assert goes_on_at(INPUTS) == 0


@pytest.mark.parametrize(
    "text", ["<<<<<<< HEAD\nstages: {}\n=======\n", "[]", "stages: 5", "", "stages:\n  grpo_final: x"]
)
def test_a_dvc_lock_that_is_none_lets_every_finished_folder_stay(text: str) -> None:
    interrupted(INPUTS, 2)
    goes_on_at(INPUTS)
    Path("dvc.lock").write_text(text)
    sweep(work_root())
    assert goes_on_at(INPUTS) == 2


def test_the_folder_is_the_projects_own_under_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "original"))
    assert work_root() == tmp_path / "original/.work"
    monkeypatch.setenv("CHAINFORGE_WORK", "/elsewhere")
    assert work_root() == Path("/elsewhere")


def test_nothing_is_kept_of_a_step_that_saved_nothing() -> None:
    with open_work(INPUTS, RuntimeSettings(save_every_s=1000)) as work:
        work.attach(counter=Counter())
        work.safe_point()
    assert list(work_root().iterdir()) == []


def dvc_lock(**changes: Any) -> None:
    """dvc.lock as DVC writes it after the step."""
    entry = {
        "deps": [{"path": "data/prompts.jsonl", "md5": "aa"}],
        "params": {"params.yaml": INPUTS.params, "plugins.lock.json": {"grpo_final": INPUTS.lock}},
    }
    stages = {
        "prompts": {"outs": [{"path": "data/prompts.jsonl", "md5": "aa"}]},
        "grpo_final": entry | changes,
    }
    with Path("dvc.lock").open("w") as file:
        YAML().dump({"stages": stages}, file)


def test_a_finished_folder_stays_until_dvc_has_recorded_the_result() -> None:
    interrupted(INPUTS, 2)
    assert goes_on_at(INPUTS) == 2  # and this time it finished
    (folder,) = work_root().iterdir()
    sweep(work_root())
    assert (folder / FINISHED).exists(), "there is no dvc.lock: dvc died before its commit"
    dvc_lock(params={})
    sweep(work_root())
    assert folder.exists(), "dvc.lock has another result"
    assert goes_on_at(INPUTS) == 2
    dvc_lock()
    assert goes_on_at(INPUTS) == 0, "recorded: a forced run is a new run"


def test_a_folder_that_was_half_removed_is_no_folder() -> None:
    interrupted(INPUTS, 2)
    goes_on_at(INPUTS)
    (folder,) = work_root().iterdir()
    gone = folder.rename(folder.with_name(folder.name + GONE))
    (gone / "inputs.json").unlink()
    dvc_lock()
    assert goes_on_at(INPUTS) == 0
    assert GONE not in " ".join(path.name for path in work_root().iterdir())


def test_a_result_of_other_files_is_not_this_one() -> None:
    dvc_lock(deps=[{"path": "data/prompts.jsonl", "md5": "older"}])
    stages = YAML(typ="safe", pure=True).load(Path("dvc.lock").read_text())["stages"]
    assert not recorded({"step": "grpo_final", "params": INPUTS.params, "lock": INPUTS.lock}, stages)


def test_a_second_process_is_told_who_is_first() -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import sys
                from pathlib import Path
                from chainforge.run.exclusive import exclusive
                with exclusive(Path("lock"), "grpo_final"):
                    print("held", flush=True)
                    sys.stdin.read()
                """
            ),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout
    holder.stdout.readline()
    from chainforge.run.exclusive import exclusive

    with (
        pytest.raises(ChainForgeError, match=f"already running: PID {holder.pid}"),
        exclusive(Path("lock"), "grpo_final"),
    ):
        pass
    holder.kill()
    holder.communicate()
    with exclusive(Path("lock"), "grpo_final"):
        pass  # the operating system let go of a killed one's


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_saves_and_then_stops(number: signal.Signals, name: str) -> None:
    with pytest.raises(Stopped, match=name):
        signalled(number)
    assert goes_on_at(INPUTS) == 4
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


def test_a_second_ctrl_c_stops_at_once() -> None:
    with open_work(INPUTS, RUNTIME):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


STEP_OF_DVC = """
import sys, time
from chainforge.run.stopping import Stopping
stopping = Stopping()
print(stopping.reason, flush=True)
while not stopping.reason:
    time.sleep(0.01)
print(stopping.reason, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["exec {}", "{}; true"], ids=["replaced", "stays"])
def test_a_step_whose_dvc_has_died_is_to_stop_whatever_shell_is_between(shell: str, tmp_path: Path) -> None:
    """`dvc` is a process that starts a shell with the step, and is killed."""
    (tmp_path / "step.py").write_text(STEP_OF_DVC)
    command = shell.format(f"{sys.executable} step.py")
    environment = "env=os.environ | {'DVC_STAGE': 'step'}"
    start = f"import os, subprocess; subprocess.run(['sh', '-c', {command!r}], {environment})"
    with subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True) as dvc:
        assert dvc.stdout
        assert dvc.stdout.readline() == "None\n"
        dvc.kill()
        assert dvc.stdout.readline() == "dvc is gone\n"


def test_saves_come_no_more_often_than_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    work = Work(tmp_path, every_s=10)
    work.attach(counter=Counter())
    saved = []
    for second in range(0, 31, 2):
        now[0] = float(second)
        work.safe_point()
        saved.append(len(list(tmp_path.glob("*.pt"))))
    assert saved == [0] * 5 + [1] * 5 + [2] * 6
    assert json.dumps(sorted(p.name for p in tmp_path.iterdir())) == '["1.pt", "2.pt"]'
