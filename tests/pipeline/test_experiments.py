"""A grid of experiments in DVC's queue, the table of them, and two of them compared; see replay.py."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import replay
from clone import Clone, Finished, copy_clone

pytestmark = pytest.mark.slow

VALUES = (0.05, 0.1, 0.2)
TARGET = "evaluate@qwen_rl_ckpt_stage2-reasoning"  # the first RL step, and one cell


@pytest.fixture(scope="module")
def grid(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A finished clone with committed results, and three experiments that ran in the queue."""
    folder = tmp_path_factory.mktemp("grid")
    clone = copy_clone(finished.clone, folder / "copy")
    clone.commit("with results")
    replay.install(finished.clone.folder, folder / "bin")
    clone = replace(clone, path=(str(folder / "bin"),))
    choice = f"grpo.kl_coeff=choice({','.join(map(str, VALUES))})"
    clone.run("dvc", "exp", "run", "--queue", "-S", choice, TARGET)
    assert clone.run("dvc", "queue", "status").count("Queued") == 3
    clone.run("dvc", "exp", "run", "--run-all")
    return clone


def by_value(clone: Clone) -> dict[float, str]:
    """The experiments' names by grpo.kl_coeff, as `dvc exp show` has it."""
    told = clone.run("dvc", "exp", "show", "--json")
    _, baseline = json.loads(told[told.index("[") :])
    found = {}
    for entry in baseline["experiments"]:
        (made,) = entry["revs"]
        found[made["data"]["params"]["params.yaml"]["data"]["grpo"]["kl_coeff"]] = entry["name"]
    return found


def compare(clone: Clone, *arguments: str, fails: bool = False) -> str:
    return clone.run("chainforge", "compare", *arguments, fails=fails)


def test_every_value_of_the_grid_is_an_experiment(grid: Clone) -> None:
    assert sorted(by_value(grid)) == sorted(VALUES)


def test_the_table_has_a_line_per_experiment_with_what_differs(grid: Clone) -> None:
    lines = {
        line.split()[0]: line for line in grid.run("chainforge", "experiments").splitlines() if line.strip()
    }
    for value, name in by_value(grid).items():
        assert f" {value} " in lines[name]
    assert {"workspace", "master"} & set(lines)
    assert max(map(len, lines.values())) <= 160


def test_two_experiments_are_compared_without_a_checkout(grid: Clone) -> None:
    names = by_value(grid)
    before = grid.sha256("data", "checkpoints")
    said = compare(grid, names[0.05], names[0.2])
    assert re.search(r"grpo\.kl_coeff +0\.05 → 0\.2", said)
    assert "plugin" not in said.split("checkpoint")[0]
    assert re.search(r"qwen_sft_ckpt +reasoning +20 .* same answers", said)
    assert re.search(r"qwen_rl_ckpt_stage2 +reasoning +20 ", said)
    careful = said.split("Careful, ")[1]
    assert "qwen_rl_ckpt_stage2 on general" in careful, "only the cell that was asked for ran again"
    assert "qwen_rl_ckpt_stage2 on reasoning" not in careful
    assert grid.sha256("data", "checkpoints") == before


def test_one_cell_as_json(grid: Clone) -> None:
    name = by_value(grid)[0.1]
    chosen = ("--checkpoint", "qwen_rl_ckpt_stage2", "--bench", "reasoning", "--json")
    told = json.loads(compare(grid, "HEAD", name, *chosen))
    (cell,) = told["cells"]
    assert told["settings"] == {"grpo.kl_coeff": {"a": 0.01, "b": 0.1}}
    assert (cell["n"], cell["n_a"], cell["n_b"]) == (20, 20, 20)
    assert cell["ci95_lo"] <= cell["difference"] <= cell["ci95_hi"]
    assert told["outdated"] == {"HEAD": [], name: []}


def test_the_workspace_is_the_default(grid: Clone) -> None:
    said = compare(grid, "HEAD")
    assert "No setting, plugin or code differs" in said
    assert said.count("same answers") == 4


@pytest.mark.parametrize(
    ("arguments", "problem", "fix"),
    [
        (("nobody",), "no experiment or git revision 'nobody'", "dvc exp list"),
        (("HEAD~1",), "HEAD~1 has no evaluations: there is no dvc.lock in its commit", "git add dvc.lock"),
        (("HEAD", "--bench", "reasonin"), "no bench called 'reasonin'", "did you mean 'reasoning'"),
        (("HEAD", "--checkpoint", "x"), "no checkpoint called 'x'", "known: qwen_rl_ckpt_stage2"),
    ],
)
def test_what_cannot_be_compared_is_told_plainly(
    grid: Clone, arguments: tuple[str, ...], problem: str, fix: str
) -> None:
    said = compare(grid, *arguments, fails=True)
    assert problem in said
    assert fix in said
    assert "Traceback" not in said


def test_answers_that_the_cache_has_lost_are_told_plainly(grid: Clone, tmp_path: Path) -> None:
    clone = copy_clone(grid, tmp_path / "copy")
    for path in (clone.folder / ".dvc/cache/files/md5").glob("??/*"):
        path.unlink()
    said = compare(clone, by_value(clone)[0.05], fails=True)
    assert "DVC's cache has no data/eval/qwen_sft_ckpt/reasoning.jsonl of" in said
    assert "-> dvc exp apply" in said
    assert "Traceback" not in said


def test_an_edited_setting_that_has_not_run_is_told(grid: Clone, tmp_path: Path) -> None:
    clone = copy_clone(grid, tmp_path / "copy")
    clone.put("grpo_reasoning.num_rl_steps", 7)
    said = compare(clone, "HEAD")
    assert re.search(r"grpo_reasoning\.num_rl_steps +\d+ → 7", said)
    assert "Careful, workspace: other settings or inputs than now made qwen_rl_ckpt_stage2" in said
