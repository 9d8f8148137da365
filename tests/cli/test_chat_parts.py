"""A response is split while it comes as the parser splits it when it is whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.cli.chat_parts import Piece, Splitter
from chainforge.response import PRESETS, TagFormat

FORMS = st.sampled_from([*PRESETS.values()])
BITS = ["<", ">", "/", "<think", "think>", "summary", "</", " ", "\n", "x", "4", "<b>", "é", "\x1b[2J"]


def split(form: TagFormat, pieces: list[str]) -> list[Piece]:
    splitter = Splitter(form)
    return [*(found for piece in pieces for found in splitter.add(piece)), *splitter.end()]


def joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of a kind as one, but for tags."""
    found: list[Piece] = []
    for kind, text in pieces:
        if found and found[-1].kind == kind != "tag":
            found[-1] = Piece(kind, found[-1].text + text)
        else:
            found.append(Piece(kind, text))
    return found


@pytest.mark.slow
@given(st.data())
def test_how_a_response_is_cut_into_pieces_changes_nothing(data: st.DataObject) -> None:
    form = data.draw(FORMS)
    text = "".join(data.draw(st.lists(st.sampled_from([*BITS, *form.tags]), max_size=20)))
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=8).map(sorted))
    cuts = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    whole = split(form, [text])
    assert "".join(piece.text for piece in whole) == text
    assert joined(split(form, cuts)) == joined(split(form, list(text))) == joined(whole)
    parsed = form.parse(text)
    if parsed:
        parts = {kind: "".join(p.text for p in whole if p.kind == kind) for kind in ("reasoning", "summary")}
        assert (parts["reasoning"], parts["summary"]) == (parsed.reasoning, parsed.summary)


@pytest.mark.slow
@given(FORMS, st.text(alphabet="ab<>/ \n", max_size=20), st.text(alphabet="ab<>/ \n", max_size=20))
def test_a_well_formed_response_has_the_parts_that_the_parser_finds(
    form: TagFormat, reasoning: str, summary: str
) -> None:
    text = form.render(reasoning, summary)
    parsed, pieces = form.parse(text), split(form, list(text))
    assert parsed
    assert "".join(p.text for p in pieces if p.kind == "reasoning") == parsed.reasoning
    assert "".join(p.text for p in pieces if p.kind == "summary") == parsed.summary


def test_what_cannot_be_a_tag_any_more_is_shown_at_once() -> None:
    splitter = Splitter(PRESETS["r1"])
    assert list(splitter.add("a < b <thi")) == [Piece("outside", "a < b ")]
    assert list(splitter.add("s")) == [Piece("outside", "<this")]
