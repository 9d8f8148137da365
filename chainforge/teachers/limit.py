"""How many calls may be in flight: more while all goes well, fewer when the provider refuses.

Doubles from a small start until the first refusal, as TCP does, then adds one per round trip and takes a
share off at a refusal (additive increase, multiplicative decrease; Chiu and Jain 1989).
"""

import random
from collections.abc import Callable

START = 16
DOUBLES_EVERY_S = 0.5
DECREASE = 0.85
LONGEST_HOLD_S = 60.0
LONGEST_RETRY_AFTER_S = 120.0
OUTAGE = 8  # failures in a row, at least, that mean that nobody is there


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
        self._fine = 0.0  # so many at a time may well be taken again, when a refusal of all of them is over
        self.bad_in_a_row = 0

    def room(self, in_flight: int, now: float) -> int:
        """How many more calls may be sent."""
        if now < self.open_at:
            return 0
        full = in_flight >= int(self.value)
        well = self._doubling and not self.bad_in_a_row
        if well and full and now - self._grown_at >= DOUBLES_EVERY_S:
            self.value, self._grown_at = min(2 * self.value, self._most), now
        return int(self.value) - in_flight

    def answered(self, latency_s: float, in_flight: int) -> None:
        """A whole answer came, after so long, with so many others still in flight."""
        self.bad_in_a_row = 0
        self._round_trip_s += 0.2 * (latency_s - self._round_trip_s)
        if not self._doubling and in_flight + 1 >= int(self.value):
            more = 1.0 if self.value < self._fine else 1 / self.value
            self.value = min(self.value + more, self._most)

    def refused(self, in_flight: int, now: float, retry_after_s: float | None = None) -> None:
        """The provider said "too many" (429, 503), with so many others still in flight.

        Those are what it could take: not one more is sent until one of them is done. Below that, a share is
        taken off at most once per round trip.
        """
        self._doubling = False
        self.bad_in_a_row += 1
        if now - self._cut_at >= self._round_trip_s:
            self._cut_at = now
            self.value *= DECREASE
            if self.bad_in_a_row == 1:
                self._fine = max(min(self.value, in_flight), self._fine / 2)
        self.value = max(1.0, min(self.value, in_flight))
        if retry_after_s is not None:
            self._hold(now + held(retry_after_s))
        if in_flight == 0:
            self._hold(now + backoff(self.bad_in_a_row, self._base_s))

    def failed(self, in_flight: int, now: float) -> None:
        """No answer, for another reason. After several in a row, one call at a time sees if it is over."""
        self.bad_in_a_row += 1
        if self.bad_in_a_row >= max(OUTAGE, self.value):
            self.value, self._doubling = 1.0, True
            if in_flight == 0:
                self._hold(now + backoff(self.bad_in_a_row - OUTAGE + 1, self._base_s))

    def _hold(self, until: float) -> None:
        self.open_at = max(self.open_at, until)


def held(retry_after_s: float) -> float:
    """What a provider asks for, within reason."""
    return min(retry_after_s, LONGEST_RETRY_AFTER_S)


def backoff(
    tries: int, base_s: float = 1.0, uniform: Callable[[float, float], float] = random.uniform
) -> float:
    """Seconds to wait before asking again: anything up to base x 2^tries, at most a minute ("full jitter").

    Source: Brooker, Exponential Backoff And Jitter, AWS Architecture Blog 2015.
    """
    return uniform(0.0, min(LONGEST_HOLD_S, base_s * 2 ** min(tries, 16)))
