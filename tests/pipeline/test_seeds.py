"""Seeds, twins and comparisons over seeds: real DVC experiments, the real graph, stand-ins for the work.

`make test` runs one seed; `make test-all` what takes several.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import standin
from clone import Clone, copy_clone, environment, make_clone

pytestmark = pytest.mark.slow

ASLEEP = "in the middle of its work"
# The answers of the stand-in, some right and some wrong by the settings that made them; a curve; and a pause.
EDIT = (
    (
        '    return [problem | {"samples": [sample], "greedy": None} for problem in asked]',
        """    import hashlib

    def graded(i: int) -> dict[str, object]:
        right = float(hashlib.sha256(f"{mark}{i}".encode()).digest()[0] < 100)
        return sample | {"rewards": {"correct": right, "format": 1.0}}

    return [p | {"samples": [graded(i)], "greedy": None} for i, p in enumerate(asked)]""",
    ),
    (
        "    name = sys.argv[1]\n",
        '    name = sys.argv[1]\n    if name == "grpo_reasoning" and Path("slow").exists():\n'
        f"        import time\n\n        print('{ASLEEP}', flush=True)\n        time.sleep(60)\n",
    ),
    (
        "    path.write_text(text.get(",
        '    if path.parts[0] == "plots":\n'
        '        text[".csv"] = f"step,reward\\n1,{digits}\\n2,{digits % 7}"\n'
        "    path.write_text(text.get(",
    ),
)
TARGET = "evaluate@qwen_rl_ckpt_stage2-reasoning"
CELL = ("--checkpoint", "qwen_rl_ckpt_stage2", "--bench", "reasoning")


def make_ready(folder: Path, path: tuple[str, ...]) -> Clone:
    clone = replace(make_clone(folder), path=path)
    standin.install(clone.folder)
    for old, new in EDIT:
        clone.edit("stages/standin.py", old, new)
    clone.commit("stand-ins")
    return clone


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, stand_by: tuple[str, ...]) -> Clone:
    """Nothing has run."""
    return make_ready(tmp_path_factory.mktemp("ready") / "clone", stand_by)


def make_seeded(folder: Path, path: tuple[str, ...]) -> None:
    clone = make_ready(folder, path)
    for setting in ("grpo.kl_coeff=0", "grpo.kl_coeff=0.05"):
        clone.run("chainforge", "seeds", "17", "18", "-S", setting, "--target", TARGET)
    twins = ("17", "-S", "grpo.kl_coeff=0", "--twins", "1", "--target", TARGET)
    clone.run("chainforge", "seeds", *twins)


@pytest.fixture(scope="module")
def seeded(made_once: Callable[[str, Callable[[Path], None]], Path], stand_by: tuple[str, ...]) -> Clone:
    """Look, but do not touch: two settings with two seeds, and a twin."""
    return Clone(made_once("seeded", lambda folder: make_seeded(folder, stand_by)), stand_by)


@pytest.fixture
def clone(seeded: Clone, tmp_path: Path) -> Clone:
    return copy_clone(seeded, tmp_path / "copy")


def names(clone: Clone) -> set[str]:
    return set(clone.run("dvc", "exp", "list", "--name-only").split())


def told(clone: Clone, *arguments: str) -> dict[str, Any]:
    text = clone.run("chainforge", *arguments, "--json")
    found: dict[str, Any] = json.loads(text[text.index("{") :])
    return found


def test_a_seed_runs_once_as_an_experiment_that_its_name_tells(ready: Clone, tmp_path: Path) -> None:
    """Its copy of the project has no `inputs/`, as git ignores that: it is linked."""
    clone = copy_clone(ready, tmp_path / "copy")
    (clone.folder / "inputs").mkdir()
    (clone.folder / "inputs/sums.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n' * 99)
    of_mine = {"plugin": "jsonl", "train": "inputs/sums.jsonl", "eval": "inputs/sums.jsonl"}
    clone.put("prompts.reasoning.source", of_mine)
    clone.commit("prompts of mine")
    command = ("chainforge", "seeds", "17", "-S", "grpo.kl_coeff=0", "--target", TARGET)
    assert "really ran evaluate@qwen_rl_ckpt_stage2-reasoning" in clone.run(*command)
    assert names(clone) == {"grpo.kl_coeff-0-seed17"}
    assert clone.run("git", "status", "--porcelain") == "", "the workspace is as it was"
    assert (clone.folder / "inputs/sums.jsonl").is_file(), "DVC has removed its copy, and no more"
    assert "[1/1] grpo.kl_coeff-0-seed17 is there" in clone.run(*command)
    assert names(clone) == {"grpo.kl_coeff-0-seed17"}


@pytest.mark.long
def test_every_seed_is_an_experiment_that_its_name_tells(seeded: Clone) -> None:
    assert names(seeded) == {
        *(f"grpo.kl_coeff-{value}-seed{seed}" for value in ("0", "0.05") for seed in (17, 18)),
        "grpo.kl_coeff-0-seed17-twin1",
    }
    assert seeded.run("git", "status", "--porcelain") == "", "the workspace is as it was"


@pytest.mark.long
def test_what_is_there_does_not_run_again_and_what_is_missing_does(clone: Clone) -> None:
    said = clone.run("chainforge", "seeds", "17", "19", "-S", "grpo.kl_coeff=0", "--target", TARGET)
    assert "[1/2] grpo.kl_coeff-0-seed17 is there" in said
    assert re.search(r"\[2/2\] grpo[.]kl_coeff-0-seed19 done in", said)
    assert "really ran" in said
    assert "grpo.kl_coeff-0-seed19" in names(clone)


@pytest.mark.long
def test_other_code_runs_again_under_a_name_of_its_own(clone: Clone) -> None:
    before = names(clone)
    with (clone.folder / "stages/standin.py").open("a") as file:
        file.write("# other code\n")
    clone.run("chainforge", "seeds", "17", "-S", "grpo.kl_coeff=0", "--target", TARGET)
    assert names(clone) - before == {"grpo.kl_coeff-0-seed17-2"}


@pytest.mark.long
def test_two_settings_are_compared_over_their_seeds(seeded: Clone) -> None:
    over = ("--over", "run.seed", *CELL)
    said = seeded.run("chainforge", "compare", "grpo.kl_coeff=0", "grpo.kl_coeff=0.05", *over)
    assert re.search(r"over 2 seeds can(not)? be told from noise", said)
    (cell,) = told(seeded, "compare", "grpo.kl_coeff-0", "grpo.kl_coeff-0.05", *over)["cells"]
    assert (cell["seeds"], cell["problems"]) == ([17, 18], 80)
    assert cell["difference"]["lo"] <= cell["difference"]["mean"] <= cell["difference"]["hi"]
    (same,) = told(seeded, "compare", "grpo.kl_coeff=0", "grpo.kl_coeff-0", *over)["cells"]
    assert (same["difference"]["mean"], same["clear"]) == (0, False)


@pytest.mark.long
def test_seeds_stand_side_by_side_without_the_twin(seeded: Clone) -> None:
    first, second = told(seeded, "seeds")["groups"]
    assert [run["seed"] for run in first["runs"]] == [17, 18]
    assert {first["settings"].get("grpo.kl_coeff", 0)} | {second["settings"]["grpo.kl_coeff"]} <= {0, 0.05}
    for cell in first["cells"]:
        assert cell["ci95_lo"] <= cell["mean"] == sum(cell["by_seed"].values()) / 2 <= cell["ci95_hi"]
    assert "| seed 17 | seed 18 |" in re.sub(" +", " ", seeded.run("chainforge", "seeds"))


@pytest.mark.long
def test_a_twin_differs_by_rounding_and_the_figure_shows_it(clone: Clone) -> None:
    command = ("chance", "grpo.kl_coeff=0", "grpo.kl_coeff=0.05", "--output", "chance.svg")
    rows = told(clone, *command)["spreads"]
    assert [len(row["runs"]) for row in rows] == [2, 2, 2]
    assert set(rows[0]["runs"]) == {"grpo.kl_coeff-0-seed17", "grpo.kl_coeff-0-seed17-twin1"}
    drawn = (clone.folder / "chance.svg").read_text()
    assert "rounding, seed 17" in drawn
    clone.run("chainforge", *command)
    assert (clone.folder / "chance.svg").read_text() == drawn


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_half(clone: Clone, number: signal.Signals) -> None:
    (clone.folder / "slow").touch()
    clone.commit("slow")
    command = ["chainforge", "seeds", "21", "--target", TARGET]
    log = clone.folder.parent / "said"
    with log.open("w") as said:
        process = subprocess.Popen(
            command, cwd=clone.folder, env=environment(), stdout=said, stderr=said, start_new_session=True
        )
        deadline = time.monotonic() + 300
        while ASLEEP not in log.read_text() and time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.wait(60) != 0
    assert "Traceback" not in log.read_text()
    assert not names(clone)
    assert clone.run("git", "status", "--porcelain") == ""
    assert not list((clone.folder / ".dvc/tmp/exps/standalone").glob("tmp*")), "the copy is deleted"


@pytest.mark.parametrize(
    ("arguments", "problem", "fix"),
    [
        (("seeds", "-S", "grpo.kl_coeff=0"), "no seed is named", "chainforge seeds 17"),
        (("seeds", "17", "-S", "grpo.kl_coef=0"), "kl_coef", "docs/settings.md"),
        (("seeds", "17", "--twins", "1", "--nudge", "run.seed"), "learning rate", "--nudge"),
        (("compare", "grpo.kl_coeff=7", "HEAD", "--over", "run.seed"), "no run that has ended", "seeds 17"),
    ],
)
def test_what_cannot_be_done_is_told_plainly(
    ready: Clone, arguments: tuple[str, ...], problem: str, fix: str
) -> None:
    cannot(ready, arguments, problem, fix)


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "problem", "fix"),
    [
        (("compare", "run.threads=1", "grpo", "--over", "run.seed"), "differ in more than", "name one"),
        (("chance", "grpo.kl_coeff=0.05"), "no run has a twin", "--twins 3"),
    ],
)
def test_what_cannot_be_done_with_these_runs_is_told_plainly(
    seeded: Clone, arguments: tuple[str, ...], problem: str, fix: str
) -> None:
    cannot(seeded, arguments, problem, fix)


def cannot(clone: Clone, arguments: tuple[str, ...], problem: str, fix: str) -> None:
    said = clone.run("chainforge", *arguments, fails=True)
    assert problem in said
    assert fix in said
    assert "Traceback" not in said
