"""Scored completions of many prompts, batch by batch; batches that an earlier run finished are not redone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chainforge.records import Completion, Group, Prompt, from_json, to_json
from chainforge.run.journal import Journal
from chainforge.run.progress import progress
from chainforge.run.stopping import Stopped
from chainforge.run.work import Work
from chainforge.scoring import Pending, Scorer

Sample = Callable[[Sequence[Prompt]], Sequence[Sequence[Completion]]]


def answers(
    prompts: Sequence[Prompt],
    sample: Sample,
    batch_size: int,
    scorer: Scorer,
    journal: Journal,
    work: Work,
    title: str,
) -> list[Group]:
    """One turn of the body is one batch; slow rewards score it while the next one is sampled."""
    by_id = {prompt.id: prompt for prompt in prompts}
    groups = [group for row in journal.rows for group in restored(row, by_id, scorer)]
    scoring: Pending | None = None
    batches = [prompts[start : start + batch_size] for start in range(len(groups), len(prompts), batch_size)]
    for batch in progress(batches, title, unit="batch"):
        before, scoring = scoring, scorer.begin(batch, sample(batch))
        groups += kept(before, journal) if before else []
        try:
            work.safe_point()
        except Stopped:
            kept(scoring, journal)
            raise
    return groups + (kept(scoring, journal) if scoring else [])


def kept(scoring: Pending, journal: Journal) -> list[Group]:
    """The scored groups of a batch, in the journal as one row."""
    groups = scoring.result()
    journal.append(
        [
            {
                "prompt_id": group.prompt.id,
                "completions": [to_json(completion) for completion in group.completions],
                "parts": [dict(score.parts) for score in group.scores],
            }
            for group in groups
        ]
    )
    return groups


def restored(row: Sequence[Mapping[str, Any]], by_id: Mapping[str, Prompt], scorer: Scorer) -> list[Group]:
    """The groups of a journal's row."""
    return [
        scorer.rebuild(
            by_id[group["prompt_id"]],
            [from_json(Completion, c) for c in group["completions"]],
            group["parts"],
        )
        for group in row
    ]
