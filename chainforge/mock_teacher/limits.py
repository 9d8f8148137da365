"""How many requests are let in: at a time, and per minute."""

import time
from collections import deque
from collections.abc import Callable

from chainforge.mock_teacher.refused import Refused

MINUTE_S = 60.0


class Limits:
    """Whoever comes above a limit is refused at once."""

    def __init__(
        self,
        cap: int | None,
        rpm: int | None,
        retry_after_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cap = cap
        self.rpm = rpm
        self.retry_after_s = retry_after_s
        self.in_flight = 0
        self._clock = clock
        self._recent: deque[float] = deque()

    def enter(self) -> None:
        """Let one in. Raises Refused with 429."""
        if self.cap is not None and self.in_flight >= self.cap:
            raise Refused(429, f"more than {self.cap} requests at a time", self.retry_after_s)
        if self.rpm is not None:
            now = self._clock()
            while self._recent and self._recent[0] <= now - MINUTE_S:
                self._recent.popleft()
            if len(self._recent) >= self.rpm:
                raise Refused(429, f"more than {self.rpm} requests a minute", self.retry_after_s)
            self._recent.append(now)
        self.in_flight += 1

    def leave(self) -> None:
        """One is done."""
        self.in_flight -= 1
