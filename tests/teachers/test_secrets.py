"""A key is in no text that is kept; what is too short to be one changes nothing."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.errors import ChainForgeError
from chainforge.providers.secrets import NONE, SHORTEST, refuse_keys, without_key

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


@pytest.mark.slow
@given(key=KEYS, said=any_json, around=st.text())
def test_a_key_is_nowhere_in_what_is_kept(key: str, said: Any, around: str) -> None:
    before = {"said": said, "list": [around + key + around], key: {"text": key * 3}}
    after = without_key(key, before)
    assert not [text for text in strings(after) if key in text]
    assert key not in json.dumps(after)
    assert len(strings(after)) == len(strings(before))
    assert without_key(key, f"{around}{key}") == f"{around.replace(key, '[key]')}[key]"


@pytest.mark.slow
@given(key=st.text(max_size=SHORTEST - 1) | st.just(NONE), said=any_json)
def test_what_is_too_short_to_be_a_secret_changes_no_answer(key: str, said: Any) -> None:
    assert without_key(key, [said, key, {key: f"how m{key}"}]) == [said, key, {key: f"how m{key}"}]


@given(key=KEYS, said=any_json)
def test_where_no_key_is_nothing_changes(key: str, said: Any) -> None:
    if not [text for text in strings(said) if key in text]:
        assert without_key(key, said) == said


HIDDEN = "2718281828x"


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"base_url": f"https://user:{HIDDEN}@toy.test/v1"}, "base_url"),
        ({"base_url": f"https://{HIDDEN}@toy.test/v1"}, "base_url"),
        ({"base_url": f"https://toy.test/v1?key={HIDDEN}"}, "base_url"),
        ({"base_url": f"https://toy.test/v1?a=b&api-key={HIDDEN}"}, "base_url"),
        ({"base_url": f"https://toy.test:80:80@/{HIDDEN}"}, "base_url"),
        ({"extra_body": {"api_key": HIDDEN}}, "extra_body.api_key"),
        ({"extra_body": {"provider": {"Authorization": HIDDEN}}}, "extra_body.provider.Authorization"),
        ({"extra_body": {"headers": [{"x-api-key": HIDDEN}]}}, "extra_body.headers.x-api-key"),
        ({"extra_body": {"x": f"Bearer {HIDDEN}"}}, "extra_body.x"),
        ({"extra_body": {"x": f"sk-{HIDDEN * 2}"}}, "extra_body.x"),
        ({"extra_body": {"x": f"a {HIDDEN * 2} b"}}, "extra_body.x"),
        ({"key_env": f"sk-{HIDDEN * 2}"}, "key_env"),
    ],
)
def test_a_setting_that_holds_a_key_is_named_and_not_shown(
    settings: dict[str, Any], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_API_KEY", HIDDEN * 2)
    with pytest.raises(ChainForgeError, match=f"^teacher.{where} holds ") as caught:
        refuse_keys(settings)
    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "http://127.0.0.1:8000/v1", "key_env": "DEEPSEEK_API_KEY"},
        {"base_url": "https://toy.test/v1?api-version=2026-01-01&deployment=a"},
        {
            "extra_body": {
                "eos_token": "<|im_end|>",
                "stop": ["User:", "a@b"],
                "max_tokens": None,
                "min_p": 0.1,
            }
        },
        {
            "extra_body": {
                "prompt_cache_key": "chainforge",
                "user": "me@toy.test",
                "reasoning": {"effort": "low"},
            }
        },
        {"base_url": None, "plugin": "generic", "model": "sk-net/keys-7b:free"},
    ],
)
def test_what_is_no_key_is_no_matter(settings: dict[str, Any]) -> None:
    refuse_keys(settings)


def test_json_nested_deep_is_no_matter() -> None:
    said: Any = "key: 12345678x"
    for _ in range(5000):
        said = [said]
    without_key("12345678x", said)
