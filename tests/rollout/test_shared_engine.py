"""Several engines that share the requests give what one gives, to everybody."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any, cast

import pytest
from fakes import MadeUp, qwen2
from hypothesis import given, settings
from hypothesis import strategies as st

from chainforge.config.sampling import SamplingSettings
from chainforge.rollout.engine import Request
from chainforge.rollout.sampler import sample
from chainforge.rollout.shared_engine import SharedEngine
from chainforge.run.world import World

SETTINGS = SamplingSettings(max_new_tokens=5)


@dataclass
class Together:
    """Threads in the place of processes: `gather` waits for all of them."""

    size: int
    said: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = Barrier(self.size)

    def world(self, rank: int) -> World:
        return cast(World, Member(self, rank, self.size))


@dataclass
class Member:
    together: Together
    rank: int
    size: int

    def gather(self, value: Any) -> list[Any]:
        self.together.said[self.rank] = value
        self.together.barrier.wait(60)
        return [self.together.said[rank] for rank in range(self.size)]


@pytest.mark.slow
@given(
    seeds=st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=5), max_size=9),
    size=st.integers(1, 4),
)
@settings(deadline=None, max_examples=60)
def test_all_get_what_one_engine_gives(seeds: list[list[int]], size: int) -> None:
    requests = [Request([place], each) for place, each in enumerate(seeds)]
    together, engines = Together(size), [MadeUp() for _ in range(size)]
    shared = [SharedEngine(engine, together.world(rank)) for rank, engine in enumerate(engines)]
    with ThreadPoolExecutor(size) as pool:
        found = list(pool.map(lambda engine: engine.generate(requests, SETTINGS), shared))
    assert found == [MadeUp().generate(requests, SETTINGS)] * size
    counts = [sum(len(request.seeds) for request in engine.asked) for engine in engines]
    assert sum(counts) == sum(map(len, seeds)), "nothing is sampled twice"


def test_few_groups_are_split_so_that_nobody_waits() -> None:
    together, engines = Together(2), [MadeUp(), MadeUp()]
    shared = [SharedEngine(engine, together.world(rank)) for rank, engine in enumerate(engines)]
    requests = [Request([n], list(range(8))) for n in range(3)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda engine: engine.generate(requests, SETTINGS), shared))
    assert [sum(len(r.seeds) for r in engine.asked) for engine in engines] == [12, 12]
    assert [engine.rows for engine in shared] == [1024, 1024]


def test_a_process_for_which_no_completion_is_left_samples_none() -> None:
    """Of 5 prompts with 4 completions each, the last four of 8 processes have none."""
    requests = [Request([1, 2, 3], []) for _ in range(5)]
    assert sample(qwen2(), requests, SETTINGS, eos_ids=[0], max_rows=8) == [[]] * 5
    assert sample(qwen2(), [], SETTINGS, eos_ids=[0], max_rows=8) == []
