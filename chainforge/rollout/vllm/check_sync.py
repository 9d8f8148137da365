"""Whether a server serves what it was given: after each hand-over it scores a few fixed sequences.

The scores must be those of the policy, within what rounding makes of them. And where the policy's own have
moved since the server's last did, those of the server must have moved too: after a small step, a server that
goes on with the weights of the step before is within any tolerance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from transformers import PreTrainedTokenizerBase

from chainforge.errors import ChainForgeError
from chainforge.models.batch import Tokens

# By run.precision: the most that log-probabilities may differ, as a mean over tokens, in nats. In 16 bits two
# computations of SmolLM2-135M differ by 0.04 to 0.05 on these texts, and each by 0.03 to 0.04 from float32.
TOLERANCE = {"float32": 0.01}
TOLERANCE_16 = 0.15
# How far the policy's scores have moved, as a mean in nats, where a server's must have moved by a bit. In 16
# bits one step moves them by 0.03 to 0.05, at any rate from 1e-8 to 1e-5: rounding falls another way.
MOVED = {"float32": 1e-5}
MOVED_16 = 1e-3
EQUALLY = 0.01  # nats
MOST_TOKENS = 48  # of a sequence
TEXTS = (
    "What is 17 + 25? First 7 + 5 = 12, so write 2 and carry 1. Then 1 + 2 + 1 = 4. The answer is 42.",
    "The ship left the harbour before dawn, and by noon nobody on the shore could see its sails any more.",
    "def mean(values):\n    return sum(values) / len(values)\n\nprint(mean([1, 2, 3.5]))",
    "Wenn es morgen regnet, bleiben wir zu Hause; sonst gehen wir an den See und nehmen das Boot.",
)
ADVICE = (
    "start it as docs/vllm.md says, on a copy of this model with tie_word_embeddings: false in config.json; "
    "or leave runtime.vllm.urls empty, and the step starts a server of its own"
)


@dataclass(frozen=True, slots=True)
class Served:
    """The scores of one server, those that the policy had then, and a digest of what was handed over."""

    theirs: Sequence[float]
    ours: Sequence[float]
    digest: Sequence[int]


class SyncCheck:
    """What it has seen is what it compares with at the next hand-over."""

    def __init__(self, precision: str) -> None:
        self._tolerance = TOLERANCE.get(precision, TOLERANCE_16)
        self._moved = MOVED.get(precision, MOVED_16)
        self._last_moved: dict[str, Served] = {}

    def compare(
        self,
        url: str,
        theirs: Sequence[Sequence[float]],
        ours: Sequence[Sequence[float]],
        what: str,
        digest: Sequence[int],
    ) -> float:
        """The mean difference. `what` was handed over, in words, and its `digest`.

        Raises ChainForgeError where the server serves something else.
        """
        now = Served([x for row in theirs for x in row], [x for row in ours for x in row], digest)
        difference = mean_difference(now.theirs, now.ours)
        if not difference <= self._tolerance:  # nor where it is no number
            raise ChainForgeError(
                f"{url} does not serve {what}: its log-probabilities of {len(now.ours)} tokens differ from "
                f"the policy's by {difference:.3g} nats on average; rounding explains {self._tolerance:g}",
                ADVICE,
            )
        before = self._last_moved.get(url)
        if before is None or before.theirs != now.theirs:
            self._last_moved[url] = now
        elif before.digest != digest and (moved := mean_difference(now.ours, before.ours)) > self._moved:
            raise ChainForgeError(
                f"{url} does not serve {what}: it is stale: the policy's log-probabilities have moved by "
                f"{moved:.3g} nats on average, and the server's are the same to the last bit",
                ADVICE,
            )
        return difference


def mean_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Of log-probabilities of the same tokens, without sign, in nats."""
    return fmean(abs(a - b) for a, b in zip(one, other, strict=True))


def check_head(url: str, theirs: Sequence[Sequence[float]], vocabulary: int) -> None:
    """Raise ChainForgeError unless a server that was given an LM head of zeros finds all tokens alike.

    One that was started on tied embeddings may keep the head that it made of them.
    """
    if any(abs(x + math.log(vocabulary)) > EQUALLY for row in theirs for x in row):
        raise ChainForgeError(
            f"{url} loads no LM head: it was started on a model with tied embeddings, and would go on with "
            "the head that it made of them, whatever it is given",
            ADVICE,
        )


def probes(tokenizer: PreTrainedTokenizerBase, max_len: int) -> list[list[int]]:
    """The sequences that are scored, as token ids. `max_len`: tokens that a server takes at most."""
    most = min(MOST_TOKENS, max_len - 1)
    encoded = [list(tokenizer.encode(text, add_special_tokens=False))[:most] for text in TEXTS]
    return [ids for ids in encoded if len(ids) > 1]


def as_tokens(sequences: Sequence[Sequence[int]]) -> list[Tokens]:
    """As a policy is asked about them: all tokens after the first."""
    return [Tokens(ids[:1], ids[1:]) for ids in sequences]
