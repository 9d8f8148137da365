"""A small rollout: what sampling takes, and what the completions are like."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

from chainforge.config.sampling import SamplingSettings
from chainforge.loops.figures import keeps_format
from chainforge.models.checkpoint import Policy
from chainforge.preflight.cost import Cost, Line, Point, fit, spent, timed
from chainforge.preflight.estimate import Finding, Rate
from chainforge.preflight.texts import rate
from chainforge.records import Group, Prompt
from chainforge.rollout.complete import Completions, complete
from chainforge.rollout.engine import Engine
from chainforge.run.step import Step
from chainforge.scoring import Scorer

SAMPLE = 16  # prompts, where the time allows
WARM_UP = 1
SMALL = 3


@dataclass
class Sample:
    """Groups of a few prompts, and what they took: decoding by rounds and tokens, the rest per completion."""

    groups: list[Group] = field(default_factory=list)
    decoding: list[Point] = field(default_factory=list)
    scoring: Cost = field(default_factory=Cost)
    warm_up: Cost = field(default_factory=Cost)
    speeds: dict[str, float] = field(default_factory=dict)

    @property
    def line(self) -> Line:
        """Cost of decoding a token of every row, and of each row."""
        return fit(self.decoding)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each completion."""
        return [len(c.token_ids) for group in self.groups for c in group.completions]

    def decode(self, completions: float, rows: int) -> Cost:
        """Of so many completions, `rows` of them at once. Ended ones make room for others."""
        longest, tokens = max(self.lengths), completions * fmean(self.lengths)
        rounds = longest if completions <= rows else max(longest, tokens / rows + longest / 2)
        return self.line.at(rounds, tokens)


def take_sample(
    engine: Engine,
    policy: Policy,
    prompts: Sequence[Prompt],
    count: int,
    settings: SamplingSettings,
    step: Step,
    scorer: Scorer,
    seconds: float,
) -> Sample:
    """`count` completions of up to `SAMPLE` prompts, fewer where they would take longer than that."""
    sample, used, costs = Sample(), 0.0, list[Cost]()
    for size in sizes(min(SAMPLE, len(prompts))):
        done = len(sample.groups)
        if len(costs) > 1:  # two sizes at least: one tells nothing of the other
            size = min(size, int((seconds - used) / used * done))
        if size < 1:
            break
        chosen = prompts[done : done + size]
        given, cost = timed(partial(_complete, engine, policy, chosen, count, settings, step, done))
        groups, more = timed(partial(scorer.score, chosen, given, max_steps=2))
        tokens = [len(c.token_ids) for group in given for c in group]
        sample.groups += groups
        sample.decoding.append(Point(max(tokens), sum(tokens), cost))
        sample.speeds[f"{len(tokens)} rows"] = sum(tokens) / max(cost.wall, 1e-9)
        costs.append(more.times(1 / len(tokens)))
        used += spent(cost.plus(more), policy.device.type)
    if len(sample.decoding) > 2:  # what is first takes longer
        first = sample.decoding.pop(0)
        sample.warm_up = first.cost.beyond(sample.line.at(first.rounds, first.size))
    sample.scoring = costs[-1]
    return sample


def _complete(
    engine: Engine,
    policy: Policy,
    chosen: Sequence[Prompt],
    count: int,
    settings: SamplingSettings,
    step: Step,
    first: int,
) -> Completions:
    def seed(place: int, number: int) -> int:
        return step.seed("preflight", first + place, number)

    return complete(engine, policy.tokenizer, chosen, count, settings, step, seed=seed)


def sizes(most: int) -> Iterator[int]:
    """How many prompts at a time: one, a few, the rest."""
    yield WARM_UP
    yield SMALL
    yield max(0, most - WARM_UP - SMALL)


def rates_of(sample: Sample, step: Step, reward: str | None) -> list[Rate]:
    """Of the groups: passing, format, cut off, equal rewards."""
    groups, form = sample.groups, step.response_format
    texts = [[keeps_format(c.text, form) for c in g.completions] for g in groups]
    cut = [[c.finish == "length" for c in g.completions] for g in groups]
    found = [
        rate("in format", [fmean(of) for of in texts]),
        rate("cut at max_new_tokens", [fmean(of) for of in cut]),
    ]
    known = [g for g in groups if reward and all(s.parts.get(reward) is not None for s in g.scores)]
    if reward and known:
        passed = [fmean(s.parts[reward] == 1.0 for s in g.scores) for g in known]
        found.insert(0, rate(f"pass ({reward})", passed))
    return found


def judge_rates(rates: Sequence[Rate], section: str) -> list[Finding]:
    """What the rates say should be changed."""
    found, by_name = [], {rate.name: rate for rate in rates}
    cut, form = by_name["cut at max_new_tokens"], by_name["in format"]
    if cut.mean > 0.1:
        found.append(
            Finding(
                f"{cut.mean:.0%} of the completions are cut at max_new_tokens",
                f"raise {section}.max_new_tokens, or train the cold start longer",
                loss=cut.mean,
            )
        )
    if form.mean < 0.5:
        found.append(
            Finding(
                f"{form.mean:.0%} of the completions are in the response format",
                "train the cold start longer (sft_cold_start.num_epochs), or on more examples",
                loss=1 - form.mean,
            )
        )
    return found
