"""Laws of `chainforge trace` and `chainforge completions`, on a real run: nothing lost, nothing twice."""

import base64
import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from math import isclose
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from clone import Clone, Finished

from chainforge.completions.page import render_page
from chainforge.completions.parquet import write_parquet
from chainforge.completions.problems import read_problems, with_id, with_text
from chainforge.completions.rows import COLUMNS, find_completions
from chainforge.project.graph import read_graph
from chainforge.trace.gather import GATHER, gather
from chainforge.trace.text import as_text

pytestmark = pytest.mark.slow
GRPO = ("grpo_reasoning", "grpo_final")


@pytest.fixture
def here(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the run. Look, but do not touch."""
    monkeypatch.chdir(finished.clone.folder)
    return finished.clone.folder


def lines(path: str) -> int:
    return Path(path).read_bytes().count(b"\n")


def metrics(step: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"metrics/{step}.json").read_text())
    return found


def everything() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(prompt id, step, what the step says of it) of every problem that is trained on."""
    ids = [problem.prompt.id for problem in read_problems() if problem.split == "train"]
    assert len(ids) == 90
    for prompt_id in ids:
        for step in read_graph().values():
            if step.verb in GATHER and (facts := GATHER[step.verb](step, prompt_id, "correct")):
                yield prompt_id, step.name, facts


def test_every_training_problem_can_be_traced_and_together_they_are_all_there_is(here: Path) -> None:
    count: Counter[str] = Counter()
    for _, step, facts in everything():
        for name, value in facts.items():
            count[f"{step} {name}"] += len(value) if isinstance(value, list) else 1
        for decision in facts.get("decisions", ()):
            count[f"{step} {'kept' if decision['kept'] else 'dropped'}"] += 1
            assert decision["reason"] != "unknown"
        for example in facts.get("examples", ()):
            count[f"{step} {example['use']}"] += 1
    for collect, filtering, folder in (
        ("cot", "filter_cot", "cot"),
        ("general", "filter_general", "general"),
    ):
        assert count[f"collect_{collect} traces"] == lines(f"data/{folder}/traces.jsonl")
        told = metrics(filtering)
        assert (count[f"{filtering} kept"], count[f"{filtering} decisions"]) == (told["kept"], told["read"])
    for step in ("sft_cold_start", "sft_refine"):
        told = metrics(step)
        assert (count[f"{step} trained"], count[f"{step} held out"]) == (told["examples"], told["held_out"])
        assert told["held_out"] > 0
    for step in GRPO:
        assert count[f"{step} completions"] == 2 * 4 * 4, "RL steps, prompts, completions"
        assert count[f"{step} drawn"] == 2 * 4
    for step, output in (("rejection_sampling", "rejection"), ("distill_data", "distill")):
        told = metrics(step)
        assert count[f"{step} completions"] == told["read"]
        assert count[f"{step} accepted"] == told["kept"] == lines(f"data/{output}/accepted.jsonl")


def test_a_held_out_problem_has_every_checkpoints_answers(here: Path) -> None:
    (problem,) = (p for p in read_problems() if p.split == "eval" and p.line == 3 and "reasoning" in p.step)
    facts = gather(problem.prompt.id, with_id(problem.prompt.id)[problem.prompt.id])
    assert [step["checkpoint"] for step in facts["steps"]] == ["qwen_sft_ckpt", "qwen_rl_ckpt_stage2"]
    assert all(len(step["samples"]) == 2 and step["greedy"] for step in facts["steps"])
    assert facts["changed_since"] == []
    for width in (40, 80):
        text = as_text(facts, width=width)
        assert max(map(len, text.splitlines())) <= max(width, 60)
    assert len(as_text(facts, full=True)) >= len(as_text(facts))


def test_an_id_may_be_cut_and_a_text_be_sought(here: Path) -> None:
    problem = next(read_problems())
    name, asked = problem.prompt.id, problem.prompt.messages[-1]["content"]
    assert list(with_id(name)) == [name]
    assert name in with_id(name[:-1])
    assert name in with_id(name[1:-1])
    assert name in with_text(" ".join(asked.upper()))


def test_the_store_has_the_rewards_of_the_tables(here: Path) -> None:
    found = find_completions(GRPO)
    assert found.notes == ()
    rows = list(found.rows())
    assert all([*row] == [*COLUMNS, "rewards"] for row in rows)
    for step in GRPO:
        with Path(f"plots/{step}.csv").open(newline="") as table:
            for told in csv.DictReader(table):
                its = [r for r in rows if r["step"] == step and r["iteration"] == int(told["step"])]
                assert isclose(fmean(row["total"] for row in its), float(told["reward"]), rel_tol=1e-5)
                assert sum(row["tokens"] for row in its) == float(told["num_tokens"])
                assert len({float(row["total"]) for row in its}) > 1


def test_the_parquet_file_has_every_completion_and_pandas_opens_it(here: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    found = find_completions()
    count = write_parquet(found, tmp_path / "all.parquet")
    table = pandas.read_parquet(tmp_path / "all.parquet")
    assert len(table) == count == sum(1 for _ in found.rows())
    assert [name for name in table if not name.startswith("rewards/")] == [*COLUMNS]
    evaluated = table[table.kind == "answer"].groupby("step").right.mean()
    for step, share in evaluated.items():
        checkpoint, _, bench = str(step).partition("@")[2].rpartition("-")
        assert isclose(share, metrics(f"eval/{checkpoint}/{bench}")["pass_at_1"], abs_tol=1e-9)


def test_the_page_runs_its_own_script_and_no_text_ends_its_data(here: Path) -> None:
    page, shown, total = render_page(find_completions(), 100_000)
    assert shown == total
    data, script = re.findall(r"<script[^>]*>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in page
    assert not re.search(r"(src|href)=|https?:|innerHTML", page.replace(data, ""))
    assert not set("<>&") & set(data)
    assert len(json.loads(data)["rows"]) == total
    assert abs(render_page(find_completions(), 50)[1] - 50) <= 1


def test_completions_of_another_run_are_not_taken_for_those_of_this_one(copy: Clone) -> None:
    copy.edit(
        "plots/grpo_final.csv",
        next(t for t in (copy.folder / "plots/grpo_final.csv").read_text().split("\n") if t.startswith("2,")),
        "2,7.5",
    )
    said = copy.run("chainforge", "completions", "export", "all.parquet")
    assert "left out: what is kept of grpo_final is of another run: RL step 2 has a mean reward of" in said
    said = copy.run("chainforge", "trace", next(read_drawn(copy)))
    assert "is of another run" in said


def read_drawn(clone: Clone) -> Iterator[str]:
    """Prompts that grpo_final drew."""
    from chainforge.completions.kept import read_kept

    path = clone.folder / "logs/completions/grpo_final/000001.jsonl.gz"
    yield from (row["prompt_id"] for row in read_kept(path))
