"""Rows of a data set that know where they stand, so that every complaint names file, line and field."""

import random
import re
from array import array
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from chainforge.errors import ChainForgeError
from chainforge.jsonl import count_rows, read_rows
from chainforge.records import Message, check_messages

T = TypeVar("T")


class Row:
    """One row: `place` says where it stands, `number` counts from 1, `fields` is what it holds."""

    def __init__(self, place: str, number: int, fields: Any) -> None:
        self.place, self.number = place, number
        if not isinstance(fields, Mapping):
            raise self.error(
                f"expected an object, found {type(fields).__name__}", "write one JSON object per line"
            )
        self.fields = fields

    def error(self, problem: str, fix: str) -> ChainForgeError:
        """The error that this row is wrong."""
        return ChainForgeError(f"{self.place}: {problem}", fix)

    def text(self, *names: str) -> str:
        """The first of these fields that there is, as text; a number as it is written in the file."""
        name = next((name for name in names if name in self.fields), None)
        if name is None:
            raise self.error(
                f"there is no field {' or '.join(map(repr, names))}",
                f"name the right one in the settings of the source; this row has: {', '.join(self.fields)}",
            )
        value = self.fields[name]
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise self.error(f"field {name!r} holds no text but {value!r:.40}", "write a text or a number")
        return str(value)

    def value(self, name: str) -> Any:
        """A field as it is. Raises ChainForgeError where there is none."""
        if name not in self.fields:
            raise self.error(f"there is no field {name!r}", f"this row has: {', '.join(self.fields)}")
        return self.fields[name]

    def answer(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        """A field without space around it; with a pattern, what its one group finds there."""
        text = self.text(name)
        if pattern is None:
            return text.strip()
        if not (found := pattern.search(text)) or not (found[1] or "").strip():
            raise self.error(
                f"answer_pattern {pattern.pattern!r} finds nothing in field {name!r}: {text[-60:]!r}",
                "correct the pattern, or leave this row out of the data",
            )
        return str(found[1]).strip()

    def messages(
        self, *question: str, instruction: str | None = None, joined_by: str = "\n"
    ) -> tuple[Message, ...]:
        """The row's own `messages` if it has any, else its question; the instruction below the last one, or
        behind it, by `joined_by`."""
        if "messages" not in self.fields:
            history: list[Message] = [{"role": "user", "content": self.text(*question)}]
        else:
            turns = self.fields["messages"]
            history = turns if isinstance(turns, list) and turns else [turns]
            try:
                check_messages(history)
            except ValueError as error:
                raise self.error(
                    f"field 'messages': {error}", 'a message is {"role": "user", "content": "…"}'
                ) from error
            history = [Message(role=turn["role"], content=turn["content"]) for turn in history]
            if history[-1]["role"] != "user":
                raise self.error("the last of `messages` is not from the user", "end with the user's turn")
        if instruction is not None:
            history[-1] = {"role": "user", "content": f"{history[-1]['content']}{joined_by}{instruction}"}
        return tuple(history)


def read_pattern(setting: str | None) -> re.Pattern[str] | None:
    """The pattern that finds an answer in its field: it has one group. Raises ChainForgeError."""
    if setting is None:
        return None
    fix = r"put the answer in parentheses; for GSM8K it is '####\s*(.+)'"
    try:
        pattern = re.compile(setting)
    except re.error as error:
        raise ChainForgeError(
            f"answer_pattern: {setting!r} is not a regular expression: {error}", fix
        ) from error
    if pattern.groups != 1:
        raise ChainForgeError(f"answer_pattern: {setting!r} has {pattern.groups} groups, not one", fix)
    return pattern


def file_rows(path: Path, n: int | None = None, seed: str = "") -> Iterator[Row]:
    """The rows of a JSONL file in their order; with `n`, a seeded choice of `n` of them if it has more.

    Only one row at a time is in memory. Raises ChainForgeError for a missing, empty or broken file.
    """
    places = None if n is None else places_of(count_rows(path), n, seed)
    for line, fields in read_rows(path, places):
        yield Row(f"{path}, line {line}", line, fields)


def choose(rows: Sequence[T], n: int, seed: str) -> list[T]:
    """A seeded choice of `n` rows in their order, or all where there are no more."""
    places = places_of(len(rows), n, seed)
    return [row for place, row in enumerate(rows) if place in places]


def places_of(count: int, n: int, seed: str) -> Container[int]:
    """The places of `n` of `count` rows, or of all where there are no more."""
    if n >= count:
        return range(count)
    order = array("L", range(count))  # a list of a million numbers would take ten times the memory
    random.Random(seed).shuffle(order)
    return set(order[:n])
