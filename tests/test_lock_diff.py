"""What differs between two locks is said in words, with the steps that it re-runs."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from chainforge.errors import ChainForgeError
from chainforge.project.lock_diff import committed_lock, compared_lock, in_lines, lock_changes

OURS = {"source": "plugins/reward_toy.py", "digest": "a"}
THEIRS = {"distribution": "chainforge-toy", "version": "1.0.0", "digest": "a"}


def lock(**entry: Any) -> dict[str, Any]:
    """Two steps with the same entry, one of them a cell."""
    whole = {"code": "1", "plugins": {}} | entry
    return {"grpo_final": whole, "evaluate": {"general": whole}}


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({}, {"code": "2"}, "code of ChainForge changed"),
        (OURS, OURS | {"digest": "b"}, "rewards:toy: plugins/reward_toy.py: its code changed"),
        (THEIRS, THEIRS | {"digest": "b"}, "rewards:toy: chainforge-toy 1.0.0: its code changed"),
        (THEIRS, THEIRS | {"version": "1.1.0"}, "rewards:toy: chainforge-toy 1.0.0 -> 1.1.0"),
        (OURS, THEIRS, "rewards:toy: plugins/reward_toy.py -> chainforge-toy 1.0.0"),
        (None, THEIRS, "rewards:toy: chainforge-toy 1.0.0 is selected now"),
        (OURS, None, "rewards:toy: plugins/reward_toy.py is not selected any more"),
        ({"files": {"in": "a"}}, {"files": {"in": "b"}}, "in: its content changed"),
        ({}, {"files": {"in": "b"}}, "in: an input now"),
        ({"env": {"torch": "2.12"}}, {"env": {"torch": "2.13"}}, "torch: 2.12 -> 2.13"),
        ({}, {"env": {"torch": "2.13"}}, "torch: not watched -> 2.13"),
    ],
)
def test_a_change_is_one_line_with_its_steps(before: Any, now: Any, said: str) -> None:
    def made(entry: Any) -> dict[str, Any]:
        if entry is None or "digest" in entry:
            return lock(plugins={"rewards:toy": entry} if entry else {})
        return lock(**entry)

    assert in_lines(lock_changes(made(before), made(now))) == [f"{said} (grpo_final, evaluate.general)"]
    assert lock_changes(made(now), made(now)) == {}


def test_steps_come_and_go() -> None:
    assert lock_changes({}, lock()) == {"a new step": ["grpo_final", "evaluate.general"]}
    assert lock_changes(lock(), {}) == {"a step that is gone": ["grpo_final", "evaluate.general"]}


def git(*arguments: str) -> None:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(("git", *who, *arguments), check=True, capture_output=True)


def test_the_committed_lock_is_that_of_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plugins.lock.json").write_text(json.dumps(lock()))
    assert compared_lock("HEAD") == (lock(), None), "without git, it is the file"
    with pytest.raises(ChainForgeError, match="not a git repository"):
        compared_lock("v1")
    git("init", "--quiet")
    with pytest.raises(ChainForgeError, match=r"git add plugins\.lock\.json"):
        committed_lock()
    git("add", ".")
    git("commit", "--quiet", "--message", "lock")
    Path("plugins.lock.json").write_text("{}")
    assert compared_lock("HEAD") == (lock(), "HEAD")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ChainForgeError, match="git cannot be started"):
        committed_lock()
