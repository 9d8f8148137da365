"""What `correct` takes for right: judged pairs, and laws on how a number may be written."""

import re
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainforge as cf

PAIRS = [pair for _, pair in cf.read_rows(Path(__file__).parent / "answer_pairs.jsonl")]
TABLE = re.compile(r"^\| `(.+?)` \| (.+) \| (.+) \|$", re.MULTILINE)
DOCS = (Path(__file__).parents[2] / "docs/grading.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("category", sorted({pair["category"] for pair in PAIRS}))
def test_judged_pairs(category: str) -> None:
    its = [pair for pair in PAIRS if pair["category"] == category]
    found = [(p["gold"], p["response"], p["correct"]) for p in its]
    assert [(gold, text, cf.same_answer(text, gold)) for gold, text, _ in found] == found


def test_the_table_in_the_docs() -> None:
    rows = TABLE.findall(DOCS)
    assert len(rows) >= 12
    for reference, right, wrong in rows:
        for texts, expected in ((right, True), (wrong, False)):
            for text in re.findall(r"`` ?(.+?) ?``|`([^`]+)`", texts):
                given_text = (text[0] or text[1]).replace("⏎", "\n")
                assert cf.same_answer(given_text, reference) is expected, (reference, given_text)


def forms(value: int) -> list[str]:
    """Ways to write a whole number."""
    digits, sign = f"{abs(value)}", "-" if value < 0 else ""
    grouped = f"{abs(value):,}"
    written = [f"{sign}{text}" for text in (digits, grouped, grouped.replace(",", "{,}"), f"{digits}.0")]
    written += [
        f"{sign}{text}"
        for text in (grouped.replace(",", r"\,"), f"${digits}", f"{digits} figs", f"{digits}%")
    ]
    written += [
        f"{sign or '+'}{digits}",
        f"{sign}\\frac{{{3 * abs(value)}}}{{3}}",
        f"{2 * value}/2",
        f"{value}e0",
    ]
    return written + (
        [f"minus {digits}", f"- {digits}", f"\u2212{digits}", f"\u2013{digits}"] if sign else []
    )


def frames(text: str) -> list[str]:
    """Ways to say which number is meant."""
    bare = [text, f"**{text}**", f"${text}$", f"x = {text}"]
    marked = [
        rf"\boxed{{{text}}}",
        f"The answer is {text}.",
        f"3 bags.\n#### {text}",
        f"**Final answer**: {text}",
    ]
    return bare + marked + [f"Two steps.\n\nAnswer\n{text}", f"the answer is {text}, since 3 and 4 make it"]


values = st.integers(-(10**12), 10**12)


@pytest.mark.slow
@settings(max_examples=15)
@given(value=values, other=values)
def test_a_number_is_right_in_every_form_and_another_in_none(value: int, other: int) -> None:
    for form in forms(value):
        for text in frames(form):
            if text.startswith("$$") or "$$" in text or "$-$" in text or "$ $" in text:
                continue
            assert cf.same_answer(text, str(value)), text
            assert cf.same_answer(text, str(other)) is (
                other == value or ("%" in text and value == 100 * other)
            )
            assert cf.read_answer(text) == str(value), text


@pytest.mark.slow
@settings(max_examples=15)
@given(value=values, before=st.integers(0, 300), after=st.integers(0, 300))
def test_how_much_is_said_around_an_answer_does_not_matter(value: int, before: int, after: int) -> None:
    for mark in ("\\boxed{{{}}}", "#### {}", "This makes **{}**.", "The answer is {}."):
        text = "Adding them up, step by step. " * before + "\n" + mark.format(value)
        text += "\nChecking again confirms that it fits." * after
        assert cf.same_answer(text, str(value)), text
        assert not cf.same_answer(text, str(value + 1)), text


@pytest.mark.slow
@given(top=st.integers(-999, 999), under=st.integers(1, 99))
def test_a_fraction_is_its_value(top: int, under: int) -> None:
    value = Fraction(top, under)
    sign = "-" if top < 0 else ""
    for text in (
        f"{top}/{under}",
        rf"{sign}\frac{{{abs(top)}}}{{{under}}}",
        rf"\boxed{{\dfrac{{{top}}}{{{under}}}}}",
    ):
        assert cf.same_answer(text, str(value)), text
        assert cf.same_answer(text, rf"{sign}\frac{{{abs(top)}}}{{{under}}}"), text
        assert not cf.same_answer(text, str(value + 1)), text
    if abs(top) > under and top % under:
        whole, part = divmod(abs(top), under)
        assert cf.same_answer(f"{sign}{whole} {part}/{under}", str(value))


@pytest.mark.slow
@given(one=values, other=values)
def test_two_answers_and_no_mark_are_wrong(one: int, other: int) -> None:
    for text in (
        f"{one} or {other}",
        f"{one}\n{other}",
        f"It is {one}. It is {other}.",
        f"**{one}**, **{other}**",
    ):
        assert one == other or not (cf.same_answer(text, str(one)) or cf.same_answer(text, str(other)))


@pytest.mark.slow
@settings(max_examples=20)
@given(value=st.integers(2, 10**9))
def test_what_stands_around_a_number_makes_it_another(value: int) -> None:
    around = (
        "- {}|±{}|\\pm {}|> {}|x \\ge {}|√{}|\\sqrt{{{}}}|{}π|{} \\pi|{}!|{} million|{} dozen|not {}|{}x|{}^2"
    )
    for form in (
        *around.split("|"),
        "about {}",
        "at least {}",
        "{} or more",
        "2*x = {}",
        "{0}:{0}",
        "{}.5",
        "1{}",
    ):
        for frame in ("{}", "The answer is {}.", "\\boxed{{{}}}", "#### {}"):
            text = frame.format(form.format(value))
            assert not cf.same_answer(text, str(value)), text


texts = st.text() | st.text(alphabet="0123456789+-*/().,=$ e\\boxed{}^_!%:;[]<>fracq\n")


@given(summary=texts, reference=texts)
def test_no_text_raises_and_a_text_is_its_own_answer(summary: str, reference: str) -> None:
    assert cf.same_answer(summary, reference) in (True, False)
    assert cf.read_answer(summary) != ""


@pytest.mark.parametrize("first", [18, "1/2", "(1, 2]", "{1, 2}", "3:30 PM", "Tuesday"])
def test_equal_answers_have_one_reading(first: object) -> None:
    wanted = cf.read_answer(str(first))
    for text in (f"The answer is {first}.", rf"\boxed{{{first}}}", f"**{first}**", f" {first} \n"):
        assert cf.read_answer(text) == wanted


def test_readings_of_one_number_agree_and_of_others_do_not() -> None:
    assert {cf.read_answer(text) for text in ("18", "$18.00", "The answer is 18 figs.", "9*2 = 18")} == {"18"}
    assert len({cf.read_answer(text) for text in ("18", "-18", "18!", "√18", "18 or 17", "x > 18")}) == 6
    assert [cf.read_answer(text) for text in ("", " \n", r"\boxed{18")] == [None, None, None]


LONG = 50_000
PATTERNS = (
    "1| |{|}|(|\\boxed{|\\frac{|\\sqrt{|\\text{|$|$a|*|**a|__a|#|answer |answer is |answer to |1=|x=|1+|- "
    "|(1,|9^|9^{|1/|1e|1.|1,|,111|a. |no |. no "
    "|\u0301|²|½|\ud800| and |yes, |A) |1 may |<!--|1 1/1 |\n|answer:\n"
)


@pytest.mark.dearest
@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS.split("|"))
def test_the_oddest_text_takes_a_moment(pattern: str) -> None:
    started = time.process_time()
    text = pattern * (LONG // len(pattern))
    for summary in (text, f"The answer is 18.{text}", f"{text}18"):
        cf.same_answer(summary, "18")
        cf.read_answer(summary)
    assert time.process_time() - started < 10
