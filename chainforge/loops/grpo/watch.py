"""Reward hacking made visible: on held-out prompts, the rewards beside a grader that trains nothing."""

from collections.abc import Mapping, Sequence
from math import isnan
from statistics import fmean
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from chainforge.algorithms.statistics import paired_difference
from chainforge.config.grpo import GrpoSettings
from chainforge.config.watch import WatchSettings
from chainforge.jsonl import write_rows
from chainforge.loops.grpo.metrics import WATCH_NAMES
from chainforge.records import Group, Prompt
from chainforge.rollout.complete import complete
from chainforge.rollout.engine import Engine
from chainforge.run.step import LOGS, Step
from chainforge.scoring import Scorer

SHOWN = 20  # completions kept of each look
SURE = 0.001  # p-value; below the usual 0.05, because a look is compared with the best of all before


class Look(NamedTuple):
    """What was seen at the beginning of an RL step, prompt by prompt."""

    number: int  # 0 before the first
    rewards: list[float]
    right: list[float]


class Watch:
    """Looks now and then. It says once, where a reward has gone up and the grader's share of right answers
    has gone down since its best look, by more than chance."""

    def __init__(
        self,
        given: WatchSettings,
        grader: Scorer,
        scorer: Scorer,
        prompts: Sequence[Prompt],
        settings: GrpoSettings,
        step: Step,
    ) -> None:
        """`grader` has one reward, 1 for a right answer."""
        self._given, self._settings, self._step = given, settings, step
        self._grader, self._scorer, self._prompts = grader.check(prompts), scorer.check(prompts), prompts
        self._best = Look(0, [], [])
        self._said = False
        self.wrong: list[dict[str, Any]] = []  # of the last look, those with the highest reward first

    def look(self, engine: Engine, tokenizer: PreTrainedTokenizerBase, number: int) -> dict[str, float]:
        """The figures at the beginning of RL step `number`; nothing where it is not time to look."""
        if number % self._given.every and number not in (1, self._settings.num_rl_steps):
            return {}

        def seed(place: int, _: int) -> int:  # the same every time: chance is not seen as a change
            return self._step.seed("watch", place)

        settings = self._settings
        completions = complete(engine, tokenizer, self._prompts, 1, settings, self._step, seed=seed)
        at = {"global_step": number, "max_steps": settings.num_rl_steps}
        rewarded = self._scorer.score(self._prompts, completions, **at)
        graded = self._grader.score(self._prompts, completions, **at)
        rewards, right = totals(rewarded), totals(graded)
        self.wrong = rewarded_yet_wrong(rewarded, right)
        if self._step.world.is_first:
            write_rows(LOGS / f"{self._step.file_name}.watch.jsonl", self.wrong)
        self._compare(number, rewards, right)
        return dict(zip(WATCH_NAMES, (fmean(rewards), fmean(right)), strict=True))

    def _compare(self, number: int, rewards: list[float], right: list[float]) -> None:
        best = self._best
        if not best.number or fmean(right) >= fmean(best.right):
            self._best = Look(number, rewards, right)
            return
        less = paired_difference(right, best.right)
        if self._said or less.p_value > SURE or fmean(rewards) <= fmean(best.rewards):
            return
        self._said = True
        name, grader = self._step.file_name, self._given.reward
        interval = f"{less.mean_difference:+.1%}, 95% interval {less.lo:+.1%} to {less.hi:+.1%}"
        text = (
            f"{self._step.name}: the reward and grader {grader!r} part. From RL step {best.number} to "
            f"{number}, on {len(right)} held-out prompts, the reward went from {fmean(best.rewards):.3f} to "
            f"{fmean(rewards):.3f}, and the share that {grader} calls right from {fmean(best.right):.1%} to "
            f"{fmean(right):.1%} ({interval})\n"
            f"  -> read {LOGS / name}.watch.jsonl: what is rewarded there, and wrong? Mend that reward, or "
            "raise kl_coeff; docs/evaluation.md has more"
        )
        self._step.warn("watch", text)

    def state_dict(self) -> dict[str, Any]:
        """What a look is compared with, and what the last one found."""
        return {"best": list(self._best), "said": self._said, "wrong": self.wrong}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._best, self._said, self.wrong = Look(*state["best"]), state["said"], state["wrong"]


def totals(groups: Sequence[Group]) -> list[float]:
    """Of the only completion of each; what does not apply counts 0."""
    return [0.0 if isnan(score.total) else score.total for group in groups for score in group.scores]


def rewarded_yet_wrong(rewarded: Sequence[Group], right: Sequence[float]) -> list[dict[str, Any]]:
    """The completions that the grader calls wrong, those with the highest reward first."""
    judged = zip(rewarded, totals(rewarded), right, strict=True)
    wrong = sorted(((group, reward) for group, reward, passed in judged if passed < 1), key=lambda it: -it[1])
    return [
        {
            "prompt_id": group.prompt.id,
            "prompt": group.prompt.messages[-1]["content"],
            "answer": group.prompt.answer,
            "completion": group.completions[0].text,
            "reward": reward,
            "rewards": dict(group.scores[0].parts),
        }
        for group, reward in wrong[:SHOWN]
    ]
