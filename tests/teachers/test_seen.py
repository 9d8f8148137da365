"""Usage that cannot be true of what came is known by the text."""

import pytest
from fake_api import answer
from hypothesis import given
from hypothesis import strategies as st

from chainforge.providers.openai_chat import read_chat
from chainforge.teachers.seen import fits, is_possible

ASKED = ({"role": "user", "content": "What is 6 times 7?"},)
PROSE = "Six times seven is forty-two, as everybody knows who has ever had to learn it by heart. "


@given(st.text())
def test_a_token_per_byte_is_always_possible_and_none_only_for_no_text(text: str) -> None:
    assert fits(len(text.encode(errors="replace")), text)
    assert fits(0, text) == (not text)


@given(words=st.lists(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12)))
def test_a_token_per_word_is_possible(words: list[str]) -> None:
    assert fits(len(words), " ".join(words))


@pytest.mark.parametrize("row", [" ", "=", "-+", "\n", "0" * 4, "│ "])
def test_a_row_of_the_same_may_be_few_tokens(row: str) -> None:
    assert fits(len(PROSE) // 4 + 10, PROSE + 5000 * row)


@pytest.mark.parametrize(
    ("usage", "possible"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 250}, True),
        ({"prompt_tokens": 10, "completion_tokens": 0}, False),
        ({"prompt_tokens": 10, "completion_tokens": 20}, False),
        ({"prompt_tokens": 0, "completion_tokens": 250}, False),
        ({}, False),
        (None, False),
    ],
)
def test_what_is_said_is_held_against_what_is_seen(usage: object, possible: bool) -> None:
    said = answer(5 * PROSE, reasoning=5 * PROSE) | {"usage": usage}
    assert is_possible(read_chat(said), ASKED) == possible
