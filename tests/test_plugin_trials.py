"""Plugins that loop, crash or exit as they are imported: found out in another process, and told by name."""

import os
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from chainforge.plugins import find, load, load_plugins, trial
from chainforge.plugins.find import candidates
from chainforge.plugins.trial import try_plugins

pytestmark = pytest.mark.slow

GOOD = """
import chainforge as cf

@cf.hookimpl
def register_rewards(register):
    register({name!r}, lambda completions: [1.0] * len(completions))
"""
HOOK = "import chainforge as cf\n\n@cf.hookimpl\ndef register_rewards(register):\n    "
LETHAL = {
    "exits": ("import os; os._exit(0)", "ended the process that tried it (exit code 0)"),
    "aborts": ("import os; os.abort()", "ended the process that tried it (killed by SIGABRT)"),
    "killed": (
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "ended the process that tried it (killed by SIGKILL)",
    ),
    "loops": ("while True:\n    try: list(range(9))\n    except BaseException: pass", "did not end within"),
    "sleeps_as_it_registers": (HOOK + "import time; time.sleep(1000)", "did not end within"),
    "exits_as_it_registers": (
        HOOK + "import os; os._exit(3)",
        "ended the process that tried it (exit code 3)",
    ),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "stops_generators": ("raise GeneratorExit('now')", "GeneratorExit: now"),
    "raises_at_the_end": (
        "import atexit\ndef late():\n    raise RuntimeError('too late')\natexit.register(late)\n"
        + GOOD.format(name="late"),
        "what it leaves to the end of the program (atexit) raises RuntimeError: too late",
    ),
}


@pytest.fixture(autouse=True)
def nothing_is_known(plugins_are_trusted: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(load, "try_plugins", try_plugins)
    before = set(trial.survived)
    trial.survived.clear()
    yield
    trial.survived.clear()
    trial.survived |= before


def folder_of(tmp_path: Path, plugins: dict[str, str]) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (tmp_path / "chainforge").mkdir()  # a checkout, where the bundled plugins are those of the folder
    for name, code in plugins.items():
        (folder / f"{name}.py").write_text(code)
    return folder


def test_whoever_would_end_or_block_the_program_is_told_by_name_and_breaks_no_other(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path,
        {name: code for name, (code, _) in LETHAL.items()}
        | {"a_first": GOOD.format(name="first"), "zz_last": GOOD.format(name="last")},
    )
    lost = try_plugins(list(candidates(folder)), limit_s=5.0)
    named = {Path(who).stem: reason for who, reason in lost.items()}
    assert set(named) == set(LETHAL)
    for name, (_, reason) in LETHAL.items():
        assert named[name].startswith(reason), name


def test_the_plugins_of_the_project_are_tried_before_they_are_imported(tmp_path: Path) -> None:
    folder_of(tmp_path, {"exits": LETHAL["exits"][0], "good": GOOD.format(name="good")})
    with chdir(tmp_path):
        plugins = load_plugins()
    assert list(plugins.broken) == ["plugins/exits.py"]
    assert plugins.names("rewards") == ["good"]


def test_what_survived_is_not_tried_again_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, {"good": GOOD.format(name="good")})
    tried: list[list[str]] = []

    def note(left: list[find.Candidate], limit_s: float, lost: dict[str, str]) -> tuple[None, str]:
        tried.append([Path(one.who).stem for one in left])
        return None, ""

    monkeypatch.setattr(trial, "_try", note)
    try_plugins(list(candidates(folder)))
    try_plugins(list(candidates(folder)))
    (folder / "good.py").write_text(GOOD.format(name="better"))
    try_plugins(list(candidates(folder)))
    assert tried == [["good"], ["good"]]


def test_the_process_in_which_plugins_are_tried_holds_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-1234567890")
    seen = tmp_path / "seen"
    folder = folder_of(
        tmp_path, {"looks": f"import os\nopen({str(seen)!r}, 'w').write(str(os.environ.get('SOME_API_KEY')))"}
    )
    try_plugins(list(candidates(folder)))
    assert seen.read_text() == "None"


def test_a_pipe_in_place_of_a_plugin_is_not_waited_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"good": GOOD.format(name="good")})
    os.mkfifo(folder / "pipe.py")
    (folder / "folder.py").mkdir()
    with chdir(tmp_path):
        plugins = load_plugins()
    assert plugins.broken == dict.fromkeys(
        ("plugins/folder.py", "plugins/pipe.py"), "OSError: it is no regular file"
    )
    assert plugins.names("rewards") == ["good"]
