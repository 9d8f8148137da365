"""maj@k: what each answer votes for, as the deciding reward reads it, and what the most votes say."""

from collections.abc import Callable, Sequence

from chainforge.algorithms.statistics import maj_at_k
from chainforge.errors import ChainForgeError
from chainforge.response import TagFormat
from chainforge.scoring.limits import TimeOut, time_limit
from chainforge.scoring.reward import WeightedReward

Reading = Callable[[str], str | None]


def majority_passes(
    texts: Sequence[str], passes: Sequence[float], response: TagFormat, read: Reading
) -> float:
    """Whether the commonest answer of a problem is right; among equally common ones, that sampled first.

    A text that is not in the format has no vote. Where `read` finds no answer in a summary, its words vote.
    """
    votes = [vote(text, response, read) for text in texts]
    winner = maj_at_k(votes)
    return next(
        (right for right, given in zip(passes, votes, strict=True) if given is not None and given == winner),
        0.0,
    )


def vote(text: str, response: TagFormat, read: Reading) -> str | None:
    """What a completion votes for, None if it is not in the format."""
    if (parsed := response.parse(text)) is None:
        return None
    answer = read(parsed.summary)
    return " ".join(parsed.summary.split()) if answer is None else answer


def reading_of(reward: WeightedReward, seconds: float) -> Reading:
    """How a reward reads summaries, with errors that name it; where it does not say so, their words count."""
    reading = reward.options.reading
    if reading is None:
        return lambda summary: None

    def read(summary: str) -> str | None:
        try:
            with time_limit(seconds):
                answer = reading(summary)
        except TimeOut:
            problem = f"did not return within {seconds:g} s for {summary!r:.60}"
        except Exception as error:
            problem = f"raised {type(error).__name__}: {error} for {summary!r:.60}"
        else:
            if answer is None or isinstance(answer, str):
                return answer
            problem = f"returned {answer!r:.60}, no text"
        raise ChainForgeError(
            f"the reading of {reward.who} {problem}",
            "a reading takes any text and returns the answer in it as a text, or None",
        )

    return read
