"""An answer to a question that no teacher can read: for rehearsals, where only its length matters."""

import math
import random
from dataclasses import dataclass

from chainforge.errors import ChainForgeError
from chainforge.records import Trace

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Filler:
    """Sums of random numbers as a chain of thought, of log-normal length, and the last sum as the answer."""

    median_tokens: int = 600
    sigma: float = 0.6  # of the length's logarithm

    def __post_init__(self) -> None:
        if self.median_tokens < 1 or self.sigma < 0:
            raise ChainForgeError(
                f"filler of {self.median_tokens} tokens, sigma {self.sigma}",
                "the median is 1 or more, sigma 0 or more",
            )

    def trace(self, prompt_id: str, rng: random.Random) -> Trace:
        """One trace; the generator alone decides on it."""
        length = round(self.median_tokens * math.exp(rng.gauss(0, self.sigma)))
        lines, written, total = ["Let me think about this step by step."], 38, rng.randrange(100)
        while written < length * CHARACTERS_PER_TOKEN:
            more = rng.randrange(1, 1000)
            lines.append(f"Adding {more} to {total} gives {total + more}, and that is worth a second look.")
            total = (total + more) % 10_000
            written += len(lines[-1]) + 1
        reasoning = "\n".join(lines)[: max(1, length) * CHARACTERS_PER_TOKEN]
        return Trace(prompt_id, reasoning, f"The answer is {total}.", "stop", "filler")
