"""At which of its safe points the processes of a step meet: meeting at each would slow a small model."""

import time

EVERY_S, MOST = 0.5, 100  # seconds between two meetings, and safe points, at most


class Pace:
    """Counts safe points. The first process says when the next meeting is, by how long the last ones took."""

    def __init__(self, every_s: float) -> None:
        """`every_s`: meet at least as often."""
        self._every_s = min(every_s, EVERY_S)
        self._met_at = time.monotonic()
        self._passed, self._due = 0, 1

    def is_due(self) -> bool:
        """Count one; whether the processes meet at it."""
        self._passed += 1
        return self._passed >= self._due

    def proposal(self) -> int:
        """After how many more this process would meet again."""
        each_s = (time.monotonic() - self._met_at) / self._passed
        return max(1, min(MOST, round(self._every_s / max(each_s, 1e-6))))

    def meet_after(self, count: int) -> None:
        """What all have agreed on."""
        self._met_at = time.monotonic()
        self._passed, self._due = 0, count
