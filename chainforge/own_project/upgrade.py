"""What another version of ChainForge would change in a project: a file that the user left as it was made is
replaced, an edited one is merged where git can, and otherwise left alone and told."""

import difflib
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from chainforge.config.loading import PARAMS as SETTINGS
from chainforge.errors import ChainForgeError
from chainforge.outputs import write_text
from chainforge.own_project.made import MADE, Made, made_now
from chainforge.own_project.params_merge import merge_settings, setting_changes
from chainforge.own_project.texts import Texts, compose_from, project_texts, read_text
from chainforge.project.profiles import BASE, PROFILES

PARAMS = str(SETTINGS)
MEANING = {
    "new": "new in this version",
    "replaced": "you have not changed it",
    "merged": "your edits and its changes together",
    "conflict": "your edits and its changes meet; nothing is written",
    "kept": "yours is kept, without its changes",
    "deleted": "you have deleted it; it stays so",
    "gone": "not part of this version any more; yours is left alone",
}
WRITTEN = ("new", "replaced", "merged")


@dataclass(frozen=True, slots=True)
class Change:
    """What would happen to one file, and its text before and after; in a conflict, of the two versions."""

    path: str
    kind: str  # of MEANING
    before: str
    after: str

    def diff(self) -> str:
        """As `diff -u` prints it."""
        before, after = self.before.splitlines(), self.after.splitlines()
        names = (f"a/{self.path}", f"b/{self.path}")
        return "\n".join(difflib.unified_diff(before, after, *names, lineterm=""))


@dataclass(frozen=True, slots=True)
class Upgrade:
    """All changes, what will be kept as made then, and the settings that change, in words."""

    made: Made
    now: Made
    changes: list[Change]
    settings: list[str]

    @property
    def conflicts(self) -> list[str]:
        """Files that somebody has to look at first."""
        return [change.path for change in self.changes if change.kind == "conflict"]


def plan_upgrade(made: Made, profile: str, keep: Collection[str] = ()) -> Upgrade:
    """What this version would change in the project of this folder, whose active profile is given.

    Raises ChainForgeError for a file that cannot be read.
    """
    now = made_now(made.name, project_texts(made.name, BASE))
    own = {path.as_posix(): _read(path.as_posix()) or "" for path in PROFILES.glob("*.yaml")}
    base = {**made.files, PARAMS: _params(made.files, own, profile)}
    theirs = {**now.files, PARAMS: _params(now.files, own, profile)}
    changes = [
        change
        for path in sorted(base.keys() | theirs.keys())
        if (change := change_of(path, base.get(path), _read(path), theirs.get(path), path in keep))
    ]
    settings = list(setting_changes(base[PARAMS], _read(PARAMS) or "", theirs[PARAMS]))
    return Upgrade(made, now, changes, settings)


def change_of(
    path: str, base: str | None, mine: str | None, theirs: str | None, keep: bool = False
) -> Change | None:
    """Of one file, None for one that does not exist; no change where there is nothing to do or to tell."""
    if theirs is None:
        return Change(path, "gone", mine or "", mine or "") if mine is not None else None
    if theirs in (mine, base):
        return None
    if mine is None:
        return Change(path, "new", "", theirs) if base is None else Change(path, "deleted", "", "")
    if keep:
        return Change(path, "kept", base or "", theirs)
    if mine == base:
        return Change(path, "replaced", mine, theirs)
    merged = merge_texts(base or "", mine, theirs)
    if merged is None and path == PARAMS and base:
        merged = merge_settings(base, mine, theirs)
    if merged is None:
        return Change(path, "conflict", base or "", theirs)
    return Change(path, "merged", mine, merged) if merged != mine else None


def merge_texts(base: str, mine: str, theirs: str) -> str | None:
    """By git merge-file; None where the edits meet."""
    with TemporaryDirectory() as folder:
        places = [Path(folder, name) for name in ("mine", "base", "theirs")]
        for place, text in zip(places, (mine, base, theirs), strict=True):
            place.write_bytes(text.encode())
        try:
            said = subprocess.run(["git", "merge-file", "--stdout", *map(str, places)], capture_output=True)
        except OSError as error:
            raise ChainForgeError(f"git cannot be started: {error.strerror}", "install git") from error
    return said.stdout.decode() if said.returncode == 0 else None


def apply_upgrade(upgrade: Upgrade) -> int:
    """Write it; the number of files. Raises ChainForgeError and writes nothing where edits could be lost."""
    if upgrade.conflicts:
        raise ChainForgeError(
            f"your edits and this version's meet in {', '.join(upgrade.conflicts)}; nothing was written",
            "make its changes there by hand and commit, or keep yours: chainforge upgrade --apply "
            + " ".join(f"--keep {path}" for path in upgrade.conflicts),
        )
    written = [change for change in upgrade.changes if change.kind in WRITTEN]
    record = upgrade.now.as_text()
    if not written and record == upgrade.made.as_text():
        return 0
    check_committed([*(change.path for change in written), MADE.as_posix()])
    for change in written:
        write_text(Path(change.path), change.after)
    write_text(MADE, record)  # last: an upgrade that was killed is taken up again
    return len(written)


def check_committed(paths: list[str]) -> None:
    """Raise ChainForgeError where git is in use, and one of them differs from the last commit."""
    try:
        command = ["git", "--literal-pathspecs", "status", "--porcelain", "-z", "--", *paths]
        said = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise ChainForgeError(f"git cannot be started: {error.strerror}", "install git") from error
    if said.returncode and "not a git repository" not in said.stderr:
        raise ChainForgeError(f"git status failed: {said.stderr.strip():.300}", "mend that first")
    if edited := [entry[3:] for entry in said.stdout.split("\0") if entry]:
        raise ChainForgeError(
            f"these have changes that are not committed: {', '.join(edited[:5])}",
            "commit them (git commit --all) or put them aside (git stash), then run it again",
        )


def describe(change: Change) -> Iterator[str]:
    """A headline, then the diff."""
    yield f"{change.path}: {change.kind} ({MEANING[change.kind]})"
    if diff := change.diff():
        yield diff


def _params(files: Texts, own: Texts, profile: str) -> str:
    """The settings of the active profile: of these files, or else the user's own. Raises ChainForgeError."""
    return compose_from({**own, **files}, profile)


def _read(path: str) -> str | None:
    """None where there is no file."""
    try:
        return read_text(Path(path))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ChainForgeError(
            f"{path} is no UTF-8 text: {error}", "save it as UTF-8, then run it again"
        ) from error
