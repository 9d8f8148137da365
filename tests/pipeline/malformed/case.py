"""One mistake, and what must be said of it."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clone import Clone

Spoil = Callable[[Clone], None]
LOCK = "python -m stages.lock lock"


@dataclass(frozen=True, kw_only=True)
class Case:
    """`spoil` is done to a finished project, then `command`, a line of shell, must fail.

    `says` is a pattern that its message matches. `changes` are files, as patterns, that it may change
    although it fails. `quick` cases are tried by `make test`, all of them by `make test-all`.
    """

    tried: str
    spoil: Spoil
    command: str = LOCK
    says: str = ""
    changes: tuple[str, ...] = ()
    quick: bool = False


def nothing(clone: Clone) -> None:
    """The mistake is in the command."""


def put(dotted: str, value: object) -> Spoil:
    """A setting of params.yaml."""
    return lambda clone: clone.put(dotted, value)


def take_out(dotted: str) -> Spoil:
    """A setting, or a section, of params.yaml that is not there."""
    return lambda clone: clone.take_out(dotted)


def write(path: str, content: str | bytes) -> Spoil:
    """A file with this content, whatever was there."""

    def spoil(clone: Clone) -> None:
        file = clone.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)  # a link of DVC's, maybe: the cache must keep its bytes
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def edit(path: str, old: str, new: str) -> Spoil:
    """Another text in place of one that is there, as often as it is."""

    def spoil(clone: Clone) -> None:
        text = (clone.folder / path).read_text(encoding="utf-8")
        assert old in text, f"{path} has no {old!r}"
        write(path, text.replace(old, new))(clone)

    return spoil


def append(path: str, text: str) -> Spoil:
    """More text at the end of a file."""
    return lambda clone: write(path, (clone.folder / path).read_text(encoding="utf-8") + text)(clone)


def fifo(path: str) -> Spoil:
    """A pipe that nobody writes into, in place of a file."""

    def spoil(clone: Clone) -> None:
        (clone.folder / path).unlink(missing_ok=True)
        os.mkfifo(clone.folder / path)

    return spoil


def folder(path: str, *files: str) -> Spoil:
    """A folder with files that are the user's own."""

    def spoil(clone: Clone) -> None:
        (clone.folder / path).mkdir(parents=True, exist_ok=True)
        for file in files:
            (clone.folder / path / file).write_text("precious\n")

    return spoil


def gone(path: str) -> Spoil:
    """A file or folder that is not there."""

    def spoil(clone: Clone) -> None:
        where = clone.folder / path
        shutil.rmtree(where) if where.is_dir() else where.unlink()

    return spoil


def link(path: str, to: str) -> Spoil:
    """A link to a folder of the user's, with a file in it."""

    def spoil(clone: Clone) -> None:
        target = (clone.folder / to).resolve()
        target.mkdir(parents=True, exist_ok=True)
        (target / "precious.txt").write_text("precious\n")
        (clone.folder / path).symlink_to(target)

    return spoil


def both(*spoils: Spoil) -> Spoil:
    """One after the other."""

    def spoil(clone: Clone) -> None:
        for one in spoils:
            one(clone)

    return spoil


def chosen(kind: str, code: str) -> Spoil:
    """A plugin file that is selected: `kind` is reward, prompts, teacher or model; it registers `odd`."""
    where: dict[str, tuple[str, object]] = {
        "reward": ("grpo_reasoning.rewards", {"odd": 1.0}),
        "prompts": ("prompts.reasoning.source", {"plugin": "odd"}),
        "teacher": ("collect_cot.teacher", {"plugin": "odd"}),
        "model": ("base_model", {"plugin": "odd"}),
    }
    return both(write("plugins/zz_odd.py", code), put(*where[kind]))


def path_of(clone: Clone, name: str) -> Path:
    """A place beside the project, where nothing may change."""
    return clone.folder.parent / name
