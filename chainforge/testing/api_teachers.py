"""The contract of a teacher behind an API. It is never asked: that would cost money."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from chainforge.hookspecs import ApiTeacher
from chainforge.plugins import Entry, make_component
from chainforge.testing.imports import imports_nothing_slow, imports_the_public_api
from chainforge.testing.laws import Law, demand


@dataclass(frozen=True)
class ApiTeacherCase:
    """A teacher with its settings."""

    entry: Entry
    settings: Mapping[str, Any]

    def make(self) -> ApiTeacher:
        """One made afresh."""
        teacher: ApiTeacher = make_component(self.entry, self.settings)
        return teacher

    @cached_property
    def teacher(self) -> ApiTeacher:
        """One for all laws that change nothing."""
        return self.make()


def quick_import(case: ApiTeacherCase) -> str | None:
    return imports_nothing_slow(case.entry)


def public_api(case: ApiTeacherCase) -> str | None:
    return imports_the_public_api(case.entry)


def identity(case: ApiTeacherCase) -> str | None:
    """By which an answer that was paid for is found again."""
    said = dict(case.teacher.identity)
    try:
        again = json.loads(json.dumps(said))
    except (TypeError, ValueError) as error:
        demand(False, f"its identity is not JSON: {error}")
    demand(again == said, "its identity changes on the way through JSON: use lists, and strings as keys")
    demand(said == dict(case.make().identity), "two of the same settings have two identities")
    demand({"provider", "model"} <= set(said), f"its identity has {sorted(said)}: provider and model miss")
    return f"{said['provider']} {said['model']}"


def limits(case: ApiTeacherCase) -> str | None:
    tokens, prices = case.teacher.max_tokens, case.teacher.prices
    demand(type(tokens) is int and tokens > 0, f"max_tokens is {tokens!r}, not a whole number above 0")
    for name in ("seeded", "thinks"):
        value = getattr(case.teacher, name)
        demand(type(value) is bool, f"{name} is {value!r}, not true or false")
    if prices is None:
        return f"{tokens:,} tokens; no price is known, so collector.budget_usd must be none"
    return f"{tokens:,} tokens, at most {prices.most((), tokens):f} USD for a short question"


LAWS: tuple[Law[ApiTeacherCase], ...] = (
    ("imports neither torch nor transformers", quick_import),
    ("imports nothing of ChainForge but its public API", public_api),
    ("says what its answers depend on", identity),
    ("says what a call may write and cost", limits),
)
