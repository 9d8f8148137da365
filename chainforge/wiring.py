"""From plugin names in params.yaml to the objects that loops take as arguments."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainforge.config.loading import PARAMS, read_params
from chainforge.containment import no_leaving
from chainforge.errors import ChainForgeError, describe
from chainforge.plugins import (
    Entry,
    Plugins,
    import_file,
    make_component,
    make_reward_function,
    register_plugin,
)
from chainforge.providers.secrets import keys_named_in
from chainforge.reward_options import RewardOptions
from chainforge.scoring import Scorer, WeightedReward

if TYPE_CHECKING:
    from chainforge.run.step import Step  # a reward's own process has no use for it


def make_scorer(
    plugins: Plugins,
    rewards: Mapping[str, float],
    step: "Step",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Scorer:
    """The rewards of a step with their weights and settings. Close it, or use it in a `with`."""
    own = settings or {}
    return Scorer(
        tuple(
            make_reward(plugins.pick("rewards", name), weight, own.get(name, {}))
            for name, weight in rewards.items()
        ),
        step.response_format,
        step.runtime.reward_timeout_s,
        step.log,
        keys_of_teachers(plugins),
        step.world.is_first,
        step.world.hand_out,
    )


def keys_of_teachers(plugins: Plugins) -> frozenset[str]:
    """The environment variables that teachers name as keys: in their code, and in the settings of a step."""
    modules = {entry.module for (role, _), entry in plugins.entries.items() if role == "teachers"}
    named = {key for module in modules for key in _named_in(str(module.__file__))}
    return frozenset(named | set(_named_by(read_params() if PARAMS.is_file() else {})))


@cache
def _named_in(file: str) -> frozenset[str]:
    try:
        return frozenset(keys_named_in(Path(file).read_bytes()))
    except (OSError, SyntaxError, ValueError, RecursionError):  # it was imported all the same: compiled code
        return frozenset()


def _named_by(settings: Any) -> Iterator[str]:
    """Texts that settings call a key: `key_env: HOUSE_KEY`."""
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            if isinstance(value, str) and "key" in str(name).lower():
                yield value
            yield from _named_by(value)


def make_reward(
    entry: Entry, weight: float = 1.0, settings: Mapping[str, Any] | None = None
) -> WeightedReward:
    """A registered reward, ready to be called here or in a process of its own, which gets the keys that its
    settings name."""
    own = dict(settings or {})
    load = partial(load_reward, entry.name, entry.source, entry.module.__name__, entry.module.__file__, own)
    options = RewardOptions.of(entry.options)
    options = replace(options, keys=(*options.keys, *_named_by(own)))
    return WeightedReward(entry.name, weight, make_reward_function(entry, own), entry.source, options, load)


def load_student(
    plugins: Plugins, name: str, settings: Mapping[str, Any], *, seed: int, texts: Sequence[str]
) -> tuple[object, object]:
    """The model and the tokenizer that a student model's plugin makes. It may raise anything at all."""
    entry = plugins.pick("student_models", name)
    student = make_component(entry, settings)
    try:
        with no_leaving():
            loaded = student.load(seed=seed, texts=texts)
    except (ChainForgeError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ChainForgeError(
            f"{entry.who}: `load` raised {describe(error)}",
            f"correct its settings or the plugin; `chainforge plugins check {name}` tries it",
        ) from error
    if not (isinstance(loaded, tuple) and len(loaded) == 2):
        raise ChainForgeError(
            f"{entry.who}: `load` gave {type(loaded).__name__}",
            "`load` returns (model, tokenizer), both of transformers",
        )
    return loaded


def load_reward(
    name: str, source: str, module: str, file: str | None, settings: Mapping[str, Any]
) -> Callable[..., Any]:
    """The reward that `load_plugins` found in that module, prepared, in another process: no other plugin is
    loaded."""
    by_path = file is not None and module == f"chainforge_plugin_{Path(file).stem}"
    loaded = import_file(Path(str(file))) if by_path else importlib.import_module(module)
    entry = register_plugin(source, loaded, {})["rewards", name]
    if prepare := RewardOptions.of(entry.options).prepare:
        prepare()
    return make_reward_function(entry, settings)
