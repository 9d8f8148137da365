"""Texts that occurred before, exactly or nearly. Of those that are alike the first stays."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

NUMBER = re.compile(
    r"\d+(?:[.,]\d+)*|\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty"
    r"|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|dozen|half|third|quarter|once"
    r"|twice|double|triple)s?\b",
    re.IGNORECASE,
)
CHUNK = 256  # texts compared at once with all that stay

Likeness = Literal["exact", "near"]


def find_repeats(texts: Sequence[str], near: float | None, *, numbers: bool = False) -> list[Likeness | None]:
    """For each text whether it is like an earlier one; None stays.

    `near` is a similarity in percent, 100 less the share of characters to insert and delete, compared with
    texts that stay; None compares exactly only. With `numbers`, texts with other numbers, in digits or
    English words, are never near: as problems they have other answers. The time is quadratic in the number
    of distinct texts.
    """
    found: list[Likeness | None] = []
    seen: set[str] = set()
    distinct: list[int] = []
    for place, text in enumerate(texts):
        found.append("exact" if text in seen else None)
        if text not in seen:
            seen.add(text)
            distinct.append(place)
    if near is not None:
        alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for place in distinct:
            alike[tuple(NUMBER.findall(texts[place])) if numbers else ()].append(place)
        for places in alike.values():
            for i in find_near_repeats([texts[place] for place in places], near):
                found[places[i]] = "near"
    return found


def find_near_repeats(texts: Sequence[str], near: float) -> set[int]:
    """Places of the texts that are at least so similar to an earlier one that stays."""
    dropped: set[int] = set()
    kept: list[str] = []
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        like_kept = {int(i) for i in np.nonzero(similar(chunk, kept, near))[0]}
        alike = similar(chunk, chunk, near)
        for i in range(len(chunk)):
            earlier = (start + int(j) for j in np.flatnonzero(alike[i, :i]))
            if i in like_kept or not dropped.issuperset(earlier):
                dropped.add(start + i)
        kept += [text for place, text in enumerate(chunk, start) if place not in dropped]
    return dropped


def similar(left: Sequence[str], right: Sequence[str], near: float) -> NDArray[np.bool_]:
    """Which pairs are at least so similar."""
    ratios = process.cdist(left, right, scorer=fuzz.ratio, score_cutoff=near, dtype=np.float32, workers=1)
    return np.asarray(ratios > 0, dtype=np.bool_)
