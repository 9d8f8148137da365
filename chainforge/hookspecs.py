"""Every hook a plugin may implement, and the shape of what it registers.

A hook receives `register` and calls it once per name. Names are what params.yaml selects; a plugin
module must not import torch at its top level, because `dvc repro` imports every plugin each time.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

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
    `trainer_state` (`global_step`, `max_steps`), `log_metric`, `log_extra`. Only those that the
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


class StudentModel(Protocol):
    """A model to train from: the base model of the recipe, or a student to distill into."""

    def load(self, *, seed: int, texts: Sequence[str]) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """The model in float32 on the CPU, and a tokenizer with a chat template and an EOS token.

        `texts` are the rendered examples about to be trained on: a model that builds its tokenizer
        on the spot learns it from them; a pretrained one ignores them.
        """


class TeacherFactory(Protocol):
    """Makes a teacher from its settings in params.yaml."""

    def __call__(self, **settings: Any) -> Teacher: ...


class StudentModelFactory(Protocol):
    """Makes a student model from its settings in params.yaml."""

    def __call__(self, **settings: Any) -> StudentModel: ...


class RegisterReward(Protocol):
    """Adds one reward under a name. `conversational=True` passes message lists instead of texts."""

    def __call__(self, name: str, function: Any, *, conversational: bool = False) -> None: ...


class Register(Protocol):
    """Adds one factory under a name."""

    def __call__(self, name: str, factory: Any) -> None: ...


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
