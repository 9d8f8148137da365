"""Collect chains of thought: every prompt asked, every answer checked to be one that was asked for."""

from collections.abc import Sequence

from chainforge.errors import ChainForgeError
from chainforge.hookspecs import Teacher
from chainforge.records import Prompt, Trace, from_json, to_json
from chainforge.run.progress import progress
from chainforge.run.step import Step
from chainforge.run.work import Work


def collect(teacher: Teacher, prompts: Sequence[Prompt], samples: int, step: Step, work: Work) -> list[Trace]:
    """The traces in an order of their own, whatever order the teacher answered in.

    A prompt's traces are kept once it has them all; it is not asked again.
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
    answers = teacher.generate(left, n=samples, seed=step.seed("teacher"))
    total, done = len(prompts) * samples, (len(prompts) - len(left)) * samples
    for trace in progress(answers, step.name, total=total, initial=done, unit="trace"):
        if trace.prompt_id not in traces:
            raise ChainForgeError(
                f"the teacher answered {trace.prompt_id!r}, which nobody asked", "mend the teacher plugin"
            )
        its = traces[trace.prompt_id]
        its.append(trace)
        if len(its) == samples:
            journal.append([to_json(trace) for trace in its])
        work.safe_point()
    if missing := [name for name, its in traces.items() if len(its) != samples]:
        raise ChainForgeError(
            f"the teacher gave {len(traces[missing[0]])} answers to {missing[0]!r}, not {samples}",
            "a teacher yields n traces per prompt; one that failed has finish 'error'",
        )
    return [trace for its in traces.values() for trace in sorted(its, key=lambda t: (t.reasoning, t.content))]
