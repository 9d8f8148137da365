"""Two runs side by side: which problems are compared, what counts as a flip, what is told of the settings."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.errors import ChainForgeError
from chainforge.report.compare.problems import Answers, Difference, compare_cell
from chainforge.report.compare.revision import Revision
from chainforge.report.compare.settings import changed_settings, outdated_steps
from chainforge.report.compare.text import Comparison, short, table

CELL = ("qwen_sft_ckpt", "reasoning")


def said(right: bool, text: str = "") -> dict[str, Any]:
    return {"text": text or f"said {right}", "rewards": {"correct": float(right), "format": None}}


def row(number: int, samples: list[bool], greedy: bool | None = None, question: str = "?") -> dict[str, Any]:
    return {
        "prompt_id": f"p{number}",
        "question": f"{number}{question}",
        "answer": "42",
        "samples": [said(right) for right in samples],
        "greedy": None if greedy is None else said(greedy, f"greedy {greedy}"),
    }


def answers(*rows: dict[str, Any]) -> Answers:
    return Answers(rows, "correct", "here")


def cell(a: Answers | None, b: Answers | None) -> Difference:
    return compare_cell(*CELL, a, b)


def ids(flips: tuple[Any, ...]) -> list[str]:
    return [flip.prompt_id for flip in flips]


def test_a_positive_difference_means_that_b_is_better() -> None:
    found = cell(
        answers(*(row(i, [i % 4 == 0, False]) for i in range(40))),
        answers(*(row(i, [i % 2 == 0, True]) for i in range(40))),
    )
    assert (found.n, found.n_a, found.n_b) == (40, 40, 40)
    assert (found.pass_a, found.pass_b) == (0.125, 0.75)
    assert found.paired
    assert found.paired.mean_difference == pytest.approx(0.625)
    assert 0 < found.paired.lo < 0.625 < found.paired.hi
    assert found.clear


def test_only_problems_with_the_same_id_and_question_are_compared() -> None:
    a = answers(row(1, [True]), row(2, [True]), row(3, [False]))
    b = answers(row(2, [True], question=" asked otherwise"), row(3, [True]), row(4, [True]))
    found = cell(a, b)
    assert (found.n, found.n_a, found.n_b) == (1, 3, 3)
    assert (found.pass_a, found.pass_b) == (0, 1)
    assert ids(found.gained) == ["p3"]


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        (None, answers(row(1, [True])), "only in B"),
        (answers(row(1, [True])), None, "only in A"),
        (answers(row(1, [True])), answers(row(2, [False])), "no problem in common"),
    ],
)
def test_a_cell_that_cannot_be_compared_says_why(a: Answers | None, b: Answers | None, why: str) -> None:
    found = cell(a, b)
    assert found.paired is None
    assert not found.clear
    assert (found.pass_a, found.pass_b) == (a and 1.0, b and float(b.rate(next(iter(b.rows)))))
    assert why in table([found])


def test_flips_go_by_the_greedy_answer_where_both_have_one() -> None:
    a = answers(row(1, [True, True], greedy=False), row(2, [False, False], greedy=True))
    b = answers(row(1, [True, True], greedy=True), row(2, [False, False], greedy=False))
    found = cell(a, b)
    assert (ids(found.gained), ids(found.lost)) == (["p1"], ["p2"])
    assert (found.gained[0].a, found.gained[0].b) == ("greedy False", "greedy True")


def test_flips_go_by_more_than_half_of_the_samples_otherwise() -> None:
    a = answers(row(1, [True, False], greedy=True), row(2, [True, True, False]), row(3, [False, True]))
    b = answers(row(1, [True, True]), row(2, [True, False, False], greedy=True), row(3, [True, False]))
    found = cell(a, b)
    assert (ids(found.gained), ids(found.lost)) == (["p1"], ["p2"])
    assert (found.gained[0].a, found.gained[0].b) == ("said False", "said True")
    assert (found.lost[0].a, found.lost[0].b) == ("said True", "said False")


def test_the_same_answers_are_named_as_such() -> None:
    rows = [row(i, [i % 2 == 0], greedy=False) for i in range(6)]
    found = cell(answers(*rows), answers(*rows))
    assert found.same_answers
    assert (found.gained, found.lost, found.clear) == ((), (), False)
    assert "same answers" in table([found])


SOLVED = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30)


@given(SOLVED)
def test_exchanging_the_runs_turns_the_difference_and_the_flips(solved: list[tuple[bool, bool]]) -> None:
    a, b = (answers(*(row(i, [pair[k]]) for i, pair in enumerate(solved))) for k in (0, 1))
    there, back = cell(a, b), cell(b, a)
    assert there.paired
    assert back.paired
    assert there.paired.mean_difference == pytest.approx(-back.paired.mean_difference)
    assert there.paired.lo == pytest.approx(-back.paired.hi)
    assert (there.gained, there.lost) == tuple(
        tuple(type(f)(f.prompt_id, f.question, f.reference, f.b, f.a) for f in flips)
        for flips in (back.lost, back.gained)
    )
    difference = (len(there.gained) - len(there.lost)) / len(solved)
    assert there.paired.mean_difference == pytest.approx(difference)


def test_only_the_full_reward_is_right_as_in_the_evaluation() -> None:
    partly = row(1, [True])
    partly["samples"][0]["rewards"]["correct"] = 0.9
    assert answers(partly).rate("p1") == 0


@pytest.mark.parametrize("broken", [{"prompt_id": "p1"}, {**row(1, [True]), "samples": [{"rewards": {}}]}])
def test_broken_rows_are_named(broken: dict[str, Any]) -> None:
    with pytest.raises(ChainForgeError, match="here"):
        cell(answers(broken), answers(row(1, [True])))


def test_changed_settings_by_dotted_key() -> None:
    a = {"run": {"seed": 17}, "grpo": {"kl_coeff": 0.01, "rewards": {"correct": 1.0}}}
    b = {"run": {"seed": 17}, "grpo": {"kl_coeff": 0.05, "rewards": {"correct": 1.0, "short": 0.1}}}
    assert changed_settings(a, b) == {"grpo.kl_coeff": (0.01, 0.05), "grpo.rewards.short": (None, 0.1)}


RECORDED: dict[str, Any] = {
    "stages": {
        "sft": {"params": {"params.yaml": {"sft": {"x": 1}}}, "outs": [{"path": "c/sft", "md5": "1"}]},
        "grpo": {
            "deps": [{"path": "c/sft", "md5": "1"}, {"path": "inputs/x", "md5": "9"}],
            "params": {"params.yaml": {"grpo": {"x": 1}}, "plugins.lock.json": {"grpo": {"code": "a"}}},
            "outs": [{"path": "c/grpo", "md5": "2"}],
        },
        "evaluate@sft-b": {"deps": [{"path": "c/sft", "md5": "1"}]},
        "evaluate@grpo-b": {"deps": [{"path": "c/grpo", "md5": "2"}]},
    }
}


@pytest.mark.parametrize(
    ("sft", "code", "expected"),
    [
        (1, "a", set()),
        (1, "b", {"grpo", "evaluate@grpo-b"}),
        (2, "a", {"sft", "grpo", "evaluate@sft-b", "evaluate@grpo-b"}),
    ],
)
def test_results_older_than_the_settings_are_known(sft: int, code: str, expected: set[str]) -> None:
    params = {"sft": {"x": sft}, "grpo": {"x": 1}}
    assert outdated_steps(RECORDED, params, {"grpo": {"code": code}}) == expected


def test_a_result_of_another_input_is_outdated() -> None:
    stages = {
        **RECORDED["stages"],
        "grpo": {**RECORDED["stages"]["grpo"], "outs": [{"path": "c/grpo", "md5": "3"}]},
    }
    params = {"sft": {"x": 1}, "grpo": {"x": 1}}
    assert outdated_steps({"stages": stages}, params, {"grpo": {"code": "a"}}) == {"evaluate@grpo-b"}


def comparison(*cells: Difference, **changes: Any) -> Comparison:
    whole = {"a": "one", "b": "two", "settings": {}, "lock": {}, "outdated": {}, **changes}
    return Comparison(cells=cells, **whole)


def test_examples_are_of_the_cell_where_most_flipped_unless_cells_were_chosen() -> None:
    wrong, right = answers(*(row(i, [False]) for i in range(8))), answers(*(row(i, [True]) for i in range(8)))
    one = answers(row(0, [True]), *(row(i, [False]) for i in range(1, 8)))
    many, few = compare_cell("a", "many", wrong, right), compare_cell("a", "few", wrong, one)
    both = comparison(few, many)
    assert "a on many:" in both.as_text(2, everywhere=False)
    assert "a on few:" not in both.as_text(2, everywhere=False)
    assert "a on few:" in both.as_text(2, everywhere=True)
    assert both.as_text(2, everywhere=False).count("reference  42") == 2
    assert "reference" not in both.as_text(0, everywhere=True)


def test_the_text_tells_what_is_different_and_what_is_not_sound() -> None:
    small = cell(answers(row(1, [True]), row(2, [True])), answers(row(1, [True])))
    text = comparison(
        small,
        settings={"grpo.kl_coeff": (None, 0.05)},
        lock={"code": ["s1", "s2", "s3", "s4", "s5", "s6"]},
        outdated={"two": [CELL]},
    ).as_text(0, everywhere=False)
    assert "grpo.kl_coeff  – → 0.05" in text
    assert "code in s1, s2, s3, s4 and 2 more" in text
    assert "Careful, two: other settings or inputs than now made qwen_sft_ckpt on reasoning" in text
    assert "qwen_sft_ckpt on reasoning (2, 1)" in text
    assert "No setting, plugin or code differs" in comparison(small).as_text(0, everywhere=False)


def test_the_json_has_every_flip_and_the_interval() -> None:
    found = cell(answers(*(row(i, [False]) for i in range(9))), answers(*(row(i, [True]) for i in range(9))))
    (told,) = comparison(found, settings={"x": (1, 2)}).as_json()["cells"]
    assert len(told["gained"]) == 9
    assert told["clear"]
    assert told["ci95_lo"] <= told["difference"] == 1.0
    alone = comparison(cell(None, answers(row(1, [True])))).as_json()["cells"][0]
    assert (alone["n_a"], alone["difference"], alone["pass_b"]) == (None, None, 1.0)


@given(st.text(max_size=200) | st.none() | st.dictionaries(st.text(), st.integers()))
def test_a_shortened_text_is_one_printable_line(value: Any) -> None:
    text = short(value, 40)
    assert text.isprintable()
    assert 0 < len(text) <= 43


def test_a_long_text_keeps_begin_and_end() -> None:
    assert short("begin" + "x" * 500 + "end", 20) == "beginxxxxx … xxxxxxxend"


def test_problems_with_another_history_are_not_the_same_and_a_flip_shows_it() -> None:
    turns = [{"role": "user", "content": "Earlier\x1b[31m"}, {"role": "user", "content": "1?"}]
    others = [{"role": "user", "content": "Otherwise"}, turns[1]]
    wrong, right = row(1, [False]) | {"messages": turns}, row(1, [True]) | {"messages": turns}
    assert cell(answers(wrong), answers(right | {"messages": others})).n == 0
    found = cell(answers(wrong), answers(right))
    text = comparison(found).as_text(1, everywhere=True)
    assert "  earlier    user: Earlier\N{REPLACEMENT CHARACTER}[31m\n  question" in text


ROWS = "data/eval/qwen_sft_ckpt/reasoning.jsonl"
FILES = {
    "params.yaml": "checkpoints: [qwen_sft_ckpt]\nbenches: {reasoning: {}}\nevaluate: {reward: correct}\n",
    "dvc.lock": "stages: {e: {outs: [{path: data/eval/qwen_sft_ckpt/reasoning.jsonl}]}}\n",
    ROWS: json.dumps(row(1, [True])) + "\n",
}


def read_all(folder: Path, file: str, content: bytes) -> None:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / file).write_bytes(content)
    run = Revision("workspace")
    for at in run.cells:
        found = run.answers(*at)
        assert found
        found.mean_rate(found.rows)
    assert run.outdated == set()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("params.yaml", b"["),
        ("params.yaml", b"x: 2024-13-45"),
        ("params.yaml", b"\xff"),
        ("params.yaml", b"[]"),
        ("params.yaml", b"checkpoints: 5"),
        ("params.yaml", b"checkpoints: [[1]]\nbenches: {}"),
        ("params.yaml", b"checkpoints: [qwen_sft_ckpt]\nbenches: {reasoning: {}}\nevaluate: 5"),
        ("dvc.lock", b"<<<<<<< HEAD\nstages: {}\n"),
        ("dvc.lock", b"stages: 5"),
        ("dvc.lock", b"stages: {e: 5}"),
        ("dvc.lock", b"stages: {e: {outs: [{md5: 1}]}}"),
        ("dvc.lock", b"garbage"),
        (ROWS, b"[1]\n"),
        (ROWS, b"{"),
        (ROWS, b'{"prompt_id": "p", "samples": 5}\n'),
    ],
)  # fmt: skip
def test_files_of_another_shape_are_named(
    file: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    read_all(tmp_path, file, FILES[file].encode())
    with pytest.raises(ChainForgeError, match=re.escape(file)):
        read_all(tmp_path, file, content)
