"""Profiles: overlays of the default settings, merged into params.yaml with its comments kept.

A mapping that names a plugin is replaced whole, because its settings belong to that plugin, and so are
`rewards`; everything else merges key by key. What an overlay says of several steps counts for each of them.
"""

import io
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from chainforge.config.loading import PARAMS, read_params
from chainforge.config.yaml import parse_mapping
from chainforge.errors import ChainForgeError, unknown
from chainforge.outputs import write_text
from chainforge.project.graph import GRAPH
from chainforge.project.overlay import check_overlay, give_way, merge
from chainforge.project.stanzas import read_stanzas
from chainforge.run.fingerprint import ABSENT, differences

PROFILES = Path("profiles")
BASE = "tiny"  # the whole set of settings that every other profile overlays


def names() -> list[str]:
    """Every profile, the base first."""
    found = sorted(path.stem for path in PROFILES.glob("*.yaml") if path.is_file())
    if BASE not in found:
        raise ChainForgeError(f"there is no {PROFILES / BASE}.yaml", "run this in the project's folder")
    return [BASE, *(name for name in found if name != BASE)]


def compose(name: str) -> str:
    """The whole params.yaml of a profile, as text. Raises ChainForgeError for one that is no profile."""
    if name not in names():
        raise unknown("profile", name, names())
    overlay, base_text = read_profile(name), read_profile(BASE)
    if name == BASE:
        return base_text
    yaml = round_trip_yaml()
    base = yaml.load(base_text)
    check_overlay(parse_mapping(base_text, BASE), parse_mapping(overlay, name), PROFILES / f"{name}.yaml")
    above = yaml.load(overlay)
    give_way(base, above, read_stanzas(GRAPH).values())
    merge(base, above)
    head = "".join(line[1:].removeprefix(" ") for line in _head(overlay))
    base.yaml_set_start_comment(head or f"Profile {name}\n")
    buffer = io.StringIO()
    yaml.dump(base, buffer)
    return buffer.getvalue()


def read_profile(name: str) -> str:
    """A profile's file, once it is sure that it is one. Raises ChainForgeError."""
    path = PROFILES / f"{name}.yaml"
    content = path.read_bytes()
    said = parse_mapping(content, str(path)).get("profile")
    if said != name:
        raise ChainForgeError(
            f"{path} says `profile: {said}`, and is the file of {name}",
            f"write `profile: {name}` there, or rename the file",
        )
    return content.decode("utf-8")


def use(name: str) -> None:
    """Write params.yaml."""
    write_text(PARAMS, compose(name))


def changed_by_hand() -> list[str]:
    """The settings in which params.yaml differs from the profile that it names."""
    if not PARAMS.is_file():
        return []
    active = read_params()
    if active.get("profile") not in names():
        return ["profile"]
    return [key for key, _, _ in edits(active["profile"])]


def edits(name: str) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, the profile's value, the value in params.yaml) wherever the two differ."""
    return differences(_plain(name), read_params())


def shown(value: Any) -> str:
    """A value of a setting, as JSON; or that there is none."""
    return str(value) if value is ABSENT else json.dumps(value, default=str, ensure_ascii=False)


def as_arguments(name: str) -> list[str]:
    """The -S arguments that lead from the active settings to a profile."""
    arguments = []
    for key, before, now in differences(read_params(), _plain(name)):
        if now is ABSENT:
            override = f"~{key}"
        else:
            override = f"{'+' if before is ABSENT else ''}{key}={_override_value(now)}"
        arguments.append(f"-S {shlex.quote(override)}")
    return arguments


def _plain(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(compose(name))
    return loaded


def _override_value(value: Any) -> str:
    """In the grammar that -S reads: https://hydra.cc/docs/1.3/advanced/override_grammar/basic/"""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_override_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_override_value, value)) + "]"
    if isinstance(value, str):  # backslashes count only before a quote
        escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
        return f"'{escaped}'"
    return json.dumps(value)


def _head(text: str) -> Iterator[str]:
    for line in text.splitlines(keepends=True):
        if not line.startswith("#"):
            return
        yield line


def round_trip_yaml() -> YAML:
    """Comments survive; in the layout of the profiles."""
    yaml = YAML()
    yaml.width = 110
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml
