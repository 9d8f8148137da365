"""The response format: what is rendered is parsed as it was, and nothing else is let through."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chainforge.errors import ChainForgeError
from chainforge.response import PRESETS, Parsed, TagFormat, tag_format

formats = st.sampled_from(sorted(PRESETS)).map(tag_format)
pieces = st.sampled_from(
    ["<", ">", "</", "think", "summary", "<think", "answer>", "reasoning_process", "\n", " "]
)
texts = st.one_of(st.text(), st.lists(st.one_of(pieces, st.text(max_size=3)), max_size=8).map("".join))
spaces = st.text(alphabet=" \t\n\r", max_size=3)


def without_tags(form: TagFormat, *parts: str) -> bool:
    return not any(tag in part for tag in form.tags for part in parts)


@pytest.mark.slow
@given(form=formats, reasoning=texts, summary=texts)
def test_what_is_rendered_is_parsed_as_it_was(form: TagFormat, reasoning: str, summary: str) -> None:
    assume(without_tags(form, reasoning, summary))
    assert form.parse(form.render(reasoning, summary)) == Parsed(reasoning, summary)


tagged = st.tuples(formats, st.lists(st.one_of(texts, st.integers(0, 3)), max_size=8)).map(
    lambda drawn: (drawn[0], "".join(p if isinstance(p, str) else drawn[0].tags[p] for p in drawn[1]))
)


@pytest.mark.slow
@given(drawn=tagged)
def test_any_text_can_be_mended_and_one_in_the_format_keeps_its_summary(
    drawn: tuple[TagFormat, str],
) -> None:
    form, text = drawn
    mended = form.parse(form.mend(text))
    assert mended
    assert (mended.reasoning, mended.summary) == ("-", mended.summary.strip())
    parsed = form.parse(text)
    if parsed and parsed.filled:
        assert mended.summary == parsed.summary.strip()


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("The answer is 18.", "The answer is 18."),
        ("<think>6*3 = 18", "6*3 = 18"),
        ("<think>6*3</think> It is 18.", "It is 18."),
        ("<think>6*3</think>\n", "6*3"),
        ("6*3 <answer>18", "18"),
        ("<answer>17</answer> no: <answer>18</answer> yes", "18"),
    ],
)
def test_an_answer_outside_of_the_format_is_looked_for_where_it_would_stand(text: str, summary: str) -> None:
    assert tag_format("r1").parse(tag_format("r1").mend(text)) == Parsed("-", summary)


@pytest.mark.slow
@given(form=formats, reasoning=texts, summary=texts, before=spaces, between=spaces, after=spaces)
def test_white_space_around_the_parts_does_not_matter(
    form: TagFormat, reasoning: str, summary: str, before: str, between: str, after: str
) -> None:
    assume(without_tags(form, reasoning, summary))
    r0, r1, s0, s1 = form.tags
    text = f"{before}{r0}{reasoning}{r1}{between}{s0}{summary}{s1}{after}"
    assert form.parse(text) == Parsed(reasoning, summary)


@pytest.mark.slow
@given(form=formats, reasoning=texts, summary=texts, where=st.integers(0, 4), other=texts)
def test_anything_else_outside_the_parts_is_no_response(
    form: TagFormat, reasoning: str, summary: str, where: int, other: str
) -> None:
    assume(other.strip() and without_tags(form, reasoning, summary))
    whole = form.render(reasoning, summary)
    r1, s0 = form.tags[1:3]
    assert form.parse(other + whole) is None
    assert form.parse(whole + other) is None
    assert form.parse(whole.replace(r1 + s0, r1 + other + s0)) is None


@given(form=formats, order=st.permutations(range(4)))
def test_tags_in_another_order_are_no_response(form: TagFormat, order: list[int]) -> None:
    text = "".join(f"{form.tags[i]}x" for i in order)
    assert form.parse(text.removesuffix("x")) is None or order == [0, 1, 2, 3]


@given(form=formats, tag=st.integers(0, 3), place=st.integers(0, 200), parts=st.tuples(texts, texts))
def test_a_tag_that_occurs_twice_or_never_is_no_response(
    form: TagFormat, tag: int, place: int, parts: tuple[str, str]
) -> None:
    assume(without_tags(form, *parts))
    whole = form.render(*parts)
    at = place % (len(whole) + 1)
    assert form.parse(whole.replace(form.tags[tag], "")) is None
    assert form.parse(whole[:at] + form.tags[tag] + whole[at:]) is None


@given(form=formats, text=texts)
def test_parsing_never_raises_and_finds_only_what_is_there(form: TagFormat, text: str) -> None:
    parsed = form.parse(text)
    assert parsed is None or form.render(parsed.reasoning, parsed.summary).split() == text.split()


@given(form=formats, tag=st.integers(0, 3), before=texts, after=texts, in_summary=st.booleans())
def test_a_part_that_contains_a_tag_is_refused(
    form: TagFormat, tag: int, before: str, after: str, in_summary: bool
) -> None:
    part = before + form.tags[tag] + after
    with pytest.raises(ChainForgeError, match="contains the tag <"):
        form.render(*(("fine", part) if in_summary else (part, "fine")))


def test_a_prefilled_tag_is_what_the_prompt_already_ends_with() -> None:
    form = tag_format("r1-prefilled")
    whole = form.render("6*7=42", "42")
    assert whole == "<think>6*7=42</think><answer>42</answer>"
    sampled = whole.removeprefix(form.prefill)  # the model writes the rest
    assert sampled == "6*7=42</think><answer>42</answer>"
    assert form.parse(sampled) is None
    assert form.parse(form.prefill + sampled) == Parsed("6*7=42", "42")
    assert tag_format("r1").prefill == ""


def test_an_unknown_format_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(
        ChainForgeError, match=r"there is no response format called 'r1-prefiled'\n.*'r1-prefilled'"
    ):
        tag_format("r1-prefiled")
