"""Every hook a plugin may implement, and the shape of what it registers.

A hook receives `register` and calls it once per name. Names are what params.yaml selects; a plugin
module must not import torch at its top level, because `dvc repro` imports every plugin each time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import pluggy

from chainforge.providers.calls import Call, Reply
from chainforge.providers.prices import Prices
from chainforge.records import Prompt, Trace

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

API_VERSION = 1
PROJECT = "chainforge"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Reward(Protocol):
    """TRL's call convention: one call for all completions of a step, one number each.

    Keyword arguments offered: `prompts` and `completions` (texts, or message lists when registered
    with `conversational=True`), `completion_ids`, `answer`, every column of the prompts as a list,
    `trainer_state` (`global_step`, `max_steps`, `epoch`), `log_metric`, `log_extra`. Only those that the
    function accepts are passed. None means "does not apply". A weight never belongs here: it lives
    in params.yaml.
    """

    def __call__(self, **columns: Any) -> Sequence[float | None]: ...


class PromptSource(Protocol):
    """Yields up to `n` prompts of a split ("train" or "eval"); the same seed gives the same prompts.

    A source has settings of its own as keyword arguments; one annotated `Path` is an input file:
    it must exist, and its content is part of what `dvc repro` watches.
    """

    def __call__(self, *, split: str, n: int, seed: int, **settings: Any) -> Iterable[Prompt]: ...


class Teacher(Protocol):
    """Answers prompts. May yield in any order and may do its work concurrently."""

    def generate(self, prompts: Sequence[Prompt], *, n: int, seed: int) -> Iterator[Trace]:
        """Yield `n` traces per prompt."""


class ApiClient(Protocol):
    """An open connection to a teacher's API."""

    async def ask(self, call: Call) -> Mapping[str, Any]:
        """The provider's JSON, whole and as it came, after one try. Raises CallFailed for all else."""


@runtime_checkable
class ApiTeacher(Protocol):
    """A teacher behind an API: how to ask once, and how to read what comes.

    When to ask, how often, for how much money, and that no answer is lost or paid twice, is ChainForge's
    business: see chainforge/teachers/.
    """

    max_tokens: int  # of reasoning and answer together
    prices: Prices | None  # None: unknown
    seeded: bool  # whether a call's seed is sent, and so belongs to what the answer depends on
    thinks: bool  # whether reasoning is asked for; if not, an answer without is as it should be

    @property
    def identity(self) -> Mapping[str, Any]:
        """What an answer depends on besides messages and sample: provider, model, parameters. Never a key.
        Two teachers with the same identity share paid answers."""

    def client(self, *, connections: int) -> AbstractAsyncContextManager[ApiClient]:
        """Connect, with room for `connections` calls at once. Raises ChainForgeError if a key is missing."""

    def read(self, answer: Mapping[str, Any]) -> Reply:
        """What `ask` returned, or a CallFailed's `partial`, understood. Pure."""


class StudentModel(Protocol):
    """A model to train from: the base model of the recipe, or a student to distill into."""

    def load(self, *, seed: int, texts: Sequence[str]) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """The model in float32 on the CPU, and a tokenizer with a chat template and an EOS token.

        `texts` are the rendered examples about to be trained on: a model that builds its tokenizer
        on the spot learns it from them; a pretrained one ignores them.
        """


class RegisterReward(Protocol):
    """Adds one reward under a name: `register("exact", exact)`. Options: `RewardOptions` and `override`."""

    def __call__(
        self,
        name: str,
        function: Any,
        *,
        conversational: bool = False,
        per_sample: bool = False,
        isolation: Literal["inline", "process"] = "inline",
        timeout_s: float | None = None,
        on_error: Literal["raise", "none"] = "raise",
        keys: tuple[str, ...] = (),
        factory: bool = False,
        override: bool = False,
        reading: Callable[[str], str | None] | None = None,
        each_s: float | None = None,
        ready: Callable[[], None] | None = None,
        prepare: Callable[[], None] | None = None,
        check_answer: Callable[[str], str | None] | None = None,
    ) -> None: ...


class Register(Protocol):
    """Adds one factory under a name. With `override` it takes the place of another plugin's."""

    def __call__(self, name: str, factory: Any, *, override: bool = False) -> None: ...


@hookspec
def register_rewards(register: RegisterReward) -> None:
    """Rewards by the name used under `rewards:` in params.yaml: `register("exact", exact)`."""


@hookspec
def register_prompt_sources(register: Register) -> None:
    """Prompt sources by the name used under `prompts.*.source.plugin`."""


@hookspec
def register_teachers(register: Register) -> None:
    """Teachers by the name used under `collect_*.teacher.plugin`."""


@hookspec
def register_student_models(register: Register) -> None:
    """Models to start from, by the name used under `model.plugin` of an SFT step or a student."""
