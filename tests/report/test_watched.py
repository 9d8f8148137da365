"""The page shows what a watch saw, and nothing of it where no step watched."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from chainforge.errors import ChainForgeError
from chainforge.report.subject import Subject
from chainforge.report.write import write_report

NAME = "Rewarded, yet wrong"
WRONG = {
    "prompt_id": "held-1",
    "prompt": "6 * 7? <script>",
    "answer": "42",
    "completion": "<b>41</b></pre></details> \u202e",
    "reward": 1.2,
    "rewards": {"correct": 1.0, "format": None},
}


def page_of(root: Path, out: Path, subject: Subject) -> str:
    write_report(root=root, out=out, subject=subject)
    return (out / "index.html").read_text(encoding="utf-8")


def watch(root: Path, summary: dict[str, Any] | None) -> None:
    """Let grpo_final have looked at every tenth step."""
    path = root / "plots" / "grpo_final.csv"
    with path.open(encoding="utf-8", newline="") as file:
        names, *rows = list(csv.reader(file))
    looks = [[f"{n / 40}", f"{1 - n / 40}"] if n % 10 == 0 else ["", ""] for n in range(len(rows))]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = [[*row, *look] for row, look in zip(rows, looks, strict=True)]
        csv.writer(file).writerows([[*names, "watch/reward", "watch/grader"], *table])
    if summary is not None:
        (root / "metrics" / "grpo_final.json").write_text(json.dumps(summary), encoding="utf-8")


@pytest.mark.slow
def test_a_step_that_did_not_watch_adds_no_byte(root: Path, tmp_path: Path, subject: Subject) -> None:
    before = page_of(root, tmp_path / "before", subject)
    for step in ("grpo_reasoning", "grpo_final"):
        (root / "metrics" / f"{step}.json").write_text('{"reward": 0.5}', encoding="utf-8")
    assert page_of(root, tmp_path / "after", subject) == before
    assert NAME not in before
    assert "#watch" not in before


@pytest.mark.slow
def test_what_is_rewarded_and_wrong_is_shown_and_never_run(
    root: Path, tmp_path: Path, subject: Subject
) -> None:
    watch(root, {"reward": 0.5, "watch": [WRONG, {**WRONG, "prompt_id": "held-2", "answer": None}]})
    page = page_of(root, tmp_path / "out", subject)
    assert page == page_of(root, tmp_path / "again", subject)
    assert "6 * 7? &lt;script&gt;" in page
    assert "&lt;b&gt;41&lt;/b&gt;&lt;/pre&gt;&lt;/details&gt;" in page
    assert "<b>41" not in page
    assert "\u202e" not in page
    assert page.index("held-1") < page.index("held-2")
    assert "The 2 highest-rewarded completions of the last look" in page
    shown = page[page.index('<section id="watch"') : page.index('<section id="families"')]
    assert shown.count("<svg") == 1
    assert "grpo_reasoning" not in shown
    assert shown.count("Reference answer: <code>42</code>") == 1
    assert "<details open" not in shown
    assert "<span>correct 1</span><span>format –</span>" in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("summary", "said"),
    [
        ({"watch": []}, "the grader called no completion wrong"),
        ({"reward": 0.5}, "metrics/grpo_final.json has no list of completions"),
        (None, "metrics/grpo_final.json has no list of completions"),
    ],
)
def test_where_no_completion_can_be_shown_the_page_says_why(
    root: Path, tmp_path: Path, subject: Subject, summary: dict[str, Any] | None, said: str
) -> None:
    watch(root, summary)
    assert said in page_of(root, tmp_path / "out", subject)


@pytest.mark.slow
def test_a_list_of_another_shape_is_named(root: Path, tmp_path: Path, subject: Subject) -> None:
    watch(root, {"watch": [{**WRONG, "reward": "high"}]})
    with pytest.raises(ChainForgeError, match=r"grpo_final\.json: watch\.0\.reward"):
        page_of(root, tmp_path / "out", subject)
