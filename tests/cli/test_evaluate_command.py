"""`chainforge evaluate`: any folder on any problems, the same files as the graph, errors before work."""

import json
from pathlib import Path

import pytest
from a_project import Run
from fakes import policy

from chainforge.models.checkpoint import save_policy

OPTIONS = ("--samples", "2", "--max-new-tokens", "6")


@pytest.fixture
def model(project: Path) -> Path:
    save_policy(policy(), project / "inputs/model")
    (project / "sub/mine.jsonl").write_text(
        "".join(json.dumps({"question": f"{i}+{i}=?", "answer": f"so #### {2 * i}"}) + "\n" for i in range(3))
    )
    return project / "inputs/model"


@pytest.mark.slow
def test_a_folder_is_evaluated_on_a_file_and_leaves_what_the_graph_leaves(
    project: Path, model: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "sub")
    asked = ("../inputs/model", "--suite", "mine.jsonl", "--answer-pattern", "#### (.+)", *OPTIONS)
    said = json.loads(run("evaluate", *asked, "--limit", "2", "--out", "here", "--json").stdout)
    (row,) = said["results"]
    assert (row["checkpoint"], row["bench"], row["n"], row["k"]) == ("model", "mine", 2, 2)
    assert said["folder"] == str(project / "sub/here")
    here = project / "sub/here"
    rows = [json.loads(line) for line in (here / "mine.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in rows] == ["0", "2"]
    assert {len(row["samples"]) for row in rows} == {2}
    assert json.loads((here / "mine.json").read_text())["pass_at_2_ci95_hi"] is not None
    record = json.loads((here / "mine.record.json").read_text())
    assert record["sampling"]["max_new_tokens"] == 6
    assert record["prompts"]["count"] == 2
    assert "0+0=?" in record["template"]["example"]
    assert record["grader"]["rewards"]["correct"]["source"] == "plugins/reward_correct.py"
    before = (here / "mine.jsonl").read_bytes()
    table = run("evaluate", *asked, "--limit", "2", "--out", "here").stdout
    assert table.splitlines()[0] == "mine: 2 problems, 2 samples each"
    assert table.splitlines()[3].split()[0] == "model"
    assert (here / "mine.jsonl").read_bytes() == before
    assert not list((project / ".work").glob("evaluate*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("inputs/model", "--suite", "none"), "there is no suite called 'none'"),
        (("inputs/model", "--suite", "reasoning"), "make it: dvc repro bench@reasoning"),
        (("inputs/none", "--suite", "sub/mine.jsonl"), "there is no folder inputs/none"),
        (("inputs/model", "--suite", "sub/mine.jsonl", "--temperature", "0.001"), "0.001 is too cold"),
        (
            ("inputs/model", "--suite", "sub/mine.jsonl", "--reward", "none"),
            "there is no reward called 'none'",
        ),
    ],
)
@pytest.mark.usefixtures("model")
def test_what_cannot_be_evaluated_is_told(run: Run, arguments: tuple[str, ...], words: str) -> None:
    assert words in run("evaluate", *arguments, *OPTIONS, code=1).stderr


TASK = "gsm8k_cot_zeroshot=sub/gsm8k.jsonl"


def test_without_lm_eval_the_command_that_installs_it_is_told(
    model: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chainforge.cli.lm_eval_harness.find_spec", lambda name: None)
    said = run("evaluate", str(model), "--harness", "lm-eval", "--suite", TASK, code=1).stderr
    assert "needs the package lm-eval\n  -> pip install 'chainforge-r1[lm-eval]'" in said


@pytest.mark.slow
def test_a_task_of_lm_eval_on_a_local_file_stands_in_the_same_table(
    project: Path, model: Path, run: Run
) -> None:
    pytest.importorskip("lm_eval")
    rows = [{"question": f"{i}+{i}=?", "answer": f"{i}+{i}={2 * i}\n#### {2 * i}"} for i in range(3)]
    (project / "sub/gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ("--suite", "sub/gsm8k.jsonl", "--answer-pattern", "#### (.+)", "--suite", TASK)
    said = json.loads(run("evaluate", str(model), "--harness", "lm-eval", *asked, *OPTIONS, "--json").stdout)
    assert [(row["bench"], row["n"]) for row in said["results"]] == [
        ("gsm8k", 3),
        ("gsm8k_cot_zeroshot, lm-eval exact_match strict-match", 3),
        ("gsm8k_cot_zeroshot, lm-eval exact_match flexible-extract", 3),
    ]
    folder = project / "evaluations/model"
    assert len((folder / "gsm8k_cot_zeroshot.lm-eval.jsonl").read_text().splitlines()) == 6
    record = json.loads((folder / "gsm8k_cot_zeroshot.lm-eval.record.json").read_text())
    assert record["harness"].startswith("lm-eval 0.")
    none = "none=sub/gsm8k.jsonl"
    said = run("evaluate", str(model), "--harness", "lm-eval", "--suite", none, code=1).stderr
    assert "there is no task of lm-eval called 'none'" in said
