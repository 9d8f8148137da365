"""Filter a teacher's traces: keep what is whole, right, readable, new, and not in the evaluation."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from chainforge.config.filter import FilterSettings
from chainforge.filtering.choose import choose
from chainforge.filtering.contamination import Benchmarks
from chainforge.filtering.duplicates import find_repeats
from chainforge.filtering.funnel import Funnel
from chainforge.filtering.language import script_share
from chainforge.filtering.repetition import repeated_share
from chainforge.filtering.words import plain_question
from chainforge.records import Completion, Example, Prompt, Trace, plain
from chainforge.response import TagFormat
from chainforge.scoring import Scorer

Reasons = Iterator[str | None]
BATCH = 256  # traces that one call of the reward scores, as in a rollout


def select_traces(
    traces: Iterable[Trace],
    prompts: Mapping[str, Prompt],
    scorer: Scorer,
    settings: FilterSettings,
    benchmarks: Benchmarks,
) -> tuple[list[Example], Funnel]:
    """(accepted examples, counts): every trace is kept, or dropped by the first test that it fails.

    Tests of one trace alone come first, so that a trace which is dropped never stands in another's way.
    """
    left, funnel, form = list(traces), Funnel(), scorer.response_format
    left = funnel.sift(left, (None if t.prompt_id in prompts else "unknown_prompt" for t in left))
    left = funnel.sift(left, (defect(trace, form) for trace in left))
    left = funnel.sift(left, wrong(left, prompts, scorer, settings))
    left = funnel.sift(left, (blemish(trace, settings) for trace in left))
    asked = {trace.prompt_id: prompts[trace.prompt_id] for trace in left}
    contaminated = {name: benchmarks.finds(prompt) for name, prompt in asked.items()}
    left = funnel.sift(left, (contaminated[trace.prompt_id] for trace in left))
    left = funnel.sift(left, repeated_prompts(left, prompts, settings.near_duplicate_prompts))
    left = funnel.sift(left, by_prompt(left, lambda its: repeated_responses(its, settings)))
    left = funnel.sift(left, by_prompt(left, lambda its: over_quota(its, settings)))
    return [example(trace, prompts[trace.prompt_id], form) for trace in left], funnel


def example(trace: Trace, prompt: Prompt, form: TagFormat) -> Example:
    """The trace as something to learn from."""
    return Example(prompt.id, prompt.messages, form.render(trace.reasoning, trace.content), trace.origin)


def defect(trace: Trace, form: TagFormat) -> str | None:
    """Why this trace is no whole response, or None."""
    if trace.finish != "stop":
        return f"finish_{trace.finish}"
    if not trace.reasoning.strip():
        return "no_reasoning"
    if not trace.content.strip():
        return "no_answer"
    if any(tag in part for tag in form.tags for part in (trace.reasoning, trace.content)):
        return "contains_tag"
    return None


def wrong(
    traces: Sequence[Trace], prompts: Mapping[str, Prompt], scorer: Scorer, settings: FilterSettings
) -> Reasons:
    """Which traces the reward does not pass; one that it does not apply to passes.

    They are scored in batches, so that the time limit of a call does not depend on how many there are.
    """
    for start in range(0, len(traces), BATCH):
        yield from wrong_of_batch(traces[start : start + BATCH], prompts, scorer, settings)


def wrong_of_batch(
    traces: Sequence[Trace], prompts: Mapping[str, Prompt], scorer: Scorer, settings: FilterSettings
) -> Reasons:
    """`wrong` or `ungraded`, in one call of the reward."""
    texts = [scorer.response_format.render(trace.reasoning, trace.content) for trace in traces]
    completions = [
        (Completion(trace.prompt_id, text, (), (), trace.finish, trace.origin),)
        for trace, text in zip(traces, texts, strict=True)
    ]
    for group in scorer.score([prompts[trace.prompt_id] for trace in traces], completions):
        (score,) = group.scores
        value = score.parts[settings.reward]
        if settings.reward in score.failed:
            yield "ungraded"
        else:
            yield "wrong" if value is not None and value < settings.min_reward else None


def blemish(trace: Trace, settings: FilterSettings) -> str | None:
    """Why this trace, though right, is not to be copied, or None."""
    parts, characters = (trace.reasoning, trace.content), size(trace)
    shares = (script_share(part, settings.scripts) for part in parts if settings.scripts)
    if min(shares, default=1.0) < settings.min_script_share:
        return "language"
    if characters < settings.min_characters:
        return "too_short"
    if characters > settings.max_characters:
        return "too_long"
    if settings.max_repetition < 1 and max(map(repeated_share, parts)) > settings.max_repetition:
        return "repetition"
    return None


def repeated_prompts(traces: Sequence[Trace], prompts: Mapping[str, Prompt], near: float | None) -> Reasons:
    """Which traces answer a prompt that is like an earlier one."""
    ids = list(dict.fromkeys(trace.prompt_id for trace in traces))
    likeness = find_repeats([plain_question(prompts[prompt_id]) for prompt_id in ids], near, numbers=True)
    found = dict(zip(ids, likeness, strict=True))
    names = {None: None, "exact": "duplicate_prompt", "near": "near_duplicate_prompt"}
    return (names[found[trace.prompt_id]] for trace in traces)


def repeated_responses(traces: Sequence[Trace], settings: FilterSettings) -> list[str | None]:
    """Which of one prompt's responses are like an earlier one."""
    texts = [f"{plain(trace.reasoning)}\n{plain(trace.content)}" for trace in traces]
    names = {None: None, "exact": "duplicate", "near": "near_duplicate"}
    return [names[likeness] for likeness in find_repeats(texts, settings.near_duplicate_responses)]


def over_quota(traces: Sequence[Trace], settings: FilterSettings) -> list[str | None]:
    """Which of one prompt's traces are more than wanted."""
    chosen = choose([size(trace) for trace in traces], settings.keep_per_prompt, settings.choose)
    return [None if place in chosen else "over_quota" for place in range(len(traces))]


def by_prompt(traces: Sequence[Trace], judge: Callable[[Sequence[Trace]], list[str | None]]) -> Reasons:
    """What `judge` says of each prompt's traces, in the order of all."""
    places = sorted(range(len(traces)), key=lambda i: traces[i].prompt_id)
    reasons: list[str | None] = [None] * len(traces)
    for _, group in groupby(places, key=lambda i: traces[i].prompt_id):
        its = list(group)
        for place, reason in zip(its, judge([traces[i] for i in its]), strict=True):
            reasons[place] = reason
    return iter(reasons)


def size(trace: Trace) -> int:
    """Characters of reasoning and answer."""
    return len(trace.reasoning) + len(trace.content)
