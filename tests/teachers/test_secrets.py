"""A key is in no text that is kept; what is too short to be one changes nothing."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chainforge.secrets import NONE, SHORTEST, without_key

# A key of digits alone could also stand in a number, which is left as it is.
KEYS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=SHORTEST, max_size=40).filter(
    lambda key: any(map(str.isalpha, key))
)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def strings(said: Any) -> list[str]:
    """All that JSON says, names included."""
    if isinstance(said, dict):
        return [text for pair in said.items() for part in pair for text in strings(part)]
    if isinstance(said, list):
        return [text for part in said for text in strings(part)]
    return [said] if isinstance(said, str) else []


@given(key=KEYS, said=any_json, around=st.text())
def test_a_key_is_nowhere_in_what_is_kept(key: str, said: Any, around: str) -> None:
    before = {"said": said, "list": [around + key + around], key: {"text": key * 3}}
    after = without_key(key, before)
    assert not [text for text in strings(after) if key in text]
    assert key not in json.dumps(after)
    assert len(strings(after)) == len(strings(before))
    assert without_key(key, f"{around}{key}") == f"{around.replace(key, '[key]')}[key]"


@given(key=st.text(max_size=SHORTEST - 1) | st.just(NONE), said=any_json)
def test_what_is_too_short_to_be_a_secret_changes_no_answer(key: str, said: Any) -> None:
    assert without_key(key, [said, key, {key: f"how m{key}"}]) == [said, key, {key: f"how m{key}"}]


@given(key=KEYS, said=any_json)
def test_where_no_key_is_nothing_changes(key: str, said: Any) -> None:
    if not [text for text in strings(said) if key in text]:
        assert without_key(key, said) == said
