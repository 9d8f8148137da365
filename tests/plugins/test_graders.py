"""`numeric`, `choice`, `math` and `correct` against judged answers; and `math` against hostile ones."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import ROOT, SUPERCOT, completion, prompt
from loading import load_plugin

import chainforge as cf
from chainforge.plugins import load_plugins
from chainforge.scoring import Scorer
from chainforge.wiring import make_reward

HERE = Path(__file__).parent
FITTING = {"number": "numeric", "choice": "choice", "moment": "correct", "several": "math", "formula": "math"}


def rows(name: str) -> list[dict[str, Any]]:
    return [row for _, row in cf.read_rows(HERE / name)]


PAIRS = [*rows("answer_pairs.jsonl"), *rows("chat_answers.jsonl")]
GOLDS = [row["answer"] for row in rows("math_golds.jsonl")]
# right, and not taken: several numbers without a mark, which guessing would use; a fraction with ± inside
MISSED = ["Solving $2x = 12$ gives $x = 6$.", "$\\boxed{\\frac{2 \\pm \\sqrt{20}}{2}}$"]


def grader_of(pair: dict[str, Any]) -> str:
    return str(pair.get("grader") or FITTING[cf.answer_kind(pair["gold"])])


def graders() -> dict[str, Callable[[str, str], bool]]:
    """Summary and reference to right or wrong, in this process."""
    pytest.importorskip("math_verify")
    chosen = load_plugin("reward_choice").chosen
    return {
        "numeric": cf.same_answer,
        "correct": cf.same_answer,
        "choice": lambda summary, reference: chosen(summary, reference, ()),
        "math": load_plugin("reward_math").equals,
    }


@pytest.mark.slow
@pytest.mark.parametrize("grader", sorted(set(FITTING.values())))
def test_judged_answers(grader: str) -> None:
    its = [pair for pair in PAIRS if grader_of(pair) == grader]
    says = graders()[grader]
    wrong = [pair for pair in its if says(pair["response"], pair["gold"]) is not pair["correct"]]
    assert not [pair for pair in wrong if not pair["correct"]], "taken for right"
    assert {pair["response"] for pair in wrong} <= set(MISSED)


def test_the_last_row_of_the_table_in_the_docs_has_all_of_them() -> None:
    right = sum(pair["correct"] for pair in PAIRS)
    row = f"| all | | {right - len(MISSED)} of {right} | {len(PAIRS) - right} of {len(PAIRS) - right} |"
    assert row in (ROOT / "docs/grading.md").read_text(encoding="utf-8")


def test_the_pairs_are_half_right_and_half_wrong() -> None:
    own = rows("chat_answers.jsonl")
    assert len({(pair["gold"], pair["response"]) for pair in own}) >= 500
    assert sum(pair["correct"] for pair in own) == len(own) / 2
    as_chat_models = [pair for pair in own if pair["category"] == "as chat models write"]
    assert sum(pair["correct"] for pair in as_chat_models) == 24


def load_and_compare(golds: list[str]) -> None:
    """Each is a reference that `math` takes, and the same as itself, in a box and by math-verify alone."""
    math = load_plugin("reward_math")
    assert {gold: math.check_answer(gold) for gold in golds} == dict.fromkeys(golds)
    assert [gold for gold in golds if not math.equals(rf"So it is \boxed{{{gold}}}.", gold)] == []
    worked_out = [gold for gold in golds if cf.answer_kind(gold) not in math.AS_WRITTEN]
    assert [gold for gold in worked_out if not math.verified(gold, gold)] == []


@pytest.mark.slow
def test_references_of_the_competition_set_load_and_equal_themselves() -> None:
    pytest.importorskip("math_verify")
    load_and_compare(GOLDS)


@pytest.mark.slow
def test_all_references_of_the_competition_set() -> None:
    pytest.importorskip("math_verify")
    file = Path(os.environ.get("CHAINFORGE_MATH", ROOT / "inputs/math")) / "test.jsonl"
    if not file.is_file():
        pytest.skip(f"needs {file}, with a field `answer`")
    load_and_compare(list(dict.fromkeys(row["answer"] for _, row in cf.read_rows(file))))


@pytest.mark.parametrize("answer", ["", " ", r"\frac{1}{", "%%", r"\begin{foo}"])
def test_a_reference_that_is_no_formula_is_refused(answer: str) -> None:
    pytest.importorskip("math_verify")
    assert load_plugin("reward_math").check_answer(answer)


@pytest.mark.parametrize(
    ("name", "fine", "wrong"),
    [
        ("numeric", ["18", "$1,042.50", "3/4", "18 cm"], ["B", "2x", "", "1, 2"]),
        ("choice", ["B", "Yes"], ["18", ""]),
    ],
)
def test_each_grader_refuses_references_that_it_cannot_use(
    name: str, fine: list[str], wrong: list[str]
) -> None:
    reward = make_reward(load_plugins(ROOT / "plugins").pick("rewards", name))
    with Scorer((reward,), SUPERCOT, 20.0) as scorer:
        scorer.check(prompt(n, answer=answer) for n, answer in enumerate([*fine, None]))
        for answer in wrong:
            with pytest.raises(cf.ChainForgeError, match="cannot use the answer"):
                scorer.check([prompt(9, answer=answer)])


def test_without_the_package_math_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    math = load_plugin("reward_math")
    monkeypatch.setattr(math, "find_spec", lambda name: None)
    with pytest.raises(cf.ChainForgeError, match=r"needs the package math-verify\n.*chainforge-r1\[math\]"):
        math.ready()


HOSTILE = [
    r"\boxed{9^{9^{9^{9^9}}}}",
    r"\boxed{" + "{" * 300 + "x" + "}" * 300 + "}",
    r"\boxed{\sum_{k=1}^{10^{12}} \frac{1}{k^2 + \sin k}}",
    r"\boxed{(x+1)^{100000} - (x+2)^{99999}}",
    r"\boxed{__import__('os').system('touch owned')}",
    r"\boxed{\text{exec(open('owned','w'))}}",
    r"\boxed{\lim_{x\to\infty} \frac{x^{x^x}}{x!^{x!}}}",
]


@pytest.mark.slow
@pytest.mark.parametrize("hostile", [pytest.param(HOSTILE, marks=pytest.mark.long), HOSTILE[3:5]], ids=len)
def test_hostile_answers_cost_themselves_alone(
    hostile: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("math_verify")
    monkeypatch.chdir(tmp_path)
    reward = make_reward(load_plugins(ROOT / "plugins").pick("rewards", "math"))
    asked = prompt(1, answer=r"2\sqrt{3}")
    texts = [text for one in hostile for text in (one, r"\boxed{\sqrt{12}}")]
    with Scorer((reward,), SUPERCOT, 600.0) as scorer:
        (group,) = scorer.score([asked], [[completion(asked, SUPERCOT.render("so", text)) for text in texts]])
    values = [score.parts["math"] for score in group.scores]
    assert values[1::2] == [1.0] * len(hostile)
    assert set(values[::2]) <= {0.0, None}
    assert scorer.failures["math"] == values.count(None) > 0
    assert not (tmp_path / "owned").exists()
