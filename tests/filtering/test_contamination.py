"""Contamination: any shared run of words is found, a common instruction is not one."""

import time

import pytest
from fakes import prompt
from hypothesis import given
from hypothesis import strategies as st

from chainforge.filtering.contamination import Benchmarks
from chainforge.filtering.words import ngrams, words
from chainforge.records import Prompt

a_word = st.text("abcdef", min_size=1, max_size=4)
some_words = st.lists(a_word, max_size=20)


def found(question: str, held_out: list[str], size: int | None = 8) -> str | None:
    benchmarks = Benchmarks.of([[prompt(n, text) for n, text in enumerate(held_out)]], size)
    return benchmarks.finds(prompt(99, question))


@pytest.mark.slow
@given(some_words, some_words, some_words, some_words, st.lists(a_word, min_size=8, max_size=8))
def test_any_eight_words_in_common_are_found(
    a: list[str], b: list[str], c: list[str], d: list[str], shared: list[str]
) -> None:
    ours, theirs = [*a, *shared, *b], [*c, *shared, *d]
    assert found(", ".join(ours).title(), ["\n".join(theirs) + "!"])


@pytest.mark.slow
@given(st.lists(some_words, max_size=5), some_words, st.integers(1, 9))
def test_nothing_is_found_where_nothing_is_shared(
    held_out: list[list[str]], ours: list[str], size: int
) -> None:
    runs = {tuple(text[i : i + size]) for text in held_out for i in range(len(text) - size + 1)}
    shared = any(tuple(ours[i : i + size]) in runs for i in range(len(ours) - size + 1))
    shorts = [text for text in held_out if 4 <= len(text) < size]
    shared |= any(ours[i : i + len(text)] == text for text in shorts for i in range(len(ours)))
    expected = "contaminated_exact" if ours in held_out else "contaminated_ngram" if shared else None
    assert found(" ".join(ours), [" ".join(text) for text in held_out], size) == expected


@pytest.mark.parametrize(
    ("question", "held_out", "size", "how"),
    [
        ("What is  6*7?", "what is 6*7?", 8, "contaminated_exact"),
        ("What is 6*7?", "What is 6+7?", 8, None),
        ("What is 12+30?", "What is 12 + 30?", None, "contaminated_exact"),
        ("Please tell me: what is 12 + 30? Show your work.", "What is 12+30?", 8, "contaminated_ngram"),
        ("Please tell me: what is 12+30? Show your work.", "12 + 30 = ?", 8, "contaminated_ngram"),
        ("Please tell me: what is 12+30? Show your work.", "12 + 30 = ?", None, None),
        ("Please tell me: what is 12-30? Show your work.", "What is 12+30?", 8, None),
        ("Please tell me: what is 112+30 or 12+305?", "12+30", 8, None),
        ("Please tell me: what is 2*12+30, what is 12+30.5?", "12+30", 8, None),
        ("Now here is why he left the town.", "Why?", 8, None),
        ("He asked his friend: who wrote Hamlet in prison?", "Who wrote Hamlet in", 8, "contaminated_ngram"),
        ("What is 6*7?", "What is 6+7?", 4, "contaminated_ngram"),
        ("小明有九个苹果他给了小红四个", "问：小明有九个苹果，他给了小红三个", 8, "contaminated_ngram"),
        ("小明有九个苹果他给了小红四个", "小红有九个苹果", 8, None),
        ("a b c d e f g h", "a b c d e f g h i", None, None),
    ],
)
def test_texts_and_runs(question: str, held_out: str, size: int | None, how: str | None) -> None:
    assert found(question, [held_out], size) == how


def test_what_the_system_says_is_nobodys_problem() -> None:
    system = {"role": "system", "content": "You are a careful solver of problems who writes down each step."}

    def asking(text: str) -> Prompt:
        return Prompt(text, "toy", (system, {"role": "user", "content": text}))  # type: ignore[arg-type]

    benchmarks = Benchmarks.of([[asking("What is 6*7?")]], 8)
    assert benchmarks.finds(asking("What is 6+7?")) is None
    assert benchmarks.finds(asking("what is 6*7?")) == "contaminated_exact"
    assert benchmarks.finds(prompt(1, "What is 6*7?")) == "contaminated_exact"


def test_an_instruction_that_most_of_a_file_shares_is_not_its_problems() -> None:
    how = "Please reason step by step, and put your final answer within a box. "
    held_out = [
        how + f"Number {n} of these asks about a train with {n} cars and {n} doors." for n in range(20)
    ]
    assert found(how + "What is 6*7?", held_out) is None
    assert found(how + "What is 6*7?", held_out[:4]) == "contaminated_ngram", "too few to tell"
    assert found(how + "Who asks about a train with 7 cars and 7 doors?", held_out) == "contaminated_ngram"


@given(st.text(max_size=200))
def test_odd_text_has_words_and_every_run_of_one_is_a_word(text: str) -> None:
    assert ngrams(text, 1) == set(words(text))


@pytest.mark.slow
def test_a_megabyte_takes_a_moment() -> None:
    started = time.process_time()
    for text in ("\u0301\u0323" * 500_000, "so " * 300_000, "所" * 10**6, "x" * 10**6, "\ud800" * 10**6):
        assert found(text, ["What is 6*7?"]) is None
    assert time.process_time() - started < 8
