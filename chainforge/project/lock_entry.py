"""One step's part of plugins.lock.json: its code, its plugins, its input files."""

import json
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from chainforge.config.loading import Choice, Role, load_settings
from chainforge.config.run import RunSettings
from chainforge.errors import ChainForgeError
from chainforge.plugins import Entry, Plugins, plugin_settings
from chainforge.project.code_digests import closure, digest_code, digest_module
from chainforge.project.file_digests import digest_path
from chainforge.project.graph import LOCK, GraphStep, dependencies, param
from chainforge.reward_options import RewardOptions

Lock = dict[str, Any]


def lock_entry(step: GraphStep, settings: BaseModel, plugins: Plugins, code: str) -> Lock:
    """One step's part: `code`, `plugins`, and where there are any, `files` and library versions, `env`."""
    libraries = load_settings(RunSettings, "run").watch_versions
    versions = {"env": library_versions(libraries)} if libraries else {}
    return {"code": code} | _selected(step, settings, plugins) | versions


def code_digest(verb: str, root: Path = Path()) -> str:
    """Of a verb's stage script and all that it imports."""
    return digest_code(closure(root, root / "stages" / f"{verb}.py"))


def locked_entry(lock: Mapping[str, Any], step: GraphStep) -> Lock | None:
    """A step's part of a lock; None if it has none."""
    node: Any = lock
    for key in step.lock_key.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, dict) else None


def read_lock(path: Path = Path(LOCK)) -> Lock:
    """What the step `lock` last wrote; empty where there is nothing that it could have written."""
    try:
        return held_lock(path)
    except ChainForgeError:
        return {}


def held_lock(path: Path = Path(LOCK)) -> Lock:
    """The lock that a step runs under; empty if there is none.

    Raises ChainForgeError where it cannot be read: DVC would record the result under it all the same.
    """
    if not os.path.lexists(path):
        return {}
    try:
        if not path.is_file():  # opening a pipe would wait
            raise ValueError("it is no file")
        return parse_lock(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ChainForgeError(
            f"{path} cannot be read: {error}", "run dvc repro: its first step, `lock`, writes it anew"
        ) from error


def parse_lock(text: str) -> Lock:
    """A lock from its text. Raises ValueError where it has another shape."""
    try:
        lock: Lock = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(lock, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - one kind of error for whoever calls
    _check_shape(lock)
    return lock


def _check_shape(node: Mapping[str, Any], at: str = "") -> None:
    for name, value in node.items():
        if not isinstance(value, dict):
            raise ValueError(f"{at}{name} is no object")  # noqa: TRY004
        if "code" in value:
            _check_entry(value, f"{at}{name}")
        else:
            _check_shape(value, f"{at}{name}.")


def _check_entry(entry: Mapping[str, Any], at: str) -> None:
    texts = {kind: entry.get(kind, {}) for kind in ("files", "env")}
    plugins = entry.get("plugins", {})
    if isinstance(plugins, dict):
        texts |= {f"plugins.{name}": value for name, value in plugins.items()}
    if not isinstance(entry["code"], str) or not isinstance(plugins, dict):
        raise ValueError(f"{at} is no part of a lock")  # noqa: TRY004
    for kind, value in texts.items():
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise ValueError(f"{at}.{kind} is no object of texts")
    for name, plugin in plugins.items():
        if "source" not in plugin and not {"distribution", "version"} <= set(plugin):
            raise ValueError(f"{at}.plugins.{name} does not say where it is from")


def library_versions(libraries: list[str]) -> dict[str, str]:
    """Installed versions by distribution."""
    try:
        return {name: version(name) for name in sorted(libraries)}
    except PackageNotFoundError as error:
        raise ChainForgeError(
            f"run.watch_versions names {error.name!r}, which is not installed", "install it, or take it out"
        ) from None


def _selected(step: GraphStep, settings: BaseModel, plugins: Plugins) -> Lock:
    found: Lock = {}
    files: dict[str, str] = {}
    for role, choice in selections(settings):
        entry = _pick(plugins, role, choice.plugin, step)
        found[f"{role}:{entry.name}"] = origin(entry) | {"digest": digest_module(entry.module)}
        if role != "rewards" or RewardOptions.of(entry.options).factory:
            arguments = plugin_settings(entry, choice.settings)
            files |= {
                str(path): digest_path(Path(path)) for path in arguments.values() if is_input(path, step)
            }
    return {"plugins": found} | ({"files": files} if files else {})


def _pick(plugins: Plugins, role: str, name: str, step: GraphStep) -> Entry:
    """`plugins.pick`, but who uninstalled a plugin is told which distribution it came from."""
    try:
        return plugins.pick(role, name)
    except ChainForgeError as error:
        before = (locked_entry(read_lock(), step) or {}).get("plugins", {}).get(f"{role}:{name}", {})
        if "distribution" not in before or _is_installed(before["distribution"]):
            raise
        distribution = f"{before['distribution']}=={before['version']}"
        places = (f"{section}.{role}.{name}" for section in step.sections if name in _weights(section))
        leave = next((f"take it out: dvc exp run -S '~{place}'" for place in places), "choose another")
        raise ChainForgeError(
            f"{error.problem}: {step.name} used it from {distribution}, which is not installed any more",
            f"install it again (pip install {distribution}, or from its folder), or {leave}",
        ) from None


def _is_installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


def _weights(section: str) -> Mapping[str, Any]:
    rewards = param(section).get("rewards")
    return rewards if isinstance(rewards, Mapping) else {}


def origin(entry: Entry) -> dict[str, str]:
    """Where a plugin comes from: a file of the project, or a version of a distribution."""
    if entry.source.endswith(".py"):
        return {"source": entry.source}
    distribution, _, its_version = entry.source.rpartition(" ")
    return {"distribution": distribution, "version": its_version}


def is_input(value: Any, step: GraphStep) -> bool:
    """A file or folder that comes from outside; what the graph itself makes, DVC watches already."""
    path = Path(value) if isinstance(value, str) and _is_folder(value) else value
    return isinstance(path, Path) and not any(
        path == dep or dep in path.parents for dep in dependencies(step)
    )


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # longer than a path can be
        return False


def selections(settings: BaseModel, own: Mapping[str, Any] | None = None) -> Iterator[tuple[str, Choice]]:
    """(role, choice) for every plugin that a step's settings name; `own`: the settings of its rewards."""
    own = getattr(settings, "reward_settings", own or {})
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Choice):
            yield _role_of(field), value
        elif name in ("reward", "rewards"):
            for reward in [value] if isinstance(value, str) else value:
                yield "rewards", Choice.model_validate({**own.get(reward, {}), "plugin": reward})
        elif isinstance(value, BaseModel):
            yield from selections(value, own)


def _role_of(field: FieldInfo) -> str:
    parts = getattr(field.annotation, "__args__", ())  # of `Choice | None`
    marks = [*field.metadata, *(mark for part in parts for mark in getattr(part, "__metadata__", ()))]
    return next(str(mark) for mark in marks if isinstance(mark, Role))
