"""Rewards for the form of a response: language_consistency, length, overlong, repetition, instructions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading import registered

import chainforge as cf

SUPERCOT = cf.tag_format("supercot")
texts = st.text() | st.text(alphabet="ab 所.\n$`-")


def made(name: str, **settings: Any) -> Any:
    file = "reward_language" if name == "language_consistency" else f"reward_{name}"
    return registered(file, "register_rewards")[name](**settings)


def of_reasoning(name: str, reasoning: str, **settings: Any) -> float | None:
    text = SUPERCOT.render(reasoning, "so")
    (value,) = made(name, **settings)(completions=[text], completion_ids=[[]], response_format=SUPERCOT)
    return value  # type: ignore[no-any-return]


@given(own=st.integers(0, 20), other=st.integers(0, 20))
def test_language_consistency_is_the_share_of_words(own: int, other: int) -> None:
    text = "word " * own + "所" * other + " 12 $x^2$"
    expected = own / (own + other) if own + other else 1.0
    assert of_reasoning("language_consistency", text) == pytest.approx(expected)
    both = of_reasoning("language_consistency", text, scripts=("Latin", "Han"))
    assert both == 1.0


def test_language_consistency_pays_nothing_for_nothing() -> None:
    assert of_reasoning("language_consistency", " \n") == 0.0
    reward = made("language_consistency")
    assert reward(completions=["no tags"], response_format=SUPERCOT) == [0.0]
    with pytest.raises(ValueError, match="scripts is empty"):
        made("language_consistency", scripts=())


@given(count=st.integers(0, 60), low=st.integers(0, 20), width=st.integers(0, 20), slack=st.integers(0, 20))
def test_length_falls_in_a_straight_line_on_both_sides(count: int, low: int, width: int, slack: int) -> None:
    settings = {"at_least": low, "at_most": low + width, "slack": slack}
    value = of_reasoning("length", "w " * count, **settings)
    beyond = max(low - count, count - low - width, 0)
    assert value == pytest.approx(1.0 if not beyond else max(0.0, 1 - beyond / slack) if slack else 0.0)
    ids = [[1] * count] if count else [[]]
    tokens = made("length", unit="tokens", **settings)(
        completions=["any"], completion_ids=ids, response_format=SUPERCOT
    )
    assert tokens == [value if count else None]


def daps(count: int, longest: int, cache: int) -> float:
    """Equation 13 of the paper, case by case."""
    if count <= longest - cache:
        return 0.0
    return (longest - cache - count) / cache if count <= longest else -1.0


@given(count=st.integers(1, 50), longest=st.integers(1, 40), cache=st.integers(1, 40))
def test_overlong_is_the_equation_of_the_paper(count: int, longest: int, cache: int) -> None:
    if cache > longest:
        with pytest.raises(ValueError, match="cache is above 0"):
            made("overlong", max_tokens=longest, cache=cache)
        return
    reward = made("overlong", max_tokens=longest, cache=cache)
    value, none = reward(completion_ids=[[3] * count, []])
    assert (value, none) == (pytest.approx(daps(count, longest, cache)), None)


def test_repetition_grows_with_the_loop_and_spares_what_is_allowed() -> None:
    loops = ["Wait, let me check that once more, to be sure. " * n for n in (1, 3, 9, 27)]
    values = [of_reasoning("repetition", text, part="reasoning") for text in loops]
    assert values[0] == 0.0
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]
    assert -1.0 <= values[-1] < -0.9  # type: ignore[operator]
    assert of_reasoning("repetition", loops[1], allowed=0.9) == 0.0
    assert made("repetition")(completions=[loops[3]], response_format=SUPERCOT)[0] < -0.9  # no tags at all


def keeps(summary: str, *rules: dict[str, Any], partly: bool = False) -> float | None:
    text = SUPERCOT.render("so", summary)
    (value,) = made("instructions", partly=partly)(
        completions=[text], instructions=[list(rules) or None], response_format=SUPERCOT
    )
    return value  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        ({"rule": "characters", "at_most": 4}, "four", "fives"),
        ({"rule": "words", "at_least": 2, "at_most": 3}, "a b c", "a b c d"),
        ({"rule": "words", "at_least": 2}, "don't stop", "one-word"),
        ({"rule": "sentences", "at_most": 2}, "It is 3.5 kg. Yes!", "One. Two? Three"),
        ({"rule": "sentences", "at_least": 2}, "一。二。", "No stop"),
        ({"rule": "lines", "at_most": 2}, "a\nb", "a\nb\nc"),
        ({"rule": "paragraphs", "at_least": 2}, "a\n \nb", "a\nb"),
        ({"rule": "bullets", "at_least": 2, "at_most": 2}, "- a\n2. b", "-a\n- b"),
        ({"rule": "headings", "at_least": 1}, "## A\nb", "#a"),
        ({"rule": "include", "texts": ["New York", "fig"]}, "A FIG in new york.", "A fig in Newark."),
        ({"rule": "exclude", "texts": ["fig"]}, "configure", "A fig!"),
        ({"rule": "mentions", "texts": ["fig", "plum"], "at_least": 3}, "fig, plum, Fig", "fig figs plum"),
        ({"rule": "starts", "with": "Dear"}, " Dear Ann", "dear Ann"),
        ({"rule": "ends", "with": "!"}, "Go!\n", "Go"),
        ({"rule": "without", "characters": ",;"}, "a. b", "a, b"),
        ({"rule": "capitals"}, "GO 3!", "Go"),
        ({"rule": "small"}, "go 3!", "3!"),
        ({"rule": "script", "scripts": ["Han"]}, "所以 x = 2", "so 所以"),
        ({"rule": "script", "scripts": ["Latin"], "share": 0.5}, "so 所", "so 所以"),
        ({"rule": "json"}, "```json\n[1, 2]\n```", "[1, 2"),
        ({"rule": "json", "keys": ["a"]}, '{"a": 1, "b": 2}', '["a"]'),
    ],
)
def test_an_instruction_is_checked_exactly(rule: dict[str, Any], right: str, wrong: str) -> None:
    assert keeps(right, rule) == 1.0
    assert keeps(wrong, rule) == 0.0


def test_all_instructions_count_or_their_share() -> None:
    rules = [{"rule": "words", "at_most": 2}, {"rule": "ends", "with": "."}, {"rule": "capitals"}]
    assert keeps("GO ON.", *rules) == 1.0
    assert keeps("Go on.", *rules) == 0.0
    assert keeps("Go on.", *rules, partly=True) == pytest.approx(2 / 3)
    assert keeps(" ", *rules, partly=True) == 0.0
    assert keeps("anything") is None


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"rule": "wrods"}, "rules: characters, words"),
        ({"rule": "words"}, "needs at_least, at_most or both"),
        ({"rule": "words", "at_most": "3"}, "of another type"),
        ({"rule": "words", "at_most": True}, "of another type"),
        ({"rule": "words", "most": 3}, "most is no such"),
        ({"rule": "include"}, "include needs texts"),
        ({"rule": "include", "texts": "fig"}, "of another type"),
        ({"rule": "include", "texts": []}, "of another type"),
        ("words", "rules: characters"),
    ],
)
def test_a_rule_that_is_none_is_an_error_not_a_zero(rule: Any, words: str) -> None:
    with pytest.raises(cf.ChainForgeError, match="cannot use") as caught:
        keeps("fig", rule)
    assert words in caught.value.fix


@given(text=texts)
def test_no_text_is_too_odd(text: str) -> None:
    rules = [{"rule": "json"}, {"rule": "sentences", "at_most": 3}, {"rule": "bullets", "at_least": 1}]
    columns = {"completions": [text], "completion_ids": [[1]], "response_format": SUPERCOT}
    values = [
        made("language_consistency", part="response")(**columns)[0],
        made("length", at_most=5, part="response")(**columns)[0],
        -made("repetition")(**columns)[0],
        made("instructions")(instructions=[rules], **columns)[0],
    ]
    assert all(0.0 <= value <= 1.0 for value in values)
