"""The first pages: what takes seconds is typed as a reader would, in the order of the page."""

import re
from pathlib import Path

import pytest
from fakes import SUPERCOT, TEXTS, prompt
from fresh import Fresh, make_project
from tree import ROOT

from chainforge.config.loading import read_params
from chainforge.jsonl import write_rows
from chainforge.project.graph import read_graph

pytestmark = pytest.mark.slow
TARGET = "evaluate@qwen_rl_ckpt_stage2-reasoning"
LEFT_OUT = ("chainforge compare", "git ", ". .venv")  # for want of results, or done by the fixture


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def quick(page: str) -> list[str]:
    """The lines that take seconds. An experiment goes no further than its first step, which reads it all."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    lines = [line.partition("  #")[0].strip() for line in lines if not line.startswith(LEFT_OUT)]
    return [f"{line.removesuffix(TARGET)} lock" if line.startswith("dvc exp run") else line for line in lines]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    return make_project(tmp_path_factory.mktemp("first"))


def test_the_first_plugin_is_found_checked_and_taken(fresh: Fresh) -> None:
    (code,) = blocks("first-plugin.md", "python")
    fresh.write("plugins/reward_true_steps.py", code)
    asked = [prompt(number) for number in range(1, 6)]
    answers = [{"text": text} for text in TEXTS]
    rows = [
        {
            "prompt_id": p.id,
            "source": p.source,
            "question": p.messages[-1]["content"],
            "answer": p.answer,
            "samples": answers,
            "greedy": None,
        }
        for p in asked
    ]
    write_rows(fresh.folder / "data/eval/qwen_sft_ckpt/reasoning.jsonl", rows)
    fresh.write(
        "logs/outputs.txt", "data/eval/qwen_sft_ckpt/reasoning.jsonl\n"
    )  # as a step notes what it makes
    said = {line: fresh.run(line) for line in quick("first-plugin.md")}
    assert len(said) == 4
    assert re.search(r"^true_steps +reward ", said["chainforge plugins list"], re.MULTILINE)
    checks = [text for line, text in said.items() if "plugins check" in line]
    assert all("\nok " in text and "FAILED" not in text for text in checks)
    assert "rewards:true_steps" in (fresh.folder / "plugins.lock.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("reasoning", "worth"), [("6*7=42.", 1.0), ("6*7=41. 1+1=2.", 0.5), ("2-5=-3.", 1.0), ("So.", 0.0)]
)
def test_the_first_plugin_sees_right_and_wrong_sums(fresh: Fresh, reasoning: str, worth: float) -> None:
    (code,) = blocks("first-plugin.md", "python")
    names: dict[str, object] = {}
    exec(code, names)
    text = SUPERCOT.render(reasoning, "42")
    assert names["true_steps"](completions=[text, "none"], response_format=SUPERCOT) == [worth, 0.0]  # type: ignore[operator]


def test_what_the_page_says_runs_again_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every step of the graph, docs/first-change.md says rightly whether `grpo.kl_coeff` reaches it."""
    monkeypatch.chdir(root)
    graph, tiny = read_graph(), read_params()

    def real(path: str) -> str:
        for dotted in re.findall(r"^\$\{([\w.]+)\}$", path):
            section, key = dotted.split(".")
            return str(tiny[section][key])
        return path

    reached, made = {name for name, step in graph.items() if "grpo" in step.sections}, set[str]()
    for _ in graph:
        made |= {real(out.path) for name in reached for out in graph[name].outs}
        deps = {name: {real(dep) for dep in step.deps} for name, step in graph.items()}
        reached |= {
            name for name in graph if any(f"{m}/".startswith(f"{d}/") for d in deps[name] for m in made)
        }
    table = (ROOT / "docs/first-change.md").read_text(encoding="utf-8").partition("## What it did")[0]
    named = set(re.findall(r"`([\w@]+)`", "".join(row for row in table.splitlines() if row[:3] == "| `")))
    cells = {name for name in graph if name.startswith("evaluate@")}
    assert reached - cells == named & graph.keys()
    started = ("evaluate@base-", "evaluate@qwen_sft_ckpt-", "evaluate@qwen_student_cold_start-")
    assert cells - reached == {name for name in cells if name.startswith(started)}
