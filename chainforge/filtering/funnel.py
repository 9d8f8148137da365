"""What a filter read, dropped and kept: every trace counts once."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

# In the order of the tests: a trace is dropped for the first that it fails.
REASONS: Mapping[str, str] = {
    "unknown_prompt": "its prompt is not in the file of prompts",
    "finish_length": "cut off",
    "finish_content_filter": "stopped by the provider's content filter",
    "finish_error": "no answer",
    "no_reasoning": "an answer without reasoning",
    "no_answer": "reasoning without an answer",
    "contains_tag": "contains a tag of the response format",
    "wrong": "wrong, as the reward says",
    "ungraded": "the reward failed on it, such as for want of time",
    "language": "too many words in another script",
    "too_short": "too short",
    "too_long": "too long",
    "repetition": "goes round in circles",
    "contaminated_exact": "an evaluation set asks the same",
    "contaminated_ngram": "shares a run of words with an evaluation set",
    "duplicate_prompt": "another prompt with the same text",
    "near_duplicate_prompt": "another prompt with nearly the same text",
    "duplicate": "the same response to the same prompt",
    "near_duplicate": "nearly the same response to the same prompt",
    "over_quota": "more than wanted for one prompt",
}


@dataclass(slots=True)
class Funnel:
    """Counts by reason, in the order of the tests; `gone` has every dropped item with its reason."""

    dropped: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    gone: dict[int, tuple[object, str]] = field(default_factory=dict)  # by id(item), which it keeps alive

    def sift(self, items: Sequence[T], reasons: Iterable[str | None]) -> list[T]:
        """Those without a reason to be dropped; the others are counted."""
        left = []
        for item, reason in zip(items, reasons, strict=True):
            if reason is None:
                left.append(item)
            else:
                self.dropped[reason] += 1
                self.gone[id(item)] = (item, reason)
        self.kept = len(left)
        return left

    def reason_of(self, item: object) -> str | None:
        """Why this very item was dropped; None where it was kept."""
        return self.gone.get(id(item), (item, None))[1]

    @property
    def read(self) -> int:
        """All: what was dropped, and what was kept."""
        return self.dropped.total() + self.kept

    @property
    def counts(self) -> dict[str, int]:
        """For metrics/: read, kept, and dropped/REASON for each reason that occurred."""
        dropped = {f"dropped/{reason}": self.dropped[reason] for reason in sort_reasons(self.dropped)}
        return {"read": self.read, "kept": self.kept} | dropped


def sort_reasons(reasons: Iterable[str]) -> list[str]:
    """Reasons in the order of the tests; others, which only a later version knows, at the end by name."""
    places = {reason: place for place, reason in enumerate(REASONS)}
    return sorted(reasons, key=lambda reason: (places.get(reason, len(places)), reason))
