"""Which script a text is in: mixed Chinese is found, notation is neutral."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.filtering.language import script_share, without_notation


@pytest.mark.parametrize(
    ("text", "scripts", "share"),
    [
        ("", ["Latin"], 1.0),
        ("42 + 7 = 49", ["Latin"], 1.0),
        ("So the answer is forty-two.", ["Latin"], 1.0),
        ("Also gilt à ñandú, naïve e\u0301te\u0301.", ["Latin"], 1.0),
        ("so we get 所以", ["Latin"], 3 / 5),
        ("得到", ["Latin"], 0.0),
        ("所以 x = 2, y = π", ["Han"], 1.0),
        ("所以答案是 forty-two", ["Han"], 5 / 7),
        ("これは ひらがな", ["Hiragana"], 1.0),
        ("漢字かなカナ", ["Han", "Hiragana", "Katakana"], 1.0),
        ("ｶﾅ カー", ["Katakana"], 1.0),
        ("ответ есть", ["Cyrillic"], 1.0),
        ("ответ is yes", ["Latin"], 2 / 3),
        ("हिन्दी भाषा", ["Devanagari"], 1.0),
        ("α + β and 𝑠𝑖𝑛 of x² in ℝ, 5 µm, 3 kΩ", ["Latin"], 1.0),
        ("所以 `the code` 和 ```more of it``` 与 $area = 2$ 得 \\[ left \\] 是 \\frac 一", ["Han"], 1.0),
        ("it costs $5 而 that $7", ["Latin"], 3 / 4),
    ],
)
def test_the_share_of_words_in_a_script(text: str, scripts: list[str], share: float) -> None:
    assert script_share(text, scripts) == pytest.approx(share)


def test_an_english_text_that_lapses_into_chinese_is_below_the_customary_bound() -> None:
    english = "We have two trains that leave at the same time, so we add up their speeds. " * 5
    assert script_share(english + "所以答案是四十二", ["Latin"]) < 0.95 < script_share(english, ["Latin"])


def test_french_amid_english_is_not_found() -> None:
    assert script_share("So the answer is, je crois, quarante-deux.", ["Latin"]) == 1.0


@given(st.text(max_size=300), st.sets(st.sampled_from(["Latin", "Han", "Greek"])))
def test_a_share_is_a_share(text: str, scripts: set[str]) -> None:
    assert 0 <= script_share(text, scripts) <= script_share(text, scripts | {"Cyrillic"}) <= 1


@given(st.text("`$\\[](){} a5\n所", max_size=60))
def test_leaving_out_notation_leaves_the_rest_in_order(text: str) -> None:
    rest = iter(text + " ")
    assert all(character in rest for character in without_notation(text) if character not in " ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    ["`", "```", "$", "$$", "$a", "\\[", "\\(", "\\[a\\]", "$ ", "\u0301\u0323", "所", "Ω\u200d", "\ud800"],
)
def test_a_megabyte_of_anything_takes_a_moment(unit: str) -> None:
    started = time.process_time()
    assert 0 <= script_share(unit * (10**6 // len(unit)), ["Latin"]) <= 1
    assert time.process_time() - started < 3
