"""Settings of teacher `openai_compatible` that would cost money unseen, or lose it."""

from pathlib import Path
from typing import Any

import pytest

import chainforge as cf
from chainforge.plugins import load_plugins

PLUGINS = load_plugins(Path(__file__).resolve().parents[2] / "plugins")


def make(**settings: Any) -> Any:
    factory = PLUGINS.pick("teachers", "openai_compatible").component
    return factory(preset="generic", base_url="http://127.0.0.1/v1", model="m", **settings)


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
