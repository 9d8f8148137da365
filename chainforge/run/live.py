"""What a person may see of a step while it runs: two small files in logs/, for `chainforge watch` alone.

STEP.progress.json says how far its bar is, and when it was how far; STEP.completions.jsonl has the last
groups. They hold no result, and nothing that goes wrong with them disturbs the step.
"""

import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from chainforge.records import Group

T = TypeVar("T")

EVERY_S = 1.0  # seconds between two writes, at least
MARKS = 60  # times that are kept: the pace is that of the last minute, or of the last 60 turns
GROUPS, PER_ROLLOUT, PER_GROUP = 8, 2, 8  # kept; of one rollout; completions of one group
LONGEST = 10_000  # characters of a text
CUT = "\n[… cut here: {} characters …]\n"
PROGRESS, COMPLETIONS = ".progress.json", ".completions.jsonl"  # after the step's name


class Live:
    """Writes both files of a step; without a path it writes nothing."""

    def __init__(self, path: Path | None = None) -> None:
        """`path` is logs/STEP, to which the endings are added."""
        self._path = path
        self._groups: deque[dict[str, Any]] = deque(maxlen=GROUPS)
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=MARKS)
        self._bar: dict[str, Any] = {}
        self._turn, self._tokens, self._written_at = 0, 0, 0.0

    def clear(self) -> None:
        """Remove what an earlier run of the step has left."""
        for ending in (PROGRESS, COMPLETIONS) if self._path else ():
            with suppress(OSError):
                self._file(ending).unlink(missing_ok=True)

    def follow(self, items: Iterable[T], title: str, unit: str, total: int | None, done: int) -> Iterator[T]:
        """Yield the items, and write down how far the loop over them is."""
        self._bar = {"title": title, "unit": unit, "total": total, "began": time.time()}
        self._marks.clear()
        self._tokens = 0
        self._mark(done)
        for number, item in enumerate(items, start=done + 1):
            self._turn = number
            yield item
            if time.monotonic() - self._written_at >= EVERY_S or number == total:
                self._mark(number)

    def count(self, tokens: int) -> None:
        """So many tokens were sampled, or trained on."""
        self._tokens += tokens

    def show(self, groups: Sequence[Group]) -> None:
        """Keep the first of these groups, whatever their rewards, and count the tokens of all."""
        self.count(sum(len(c.token_ids) for group in groups for c in group.completions))
        if not self._path:
            return
        self._groups.extend(_row(self._turn, group) for group in groups[:PER_ROLLOUT])
        self._write(COMPLETIONS, "".join(f"{json.dumps(row)}\n" for row in self._groups))

    def _mark(self, done: int) -> None:
        self._written_at = time.monotonic()
        self._marks.append((round(time.time(), 3), done, self._tokens))
        self._write(PROGRESS, json.dumps({**self._bar, "marks": list(self._marks)}) + "\n")

    def _write(self, ending: str, text: str) -> None:
        """Whole, by a rename; not waited for until it is on the disk."""
        if not self._path:
            return
        path = self._file(ending)
        partial = path.with_name(f".{path.name}.partial")
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text, encoding="ascii")
            os.replace(partial, path)

    def _file(self, ending: str) -> Path:
        assert self._path
        return self._path.with_name(self._path.name + ending)


def _row(number: int, group: Group) -> dict[str, Any]:
    pairs = list(zip(group.completions, group.scores, strict=True))[:PER_GROUP]
    return {
        "number": number,
        "prompt_id": group.prompt.id,
        "prompt": _short(group.prompt.messages[-1]["content"]),
        "answer": None if group.prompt.answer is None else _short(group.prompt.answer),
        "of": len(group.completions),
        "completions": [
            {
                "text": _short(completion.text),
                "finish": completion.finish,
                "tokens": len(completion.token_ids),
                "reward": score.total if isfinite(score.total) else None,
                "rewards": dict(score.parts),
            }
            for completion, score in pairs
        ],
    }


def _short(text: str) -> str:
    """The beginning and the end of a long one."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return text[:half] + CUT.format(f"{len(text) - 2 * half:,}") + text[-half:]
