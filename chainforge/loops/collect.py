"""Collect chains of thought: every prompt asked, every answer checked to be one that was asked for."""

from collections import Counter
from collections.abc import Sequence

from chainforge.errors import ChainForgeError
from chainforge.hookspecs import Teacher
from chainforge.records import Prompt, Trace
from chainforge.run.progress import progress
from chainforge.run.step import Step


def collect(teacher: Teacher, prompts: Sequence[Prompt], samples: int, step: Step) -> list[Trace]:
    """The traces in an order of their own, whatever order the teacher answered in."""
    place = {prompt.id: number for number, prompt in enumerate(prompts)}
    answers = teacher.generate(prompts, n=samples, seed=step.seed("teacher"))
    traces = list(progress(answers, step.name, total=len(prompts) * samples, unit="trace"))
    if strangers := sorted({trace.prompt_id for trace in traces} - set(place)):
        raise ChainForgeError(
            f"the teacher answered {strangers[0]!r}, which nobody asked", "mend the teacher plugin"
        )
    short = Counter(trace.prompt_id for trace in traces)
    if missing := [prompt.id for prompt in prompts if short[prompt.id] != samples]:
        raise ChainForgeError(
            f"the teacher gave {short[missing[0]]} answers to {missing[0]!r}, not {samples}",
            "a teacher yields n traces per prompt; one that failed has finish 'error'",
        )
    return sorted(traces, key=lambda trace: (place[trace.prompt_id], trace.reasoning, trace.content))
