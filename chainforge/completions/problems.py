"""The problems of a run: every prompt of every set and benchmark, with the file and line that has it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chainforge.errors import ChainForgeError
from chainforge.jsonl import read_records
from chainforge.project.graph import outputs, read_graph
from chainforge.records import Prompt, plain_text


@dataclass(frozen=True, slots=True)
class Problem:
    """One line of a file of prompts. `split` is train or eval; a benchmark has none."""

    step: str
    split: str | None
    file: Path
    line: int  # from 1
    prompt: Prompt


def read_problems() -> Iterator[Problem]:
    """In the order of the graph. Raises ChainForgeError where no step has written any yet."""
    found = False
    for step in read_graph().values():
        for file in outputs(step) if step.verb in ("prompts", "bench") else ():
            if not file.is_file():
                continue
            found = True
            split = file.stem.rpartition("_")[2] if step.verb == "prompts" else None
            for line, prompt in enumerate(read_records(file, Prompt), start=1):
                yield Problem(step.name, split, file, line, prompt)
    if not found:
        raise ChainForgeError("there are no problems yet", "run: dvc repro")


def with_id(text: str) -> dict[str, list[Problem]]:
    """The problems that this names, by id: the whole id, or else its beginning, or else a part of it."""
    by_id = _by_id(problem for problem in read_problems() if text in problem.prompt.id)
    if text in by_id:
        return {text: by_id[text]}
    return {name: its for name, its in by_id.items() if name.startswith(text)} or by_id


def with_text(text: str) -> dict[str, list[Problem]]:
    """The problems in whose conversation this stands, by id, whatever the case and spaces: 12 + 7 is 12+7."""
    return _by_id(p for p in read_problems() if _packed(text) in _packed(plain_text(p.prompt)))


def _packed(text: str) -> str:
    return "".join(text.casefold().split())


def _by_id(problems: Iterator[Problem]) -> dict[str, list[Problem]]:
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        found.setdefault(problem.prompt.id, []).append(problem)
    return found


def questions() -> dict[str, tuple[str, str | None]]:
    """What is asked, and the reference answer, by prompt id; not of an id that two problems have."""
    asked: dict[str, set[tuple[str, str | None]]] = {}
    for problem in read_problems():
        prompt = problem.prompt
        asked.setdefault(prompt.id, set()).add((prompt.messages[-1]["content"], prompt.answer))
    return {name: next(iter(its)) for name, its in asked.items() if len(its) == 1}
