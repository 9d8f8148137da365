"""What a reward is called with: TRL's convention for a whole step, or verifiers' for one completion."""

import asyncio
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from chainforge.records import Completion, Prompt
from chainforge.reward_options import RewardOptions

LOGS = ("log_metric", "log_extra")

Log = Callable[[str, Any], None]
Get = Callable[[Prompt, Completion], Any]


@dataclass(frozen=True, slots=True)
class Arguments:
    """Of what is offered, what one reward takes. It pickles: the logs are added where the call is made."""

    columns: Mapping[str, list[Any]]  # one value per completion
    shared: Mapping[str, Any]
    logs: tuple[str, ...]
    count: int
    per_sample: bool
    conversational: bool

    def call(self, function: Callable[..., Any], log: Log) -> Any:
        """One value per completion, or an awaitable of them; per sample, any of them may be awaitable."""
        shared = dict(self.shared) | dict.fromkeys(self.logs, log)
        if not self.per_sample:
            return function(**self.columns, **shared)
        return [
            function(**{name: values[i] for name, values in self.columns.items()}, **shared)
            for i in range(self.count)
        ]

    def one(self, place: int) -> "Arguments":
        """Those of one completion."""
        return self.some(range(place, place + 1))

    def some(self, places: range) -> "Arguments":
        """Those of completions side by side."""
        columns = {name: values[places.start : places.stop] for name, values in self.columns.items()}
        return replace(self, columns=columns, count=len(places))

    def waits(self, values: Any) -> bool:
        """Whether what `call` returned is still to be awaited."""
        return inspect.isawaitable(values) or (self.per_sample and any(map(inspect.isawaitable, values)))


async def wait_for_all(values: Any) -> Any:
    """What `call` returned, awaited: samples concurrently, and the first of them that failed raises."""
    if inspect.isawaitable(values):
        return await values
    settled = await asyncio.gather(*map(_settle, values))
    for _, error in settled:
        if error is not None:
            raise error
    return [value for value, _ in settled]


async def _settle(value: Any) -> tuple[Any, BaseException | None]:
    try:
        return (await value if inspect.isawaitable(value) else value), None
    except asyncio.CancelledError:
        raise
    except BaseException as error:
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
    columns: Collection[str] = (),
) -> Arguments:
    """What this function takes, of the given columns too. All of it is its own: it may change it."""
    takes = accepts(function)
    columns = {*columns, *(name for prompt, _ in flat for name in prompt.columns)}
    offered = {name: get for name, get in _columns(columns).items() if takes(name)}
    offered |= {name: get for name, get in _texts(options).items() if takes(name)}
    return Arguments(
        {
            name: [get(prompt, completion) for prompt, completion in flat]
            for name, get in offered.items()
            if name not in {*shared, *LOGS}
        },
        {name: own_namespace(value) for name, value in shared.items() if takes(name)},
        tuple(filter(takes, LOGS)),
        len(flat),
        options.per_sample,
        options.conversational,
    )


def own(value: Any) -> Any:
    """A value that its owner may change: JSON's lists and objects are copied, down to the last."""
    if isinstance(value, list):
        return [own(item) for item in value]
    if isinstance(value, dict):
        return {name: own(item) for name, item in value.items()}
    return value


def own_namespace(value: Any) -> Any:
    return SimpleNamespace(**vars(value)) if isinstance(value, SimpleNamespace) else value


def accepts(function: Callable[..., Any]) -> Callable[[str], bool]:
    """Whether the function takes a keyword argument of that name."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return lambda name: True
    return {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY}.__contains__


def _columns(names: Collection[str]) -> dict[str, Get]:
    def column(name: str) -> Get:
        return lambda prompt, _: own(prompt.columns.get(name))

    return {name: column(name) for name in sorted(names)} | {
        "answer": lambda prompt, _: prompt.answer,
        "completion_ids": lambda _, completion: list(completion.token_ids),
    }


def _texts(options: RewardOptions) -> dict[str, Get]:
    plural = "" if options.per_sample else "s"
    found: dict[str, Get] = {
        f"prompt{plural}": lambda prompt, _: prompt.messages[-1]["content"],
        f"completion{plural}": lambda _, completion: completion.text,
    }
    if options.conversational:
        found = {
            f"prompt{plural}": lambda prompt, _: [dict(message) for message in prompt.messages],
            f"completion{plural}": lambda _, completion: [{"role": "assistant", "content": completion.text}],
        }
    if options.per_sample:
        found["info"] = lambda prompt, _: own(prompt.columns.get("info", dict(prompt.columns)))
        found["state"] = lambda prompt, _: {}
    return found
