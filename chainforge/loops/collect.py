"""Collect chains of thought: every prompt asked, every answer checked to be one that was asked for."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from chainforge.config.loading import Choice
from chainforge.containment import Raised, contain
from chainforge.errors import ChainForgeError, describe
from chainforge.hookspecs import Teacher
from chainforge.records import Prompt, Trace, check_record, from_json, to_json
from chainforge.run.progress import progress
from chainforge.run.step import Step
from chainforge.run.work import Work

MEND = "mend the teacher plugin"


def collect(
    teacher: Teacher,
    prompts: Sequence[Prompt],
    samples: int,
    step: Step,
    work: Work,
    who: str = "the teacher",
) -> list[Trace]:
    """The traces in an order of their own, whatever order the teacher answered in.

    A prompt's traces are kept once it has them all; it is not asked again. `who` names the teacher in errors.
    """
    journal = work.journal("traces")
    traces: dict[str, list[Trace]] = {prompt.id: [] for prompt in prompts}
    for number, row in enumerate(journal.rows, start=1):
        try:
            its = [from_json(Trace, trace) for trace in row]
            (asked,) = {trace.prompt_id for trace in its}
            if asked not in traces or len(its) != samples:
                raise ValueError(f"{len(its)} traces of prompt {asked!r}")
        except Exception as error:  # whatever a row is that another program has changed
            raise journal.unfit(number, error) from error
        traces[asked] = its
    left = [prompt for prompt in prompts if not traces[prompt.id]]
    answers = ask(teacher, left, samples, step.seed("teacher"), who)
    total, done = len(prompts) * samples, (len(prompts) - len(left)) * samples
    for trace in progress(answers, step.name, total=total, initial=done, unit="trace", live=work.live):
        if trace.prompt_id not in traces:
            raise ChainForgeError(f"{who} answered {trace.prompt_id!r}, which nobody asked", MEND)
        its = traces[trace.prompt_id]
        its.append(trace)
        if len(its) > samples:  # it may never end
            raise wrong_count(who, trace.prompt_id, len(its), samples)
        if len(its) == samples:
            journal.append([to_json(trace) for trace in its])
        work.safe_point()
    if missing := [name for name, its in traces.items() if len(its) != samples]:
        raise wrong_count(who, missing[0], len(traces[missing[0]]), samples)
    return [trace for its in traces.values() for trace in sorted(its, key=lambda t: (t.reasoning, t.content))]


def ask(teacher: Teacher, prompts: Sequence[Prompt], samples: int, seed: int, who: str) -> Iterator[Trace]:
    """What the teacher yields: whole traces only. Raises ChainForgeError that names it for anything else."""
    given = contain(Asked(teacher, prompts, samples, seed), who)
    try:
        for number, trace in enumerate(given, start=1):
            try:
                yield check_record(Trace, trace)
            except ValueError as error:
                raise ChainForgeError(f"{who}, trace {number}: {error}", MEND) from error
    except Raised as error:
        raise ChainForgeError(
            f"{who} raised {describe(error.cause)}",
            f"whole answers are kept, and not asked for again; {MEND}, then run again",
        ) from error.cause


@dataclass(frozen=True, slots=True)
class Asked:
    """A teacher's answers; it is asked where they are first wanted."""

    teacher: Teacher
    prompts: Sequence[Prompt]
    samples: int
    seed: int

    def __iter__(self) -> Iterator[Trace]:
        answers = self.teacher.generate(self.prompts, n=self.samples, seed=self.seed)
        if not isinstance(answers, Iterable):
            raise ChainForgeError(f"the teacher gives {type(answers).__name__}, not traces", MEND)
        return iter(answers)


def wrong_count(who: str, prompt_id: str, given: int, samples: int) -> ChainForgeError:
    """The error for a prompt that has too few answers, or too many."""
    return ChainForgeError(
        f"{who} gave {given} answers to {prompt_id!r}, not {samples}",
        "a teacher yields n traces per prompt; one that failed has finish 'error'",
    )


def in_process_calls(teacher: Choice, traces: Iterable[Trace], synthetic: bool | None) -> dict[str, Any]:
    """`calls.json` of a teacher that runs here: nothing was paid, and null is what it has nothing to say on.

    `models` are the traces' origins.
    """
    models = Counter(trace.origin for trace in traces)
    return {
        "teacher": teacher.plugin,
        "parameters": teacher.settings,
        "models": dict(models),
        "synthetic": synthetic,
        "first_day": None,
        "last_day": None,
        "requests": None,
        "answers": models.total(),
        "possibly_paid": 0,
        "tokens": None,
        "cost_usd": None,
        "price_table": None,
    }
