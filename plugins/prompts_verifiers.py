"""Prompt source and reward `verifiers`: single-turn environments of the package verifiers, unchanged.

Both need the optional package: pip install 'chainforge-r1[verifiers]'. An environment is a Python package of
somebody's: it is imported and run here, as any plugin is. Its data set gives the prompts, and its rubric the
reward. API: https://docs.primeintellect.ai/verifiers (0.1, `load_environment`, `SingleTurnEnv`, `Rubric`).
"""

import asyncio
import json
import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import chainforge as cf

LIMIT_S = 60.0


def problems(
    *, split: str, n: int, seed: int, environment: str, arguments: dict[str, Any] | None = None
) -> Iterator[cf.Prompt]:
    """The environment's training or evaluation rows in their order; a seeded choice of `n` if it has more.

    Of an environment without evaluation rows, some of the training rows are kept for it, by their text.
    `arguments` are those of its `load_environment`.
    """
    cf.check_split(split)
    ready()
    made = load(environment, json.dumps(arguments or {}, sort_keys=True))
    apart = made.eval_dataset is not None
    rows = made.get_eval_dataset() if split == "eval" and apart else made.get_dataset()
    found = [prompt(environment, arguments or {}, split, number, row) for number, row in enumerate(rows)]
    if not apart:
        found = [p for p in found if cf.split_of(p.messages[-1]["content"]) == split]
    return iter(cf.choose(found, n, f"{seed}:{split}"))


@lru_cache(maxsize=32)
def load(name: str, arguments: str) -> Any:
    """The environment. Raises ChainForgeError where it is not there, or has more than one turn."""
    import verifiers

    logging.getLogger("verifiers").setLevel(logging.WARNING)  # it greets in the middle of a bar
    try:
        with signals_kept():
            made = verifiers.load_environment(name, **json.loads(arguments))
    except (RuntimeError, ValueError) as error:
        raise cf.ChainForgeError(
            f"environment {name}: {error}", "install its package, or correct its name and its arguments"
        ) from error
    if not isinstance(made, verifiers.SingleTurnEnv):
        raise cf.ChainForgeError(
            f"environment {name} is a {type(made).__name__}: it has several turns, or tools",
            "take a SingleTurnEnv: here a prompt is answered once",
        )
    if made.message_type != "chat":
        raise cf.ChainForgeError(f"environment {name} completes texts", "take one whose prompts are chats")
    return made


@contextmanager
def signals_kept() -> Iterator[None]:
    """An environment takes Ctrl-C and SIGTERM for itself when it is made; the step needs them, to save."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def prompt(name: str, arguments: Mapping[str, Any], split: str, number: int, row: Any) -> cf.Prompt:
    """Of one row, with what its rubric is to be called with."""
    messages = tuple(cf.Message(role=m["role"], content=str(m["content"])) for m in row["prompt"])
    answer = row.get("answer")
    origin = {"environment": name, "arguments": dict(arguments), "task": row.get("task") or "default"}
    return cf.Prompt(
        id=f"{name}-{split}-{number:06d}",
        source=name,
        messages=messages,
        answer=None if answer in (None, "") else str(answer),
        columns={"verifiers": {**origin, "answer": answer or "", "info": row.get("info") or {}}},
    )


@dataclass(frozen=True, kw_only=True)
class Rubric:
    """Setting: the `part` of a response that the environment sees. A model that thinks shows its `summary` in
    that ecosystem as well."""

    part: Literal["response", "summary"] = "summary"

    def __call__(
        self,
        *,
        prompts: list[list[cf.Message]],
        completions: list[list[cf.Message]],
        verifiers: list[Mapping[str, Any] | None],
        response_format: cf.TagFormat,
        **_: object,
    ) -> list[float | None]:
        """What the rubric says, weighted as the environment weighs it; None where a prompt is not of one.

        Neighbours with one prompt are scored together, as rubrics that compare a group want it.
        """
        values: list[float | None] = [None] * len(completions)
        groups: dict[str, list[int]] = {}
        for place, (asked, origin) in enumerate(zip(prompts, verifiers, strict=True)):
            if origin is not None:
                groups.setdefault(json.dumps([asked, origin], sort_keys=True), []).append(place)
        for places in groups.values():
            first = verifiers[places[0]] or {}
            texts = [response_format.part(completions[n][0]["content"], self.part) or "" for n in places]
            found = grade(first, prompts[places[0]], texts)
            for place, value in zip(places, found, strict=True):
                values[place] = value
        return values


def grade(origin: Mapping[str, Any], asked: list[cf.Message], texts: list[str]) -> list[float]:
    """Raises RuntimeError where a function of the rubric failed: the package itself would say 0.0."""
    from verifiers import State

    made = load(origin["environment"], json.dumps(origin["arguments"], sort_keys=True))
    states = [
        State(
            input={
                "prompt": asked, "answer": origin["answer"], "task": origin["task"], "info": origin["info"],
                "example_id": 0,
            },
            completion=[{"role": "assistant", "content": text}],
            trajectory=[],
            timing={"generation_ms": 0.0, "scoring_ms": 0.0, "total_ms": 0.0},
        )
        for text in texts
    ]  # fmt: skip
    with errors_raised():
        asyncio.run(made.rubric.score_group(states, nullcontext()))
    return [float(state["reward"]) for state in states]


class Collected(logging.Handler):
    """Errors that were logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def errors_raised() -> Iterator[None]:
    """Raise what the package only logs."""
    handler, logger = Collected(), logging.getLogger("verifiers")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    if handler.said:
        raise RuntimeError(handler.said[0])


def ready() -> None:
    if find_spec("verifiers") is None:
        raise cf.ChainForgeError(
            "verifiers needs the package verifiers", "pip install 'chainforge-r1[verifiers]'"
        )


def prepare() -> None:
    import verifiers  # noqa: F401 - takes seconds


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("verifiers", problems)


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    options = {"isolation": "process", "timeout_s": LIMIT_S, "conversational": True}
    register("verifiers", Rubric, factory=True, ready=ready, prepare=prepare, **options)
