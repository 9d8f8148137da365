r"""Teacher `recorded`: the worked solution that a data set brings along is the chain of thought.

>>> janet = cf.Prompt("p1", "gsm8k", (), "18", {"solution": "9 * 2 = $<<9*2=18>>18 a day.\n#### 18"})
>>> [(t.reasoning, t.content) for t in Recorded(drop="<<.*?>>").generate([janet], n=1, seed=17)]
[('9 * 2 = $18 a day.', '18')]
>>> [t.content for t in Recorded(box=True).generate([janet], n=1, seed=17)]
['\\boxed{18}']
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import chainforge as cf


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Reads `prompt.columns[column]`: the reasoning, then `answer_mark`, then the answer."""

    column: str = "solution"
    drop: str | None = None  # a regular expression; what it matches is left out
    answer_mark: str = "####"
    box: bool = False  # whether the answer goes into a box, as prompts may ask for

    def __post_init__(self) -> None:
        if not self.answer_mark:
            raise cf.ChainForgeError("answer_mark is empty", "name the text between reasoning and answer")
        try:
            re.compile(self.drop or "")
        except re.error as error:
            raise cf.ChainForgeError(
                f"drop: {self.drop!r} is not a regular expression: {error}",
                "put a backslash before ( [ * + ? . |",
            ) from error

    def generate(self, prompts: Sequence[cf.Prompt], *, n: int, seed: int) -> Iterator[cf.Trace]:
        """Yield the one trace of each prompt."""
        if n > 1:
            raise cf.ChainForgeError(
                f"teacher recorded has one solution per prompt, {n} are asked for",
                "ask for one trace per prompt",
            )
        for prompt in prompts if n else ():
            reasoning, content = self.split(prompt)
            answer = rf"\boxed{{{content}}}" if self.box else content
            yield cf.Trace(prompt.id, reasoning, answer, "stop", "recorded")

    def split(self, prompt: cf.Prompt) -> tuple[str, str]:
        solution = prompt.columns.get(self.column)
        if not isinstance(solution, str):
            raise cf.ChainForgeError(
                f"prompt {prompt.id!r} has no text in its column {self.column!r}",
                "name the field of the data set that holds it: prompt source jsonl, setting `solution`",
            )
        reasoning, mark, content = solution.rpartition(self.answer_mark)
        if not mark or not reasoning.strip() or not content.strip():
            raise cf.ChainForgeError(
                f"the solution of prompt {prompt.id!r} is not reasoning, {self.answer_mark!r}, answer",
                "set `answer_mark` to the text that parts the two, or leave that row out of the data",
            )
        return re.sub(self.drop, "", reasoning).strip() if self.drop else reasoning.strip(), content.strip()


@cf.hookimpl
def register_teachers(register: Callable[[str, Any], None]) -> None:
    register("recorded", Recorded)
