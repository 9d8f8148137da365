"""Rewards with settings of their own: made of them here and in another process, and refused by name."""

from pathlib import Path

import pytest
from fakes import ROOT, SUPERCOT, completion, prompt
from toys import write_plugin

from chainforge.errors import ChainForgeError
from chainforge.plugins import load_plugins
from chainforge.scoring import Scorer
from chainforge.testing.rewards import check_reward
from chainforge.wiring import make_reward

TIMES = """
from dataclasses import dataclass

@dataclass(frozen=True, kw_only=True)
class Times:
    factor: float = 2.0

    def __call__(self, completions, **_):
        return [self.factor * len(text) for text in completions]

def nothing(*, factor: float = 2.0):
    return factor
"""


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["inline", "process"])
def test_a_reward_is_made_of_its_settings(isolation: str, tmp_path: Path) -> None:
    write_plugin(tmp_path, TIMES, "times", "Times", factory=True, isolation=isolation)
    entry = load_plugins(tmp_path).pick("rewards", "times")
    asked = prompt()
    for settings, expected in (({}, 6.0), ({"factor": 0.5}, 1.5)):
        with Scorer((make_reward(entry, 1.0, settings),), SUPERCOT, 60.0) as scorer:
            (group,) = scorer.score([asked], [[completion(asked, "abc")]])
        assert group.scores[0].parts == {"times": expected}


def test_what_a_factory_makes_can_be_called(tmp_path: Path) -> None:
    write_plugin(tmp_path, TIMES, "times", "nothing", factory=True)
    with pytest.raises(ChainForgeError, match="makes float, which cannot be called"):
        make_reward(load_plugins(tmp_path).pick("rewards", "times"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("language_consistency", {"part": "response"}),
        ("length", {"at_most": 10, "unit": "characters"}),
        ("overlong", {"max_tokens": 40, "cache": 20}),
        ("repetition", {"allowed": 0.1}),
    ],
)
def test_bundled_rewards_keep_the_contract(name: str, settings: dict[str, object]) -> None:
    findings = check_reward(load_plugins(ROOT / "plugins").pick("rewards", name), settings=settings)
    assert [str(finding) for finding in findings if not finding.holds] == []
