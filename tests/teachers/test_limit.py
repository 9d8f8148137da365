"""The limit of calls in flight, against a provider that is made up, by a clock that is, too."""

import heapq
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainforge.teachers.limit import LONGEST_HOLD_S, LONGEST_RETRY_AFTER_S, OUTAGE, Limit, backoff

ANSWERED, REFUSED, FAILED = range(3)
TICK_S = 0.1
events = st.lists(
    st.tuples(
        st.sampled_from([ANSWERED, REFUSED, FAILED]),
        st.integers(0, 300),  # others in flight
        st.floats(0, 100),  # seconds since the last one
        st.none() | st.floats(0, 1e6),  # retry after
    ),
    max_size=60,
)


class Provider:
    """Always has one more question to ask; takes `cap(now)` calls at a time, None while it is gone."""

    def __init__(
        self,
        limit: Limit,
        cap: Callable[[float], int | None],
        latency_s: float = 2.0,
        failing_s: float = 0.05,
        stray: float = 0.0,  # refused, whatever the load
    ) -> None:
        self.limit, self.cap, self.latency_s, self.failing_s = limit, cap, latency_s, failing_s
        self.stray = stray
        self.now, self.in_flight = 100.0, 0
        self.accepted = 0
        self._landing: list[tuple[float, int, int]] = []
        self.sent: list[tuple[float, int]] = []  # when, and what became of it
        self.level: list[tuple[float, int]] = []

    def run(self, seconds: float) -> None:
        """Send as much as the limit allows, for so long."""
        end = self.now + seconds
        while self.now < end:
            while self.limit.room(self.in_flight, self.now) > 0:
                self._send()
            self.level.append((self.now, self.in_flight))
            then = min(self.now + TICK_S, end)
            if self._landing and self._landing[0][0] <= then:
                self.now = self._landing[0][0]
                self._land()
            else:
                self.now = then

    def _send(self) -> None:
        cap = self.cap(self.now)
        end = FAILED if cap is None else REFUSED if self.accepted >= cap else ANSWERED
        if end == ANSWERED and random.random() < self.stray:
            end = REFUSED
        takes_s = random.uniform(0.8, 1.2) * (self.latency_s if end == ANSWERED else self.failing_s)
        self.accepted += end == ANSWERED
        self.in_flight += 1
        self.sent.append((self.now, end))
        heapq.heappush(self._landing, (self.now + takes_s, len(self.sent), end))

    def _land(self) -> None:
        *_, end = heapq.heappop(self._landing)
        self.in_flight -= 1
        if end == ANSWERED:
            self.accepted -= 1
            self.limit.note_answer(self.latency_s, self.in_flight)
        elif end == REFUSED:
            self.limit.note_refusal(self.in_flight, self.now)
        else:
            self.limit.note_failure(self.in_flight, self.now)

    def share(self, what: int, since: float) -> float:
        """Of the calls sent since then."""
        later = [end for at, end in self.sent if at >= since]
        return later.count(what) / len(later)

    def mean_level(self, since: float) -> float:
        """Calls in flight, on average over time."""
        later = [(at, n) for at, n in self.level if at >= since]
        return sum(n * (then - at) for (at, n), (then, _) in pairwise(later)) / (later[-1][0] - later[0][0])


@pytest.fixture(autouse=True)
def _the_same_dice() -> None:
    random.seed(17)


@pytest.mark.dear
@pytest.mark.parametrize("latency_s", [0.5, 2.0, 20.0])
@pytest.mark.parametrize("cap", [3, 40, 200])
def test_it_settles_at_what_the_provider_takes(cap: int, latency_s: float) -> None:
    provider = Provider(Limit(256), lambda now: cap, latency_s)
    provider.run(max(60, 10 * latency_s))
    settled = provider.now
    assert provider.limit.value == pytest.approx(cap, rel=0.2, abs=1.01)
    provider.run(max(120, 20 * latency_s))
    assert provider.mean_level(settled) >= 0.8 * cap - 0.5
    assert provider.share(REFUSED, settled) <= (0.05 if cap >= 40 else 0.3)


@pytest.mark.parametrize(("concurrency", "latency_s"), [(64, 1.0), (200, 4.0)])
@pytest.mark.parametrize(("stray", "fraction"), [(0.0, 0.95), (0.01, 0.95), (0.02, 0.85)])
def test_refusals_that_do_not_follow_the_load_cost_little(
    concurrency: int, latency_s: float, stray: float, fraction: float
) -> None:
    provider = Provider(Limit(concurrency), lambda now: 10_000, latency_s, stray=stray)
    provider.run(20 * latency_s)
    assert provider.mean_level(100.0) >= fraction * concurrency


def test_refusals_that_stop_following_the_load_are_soon_forgotten() -> None:
    provider = Provider(Limit(128), lambda now: 40 if now < 160 else 10_000, stray=0.01)
    provider.run(60)
    assert provider.limit.value <= 1.2 * 40
    provider.run(60)
    assert provider.limit.value >= 60


