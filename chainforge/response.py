"""The response format: `<reasoning_process>…</reasoning_process><summary>…</summary>` and its kin.

One parser serves SFT data, rewards, sampling, evaluation and the report.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from chainforge.errors import ChainForgeError, unknown

Part = Literal["response", "reasoning", "summary"]


@dataclass(frozen=True, slots=True)
class Parsed:
    """The two halves of a well-formed response, exactly as written between their tags."""

    reasoning: str
    summary: str

    @property
    def filled(self) -> bool:
        """Whether both halves say something."""
        return bool(self.reasoning.strip() and self.summary.strip())


@dataclass(frozen=True)
class TagFormat:
    """Two tag names, and whether the chat template already wrote the opening one (`prefilled`)."""

    reasoning_tag: str
    summary_tag: str
    prefilled: bool = False

    @property
    def tags(self) -> tuple[str, str, str, str]:
        """The four literal tags in the order in which they must occur."""
        r, s = self.reasoning_tag, self.summary_tag
        return f"<{r}>", f"</{r}>", f"<{s}>", f"</{s}>"

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        r0, r1, s0, s1 = map(re.escape, self.tags)
        return re.compile(rf"\s*{r0}(?P<reasoning>.*?){r1}\s*{s0}(?P<summary>.*?){s1}\s*", re.DOTALL)

    @property
    def prefill(self) -> str:
        """What the prompt already ends with, so that rewards and parser see the whole response."""
        return self.tags[0] if self.prefilled else ""

    def render(self, reasoning: str, summary: str) -> str:
        """The whole response text. Raises ChainForgeError if either part contains a tag."""
        for part in (reasoning, summary):
            if found := [tag for tag in self.tags if tag in part]:
                raise ChainForgeError(
                    f"a teacher's text contains the tag {found[0]}",
                    "drop that trace, or choose another run.response_format",
                )
        r0, r1, s0, s1 = self.tags
        return f"{r0}{reasoning}{r1}{s0}{summary}{s1}"

    def parse(self, text: str) -> Parsed | None:
        """The two parts, or None unless each tag occurs exactly once, in order, with nothing outside."""
        if any(text.count(tag) != 1 for tag in self.tags):
            return None
        match = self._pattern.fullmatch(text)
        return Parsed(match["reasoning"], match["summary"]) if match else None

    def part(self, text: str, part: Part) -> str | None:
        """The whole response, or one of its two parts; None where it has none."""
        if part == "response":
            return text
        parsed = self.parse(text)
        if parsed is None:
            return None
        return parsed.reasoning if part == "reasoning" else parsed.summary

    def mend(self, text: str) -> str:
        """The response that a text outside of the format comes nearest to, for a grader that reads summaries.

        Its summary is what follows the last tag that opens one, else what follows the reasoning, else all of
        the text; tags in it become spaces. Its reasoning is a dash.
        """
        _, r1, s0, s1 = self.tags
        after = text.rpartition(s0)[2].partition(s1)[0] if s0 in text else text.rpartition(r1)[2]
        summary = self._without_tags(after) or self._without_tags(text)
        return self.render("-", summary)

    def _without_tags(self, text: str) -> str:
        for tag in self.tags:
            text = text.replace(tag, " ")
        return text.strip()


PRESETS = {
    "supercot": TagFormat("reasoning_process", "summary"),
    "r1": TagFormat("think", "answer"),
    "r1-prefilled": TagFormat("think", "answer", prefilled=True),
}


def tag_format(name: str) -> TagFormat:
    """The preset of that name."""
    if name not in PRESETS:
        raise unknown("response format", name, PRESETS)
    return PRESETS[name]
