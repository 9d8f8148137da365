"""How many calls may be in flight: more while all goes well, fewer when the provider refuses.

Doubles from a small start until refusals follow, as TCP does. From then on, it takes a share off when they
do, comes back quickly to where that was, then grows by one per round trip (additive increase, multiplicative
decrease: Chiu and Jain 1989; coming back as CUBIC does, RFC 9438). A few refusals among many answers follow
no load: each costs the place of the call that was refused, until the next answer.
"""

import random
from collections.abc import Callable

START = 16
DOUBLES_EVERY_S = 0.25
DECREASE = 0.85
LONGEST_HOLD_S = 60.0
LONGEST_RETRY_AFTER_S = 120.0
OUTAGE = 8  # this many failures in a row, or more, mean that the provider is down
STRAY = 0.03  # share of calls: fewer refusals than this say nothing about the load
FAR_ASTRAY = 0.1  # share of calls: more refusals than this always count
LOSS = 0.7  # the concurrency that worked before is lowered to this share when it fails
LIGHT = 0.8  # share of the load at which refusals began: refusals below it have another cause
MEMORY = 200  # newest calls that a share is computed from


class Limit:
    """`value` calls may be in flight, none before `open_at`. Times are in seconds of one monotonic clock."""

    def __init__(self, most: int, base_s: float = 1.0) -> None:
        self.value = float(min(START, most))
        self.open_at = 0.0
        self._most = most
        self._base_s = base_s
        self._doubling = True
        self._grown_at = 0.0
        self._cut_at = -1.0
        self._round_trip_s = 1.0
        self._fine = 0.0  # concurrency that worked before; recover to it quickly
        self._level = 0.0  # calls in flight when the provider began to refuse
        self._top = 0.0  # highest load at which refusals depended on the load
        self._all = Share(MEMORY)  # of all calls, starting as if none had been refused
        self._light = Share()  # of the calls under a light load (LIGHT)
        self._humbled = False  # lowered since the last answer
        self.bad_in_a_row = 0

    def room(self, in_flight: int, now: float) -> int:
        """How many more calls may be sent."""
        if now < self.open_at:
            return 0
        full = in_flight >= int(self.value)
        well = self._doubling and self.bad_in_a_row < 3
        if well and full and now - self._grown_at >= DOUBLES_EVERY_S:
            self.value, self._grown_at = min(2 * self.value, self._most), now
        return int(self.value) - in_flight

    def note_answer(self, latency_s: float, in_flight: int) -> None:
        """A whole answer came after `latency_s`, with `in_flight` others still in flight."""
        self.bad_in_a_row, self._humbled = 0, False
        self._round_trip_s += 0.2 * (latency_s - self._round_trip_s)
        self._count(0, in_flight)
        if not self._doubling and in_flight + 1 >= int(self.value):
            back = max(0.0, self._top - self.value) / 2
            more = 1.0 if self.value < self._fine else (1 + back) / self.value
            self.value = min(self.value + more, self._most)

    def note_refusal(self, in_flight: int, now: float, retry_after_s: float | None = None) -> None:
        """The provider said "too many" (429, 503), with `in_flight` others still in flight.

        Those are what it could take: not one more is sent until one of them is done. Where refusals follow
        the load, a share is taken off at most once per round trip.
        """
        self.bad_in_a_row += 1
        if self.bad_in_a_row == 1:
            self._level = min(self.value, in_flight)
        self._count(1, in_flight)
        if (
            self._all.share <= max(STRAY, min(2 * self._light.share, FAR_ASTRAY))
            and self.bad_in_a_row < OUTAGE
        ):
            self._fine = max(self._fine, self.value)
        else:
            self._cut(in_flight, now)
        self.value = max(1.0, min(self.value, in_flight))
        if retry_after_s is not None and self.bad_in_a_row > 1:
            self._hold(now + bound_wait(retry_after_s))
        if in_flight == 0:
            self._hold(now + backoff(self.bad_in_a_row, self._base_s))

    def note_failure(self, in_flight: int, now: float) -> None:
        """No answer, for another reason. After several in a row, one call at a time sees if it is over."""
        self.bad_in_a_row += 1
        if self.bad_in_a_row >= max(OUTAGE, self.value):
            self.value, self._doubling = 1.0, True
            if in_flight == 0:
                self._hold(now + backoff(self.bad_in_a_row - OUTAGE + 1, self._base_s))

    def _cut(self, in_flight: int, now: float) -> None:
        self._doubling = False
        if now - self._cut_at < self._round_trip_s:
            return
        self._cut_at = now
        self.value *= DECREASE
        if self._humbled or self.bad_in_a_row >= OUTAGE:
            return  # lowered for the same reason already
        self._humbled = True
        self._fine = max(DECREASE * self._level, self._fine * LOSS)
        if self._all.share > FAR_ASTRAY or in_flight + 1 > self._top:
            self._top, self._light = in_flight + 1.0, Share()

    def _count(self, refused: int, in_flight: int) -> None:
        self._all.add(refused)
        if in_flight < LIGHT * self._top:
            self._light.add(refused)

    def _hold(self, until: float) -> None:
        self.open_at = max(self.open_at, until)


class Share:
    """How many of the last calls were refused, the older ones counting less and less."""

    def __init__(self, calls: int = 0) -> None:
        self.share, self._calls = 0.0, calls

    def add(self, refused: int) -> None:
        """One more call: 1 if it was refused, else 0."""
        self._calls = min(self._calls + 1, MEMORY)
        self.share += (refused - self.share) / self._calls


def bound_wait(retry_after_s: float) -> float:
    """The wait that a provider asks for, at most LONGEST_RETRY_AFTER_S."""
    return min(retry_after_s, LONGEST_RETRY_AFTER_S)


def backoff(
    tries: int, base_s: float = 1.0, uniform: Callable[[float, float], float] = random.uniform
) -> float:
    """Seconds to wait before asking again: anything up to base x 2^tries, at most a minute ("full jitter").

    Source: Brooker, Exponential Backoff And Jitter, AWS Architecture Blog 2015.
    """
    return uniform(0.0, min(LONGEST_HOLD_S, base_s * 2 ** min(tries, 16)))
