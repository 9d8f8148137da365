"""Every completion that lies here, one row each: rollouts of GRPO, samples of rejection sampling, answers of
evaluations. The same columns for all; null where a kind has no such thing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chainforge.completions.kept import Row, kept_files, of_another_run, read_kept
from chainforge.errors import ChainForgeError, unknown
from chainforge.project.graph import GraphStep, outputs, param, read_graph
from chainforge.report.evaluations import eval_rows

KINDS = {"grpo": "rollout", "sample": "sample", "evaluate": "answer"}  # by verb; and "greedy"
COLUMNS: Mapping[str, str] = {
    "step": "text",
    "kind": "text",
    "iteration": "whole number",
    "group": "whole number",
    "prompt_id": "text",
    "index": "whole number",
    "text": "text",
    "tokens": "whole number",
    "finish": "text",
    "total": "number",
    "advantage": "number",
    "logprob_sum": "number",
    "kept": "yes or no",
    "right": "yes or no",
}


@dataclass(frozen=True, slots=True)
class Found:
    """The steps that left completions, in the order of the graph, and what was left out, in sentences."""

    steps: tuple[GraphStep, ...]
    reward: str  # a completion is right where it has 1.0 of this
    notes: tuple[str, ...]

    def rows(self) -> Iterator[Row]:
        """All of them: COLUMNS, and `rewards`, a value or null by name."""
        for step in self.steps:
            yield from rows_of_step(step, self.reward)


def find_completions(names: Sequence[str] = ()) -> Found:
    """Of the steps of these names, or of all. Raises ChainForgeError where there is none."""
    steps = {step.name: step for step in read_graph().values() if step.verb in KINDS}
    for name in names:
        if name not in steps:
            raise unknown("step that samples", name, steps)
    found, notes = [], []
    for step in steps.values():
        if (names and step.name not in names) or not has_completions(step):
            continue
        if step.verb != "evaluate" and (other := of_another_run(step)):
            notes.append(f"left out: what is kept of {step.name} is of another run: {other}")
        else:
            found.append(step)
    if not found:
        raise ChainForgeError(
            "no completions lie here" + "".join(f"; {note}" for note in notes),
            "run dvc repro; runtime.keep_completions: true keeps what GRPO and rejection sampling sample",
        )
    return Found(tuple(found), str(param("evaluate.reward")), tuple(notes))


def has_completions(step: GraphStep) -> bool:
    """Whether a step has left any."""
    return answers_file(step).is_file() if step.verb == "evaluate" else bool(kept_files(step.name))


def answers_file(step: GraphStep) -> Path:
    """The answers of an evaluation."""
    return next(path for path in outputs(step) if path.suffix == ".jsonl")


def rows_of_step(step: GraphStep, reward: str) -> Iterator[Row]:
    """The rows of one step."""
    given = _answers(answers_file(step)) if step.verb == "evaluate" else _kept(step)
    for row in given:
        value = row["rewards"].get(reward)
        right = None if value is None else value == 1.0
        whole = {"step": step.name, "kind": KINDS[step.verb], **row, "right": right}
        yield {name: whole.get(name) for name in COLUMNS} | {"rewards": row["rewards"]}


def _kept(step: GraphStep) -> Iterator[Row]:
    for file in kept_files(step.name):
        yield from read_kept(file)


def _answers(path: Path) -> Iterator[Row]:
    for place, (_, problem) in enumerate(eval_rows(path)):
        about = {"group": place, "prompt_id": problem["prompt_id"]}
        for index, answer in enumerate(problem["samples"]):
            yield about | {"index": index} | dict(answer)
        if problem["greedy"]:
            yield about | {"kind": "greedy", "index": 0} | dict(problem["greedy"])
