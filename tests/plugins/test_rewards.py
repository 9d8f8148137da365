"""Rewards `correct` and `format`."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from loading import load_plugin, registered

import chainforge as cf

SUPERCOT = cf.tag_format("supercot")
correct = registered("reward_correct", "register_rewards")["correct"]
well_formed = registered("reward_format", "register_rewards")["format"]
COUNTDOWN = {"rule": "expression", "numbers": [3, 8, 7, 8], "target": 12}
FRUITS = {"rule": "items", "from": ["fig", "pear", "plum"], "n": 2, "upper": True}
GREETING = {"rule": "greeting", "name": "Ann", "upper": False, "words": 3, "end": "!"}


def grade(summary: str, answer: str | None, check: dict[str, Any] | None = None) -> float | None:
    response = f"<reasoning_process>so</reasoning_process><summary>{summary}</summary>"
    more = {} if check is None else {"check": [check]}
    (value,) = correct(completions=[response], answer=[answer], response_format=SUPERCOT, **more)
    return value


@pytest.mark.parametrize(
    ("summary", "answer"),
    [
        ("1042", "1,042"),
        ("1,042", "1042"),
        ("$18", "18"),
        ("18.0", "18"),
        (" 18.\n", "18"),
        ("18 apples", "18"),
        ("She has 18 apples in all.", "18"),
        ("-5", "-5"),
        ("\u22125", "-5"),
        ("x=-5", "-5"),
        ("-$5", "-5"),
        (".5", "0.5"),
        ("It costs $1,234.50.", "1234.5"),
        ("3 + 4, so the answer is 7.", "7"),
        ("Answer: 7", "7"),
        (r"First \boxed{41}, no: \boxed{42}", "42"),
        (r"\boxed{$1,000$} of 2", "1000"),
        ("fig-fig", "fig-fig"),
        ("  a \n b.", "a b"),
        (r"\boxed{gif}", "gif"),
        ("007", "7"),
        ("9" * 500, "9" * 500),
        ("Gif", "gif"),
        ("9" * 3000, "9" * 3000),
        (r"\boxed{\frac{18}{1}}", "18"),
        ("1e5", "100000"),
        ("3+15=18", "18"),
    ],
)
def test_a_right_answer_scores_one(summary: str, answer: str) -> None:
    assert grade(summary, answer) == 1.0


@pytest.mark.parametrize(
    ("summary", "answer"),
    [
        ("17 or 18", "18"),
        ("18 apples, in 3 days", "18"),
        ("1, 2, 3", "123"),
        ("12,34", "1234"),
        ("1e999999999", "1"),
        ("5\u00b2", "5"),
        ("5 is the answer: yes", "5"),
        ("The answer is 5 or 6", "6"),
        (r"\boxed{41} wait, \boxed{42}", "41"),
        (r"\boxed{42", "42"),
        (r"18 \boxed{17}", "18"),
        ("5", "-5"),
        ("-5", "5"),
        ("", "5"),
        ("gi f", "gif"),
        ("0.333", "1/3"),
    ],
)
def test_a_wrong_or_hedged_answer_scores_nothing(summary: str, answer: str) -> None:
    assert grade(summary, answer) == 0.0


@pytest.mark.parametrize(
    ("summary", "check", "expected"),
    [
        ("8+7-3*(8-8)", COUNTDOWN | {"numbers": [8, 7, 3, 8, 8], "target": 15}, 1.0),
        ("8 * 3 / (8 - 7) - 12", COUNTDOWN | {"numbers": [8, 3, 8, 7, 12]}, 1.0),
        ("(3-7)+8+8 = 13", COUNTDOWN, 0.0),
        ("8+8-7+3=12.", COUNTDOWN, 1.0),
        ("8+8\u22127+3", COUNTDOWN, 1.0),
        ("8+8-7+3", COUNTDOWN | {"operators": "-*"}, 0.0),
        ("12", COUNTDOWN, 0.0),
        ("8+7-3", COUNTDOWN, 0.0),
        ("8+8+8-7-3", COUNTDOWN, 0.0),
        ("3**8**7**8", COUNTDOWN, 0.0),
        ("3/(8-8)+7", COUNTDOWN, 0.0),
        ("3//8+7+8", COUNTDOWN, 0.0),
        ("3(8)(7)(8)", COUNTDOWN, 0.0),
        ("(" * 150, COUNTDOWN, 0.0),
        ("-" * 150 + "3", COUNTDOWN, 0.0),
        ("__import__('os').system('true')", COUNTDOWN, 0.0),
        ("FIG, PLUM", FRUITS, 1.0),
        ("FIG and PLUM.", FRUITS, 1.0),
        ("fig, plum", FRUITS, 0.0),
        ("fig, plum", FRUITS | {"upper": None}, 1.0),
        ("FIG, FIG", FRUITS, 0.0),
        ("FIG, PLUM, PEAR", FRUITS, 0.0),
        ("FIG, CAR", FRUITS, 0.0),
        ("Hello dear Ann!", GREETING, 1.0),
        ("Hello dear Bob!", GREETING, 0.0),
        ("Hello dear Ann", GREETING, 0.0),
        ("Hello Ann!", GREETING, 0.0),
        ("Silly dear Ann!", GREETING, 0.0),
        ("HELLO DEAR ANN!", GREETING, 0.0),
        ("HELLO DEAR ANN!", GREETING | {"upper": True}, 1.0),
        ("Hello " * 50 + "Ann!", GREETING | {"words": None}, 0.0),
    ],
)
def test_checks(summary: str, check: dict[str, Any], expected: float) -> None:
    assert grade(summary, None, check) == expected


@pytest.mark.parametrize("check", [{"rule": "expresion"}, {}, {"rule": "items", "from": ["fig"]}])
def test_a_check_that_is_none_is_an_error_not_a_zero(check: dict[str, Any]) -> None:
    with pytest.raises(cf.ChainForgeError, match=r"cannot use the check.*\n.*expression, items, greeting"):
        grade("fig", None, check)


def test_both_answer_and_check_must_hold() -> None:
    assert grade("FIG PEAR", "FIG PEAR", FRUITS) == 1.0
    assert grade("FIG PLUM", "FIG PEAR", FRUITS) == 0.0


def test_a_prompt_without_a_right_answer_is_none_of_its_business() -> None:
    texts = ["nonsense", SUPERCOT.render("so", "5"), "5"]
    assert correct(completions=texts, answer=[None, "5", "5"], response_format=SUPERCOT) == [None, 1.0, 0.0]


def test_the_reasoning_is_never_read() -> None:
    text = SUPERCOT.render(r"The answer is \boxed{42}.", "I give up.")
    assert correct(completions=[text], answer=["42"], response_format=SUPERCOT) == [0.0]


texts = st.text() | st.text(alphabet="0123456789+-*/().,=$ e\\boxed{}")


@given(summary=texts, reference=texts | st.none(), rule=st.sampled_from([None, COUNTDOWN, FRUITS, GREETING]))
def test_rewards_never_raise_on_odd_text(
    summary: str, reference: str | None, rule: dict[str, Any] | None
) -> None:
    assert grade(summary, reference, rule) in (0.0, 1.0, None)
    assert well_formed(completions=[summary], response_format=SUPERCOT) == [0.0]


@given(value=st.integers(-(10**12), 10**12))
def test_a_number_is_right_however_it_is_written(value: int) -> None:
    for written in (f"{value:,}", f"{value}.0", f"It is {value}.", rf"\boxed{{{value}}}", f"{value} figs"):
        assert grade(written, str(value)) == 1.0
    assert grade(str(value + 1), str(value)) == 0.0


@pytest.mark.parametrize("name", ["supercot", "r1", "r1-prefilled"])
@given(reasoning=st.text(), summary=st.text())
def test_format_wants_both_parts_and_something_in_them(name: str, reasoning: str, summary: str) -> None:
    response_format = cf.tag_format(name)
    assume(not any(tag in part for tag in response_format.tags for part in (reasoning, summary)))
    text = response_format.render(reasoning, summary)
    expected = float(bool(reasoning.strip() and summary.strip()))
    assert well_formed(completions=[text], response_format=response_format) == [expected]
    assert well_formed(completions=[text + "more"], response_format=response_format) == [0.0]


def test_every_rule_says_what_it_needs() -> None:
    rules = load_plugin("reward_correct").RULES
    assert all(rule.__doc__ and needed for rule, needed in rules.values())
