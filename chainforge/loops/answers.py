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
    done = [saved for row in journal.rows for saved in row]
    groups = [restored(prompt, saved, scorer) for prompt, saved in zip(prompts, done, strict=False)]
    scoring: Pending | None = None
    batches = [prompts[start : start + batch_size] for start in range(len(groups), len(prompts), batch_size)]
    for batch in progress(batches, title, unit="batch"):
        before, scoring = scoring, scorer.begin(batch, sample(batch))
        groups += kept(before, journal) if before else []
        if not scoring.waits:
            groups, scoring = groups + kept(scoring, journal), None
        try:
            work.safe_point()
        except Stopped:
            if scoring:
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


def restored(prompt: Prompt, saved: Mapping[str, Any], scorer: Scorer) -> Group:
    """A group of the journal."""
    assert prompt.id == saved["prompt_id"]
    completions = [from_json(Completion, completion) for completion in saved["completions"]]
    return scorer.rebuild(prompt, completions, saved["parts"])