def test_without_refusals_all_that_is_allowed_is_in_flight_within_five_seconds() -> None:
    provider = Provider(Limit(256), lambda now: 10_000, latency_s=60)
    provider.run(5)
    assert provider.in_flight == 256


def test_a_cap_that_rises_is_found() -> None:
    provider = Provider(Limit(256), lambda now: 40 if now < 160 else 80)
    provider.run(60)
    provider.run(120)
    assert provider.limit.value >= 0.8 * 80


def test_after_a_minute_of_refusals_to_everybody_it_is_soon_where_it_was() -> None:
    provider = Provider(Limit(256), lambda now: 0 if 160 <= now < 220 else 128)
    provider.run(120)
    during = [end for at, end in provider.sent if 161 <= at < 220]
    assert set(during) == {REFUSED}
    assert len(during) <= 150
    provider.run(LONGEST_HOLD_S + 20)
    assert provider.limit.value >= 0.5 * 128


@pytest.mark.parametrize("failing_s", [0.05, 30.0])
def test_an_outage_lets_one_probe_through_at_a_time_with_growing_pauses(failing_s: float) -> None:
    provider = Provider(Limit(256), lambda now: None if now >= 130 else 10_000, failing_s=failing_s)
    provider.run(30)
    seen = 140 + 3 * failing_s  # by then, the last of many has come back
    provider.run(1800)
    assert max(level for at, level in provider.level if at > seen) == 1
    probes = [at for at, _ in provider.sent if at > seen]
    pauses = [then - at for at, then in pairwise(probes)]
    assert len(probes) < 100
    assert max(pauses) <= LONGEST_HOLD_S + 1.2 * failing_s + TICK_S
    assert sum(pauses[-10:]) >= sum(pauses[:5])


def test_after_an_outage_it_is_soon_where_it_was() -> None:
    provider = Provider(Limit(256), lambda now: None if 130 <= now < 200 else 10_000)
    provider.run(100 + LONGEST_HOLD_S + 20)
    assert provider.in_flight == 256


def test_a_few_failures_change_nothing() -> None:
    limit = Limit(64)
    for now in range(100, 200):
        limit.note_failure(20, now)
        limit.note_failure(20, now)
        limit.note_answer(1, 20)
        assert limit.room(20, now) > 0 or limit.value <= 20
    assert limit.value >= 16


@given(asked=st.integers(0, 10**6), now=st.integers(0, 10**6), in_flight=st.integers(1, 100))
def test_what_a_provider_asks_for_is_waited_for_within_two_minutes(
    asked: int, now: int, in_flight: int
) -> None:
    limit = Limit(64)
    limit.note_refusal(in_flight, now, asked)
    assert limit.open_at == 0, "one refusal among answers may be about that call alone"
    limit.note_refusal(in_flight, now, asked)
    assert limit.open_at == now + min(asked, LONGEST_RETRY_AFTER_S)
    assert limit.room(0, now + min(asked, LONGEST_RETRY_AFTER_S) + 1e-6) > 0
    if asked:
        assert limit.room(0, now) == 0
    limit.note_refusal(in_flight, now, 0.0)
    assert limit.open_at == now + min(asked, LONGEST_RETRY_AFTER_S), "a later one shortens nothing"


@pytest.mark.slow
@given(most=st.integers(1, 300), course=events)
def test_it_is_never_less_than_one_nor_more_than_allowed(
    most: int, course: list[tuple[int, int, float, float | None]]
) -> None:
    limit, now = Limit(most), 0.0
    for what, in_flight, after_s, retry_after_s in course:
        now += after_s
        others = min(in_flight, most - 1)
        if what == ANSWERED:
            limit.note_answer(after_s, others)
        elif what == REFUSED:
            limit.note_refusal(others, now, retry_after_s)
        else:
            limit.note_failure(others, now)
        room = limit.room(others, now)
        assert 1 <= limit.value <= most
        assert room + others <= most
        assert limit.open_at <= now + LONGEST_RETRY_AFTER_S
        assert limit.room(0, limit.open_at + 1e-3) >= 1


def test_eight_failures_in_a_row_mean_that_nobody_is_there() -> None:
    limit = Limit(4)
    for n in range(OUTAGE):
        assert limit.value == 4
        limit.note_failure(3, 100 + n)
    assert limit.value == 1


@given(tries=st.integers(0, 10_000), base_s=st.floats(0.001, 10))
def test_a_wait_is_at_most_a_minute_and_grows_by_two(tries: int, base_s: float) -> None:
    def longest(low: float, high: float) -> float:
        assert low == 0
        return high

    wait_s = backoff(tries, base_s, longest)
    assert 0 < wait_s <= LONGEST_HOLD_S
    assert backoff(tries + 1, base_s, longest) in (2 * wait_s, LONGEST_HOLD_S, wait_s)
    assert 0 <= backoff(tries, base_s) <= wait_s
