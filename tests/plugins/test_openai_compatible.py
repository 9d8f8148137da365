"""Settings of teacher `openai_compatible` that would cost money unseen, or lose it."""

from pathlib import Path
from typing import Any

import pytest

import chainforge as cf
from chainforge.plugins import load_plugins

PLUGINS = load_plugins(Path(__file__).resolve().parents[2] / "plugins")


def make(**settings: Any) -> Any:
    factory = PLUGINS.pick("teachers", "openai_compatible").component
    return factory(**{"preset": "generic", "base_url": "http://127.0.0.1/v1", "model": "m"} | settings)


@pytest.mark.parametrize("field", ["n", "best_of"])
def test_several_answers_in_one_call_are_refused_by_name(field: str) -> None:
    with pytest.raises(cf.ChainForgeError, match=f"extra_body has {field}.*\n.*samples"):
        make(extra_body={field: 4})
    make(extra_body={field: 1})


def test_a_finish_reason_that_a_server_made_up_means_what_the_settings_say() -> None:
    said = {"choices": [{"finish_reason": "fin", "message": {"content": "42"}}]}
    plain, told = make(), make(finishes={"fin": "stop"})
    assert (plain.read(said).finish, told.read(said).finish) == ("fin", "stop")
    assert plain.identity == told.identity, "nothing is paid for again"
    with pytest.raises(cf.ChainForgeError, match="finishes has the meaning 'done'"):
        make(finishes={"fin": "done"})


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_limit_on_which_no_budget_counts_is_refused(field: str) -> None:
    with pytest.raises(
        cf.ChainForgeError, match=rf"extra_body has {field}: 99.*\n  -> set teacher.max_tokens: 99"
    ):
        make(max_tokens=50, extra_body={field: 99})
    make(max_tokens=99, extra_body={"max_tokens": None, "max_completion_tokens": 99})


def test_a_field_that_is_null_is_left_out() -> None:
    teacher = make(preset="deepseek", extra_body={"thinking": None, "max_tokens": None})
    assert teacher.identity["parameters"] == {"reasoning_effort": "high"}


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "https://me:2718281828@toy.test/v1"},
        {"extra_body": {"api_key": "2718281828"}},
        {"key_env": "sk-27182818284590452353"},
    ],
)
def test_a_key_in_a_setting_is_refused_before_anything_is_asked(settings: dict[str, Any]) -> None:
    with pytest.raises(cf.ChainForgeError, match="holds a key") as caught:
        make(**settings)
    assert "27182818" not in str(caught.value)
