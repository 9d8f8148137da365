"""How a reward is called is checked where it is registered: a mistake is reported with the plugin."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from toys import write_plugin

from chainforge.errors import ChainForgeError
from chainforge.hookspecs import RegisterReward
from chainforge.plugins import load_plugins
from chainforge.reward_options import RewardOptions
from chainforge.wiring import make_reward

REWARD = "def reward(completions): return [0.0] * len(completions)\n"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"isolaton": "process"},
            "TypeError: there is no option of a reward called 'isolaton'; did you mean",
        ),
        ({"weight": 2.0}, "TypeError: there is no option of a reward called 'weight'; "),
        ({"isolation": "thread"}, "ValueError: isolation must be 'inline' or 'process', not 'thread'"),
        ({"on_error": "zero"}, "ValueError: on_error must be 'raise' or 'none', not 'zero'"),
        ({"per_sample": "yes"}, "ValueError: per_sample must be True or False, not 'yes'"),
        ({"conversational": None}, "ValueError: conversational must be True or False, not None"),
        ({"timeout_s": 0}, "ValueError: timeout_s must be a number of seconds above 0, not 0"),
        ({"timeout_s": -1.5}, "ValueError: timeout_s must be a number of seconds above 0, not -1.5"),
        ({"timeout_s": True}, "ValueError: timeout_s must be a number of seconds above 0, not True"),
        ({"reading": 5}, "ValueError: reading must be a function of a text, not 5"),
        (
            {"each_s": 0, "isolation": "process"},
            "ValueError: each_s must be a number of seconds above 0, not 0",
        ),
        (
            {"each_s": 2.0},
            'ValueError: each_s is for a reward with a process of its own: isolation="process"',
        ),
        ({"ready": "yes"}, "ValueError: ready must be a function, not 'yes'"),
        ({"check_answer": 1}, "ValueError: check_answer must be a function of a text, not 1"),
        ({"timeout_s": "5"}, "ValueError: timeout_s must be a number of seconds above 0, not '5'"),
    ],
)
def test_an_option_that_cannot_be_breaks_its_plugin_and_no_other(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    write_plugin(tmp_path, REWARD, "fine", "reward")
    write_plugin(tmp_path, REWARD, "odd", "reward", **options)
    plugins = load_plugins(tmp_path)
    assert plugins.names("rewards") == ["fine"]
    ((source, found),) = plugins.broken.items()
    assert source.endswith("reward_odd.py")
    assert found.startswith(reason)
    with pytest.raises(ChainForgeError) as caught:
        plugins.pick("rewards", "odd")
    assert reason in caught.value.fix


def test_every_option_reaches_the_reward_as_registered(tmp_path: Path) -> None:
    options = {
        "conversational": True,
        "per_sample": True,
        "isolation": "process",
        "timeout_s": 2,
        "each_s": 1.5,
        "on_error": "none",
        "keys": ("JUDGE_API_KEY",),
    }
    functions = {"reading", "ready", "prepare", "check_answer"}  # no texts
    others = functions | {"factory"}  # it changes what is registered: tests/scoring/test_reward_settings.py
    assert set(options) == {option.name for option in fields(RewardOptions)} - others
    write_plugin(tmp_path, REWARD, "toy", "reward", **options)
    reward = make_reward(load_plugins(tmp_path).pick("rewards", "toy"), 0.5)
    assert reward.options == RewardOptions(**options)
    assert reward.weight == 0.5


def test_the_hook_says_every_option_with_its_default() -> None:
    parameters = list(inspect.signature(RegisterReward.__call__).parameters.values())
    said = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert said.pop("override") is False  # decides between plugins, not how a reward is called
    assert said == {option.name: option.default for option in fields(RewardOptions)}
    described = inspect.getdoc(RewardOptions) or ""
    assert all(f"- `{name}`: " in described for name in said)
