"""From a component to the findings of its role's contract."""

from collections.abc import Callable, Mapping
from typing import Any

from chainforge.testing.laws import Finding, insist
from chainforge.testing.prompt_sources import check_prompt_source
from chainforge.testing.rewards import check_reward
from chainforge.testing.student_models import check_student_model
from chainforge.testing.subjects import Component, entry_of
from chainforge.testing.teachers import check_teacher

CONTRACTS: Mapping[str, Callable[..., list[Finding]]] = {
    "rewards": check_reward,
    "prompt_sources": check_prompt_source,
    "teachers": check_teacher,
    "student_models": check_student_model,
}


def keeps_contract(
    role: str,
    what: Component,
    arguments: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """The findings of a contract. Raises AssertionError that lists every broken law."""
    entry = entry_of(role, what, options)
    findings = CONTRACTS[role](entry, **arguments)
    insist(f"{entry.name} ({entry.source})", findings)
    return findings
