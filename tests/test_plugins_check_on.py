"""`chainforge plugins check --on`: what a reward says to completions of a run, and where two disagree."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import SUPERCOT, prompt, response
from hypothesis import example, given
from hypothesis import strategies as st

from chainforge.cli import cli
from chainforge.errors import ChainForgeError
from chainforge.jsonl import write_records, write_rows
from chainforge.records import Example, Trace
from chainforge.testing.distribution import correlation, disagreements, distribution, shorten
from chainforge.testing.readings import read_groups

pytestmark = pytest.mark.slow

REWARDS = """
import chainforge as cf

def length(completions):
    return [len(text) / 100 for text in completions]

def level(completions, level=None):
    return [None if value is None else float(value) for value in level or [None] * len(completions)]

def correct(completions, answer, response_format):
    parsed = [response_format.parse(text) for text in completions]
    return [None if a is None else float(bool(p) and p.summary == a) for a, p in zip(answer, parsed)]

@cf.hookimpl
def register_rewards(register):
    register("length", length)
    register("level", level)
    register("correct", correct)
"""
PROMPTS = [prompt(i, f"{i}*7=?", str(i * 7), level=i) for i in range(1, 5)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("plugins").mkdir()
    Path("chainforge").mkdir()  # a checkout, where the bundled plugins are those of the folder
    Path("plugins/rewards.py").write_text(REWARDS)
    return tmp_path


def on(path: str, *arguments: str, name: str = "length", exit_code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["plugins", "check", name, "--on", path, *arguments])
    assert result.exit_code == exit_code, result.output
    return result.output


def evaluation(path: str = "data/eval/ckpt/reasoning.jsonl") -> str:
    rows: list[dict[str, Any]] = [
        {
            "prompt_id": p.id,
            "source": p.source,
            "question": p.messages[-1]["content"],
            "answer": p.answer,
            "samples": [
                {"text": response("x" * (0, 16, 20)[i], str(p.answer) if i % 2 else "0"), "finish": "stop"}
                for i in range(3)
            ],
            "greedy": None,
        }
        for p in PROMPTS
    ]
    write_rows(Path(path), rows)
    return path


def test_an_evaluation_shows_the_distribution_and_the_disagreement_with_correct() -> None:
    said = on(evaluation())
    assert "on data/eval/ckpt/reasoning.jsonl: 12 completions of 4 prompts\n" in said
    assert "length: n 12, None 0.0%, mean 0." in said
    assert "quartiles" in said
    assert "length against correct: both apply to 12 completions, correlation " in said
    table = said.partition("correct high")[2].splitlines()
    assert [line.split()[-2:] for line in table[1:3]] == [["4", "4"], ["0", "4"]]
    assert said.count("length 0.") == 3  # the largest disagreements, with question and text
    assert "*7=?" in said
    assert "<summary>0</summary>" in said


def test_a_prompt_that_is_on_file_comes_with_its_columns() -> None:
    path = evaluation()
    assert "level: n 12, None 100.0%: it applies to none of them" in on(path, name="level")
    write_records(Path("data/prompts/reasoning_eval.jsonl"), PROMPTS)
    other = [prompt(1, "another question, the same id", "1", level=9)]
    write_records(Path("data/prompts/general_eval.jsonl"), other)
    said = on(path, "--set", "level=1", name="level")
    assert "level: n 12, None 0.0%, mean 2.5" in said


def test_examples_and_traces_are_read_too() -> None:
    write_records(Path("data/prompts/reasoning_train.jsonl"), PROMPTS)
    examples = [Example(p.id, p.messages, response("So.", str(p.answer)), "toy") for p in PROMPTS]
    write_records(Path("accepted.jsonl"), examples)
    assert "correct: n 4, None 0.0%, mean 1, sd 0" in on("accepted.jsonl", name="correct")
    traces = [Trace(p.id, "So.", str(p.answer), "stop", "toy") for p in PROMPTS[:2]]
    traces += [
        Trace("p3", "<summary>", "1", "stop", "toy"),
        Trace("p4", "So", "", "length", "toy"),
        Trace("p9", "So.", "1", "stop", "toy"),
    ]
    write_records(Path("traces.jsonl"), traces)
    said = on("traces.jsonl", name="correct")
    assert (
        "2 completions of 2 prompts, 1 left out: their prompt is not in data/prompts or data/benches, "
        in said
    )
    assert "correct: n 2, None 0.0%, mean 1" in said
    assert "against" not in said


def test_completions_of_a_prompt_are_scored_side_by_side_wherever_they_stand() -> None:
    rows = [{"prompt_id": p.id, "text": f"{p.id} {i}"} for i in range(2) for p in PROMPTS]
    write_rows(Path("completions.jsonl"), rows)
    write_records(Path("data/prompts/reasoning_train.jsonl"), PROMPTS)
    pairs = read_groups(Path("completions.jsonl")).pairs
    assert [(p.id, text) for p, text in pairs] == [(p.id, f"{p.id} {i}") for p in PROMPTS for i in range(2)]


def test_another_reward_can_be_named_to_compare_with() -> None:
    said = on(evaluation(), "--against", "correct", name="correct")
    assert "correct against correct: both apply to 12 completions, correlation 1.00" in said
    assert "did you mean 'length'?" in on(evaluation(), "--against", "lenth", exit_code=1)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": "x"}', "no prompt_id"),
        ("3", "no prompt_id"),
        (
            '{"prompt_id": "p1", "text": "x"}',
            "no completion to score: 0 completions of 0 prompts, 1 left out",
        ),
        ("not json", "not JSON"),
    ],
)
def test_a_file_without_completions_is_an_error_that_says_what_to_do(line: str, problem: str) -> None:
    Path("mine.jsonl").write_text(line + "\n")
    said = on("mine.jsonl", exit_code=1)
    assert problem in said
    assert "\n  -> " in said


def test_a_file_is_for_rewards_and_a_comparison_for_a_file() -> None:
    assert "there is no file nowhere.jsonl" in on("nowhere.jsonl", exit_code=1)
    result = CliRunner().invoke(cli, ["plugins", "check", "length", "--against", "correct"])
    assert "name a file of them: --on FILE" in result.output


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=50))
@example([999950.0, 999951.0])  # both are written 1e+06
def test_every_known_value_is_in_one_bar(values: list[float | None]) -> None:
    lines = distribution("mine", values).splitlines()
    known = sum(value is not None for value in values)
    assert sum(int(line.split()[-1].replace(",", "")) for line in lines[2:]) == known
    assert all(len(line) <= 100 for line in lines)


@given(st.lists(st.tuples(*[st.none() | st.floats(-9, 9)] * 2), min_size=1, max_size=30))
def test_the_table_counts_every_completion_to_which_both_apply(values: list[Any]) -> None:
    scores = {"a": [a for a, _ in values], "b": [b for _, b in values]}
    pairs = [(PROMPTS[0], f"text {i}") for i in range(len(values))]
    both = sum(a is not None and b is not None for a, b in values)
    said = disagreements("a", "b", scores, pairs).splitlines()
    if not both:
        assert said == ["a and b apply to no completion both"]
        return
    assert sum(int(cell) for line in said[2:4] for cell in line.split()[-2:]) == both


def test_a_correlation_is_that_of_pearson() -> None:
    assert correlation([0, 1, 2], [0, 2, 4]) == "correlation 1.00"
    assert correlation([0, 1, 2], [5, 4, 3]) == "correlation -1.00"
    assert correlation([0, 1, 0, 1], [0, 0, 1, 1]) == "correlation 0.00"
    assert correlation([1, 1], [0, 1]) == "no correlation, one of them is constant"


@given(st.text(st.characters(), max_size=2_000))
def test_a_shown_text_is_one_short_printable_line(text: str) -> None:
    line = shorten(text)
    assert line.isprintable()
    assert len(line) <= 310
    line.encode()


def test_the_rendered_trace_is_a_whole_response() -> None:
    write_records(Path("data/prompts/reasoning_train.jsonl"), PROMPTS)
    write_records(Path("traces.jsonl"), [Trace("p1", "So.", "7", "stop", "toy")])
    ((_, text),) = read_groups(Path("traces.jsonl")).pairs
    assert SUPERCOT.parse(text) is not None
    with pytest.raises(ChainForgeError, match="there is no file"):
        read_groups(Path("missing.jsonl"))
