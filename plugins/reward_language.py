"""Reward `language_consistency`: the share of words in the wanted scripts, 0.0 to 1.0, as in DeepSeek-R1.

The paper (arXiv 2501.12948, section 2.3.2) takes the share of words of the target language in the reasoning.
Scripts are told apart, not languages: Chinese amid English counts against a text, French does not.
LaTeX, code, digits and single letters are no words; a text without words has none of another script: 1.0.

>>> supercot = cf.tag_format("supercot")
>>> text = supercot.render("So we have 两 个 苹果 left", "2")
>>> LanguageConsistency()(completions=[text], response_format=supercot)
[0.5]
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import chainforge as cf


@dataclass(frozen=True, kw_only=True)
class LanguageConsistency:
    """Settings: `scripts`, as Unicode names them: Latin, Han, Cyrillic, …; and which `part` is read."""

    scripts: tuple[str, ...] = ("Latin",)
    part: Literal["response", "reasoning", "summary"] = "reasoning"

    def __post_init__(self) -> None:
        if not self.scripts:
            raise ValueError("scripts is empty: name one, such as Latin")

    def __call__(
        self, *, completions: list[str], response_format: cf.TagFormat, **_: object
    ) -> list[float | None]:
        """One share per completion; 0.0 for one without that part, or with nothing in it."""
        parts = [response_format.part(text, self.part) for text in completions]
        return [cf.script_share(part, self.scripts) if part and part.strip() else 0.0 for part in parts]


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register("language_consistency", LanguageConsistency, factory=True)
