"""The contract of a reward."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from chainforge.plugins import Entry
from chainforge.records import Completion, Prompt
from chainforge.response import TagFormat
from chainforge.reward_options import RewardOptions
from chainforge.scoring import Scorer
from chainforge.testing.imports import imports_nothing_slow, imports_the_public_api
from chainforge.testing.laws import Breach, Finding, Law, check, demand
from chainforge.testing.samples import (
    ODD,
    as_groups,
    odd_responses,
    responses,
    sample_prompts,
    wrong_answer,
)
from chainforge.testing.subjects import alone, bench
from chainforge.wiring import make_scorer

Values = list[list[float | None]]  # by prompt


@dataclass(frozen=True)
class RewardCase:
    """A reward, ready to be called as in a run, and the prompts to try it on."""

    entry: Entry
    scorer: Scorer
    prompts: Sequence[Prompt]

    @property
    def form(self) -> TagFormat:
        """The active response format."""
        return self.scorer.response_format

    def values(self, prompts: Sequence[Prompt], groups: Sequence[Sequence[Completion]]) -> Values:
        """What the reward gives each completion."""
        scored = self.scorer.score(prompts, groups)
        return [[score.parts[self.entry.name] for score in group.scores] for group in scored]

    def usual(self) -> tuple[Sequence[Prompt], list[list[Completion]]]:
        """Every prompt with what a policy may well write."""
        return self.prompts, as_groups(self.prompts, [responses(p, self.form) for p in self.prompts])


def check_reward(
    entry: Entry,
    *,
    columns: Mapping[str, Any] | None = None,
    prompts: Sequence[Prompt] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """A finding per law. `columns` are added to the sample prompts; `prompts` take their place."""
    refuses = RewardOptions.of(entry.options).check_answer
    with make_scorer(alone(entry), {entry.name: 1.0}, bench(), {entry.name: settings or {}}) as scorer:
        return check(LAWS, RewardCase(entry, scorer, prompts or sample_prompts(columns, refuses)))


def reward_values(
    entry: Entry, texts: Sequence[str], *, question: str, answer: str | None, columns: Mapping[str, Any]
) -> list[float | None]:
    """What a reward gives to completions of one prompt, called and checked as in a run."""
    prompt = Prompt("sample", "sums", ({"role": "user", "content": question},), answer, columns)
    with make_scorer(alone(entry), {entry.name: 1.0}, bench()) as scorer:
        (values,) = RewardCase(entry, scorer, [prompt]).values([prompt], as_groups([prompt], [texts]))
    return values


def quick_import(case: RewardCase) -> str | None:
    return imports_nothing_slow(case.entry)


def public_api(case: RewardCase) -> str | None:
    return imports_the_public_api(case.entry)


def a_number_each(case: RewardCase) -> str | None:
    values = case.values(*case.usual())
    case.values(case.prompts[:1], as_groups(case.prompts[:1], [["one completion alone"]]))
    if all(value is None for group in values for value in group):
        return "None everywhere: it applies to none of the samples, so try it on data of yours, with --on"
    return None


def survives_odd_text(case: RewardCase) -> str | None:
    for kind, text in ODD.items():
        groups = as_groups(case.prompts, [odd_responses(text, case.form)] * len(case.prompts))
        try:
            case.values(case.prompts, groups)
        except Exception as error:
            raise Breach(f"{kind}: {getattr(error, 'problem', error)}") from error
    failed = sum(case.scorer.failures.values())
    return f"{failed} calls failed, and were counted as None: on_error says so" if failed else None


def repeatable(case: RewardCase) -> str | None:
    first, second = case.values(*case.usual()), case.values(*case.usual())
    demand(first == second, f"the same call twice gives {first} and {second}")
    return None


def order_does_not_matter(case: RewardCase) -> str | None:
    prompts, groups = case.usual()
    before = case.values(prompts, groups)
    for seed in range(3):
        order = shuffle(len(prompts), seed)
        after = case.values([prompts[i] for i in order], [groups[i] for i in order])
        for place, i in enumerate(order):
            demand(
                after[place] == before[i],
                f"with the prompts in another order, {prompts[i].id} gets {after[place]}, not {before[i]}",
            )
    return None


def order_in_a_group_does_not_matter(case: RewardCase) -> str | None:
    prompts, groups = case.usual()
    before = case.values(prompts, groups)
    for seed in range(3):
        orders = [shuffle(len(group), seed) for group in groups]
        after = case.values(prompts, [[g[i] for i in o] for g, o in zip(groups, orders, strict=True)])
        for prompt, order, old, new in zip(prompts, orders, before, after, strict=True):
            for place, i in enumerate(order):
                demand(
                    new[place] == old[i],
                    f"with the completions of {prompt.id} in another order, number {i + 1} "
                    f"gets {new[place]}, not {old[i]}",
                )
    return None


def shuffle(count: int, seed: int) -> list[int]:
    """0 … count - 1 in another order."""
    order = list(range(count))
    Random(seed).shuffle(order)
    return order


def gold_answers(case: RewardCase) -> str | None:
    """Right and wrong answers in twin responses: same reasoning, same length."""
    answered = [prompt for prompt in case.prompts if prompt.answer]
    if not answered:
        return "no sample has an answer"
    reasoning = "I work it out step by step."
    twins = [
        [case.form.render(reasoning, answer) for answer in (str(p.answer), wrong_answer(str(p.answer)))]
        for p in answered
    ]
    pairs = case.values(answered, as_groups(answered, twins))
    known = [(gold, wrong) for gold, wrong in pairs if gold is not None and wrong is not None]
    if not known:
        return "it does not: None where there is an answer"
    for prompt, (gold, wrong) in zip(answered, pairs, strict=True):
        if gold is not None and wrong is not None and wrong > gold:
            raise Breach(
                f"{prompt.id}: the right answer {prompt.answer!r} gets {gold:g}, a wrong one {wrong:g}"
            )
    gold_of, wrong_of = (sorted({values[side] for values in known}) for side in (0, 1))
    if all(gold == wrong for gold, wrong in known):
        return f"it does not: right and wrong ones get {spread(gold_of)}"
    if gold_of == [1.0]:
        return f"gold {spread(gold_of)}, wrong {spread(wrong_of)}"
    return (
        f"gold {spread(gold_of)}, wrong {spread(wrong_of)}: `filter` and `evaluate` count 1.0 alone as right"
    )


def spread(values: Sequence[float]) -> str:
    """The one value, or the lowest and highest."""
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"


LAWS: tuple[Law[RewardCase], ...] = (
    ("imports neither torch nor transformers", quick_import),
    ("imports nothing of ChainForge but its public API", public_api),
    ("one finite number, or None, per completion", a_number_each),
    ("reads empty, huge and odd text", survives_odd_text),
    ("the same call gives the same values", repeatable),
    ("the order of the prompts does not matter", order_does_not_matter),
    ("the order of the completions of a prompt does not matter", order_in_a_group_does_not_matter),
    ("right answers score 1, if it judges answers", gold_answers),
)
