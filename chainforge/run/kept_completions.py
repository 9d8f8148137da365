"""What a step sampled, kept in logs/ where `runtime.keep_completions` says so: nothing of it is a result.

A file is written whole or not at all, by the first process. GRPO writes one per RL step: one that is done
again after a kill replaces its file, so nothing is there twice, and no more than one rollout is in memory.
"""

import json
import math
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from chainforge.outputs import whole_packed_file
from chainforge.records import Completion, Group, Score
from chainforge.run.step import LOGS, Step, file_name

Row = dict[str, Any]
SAMPLES = "samples"  # of a step that samples once


def completions_folder(step: str, logs: Path = LOGS) -> Path:
    """Where a step's completions are kept."""
    return logs / "completions" / file_name(step)


def keep_rollout(number: int, groups: Sequence[Group], advantages: Sequence[float], step: Step) -> None:
    """Those of RL step `number` with their advantages, group by group. The first one clears what an earlier
    run has left, whether or not anything is kept now."""
    if number == 1 and step.world.is_first:
        shutil.rmtree(completions_folder(step.name), ignore_errors=True)
    advantage = iter(advantages)
    rows = (
        {"iteration": number, **row, "advantage": next(advantage)}
        for place, group in enumerate(groups)
        for row in rows_of(place, group)
    )
    _keep(f"{number:06}", rows, step)


def keep_samples(groups: Sequence[Group], choose: Callable[[Group], Container[int]], step: Step) -> None:
    """All samples of a step, and whether each is one of those that `choose` gives the places of."""
    _keep(SAMPLES, _samples(groups, choose) if step.runtime.keep_completions else (), step)


def _samples(groups: Sequence[Group], choose: Callable[[Group], Container[int]]) -> Iterator[Row]:
    for place, group in enumerate(groups):
        chosen = choose(group)
        yield from ({**row, "kept": row["index"] in chosen} for row in rows_of(place, group))


def rows_of(place: int, group: Group) -> Iterator[Row]:
    """A row per completion of the group that is number `place` of its rollout."""
    for index, (completion, score) in enumerate(zip(group.completions, group.scores, strict=True)):
        yield {"group": place, "prompt_id": group.prompt.id, "index": index} | facts(completion, score)


def facts(completion: Completion, score: Score) -> Row:
    """What is known of one completion; a total to which no reward applied is null."""
    return {
        "text": completion.text,
        "tokens": len(completion.token_ids),
        "finish": completion.finish,
        "rewards": dict(score.parts),
        "total": None if math.isnan(score.total) else score.total,
        "logprob_sum": math.fsum(completion.logprobs),
    }


def _keep(name: str, rows: Iterable[Row], step: Step) -> None:
    if not step.world.is_first:
        return
    path = completions_folder(step.name) / f"{name}.jsonl.gz"
    if not step.runtime.keep_completions:
        path.unlink(missing_ok=True)  # of an earlier run, which kept them
        return
    with whole_packed_file(path) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
