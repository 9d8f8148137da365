"""Evaluate one checkpoint on one bench: every answer to every problem, scored by every reward."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from chainforge.config.evaluate import EvaluateSettings
from chainforge.errors import ChainForgeError
from chainforge.loops.figures import keeps_format
from chainforge.loops.scored_batches import sample_and_score
from chainforge.models.checkpoint import Policy
from chainforge.records import Completion, Group, Prompt, Score
from chainforge.rollout.complete import batch_size, complete, longest_sequence
from chainforge.rollout.open_engine import open_engine
from chainforge.run.step import Step
from chainforge.run.work import Work
from chainforge.scoring import Scorer

Lenient = Mapping[tuple[str, str], float]  # prompt id and text outside of the format -> 1.0 if right
NOTHING: Lenient = MappingProxyType({})


def evaluate(
    bench: str,
    prompts: Sequence[Prompt],
    policy: Policy,
    scorer: Scorer,
    settings: EvaluateSettings,
    step: Step,
    work: Work,
) -> list[dict[str, Any]]:
    """The rows of data/eval/CHECKPOINT/BENCH.jsonl.

    Raises ChainForgeError where the deciding reward does not apply to a problem.
    """
    longest = partial(longest_sequence, policy.tokenizer, prompts, settings, step)
    with closing(open_engine(settings.engine, policy, step, frozen=True, max_len=longest)) as engine:

        def ask(kind: str, count: int, temperature: float) -> list[Group]:
            sampling = settings.model_copy(update={"temperature": temperature})

            def sample(batch: Sequence[Prompt]) -> Sequence[Sequence[Completion]]:
                def seed(place: int, number: int) -> int:
                    return step.seed(bench, batch[place].id, number)

                return complete(engine, policy.tokenizer, batch, count, sampling, step, seed=seed)

            title, size = f"{step.name} {kind}", batch_size(engine, count)
            return sample_and_score(prompts, sample, size, scorer, work.journal(kind), work, title)

        sampled = ask("sampled", settings.samples, settings.temperature)
        check_bench(sampled, settings, bench)
        greedy = ask("greedy", 1, 0.0) if settings.greedy else [None] * len(sampled)
        size = batch_size(engine, settings.samples)
    asked = [*sampled, *(group for group in greedy if group)]
    anywhere = grade_anywhere(asked, settings.reward, scorer, size, step, work)
    return [outcome(group, best, anywhere) for group, best in zip(sampled, greedy, strict=True)]


def grade_anywhere(
    groups: Sequence[Group], reward: str, scorer: Scorer, size: int, step: Step, work: Work
) -> Lenient:
    """What the deciding reward says of the texts outside of the format, as `TagFormat.mend` reads them."""
    form = step.response_format
    prompts = {group.prompt.id: group.prompt for group in groups}
    missed: dict[str, dict[str, Completion]] = {prompt_id: {} for prompt_id in prompts}
    for completion in (c for group in groups for c in group.completions):
        if not keeps_format(completion.text, form):
            mended = replace(completion, text=form.mend(completion.text))
            missed[completion.prompt_id][completion.text] = mended
    odd = [prompt for prompt_id, prompt in prompts.items() if missed[prompt_id]]
    if not odd:
        return {}
    deciding = tuple(one for one in scorer.rewards if one.name == reward)
    with replace(scorer, rewards=deciding).check(prompts.values()) as alone:
        scored = sample_and_score(
            odd,
            lambda batch: [tuple(missed[prompt.id].values()) for prompt in batch],
            size,
            alone,
            work.journal("anywhere"),
            work,
            f"{step.name} outside of the format",
        )
    return {
        (group.prompt.id, text): float(score.parts[reward] == 1.0)
        for group in scored
        for text, score in zip(missed[group.prompt.id], group.scores, strict=True)
    }


def check_bench(groups: Sequence[Group], settings: EvaluateSettings, bench: str) -> None:
    """Raise ChainForgeError unless the deciding reward applies to every problem."""
    for group in groups:
        score = group.scores[0]
        if score.parts[settings.reward] is None and settings.reward not in score.failed:
            raise ChainForgeError(
                f"bench {bench!r}: the reward {settings.reward!r} does not apply to {group.prompt.id!r}",
                "give that prompt an answer, or choose another evaluate.reward",
            )


def outcome(sampled: Group, greedy: Group | None, anywhere: Lenient = NOTHING) -> dict[str, Any]:
    """One problem with every answer to it, as data/eval/CHECKPOINT/BENCH.jsonl holds it."""
    prompt = sampled.prompt
    return {
        "prompt_id": prompt.id,
        "source": prompt.source,
        "question": prompt.messages[-1]["content"],
        **({"messages": list(prompt.messages)} if len(prompt.messages) > 1 else {}),
        "answer": prompt.answer,
        "samples": [answer(c, s, anywhere) for c, s in zip(sampled.completions, sampled.scores, strict=True)],
        "greedy": answer(greedy.completions[0], greedy.scores[0], anywhere) if greedy else None,
    }


def answer(completion: Completion, score: Score, anywhere: Lenient) -> dict[str, Any]:
    """One completion with the rewards it got, and `lenient` where it missed the format."""
    graded = anywhere.get((completion.prompt_id, completion.text))
    return {
        "text": completion.text,
        "finish": completion.finish,
        "tokens": len(completion.token_ids),
        "rewards": dict(score.parts),
        **({} if graded is None else {"lenient": graded}),
    }
