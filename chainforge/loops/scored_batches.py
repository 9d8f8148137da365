"""Scored completions of many prompts, batch by batch; batches that an earlier run finished are not redone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chainforge.records import Completion, Group, Prompt, from_json, to_json
from chainforge.run.journal import Journal
from chainforge.run.live import Live
from chainforge.run.progress import progress
from chainforge.run.stopping import Stopped
from chainforge.run.work import Work
from chainforge.scoring import Pending, Scorer

Sample = Callable[[Sequence[Prompt]], Sequence[Sequence[Completion]]]


def sample_and_score(
    prompts: Sequence[Prompt],
    sample: Sample,
    batch_size: int,
    scorer: Scorer,
    journal: Journal,
    work: Work,
    title: str,
) -> list[Group]:
    """One turn of the body is one batch; slow rewards score it while the next one is sampled."""
    groups = restore(prompts, journal, scorer)
    scoring: Pending | None = None
    batches = [prompts[start : start + batch_size] for start in range(len(groups), len(prompts), batch_size)]
    for batch in progress(batches, title, unit="batch", live=work.live):
        before, scoring = scoring, scorer.begin(batch, sample(batch))
        groups += write_down(before, journal, work.live) if before else []
        if not scoring.waits:
            groups, scoring = groups + write_down(scoring, journal, work.live), None
        try:
            work.safe_point()
        except Stopped:
            if scoring:
                write_down(scoring, journal, work.live)
            raise
    return groups + (write_down(scoring, journal, work.live) if scoring else [])


def write_down(scoring: Pending, journal: Journal, live: Live) -> list[Group]:
    """Wait for the scores of a batch, and write its groups into the journal as one row."""
    groups = scoring.result()
    journal.append(
        [
            {
                "prompt_id": group.prompt.id,
                "completions": [to_json(completion) for completion in group.completions],
                "parts": [dict(score.parts) for score in group.scores],
                "failed": [list(score.failed) for score in group.scores],
            }
            for group in groups
        ]
    )
    live.show(groups)
    return groups


def restore(prompts: Sequence[Prompt], journal: Journal, scorer: Scorer) -> list[Group]:
    """The groups of the journal, which has the first of these prompts, in their order."""
    groups: list[Group] = []
    for number, row in enumerate(journal.rows, start=1):
        try:
            groups += [
                rebuild(prompt, saved, scorer)
                for prompt, saved in zip(prompts[len(groups) : len(groups) + len(row)], row, strict=True)
            ]
        except Exception as error:  # whatever a row is that another program has changed
            raise journal.unfit(number, error) from error
    return groups


def rebuild(prompt: Prompt, saved: Mapping[str, Any], scorer: Scorer) -> Group:
    """A group of the journal. Raises where it is another prompt's, or not one."""
    if saved["prompt_id"] != prompt.id:
        raise ValueError(f"it is of prompt {saved['prompt_id']!r}, not {prompt.id!r}")
    completions = [from_json(Completion, completion) for completion in saved["completions"]]
    for value in (value for parts in saved["parts"] for value in parts.values()):
        if not isinstance(value, int | float | None):
            raise TypeError(f"a reward must be a number or null, found {value!r:.40}")
    return scorer.rebuild(prompt, completions, saved["parts"], saved["failed"])
