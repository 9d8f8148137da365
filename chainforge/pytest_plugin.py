"""Pytest fixtures for who writes a plugin. Pytest loads this by itself wherever ChainForge is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from chainforge.records import Prompt
    from chainforge.response import TagFormat
    from chainforge.testing.laws import Finding


@pytest.fixture
def reward_contract() -> Callable[..., list[Finding]]:
    """`reward_contract(what, columns=None, prompts=None, settings=None, **options)`: AssertionError if it
    breaks a law.

    `what` is a registered name, a plugin module or a function; `options` are those of `register`.
    `columns` are added to the sample prompts, `prompts` take their place; `settings` are the reward's own.
    """

    def keep(
        what: Any,
        *,
        columns: Mapping[str, Any] | None = None,
        prompts: Sequence[Prompt] | None = None,
        settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> list[Finding]:
        from chainforge.testing.contracts import keeps_contract

        given = {"columns": columns, "prompts": prompts, "settings": settings}
        return keeps_contract("rewards", what, given, options)

    return keep


@pytest.fixture
def prompt_source_contract() -> Callable[..., list[Finding]]:
    """`prompt_source_contract(what, **settings)`: AssertionError if it breaks a law."""

    def keep(what: Any, **settings: Any) -> list[Finding]:
        from chainforge.testing.contracts import keeps_contract

        return keeps_contract("prompt_sources", what, {"settings": settings})

    return keep


@pytest.fixture
def teacher_contract() -> Callable[..., list[Finding]]:
    """`teacher_contract(what, prompts=None, **settings)`: AssertionError if it breaks a law."""

    def keep(what: Any, *, prompts: Sequence[Prompt] | None = None, **settings: Any) -> list[Finding]:
        from chainforge.testing.contracts import keeps_contract

        return keeps_contract("teachers", what, {"settings": settings, "prompts": prompts})

    return keep


@pytest.fixture
def student_model_contract() -> Callable[..., list[Finding]]:
    """`student_model_contract(what, **settings)`: AssertionError if it breaks a law."""

    def keep(what: Any, **settings: Any) -> list[Finding]:
        from chainforge.testing.contracts import keeps_contract

        return keeps_contract("student_models", what, {"settings": settings})

    return keep


@pytest.fixture
def reward_values() -> Callable[..., list[float | None]]:
    """`reward_values(what, texts, answer="47", **columns)`: its values, called and checked as in a run.

    `options` are those of `register`, for a bare function.
    """

    def values(
        what: Any,
        texts: Sequence[str],
        *,
        question: str = "12+35=?",
        answer: str | None = "47",
        options: Mapping[str, Any] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        from chainforge.testing.rewards import reward_values
        from chainforge.testing.subjects import entry_of

        entry = entry_of("rewards", what, options)
        return reward_values(entry, texts, question=question, answer=answer, columns=columns)

    return values


@pytest.fixture
def response_format() -> TagFormat:
    """The active response format: `response_format.render(reasoning, summary)` is a whole response."""
    from chainforge.testing.subjects import response_format

    return response_format()


@pytest.fixture
def completion_columns(response_format: TagFormat) -> Callable[..., dict[str, Any]]:
    """`completion_columns(texts, answer="47", **columns)`: the keyword arguments of a reward, to call it by
    hand; each column has one value for all."""

    def make(
        texts: Sequence[str], *, question: str = "12+35=?", answer: str | None = "47", **columns: Any
    ) -> dict[str, Any]:
        same = {"prompts": question, "answer": answer} | columns
        return {name: [value] * len(texts) for name, value in same.items()} | {
            "completions": list(texts),
            "completion_ids": [[ord(letter) % 256 for letter in text] for text in texts],
            "response_format": response_format,
            "trainer_state": SimpleNamespace(global_step=0, max_steps=1, epoch=0.0),
            "log_metric": lambda name, value: None,
            "log_extra": lambda name, value: None,
        }

    return make
