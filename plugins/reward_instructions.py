"""Reward `instructions`: does the summary do what the prompt asks of its form? None without instructions.

The column `instructions` is a list of rules with their settings, each checked exactly: RULES has them.

>>> supercot = cf.tag_format("supercot")
>>> rules = [{"rule": "words", "at_most": 3}, {"rule": "include", "texts": ["fig"]}]
>>> texts = [supercot.render("so", summary) for summary in ("A fig.", "A pear.", "I would like a fig.")]
>>> Instructions()(completions=texts, instructions=[rules] * 3, response_format=supercot)
[1.0, 0.0, 0.0]
>>> Instructions(partly=True)(completions=texts, instructions=[rules] * 3, response_format=supercot)
[1.0, 0.5, 0.5]
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import chainforge as cf

Rule = Mapping[str, Any]
SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)|[。！？]+")
BULLET = re.compile(r"^ *(?:[-*+•]|\d+[.)]) +\S", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +\S", re.MULTILINE)
FENCED = re.compile(r"```(?:json)?\n(.*?)\n?```", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Instructions:
    """Settings: with `partly`, the share of the rules that are kept; else 1.0 for all of them, or 0.0."""

    partly: bool = False

    def __call__(
        self,
        *,
        completions: list[str],
        instructions: list[list[Rule] | None],
        response_format: cf.TagFormat,
        **_: object,
    ) -> list[float | None]:
        """0.0 without a summary, whatever the rules. Raises ChainForgeError for a rule that is none."""
        summaries = [response_format.part(text, "summary") for text in completions]
        return [self.grade(*pair) for pair in zip(summaries, instructions, strict=True)]

    def grade(self, summary: str | None, rules: list[Rule] | None) -> float | None:
        if rules is None:
            return None
        if not isinstance(rules, list) or not rules:
            raise wrong(rules, "give a list of rules, or null for none")
        kept = [obeys(summary or "", rule) for rule in rules]
        if not summary or not summary.strip():
            return 0.0
        return sum(kept) / len(kept) if self.partly else float(all(kept))


def obeys(text: str, rule: Rule) -> bool:
    """Whether a text keeps one rule. Raises ChainForgeError for what is no rule, or has no sense."""
    name = rule.get("rule") if isinstance(rule, Mapping) else None
    check, takes = RULES.get(str(name), (None, {}))
    if check is None:
        raise wrong(rule, f"a rule has a name and settings; rules: {', '.join(RULES)}")
    for key, value in rule.items():
        if key != "rule" and (key not in takes or not fits(value, takes[key])):
            raise wrong(rule, f"{name} takes {', '.join(takes)}, and {key} is no such, or of another type")
    settings = {key: value for key, value in rule.items() if key != "rule"}
    if missing := [key for key, kind in takes.items() if key not in OPTIONAL and key not in settings]:
        raise wrong(rule, f"{name} needs {missing[0]}")
    if COUNT.keys() <= takes.keys() and not settings.keys() & {"at_least", "at_most"}:
        raise wrong(rule, f"{name} needs at_least, at_most or both")
    return check(text.strip(), settings)


def fits(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
    return isinstance(value, (int, float) if kind is float else kind) and (kind is bool) == isinstance(
        value, bool
    )


def wrong(rule: Any, fix: str) -> cf.ChainForgeError:
    return cf.ChainForgeError(f"reward instructions cannot use {rule!r:.100}", fix)


def counted(count: Callable[[str], int]) -> Callable[[str, Rule], bool]:
    """A rule about how many of something there are."""

    def check(text: str, rule: Rule) -> bool:
        return bool(rule.get("at_least", 0) <= count(text) <= rule.get("at_most", float("inf")))

    return check


def sentences(text: str) -> int:
    """How many ends of sentences there are; a last one without its stop counts too."""
    *_, rest = SENTENCE_END.split(text)
    return len(SENTENCE_END.findall(text)) + bool(rest.strip())


def paragraphs(text: str) -> int:
    return sum(bool(part.strip()) for part in re.split(r"\n\s*\n", text))


def occurrences(text: str, words: Sequence[str]) -> int:
    """How often these words or phrases occur as whole words, without regard to case."""
    parts = "|".join(re.escape(word) for word in words)
    return len(re.findall(rf"(?<!\w)(?:{parts})(?!\w)", text, re.IGNORECASE))


def mentions(text: str, rule: Rule) -> bool:
    return counted(lambda text: occurrences(text, rule["texts"]))(text, rule)


def is_json(text: str, rule: Rule) -> bool:
    """Whether all of it, or all of the one fenced block that it is, is JSON; an object with these keys."""
    fenced = FENCED.fullmatch(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return "keys" not in rule or (isinstance(value, dict) and value.keys() >= set(rule["keys"]))


def in_scripts(text: str, rule: Rule) -> bool:
    return bool(text) and cf.script_share(text, rule["scripts"]) >= rule.get("share", 0.95)


COUNT: dict[str, type] = {"at_least": int, "at_most": int}
OPTIONAL = {"at_least", "at_most", "keys", "share"}
RULES: dict[str, tuple[Callable[[str, Rule], bool], dict[str, type]]] = {
    "characters": (counted(len), COUNT),
    "words": (counted(lambda text: len(text.split())), COUNT),
    "sentences": (counted(sentences), COUNT),
    "lines": (counted(lambda text: len(text.splitlines())), COUNT),
    "paragraphs": (counted(paragraphs), COUNT),
    "bullets": (counted(lambda text: len(BULLET.findall(text))), COUNT),
    "headings": (counted(lambda text: len(HEADING.findall(text))), COUNT),
    "include": (lambda text, rule: all(occurrences(text, [t]) for t in rule["texts"]), {"texts": list}),
    "exclude": (lambda text, rule: not occurrences(text, rule["texts"]), {"texts": list}),
    "mentions": (mentions, COUNT | {"texts": list}),
    "starts": (lambda text, rule: text.startswith(rule["with"]), {"with": str}),
    "ends": (lambda text, rule: text.endswith(rule["with"]), {"with": str}),
    "without": (lambda text, rule: not set(rule["characters"]) & set(text), {"characters": str}),
    "capitals": (lambda text, rule: text.isupper(), {}),
    "small": (lambda text, rule: text.islower(), {}),
    "script": (in_scripts, {"scripts": list, "share": float}),
    "json": (is_json, {"keys": list}),
}


@cf.hookimpl
def register_rewards(register: Callable[..., None]) -> None:
    register("instructions", Instructions, factory=True)
