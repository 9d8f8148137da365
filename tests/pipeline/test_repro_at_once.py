"""Steps at once, with DVC and a small graph of shell commands: a → (b and c) → d.

test_repro_command.py has the steps of the recipe.
"""

import os
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest
from clone import AUTHOR, Clone, copy_clone
from interrupting import kill, start, wait_for
from ruamel.yaml import YAML

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="on Linux only")]

# Both say that they have started and wait for the other's word, 30 seconds at most: one alone fails.
MEETS = "touch {0}.started; for i in $(seq 300); do test -e {1}.started && break; sleep 0.1; done; "
MEETS += "echo {0} began; test -e {1}.started && cat a > {0}; sleep 0.2; echo {0} ends; test -e {0}"
COMMANDS = {
    "a": ("echo 1 > a", []),
    "b": (MEETS.format("b", "c"), ["a"]),
    "c": (MEETS.format("c", "b"), ["a"]),
    "d": ("cat b c > d", ["b", "c"]),
}


@pytest.fixture
def small(tmp_path: Path) -> Clone:
    """A git repository with DVC and that graph."""
    clone = Clone(tmp_path / "small")
    clone.folder.mkdir()
    clone.run("git", "init", "--quiet")
    clone.run("dvc", "init", "--quiet")
    write_graph(clone)
    clone.run("git", "add", "--all")
    clone.run("git", *AUTHOR, "commit", "--quiet", "--message", "start")
    return clone


def write_graph(clone: Clone, **commands: str) -> None:
    stages = {
        name: {"cmd": commands.get(name, command), "deps": deps, "outs": [name]}
        for name, (command, deps) in COMMANDS.items()
    }
    with (clone.folder / "dvc.yaml").open("w") as file:
        YAML().dump({"stages": stages}, file)


def recorded(clone: Clone) -> list[str]:
    return list(YAML(typ="safe").load((clone.folder / "dvc.lock").read_text())["stages"])


def test_two_run_at_once_and_the_bytes_are_those_of_dvc_repro(small: Clone, tmp_path: Path) -> None:
    usual = copy_clone(small, tmp_path / "usual")
    (usual.folder / "c.started").touch()
    usual.run("dvc", "repro")
    said = small.run("chainforge", "repro", "--jobs", "2")
    assert recorded(small) == ["a", "b", "c", "d"]
    assert (small.folder / "dvc.lock").read_bytes() == (usual.folder / "dvc.lock").read_bytes()
    assert re.search("b began\nb ends\n", said), "one piece, and not mixed with the other's"
    assert re.search("c began\nc ends\n", said)
    again = small.run("chainforge", "repro", "--jobs", "2")
    assert again.strip() == "Nothing has changed since the last run."
    assert "didn't change" in small.run("dvc", "repro"), "DVC agrees"


def test_only_what_has_changed_runs(small: Clone) -> None:
    small.run("chainforge", "repro", "--jobs", "2")
    write_graph(small, c="cat a a > c")
    said = small.run("chainforge", "repro", "--jobs", "2")
    assert re.findall("Running stage '(.)'", said) == ["c", "d"]


def test_a_step_that_fails_stops_no_other_and_none_starts(small: Clone) -> None:
    write_graph(
        small,
        b="until test -e c.started; do sleep 0.1; done; exit 3",
        c="touch c.started; sleep 1; cat a > c",
    )
    said = small.run("chainforge", "repro", "--jobs", "2", fails=True)
    assert "failed to reproduce 'b'" in said
    assert recorded(small) == ["a", "c"]
    assert not (small.folder / "d").exists()
    write_graph(small, b="cat a > b", c="touch c.started; sleep 1; cat a > c")
    assert re.findall("Running stage '(.)'", small.run("chainforge", "repro", "--jobs", "2")) == ["b", "d"]


def test_targets_are_those_of_dvc_repro(small: Clone) -> None:
    (small.folder / "b.started").touch()
    small.run("chainforge", "repro", "--jobs", "3", "c")
    assert recorded(small) == ["a", "c"]
    assert "no_step" in small.run("chainforge", "repro", "--jobs", "2", "no_step", fails=True)


@pytest.mark.parametrize("graph", ["stages: [", "a: !!float x"])
def test_a_graph_that_dvc_cannot_read_is_told_by_dvc(small: Clone, graph: str) -> None:
    (small.folder / "dvc.yaml").write_text(graph)
    told = (
        small.run("chainforge", "repro", *jobs, fails=True) for jobs in (("--jobs", "2"), ("--jobs", "1"))
    )
    assert len(set(told)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_of_dvc_outlives_it(small: Clone, number: signal.Signals) -> None:
    write_graph(small, b="touch b.started; exec sleep 1000", c="touch c.started; exec sleep 1000")
    process = start(small, "chainforge", "repro", "--jobs", "2")
    try:
        wait_for(lambda: len(list(small.folder.glob("*.started"))) == 2, process)
        children = psutil.Process(process.pid).children()
        assert len(children) == 3, "two of DVC, and what steps are forked from"
        os.kill(process.pid, number)
        process.wait(30)
        assert not psutil.wait_procs(children, 30)[1]
    finally:
        kill(process)
