"""The completions of the next rollout, under way while the learner works on the last one (`max_lag: 1`)."""

from collections.abc import Callable, Mapping
from typing import Any

from chainforge.records import Completion, from_json, to_json
from chainforge.rollout.complete import Completions


class Ahead:
    """One rollout at most, known by the place of its first prompt among all that are drawn.

    It belongs to what a save holds: after the next update, the policy that samples it is gone. So a save
    waits for it.
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._wait: Callable[[], Completions] = list

    def put(self, first: int, wait: Callable[[], Completions]) -> None:
        """A rollout that was begun; `wait` returns its completions."""
        self._first, self._wait = first, wait

    def has(self, first: int) -> bool:
        """Whether the rollout whose first prompt this is was begun."""
        return self._first == first

    def take(self, first: int) -> Completions | None:
        """Its completions; None where it was not begun."""
        if not self.has(first):
            return None
        found = self._wait()
        self._first = None
        return found

    def state_dict(self) -> dict[str, Any]:
        """Numbers, lists and mappings only."""
        if self._first is None:
            return {"first": None, "completions": []}
        found = self._wait()
        self._wait = lambda: found
        return {"first": self._first, "completions": [[to_json(c) for c in group] for group in found]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        found = [tuple(from_json(Completion, row) for row in group) for group in state["completions"]]
        self.put(state["first"], lambda: found)
