"""Whatever is malformed: one clear message, an exit code that is not 0, nothing lost or half-written."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from clone import Clone, Finished, copy_clone, environment
from malformed import command_line, environments, handovers, models, outputs, plugins, settings
from malformed.case import Case
from tree import ROOT

CASES = [
    case
    for kind in (settings, outputs, handovers, plugins, models, command_line, environments)
    for case in kind.CASES
]
# What a failing command may leave: its log, its saved work, and what Python and DVC keep for themselves.
OWN = re.compile(r"^(logs|\.work|\.dvc/tmp|\.dvc/cache|\.git)(/|$)|__pycache__|\.pyc$")
DOCS = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
PYTHONS_OWN = "Fatal Python error: "  # said before any line of ours runs
LONGEST_S = 400  # a command that has not ended by then hangs


def plain(text: str) -> str:
    """One line, without the marks of code."""
    return " ".join(text.replace("`", "").split())


def messages_of_dvc() -> list[re.Pattern[str]]:
    """The messages that docs/experiments.md explains; in the page, … and words in capitals are anything."""
    _, _, table = DOCS.partition("| DVC says |")
    rows = [line.split("|")[1] for line in table.split("\n\n")[0].splitlines()[2:]]
    texts = [plain(text) for row in rows for text in row.split(";")]
    return [re.compile(re.sub(r"…|\b[A-Z]{3,}\b", ".+", re.escape(text))) for text in texts]


OF_DVC = messages_of_dvc()


def says_what_to_do(case: Case, said: str) -> bool:
    """In our words, or in DVC's where the docs explain them."""
    explained = "dvc" in case.command and any(message.search(plain(said)) for message in OF_DVC)
    return explained or any(words in said for words in ("-> ", "Usage: ", "Error: ", PYTHONS_OWN))


def as_parameter(case: Case) -> object:
    marks = [pytest.mark.slow] if case.quick else [pytest.mark.long, pytest.mark.slow]
    return pytest.param(case, id=case.tried, marks=marks)


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.tried for case in CASES}) == len(CASES) > 150
    assert len(OF_DVC) > 15


@pytest.mark.parametrize("case", [as_parameter(case) for case in CASES])
def test_it_is_told_and_nothing_is_lost(case: Case, finished: Finished, tmp_path: Path) -> None:
    clone = copy_clone(finished.clone, tmp_path / "project")
    case.spoil(clone)
    before = state_of(tmp_path)
    code, said = outcome(clone, case.command)
    message = said[-3000:]
    assert code not in (0, 137, 139, -9, -11), message
    assert "Traceback (most recent call last)" not in said, message
    assert re.search(case.says, said, flags=re.IGNORECASE), f"no {case.says!r} in: {message}"
    assert says_what_to_do(case, said), f"nothing to do: {message}"
    after = state_of(tmp_path)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    unexpected = [path for path in changed if not any(re.search(allowed, path) for allowed in case.changes)]
    assert unexpected == [], message


def outcome(clone: Clone, command: str) -> tuple[int, str]:
    """Exit code and output of a line of shell. A hang is 137."""
    try:
        ended = subprocess.run(
            ["timeout", "--signal=KILL", str(LONGEST_S), "bash", "-c", command],
            cwd=clone.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", str(clone.folder)], check=False)
    return ended.returncode, ended.stdout.decode(errors="replace")


def state_of(top: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything that is the user's, inside of the project and beside it."""
    found = {}
    for path in sorted(top.rglob("*")):
        inside = str(path.relative_to(top)).removeprefix("project/")
        if OWN.search(inside):
            continue
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[inside] = (path.lstat().st_mode >> 12, path.is_symlink(), content)
    return found


@pytest.mark.slow
def test_the_driver_sees_what_changes(finished: Finished, tmp_path: Path) -> None:
    clone = copy_clone(finished.clone, tmp_path / "project")
    before = state_of(tmp_path)
    code, said = outcome(clone, "echo told; echo more >> params.yaml; rm -r data; touch ../outside; exit 3")
    assert (code, said) == (3, "told\n")
    after = state_of(tmp_path)
    assert before["params.yaml"] != after["params.yaml"]
    assert "outside" in after.keys() - before.keys()
    assert any(path.startswith("data/") for path in before.keys() - after.keys())
    shutil.rmtree(clone.folder)
