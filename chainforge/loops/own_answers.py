"""On-policy distillation: the student answers, and the teacher says how likely each token was.

Examples only show a student what its teacher would write. Here it is corrected where it goes its own way.
Source: GKD, arXiv 2306.13649, algorithm 1. First examples, then this: Qwen3, arXiv 2505.09388, section 4.5.
"""

from collections.abc import Sequence

from chainforge.config.sft import OnPolicySettings
from chainforge.learner.learner import Learner
from chainforge.models.batch import Tokens
from chainforge.rollout.engine import Engine, Request
from chainforge.run.step import Step


class OwnAnswers:
    """Answers of the student as it is now, in the place of a batch's."""

    def __init__(self, engine: Engine, settings: OnPolicySettings, steps: int, step: Step) -> None:
        self._engine, self._settings, self._step = engine, settings, step
        self._examples_until = steps - round(settings.share * steps)

    def due(self, number: int) -> bool:
        """Whether optimizer step `number`, from 1, is one of the last, which are on-policy."""
        return number > self._examples_until

    def answer(self, learner: Learner, batch: Sequence[Tokens], number: int) -> list[Tokens]:
        """One answer to the prompt of each example."""
        self._engine.update(learner, number)
        seeds = [self._step.seed("answer", number, place) for place in range(len(batch))]
        requests = [Request(t.prompt, [seed]) for t, seed in zip(batch, seeds, strict=True)]
        answers = self._engine.generate(requests, self._settings)
        return [Tokens(t.prompt, found.token_ids) for t, (found,) in zip(batch, answers, strict=True)]
