"""A new project in a new or empty folder: written beside it, then moved into place."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chainforge import __version__
from chainforge.errors import ChainForgeError
from chainforge.outputs import whole_folder, write_text
from chainforge.own_project.made import MADE, made_now
from chainforge.own_project.texts import project_texts

NO_SCM = "[core]\n    no_scm = true\n"


def create_project(folder: Path, profile: str, git: bool) -> int:
    """Write the project, with its first commit where git is wanted; the number of files.

    Raises ChainForgeError, and leaves nothing behind, where it cannot be made.
    """
    folder = Path(os.path.abspath(folder))
    check_empty(folder)
    if git:
        check_identity()
    texts = project_texts(folder.name, profile)
    with _place(folder) as new:
        for path, text in texts.items():
            write_text(new / path, text)
        write_text(new / MADE, made_now(folder.name, texts).as_text())
        if git:
            _run_git(new, "init", "--quiet", "--initial-branch=main")
            _run_git(new, "add", "--all")
            _run_git(new, "commit", "--quiet", "--message", f"chainforge init ({__version__}, {profile})")
        else:
            write_text(new / ".dvc/config.local", NO_SCM)
    return len(texts) + 1


def check_empty(folder: Path) -> None:
    """Raise ChainForgeError unless nothing lies there, or an empty folder."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise ChainForgeError(f"{folder} is there already, and is no folder", "choose another name")
    if found := sorted(path.name for path in folder.iterdir()):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ChainForgeError(
            f"{folder} is not empty: it has {', '.join(found[:3])}{more}",
            "choose a new folder; nothing was written",
        )


def check_identity() -> None:
    """Raise ChainForgeError where git could not make the first commit."""
    try:
        said = subprocess.run(["git", "var", "GIT_COMMITTER_IDENT"], capture_output=True, text=True)
    except OSError as error:
        raise ChainForgeError(
            f"git cannot be started: {error.strerror}", "install git, or leave it out: --no-git"
        ) from error
    if said.returncode:
        raise ChainForgeError(
            "git does not know who commits",
            "git config --global user.name NAME; git config --global user.email ADDRESS; or --no-git",
        )


@contextmanager
def _place(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes this one, or fills it where it is there and empty: whoever stands
    in it shall not stand in one that was removed."""
    if not folder.exists():
        with whole_folder(folder) as new:
            yield new
        return
    with whole_folder(folder / ".chainforge-new") as new:
        yield new
    new = folder / ".chainforge-new"
    moved: list[Path] = []
    try:
        for path in sorted(new.iterdir()):
            os.rename(path, folder / path.name)
            moved.append(path)
        new.rmdir()
    except BaseException:
        for path in moved:
            with suppress(OSError):
                os.rename(folder / path.name, path)
        raise


def _run_git(folder: Path, *arguments: str) -> None:
    said = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, errors="replace")
    if said.returncode:
        raise ChainForgeError(
            f"git {arguments[0]} failed: {said.stderr.strip() or said.stdout.strip():.500}",
            "mend that, or leave git out: --no-git; nothing was written",
        )
