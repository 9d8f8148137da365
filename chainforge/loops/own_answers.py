"""On-policy distillation: the student answers, and the teacher says how likely each token was.

Examples only show a student what its teacher would write. Here it is corrected where it goes its own way.
Source: GKD, arXiv 2306.13649, algorithm 1. First examples, then this: Qwen3, arXiv 2505.09388, section 4.5.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial

from transformers import PreTrainedTokenizerBase

from chainforge.config.distill import DistillSettings, OnPolicySettings
from chainforge.learner.learner import Learner
from chainforge.loops.sft import longest_example
from chainforge.models.batch import Tokens
from chainforge.models.checkpoint import Policy
from chainforge.records import Example
from chainforge.rollout.complete import longest_sequence
from chainforge.rollout.engine import Engine, Request
from chainforge.rollout.open_engine import open_engine
from chainforge.run.step import Step


class OwnAnswers:
    """Answers of the student as it is now, in the place of a batch's."""

    def __init__(self, engine: Engine, settings: OnPolicySettings, step: Step) -> None:
        self._engine, self._settings, self._step = engine, settings, step

    def due(self, number: int, steps: int) -> bool:
        """Whether optimizer step `number`, from 1, is one of the last, which are on-policy."""
        return number > steps - round(self._settings.share * steps)

    def answer(self, learner: Learner, batch: Sequence[Tokens], number: int) -> list[Tokens]:
        """One answer to the prompt of each example."""
        self._engine.update(learner, number)
        seeds = [self._step.seed("answer", number, place) for place in range(len(batch))]
        requests = [Request(t.prompt, [seed]) for t, seed in zip(batch, seeds, strict=True)]
        answers = self._engine.generate(requests, self._settings)
        return [Tokens(t.prompt, found.token_ids) for t, (found,) in zip(batch, answers, strict=True)]


def longest_answer(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], settings: DistillSettings, step: Step
) -> int:
    """Tokens of the longest sequence that the student learns from: an example, or what it may write."""
    longest, own = longest_example(tokenizer, examples, settings, step), settings.on_policy
    return max(longest, longest_sequence(tokenizer, examples, own, step)) if own else longest


@contextmanager
def open_answers(
    settings: DistillSettings, policy: Policy, examples: Sequence[Example], step: Step, *, apart: bool
) -> Iterator[OwnAnswers | None]:
    """The student's own answers, where it learns from those. `apart`: see `LocalEngine`."""
    own = settings.on_policy
    if own is None:
        yield None
        return
    longest = partial(longest_sequence, policy.tokenizer, examples, own, step)
    adapter = settings.adapter
    with closing(
        open_engine(own.engine, policy, step, max_len=longest, apart=apart, adapter=adapter)
    ) as engine:
        yield OwnAnswers(engine, own, step)
