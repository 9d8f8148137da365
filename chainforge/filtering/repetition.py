"""How much of a text is a loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WINDOW = 64  # characters, about twelve words
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
INVERSE = pow(BASE, -1, 2**64)


def repeated_share(text: str) -> float:
    """The share of the stretches of 64 characters that stood in the text before, 0 to 1.

    A text that repeats P characters over and over has at most P stretches that did not, however long it is
    and whether or not it has spaces. A text of fewer than 64 characters has no stretch, and so no share.
    """
    import numpy as np  # not where a plugin only imports chainforge

    characters = np.array([*map(ord, " ".join(text.split()))], dtype=np.uint64)
    windows = len(characters) - WINDOW + 1
    if windows < 1:
        return 0.0
    return 1.0 - len(np.unique(window_hashes(characters))) / windows


def window_hashes(characters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A number for each window that depends on its characters alone: a polynomial modulo 2**64.

    Prefix sums hold every character times a power of the base; the inverse power takes the place away again.
    """
    import numpy as np

    def powers_of(base: int, count: int) -> NDArray[np.uint64]:
        factors = np.full(count, np.uint64(base))
        factors[0] = 1
        return np.cumprod(factors, dtype=np.uint64)

    count = len(characters)
    powers, inverse = powers_of(BASE, count), powers_of(INVERSE, count - WINDOW + 1)
    mixed = (characters + np.uint64(1)) * (characters + np.uint64(0x9E3779B1))  # neighbours far apart
    sums = np.concatenate([[np.uint64(0)], np.cumsum(mixed * powers, dtype=np.uint64)])
    found: NDArray[np.uint64] = (sums[WINDOW:] - sums[:-WINDOW]) * inverse
    return found
