"""Nothing that a terminal or a browser obeys is left in a text, and nothing else is changed."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from chainforge.defuse import defuse

BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
JOINERS = {"\u200b", "\u200c", "\u200d", "\u2060"}  # many scripts and emoji need them; they move nothing


@given(st.text(st.characters()))
def test_no_control_character_mark_of_direction_or_half_character_is_left(text: str) -> None:
    left = defuse(text)
    for character in left:
        assert character in "\t\n" or unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(character) not in BIDI
    left.encode()
    assert defuse(left) == left


@given(st.text(st.characters(categories=("L", "M", "N", "P", "S", "Zs"))))
def test_what_can_be_seen_stays_as_it_is(text: str) -> None:
    assert defuse(text) == text


def test_each_is_shown_by_a_sign_that_tells_what_it_was() -> None:
    assert defuse("a\x1b[31mred\x07\x7f\r\x9b") == "a␛[31mred␇␡␍⟨U+009B⟩"
    assert defuse("user\u202e exe\u2066.\u200f\U000e0041\ud800") == (
        "user⟨U+202E⟩ exe⟨U+2066⟩.⟨U+200F⟩⟨U+E0041⟩⟨U+D800⟩"
    )
    joined = "\U0001f469\u200d\U0001f680 \u0646\u0645\u06cc\u200c\u062e\u0648"
    assert defuse(joined) == joined
