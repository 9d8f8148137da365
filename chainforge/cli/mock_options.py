"""What the options of `chainforge mock-teacher` mean: teachers, faults, prices."""

import os
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chainforge.cli.project import from_here
from chainforge.config.loading import Choice
from chainforge.config.yaml import parse_mapping
from chainforge.errors import ChainForgeError
from chainforge.hookspecs import Teacher
from chainforge.plugins import load_plugins, made
from chainforge.project.profiles import compose
from chainforge.providers.prices import FREE, Prices
from chainforge.report.shape import check_shape

if TYPE_CHECKING:
    from chainforge.mock_teacher.script import FaultScript

NOBODY = "none"


def teachers_of(profile: str) -> list[Teacher]:
    """The teachers of a profile's `collect_*` sections that answer in the process."""
    if profile == NOBODY:
        return []
    plugins = load_plugins()
    sections = parse_mapping(compose(profile), f"profile {profile}")
    choices = [
        check_shape(
            Choice, section["teacher"], f"profile {profile}: {name}.teacher", "write plugin: NAME there"
        )
        for name, section in sections.items()
        if name.startswith("collect_") and isinstance(section, dict) and "teacher" in section
    ]
    teachers: list[Teacher] = []
    for number, choice in enumerate(choices):
        if choice in choices[:number]:
            continue
        entry = plugins.pick("teachers", choice.plugin)
        teacher = made(entry, choice.settings)
        if hasattr(teacher, "generate"):
            teachers.append(teacher)
    if not teachers:
        raise ChainForgeError(
            f"profile {profile!r} has no teacher that answers without an API",
            f"name another profile, or filler alone: --profile {NOBODY}",
        )
    return teachers


def script_of(text: str | None, seed: int | None, attempts: int | None) -> "FaultScript":
    """What --faults says: a file if there is no = or @ in it, or a file of that name."""
    from chainforge.mock_teacher.script import FaultScript

    script = FaultScript()
    if text:
        path = from_here(Path(text), click.get_current_context(silent=True))
        is_file = not {"=", "@"} & set(text) or os.path.isfile(path)
        script = FaultScript.read(path) if is_file else FaultScript.parse(text)
    return replace(
        script,
        seed=script.seed if seed is None else seed,
        attempts=script.attempts if attempts is None else attempts,
    )


def prices_of(text: str) -> Prices:
    """`free`, or three prices."""
    if text == "free":
        return FREE
    try:
        hit, miss, output = map(Decimal, text.split(","))
        if not min(hit, miss, output) >= 0:
            raise ValueError
    except (ValueError, InvalidOperation):
        raise ChainForgeError(
            f"--prices {text!r}", "write free, or HIT,MISS,OUTPUT: 0.003,0.15,0.60"
        ) from None
    return Prices(table="mock", hit=hit, miss=miss, output=output)
