"""DVC's own pictures: each shows what its file is for, nothing adds up over benches, none is blank unsaid."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from chainforge.loops.sft import COLUMNS

LENGTH = 3


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, dict[str, Any]]:
    """What `dvc plots show` would draw, by name, in a project that has run."""
    folder = tmp_path_factory.mktemp("plots")
    Repo.init(str(folder), no_scm=True).close()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(root / name, folder / name)
    shutil.copytree(root / ".dvc/plots", folder / ".dvc/plots")
    for name in ("sft_cold_start", "sft_refine", "distill/qwen_distilled_student"):
        write(folder / f"plots/{name}.csv", COLUMNS)
    for name in ("grpo_reasoning", "grpo_final"):
        columns = ("reward", "completions/mean_length", "entropy", "kl", "grad_norm", "learning_rate")
        write(folder / f"plots/{name}.csv", columns)
    (folder / "reports").mkdir()
    rows = [f"{c},{b},{rate}\n" for c in ("one", "two") for b, rate in (("easy", 0.5), ("hard", 0.25))]
    (folder / "reports/stages.csv").write_text("checkpoint,bench,pass_at_1\n" + "".join(rows))
    command = (sys.executable, "-m", "dvc", "plots", "show", "--json")
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    data = json.loads(ended.stdout)["data"]
    return {name: read(drawn[0]["content"]) for name, drawn in data.items() if drawn}


def read(content: Any) -> dict[str, Any]:
    """A picture as Vega-Lite has it."""
    found: dict[str, Any] = json.loads(content) if isinstance(content, str) else content
    return found


def write(path: Path, columns: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(("step", *columns)), *(",".join(["1"] * (len(columns) + 1)) for _ in range(LENGTH))]
    path.write_text("\n".join(lines) + "\n")


def axes(node: Any, axis: str) -> Iterator[str]:
    """Every field that a picture draws along an axis."""
    if isinstance(node, dict):
        if isinstance(node.get(axis), dict) and "field" in node[axis]:
            yield node[axis]["field"]
        for value in node.values():
            yield from axes(value, axis)
    elif isinstance(node, list):
        for value in node:
            yield from axes(value, axis)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "column", "runs"),
    [
        ("SFT loss", "loss", 2),
        ("Reward", "reward", 2),
        ("Completion length", "completions/mean_length", 2),
        ("Entropy", "entropy", 2),
        ("KL to the reference", "kl", 2),
        ("plots/sft_cold_start.csv", "loss", 1),
        ("plots/sft_refine.csv", "loss", 1),
        ("plots/distill/qwen_distilled_student.csv", "loss", 1),
        ("plots/grpo_reasoning.csv", "reward", 1),
        ("plots/grpo_final.csv", "reward", 1),
    ],
)
def test_a_curve_is_of_what_its_name_promises(
    name: str, column: str, runs: int, pictures: dict[str, dict[str, Any]]
) -> None:
    assert set(axes(pictures[name], "x")) == {"step"}
    assert set(axes(pictures[name], "y")) == {column}
    assert len(pictures[name]["data"]["values"]) == LENGTH * runs


@pytest.mark.slow
def test_each_bench_has_bars_of_its_own(pictures: dict[str, dict[str, Any]]) -> None:
    drawn = pictures["reports/stages.csv"]["encoding"]
    assert (drawn["x"]["field"], drawn["y"]["field"]) == ("pass_at_1", "checkpoint")
    assert drawn["row"]["field"] == "bench"
    assert drawn["y"]["sort"] is None, "the order of the recipe"


def test_every_plot_of_the_graph_names_what_it_shows(root: Path) -> None:
    graph = YAML(typ="safe", pure=True).load((root / "dvc.yaml").read_text())
    plots = [
        properties
        for stanza in graph["stages"].values()
        for plot in stanza.get("do", stanza).get("plots", [])
        for properties in plot.values()
    ]
    assert len(plots) == 6
    assert all({"x", "y"} <= set(properties) for properties in plots)


def test_the_page_of_plots_says_what_it_needs(root: Path) -> None:
    page = (root / ".dvc/plots_page.html").read_text()
    assert re.search(
        r"^\s*html_template = plots_page[.]html$", (root / ".dvc/config").read_text(), re.MULTILINE
    )
    notice = page.index("needs no network")
    assert page.index("{plot_divs}") > page.index("{scripts}") > notice
