"""What a reward is called with: TRL's convention for a whole step, or verifiers' for one completion."""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainforge.hookspecs import RewardOptions
from chainforge.records import Completion, Prompt

LOGS = ("log_metric", "log_extra")

Log = Callable[[str, Any], None]


@dataclass(frozen=True, slots=True)
class Arguments:
    """Of what is offered, what one reward takes. It pickles: the logs are added where the call is made."""

    columns: Mapping[str, list[Any]]  # one value per completion
    shared: Mapping[str, Any]
    logs: tuple[str, ...]
    count: int
    per_sample: bool

    def call(self, function: Callable[..., Any], log: Log) -> Any:
        """One value per completion, or an awaitable of them; per sample, any of them may be awaitable."""
        shared = dict(self.shared) | dict.fromkeys(self.logs, log)
        if not self.per_sample:
            return function(**self.columns, **shared)
        return [
            function(**{name: values[i] for name, values in self.columns.items()}, **shared)
            for i in range(self.count)
        ]

    def waits(self, values: Any) -> bool:
        """Whether what `call` returned is still to be awaited."""
        return inspect.isawaitable(values) or (self.per_sample and any(map(inspect.isawaitable, values)))


async def awaited(values: Any) -> Any:
    """What `call` returned, awaited: samples concurrently, and the first of them that failed raises."""
    if inspect.isawaitable(values):
        return await values
    settled = await asyncio.gather(*map(_settled, values))
    for _, error in settled:
        if error is not None:
            raise error
    return [value for value, _ in settled]


async def _settled(value: Any) -> tuple[Any, BaseException | None]:
    try:
        return (await value if inspect.isawaitable(value) else value), None
    except (Exception, SystemExit) as error:
        return None, error


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call only makes something to await: it can start anywhere, and run beside other things."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with `async def __call__`
    )


def arguments_for(
    function: Callable[..., Any],
    options: RewardOptions,
    flat: Sequence[tuple[Prompt, Completion]],
    shared: Mapping[str, Any],
) -> Arguments:
    """What this function takes. The lists and messages are its own: it may change them."""
    offered = _columns(flat) | _texts(options, flat)
    if options.per_sample:
        offered |= {
            "info": [prompt.columns.get("info", dict(prompt.columns)) for prompt, _ in flat],
            "state": [{} for _ in flat],
        }
    takes = accepted(function)
    return Arguments(
        {name: values for name, values in offered.items() if name not in {*shared, *LOGS} and takes(name)},
        {name: value for name, value in shared.items() if takes(name)},
        tuple(filter(takes, LOGS)),
        len(flat),
        options.per_sample,
    )


def accepted(function: Callable[..., Any]) -> Callable[[str], bool]:
    """Whether the function takes a keyword argument of that name."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return lambda name: True
    return {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY}.__contains__


def _columns(flat: Sequence[tuple[Prompt, Completion]]) -> dict[str, list[Any]]:
    names = sorted({name for prompt, _ in flat for name in prompt.columns})
    columns: dict[str, list[Any]] = {name: [p.columns.get(name) for p, _ in flat] for name in names}
    return columns | {
        "answer": [prompt.answer for prompt, _ in flat],
        "completion_ids": [list(completion.token_ids) for _, completion in flat],
    }


def _texts(options: RewardOptions, flat: Sequence[tuple[Prompt, Completion]]) -> dict[str, list[Any]]:
    plural = "" if options.per_sample else "s"
    if options.conversational:
        return {
            f"prompt{plural}": [[dict(message) for message in prompt.messages] for prompt, _ in flat],
            f"completion{plural}": [[{"role": "assistant", "content": c.text}] for _, c in flat],
        }
    return {
        f"prompt{plural}": [prompt.messages[-1]["content"] for prompt, _ in flat],
        f"completion{plural}": [completion.text for _, completion in flat],
    }
