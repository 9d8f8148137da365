"""Rewards as plugin files, scored for real, and nothing left running afterwards."""

from collections.abc import Iterator
from typing import Any

import pytest
from fakes import SUPERCOT
from toys import MakeScorer, write_plugin

from chainforge.plugins import load_plugins
from chainforge.scoring import Scorer
from chainforge.wiring import make_reward


@pytest.fixture(scope="module")
def make_scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeScorer]:
    """`make(code, function, **options)`: a scorer of one plugin file. All are closed in the end."""
    scorers = []

    def make(
        code: str, function: str = "reward", *, log: Any = None, limit: float = 20.0, **options: Any
    ) -> Scorer:
        folder = tmp_path_factory.mktemp("plugins")
        write_plugin(folder, code, "toy", function, **options)
        plugins = load_plugins(folder)
        assert not plugins.broken
        reward = make_reward(plugins.pick("rewards", "toy"))
        scorers.append(Scorer((reward,), SUPERCOT, limit, log or (lambda name, value: None)))
        return scorers[-1]

    yield make
    for scorer in scorers:
        scorer.close()
