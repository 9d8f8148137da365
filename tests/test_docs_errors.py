"""docs/errors.md has every message that the code can raise."""

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tree import ROOT

from chainforge.config.loading import load_settings
from chainforge.config.run import RunSettings
from chainforge.errors import ChainForgeError
from chainforge.jsonl import read_rows
from chainforge.project.profiles import compose

SCRIPT = ROOT / "docs/errors_page.py"
PAGE = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
PROSE = " ".join(re.sub("[`…]+", " ", PAGE).split())


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("errors_page", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["errors_page"] = module
    spec.loader.exec_module(module)
    return module


errors_page = load_script()


@pytest.mark.slow
def test_the_page_is_the_generated_one() -> None:
    assert errors_page.page() == PAGE, "python docs/errors_page.py > docs/errors.md"


def raised(path: Path) -> Iterator[ast.Call]:
    """What is raised or returned in a file, and looks like an error with a problem and a fix."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        call = node.exc if isinstance(node, ast.Raise) else getattr(node, "value", None)
        if isinstance(node, ast.Raise | ast.Return) and isinstance(call, ast.Call) and len(call.args) > 1:
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name in ("ChainForgeError", "Impossible", "ServerFailed", "CallFailed"):
                yield call


@pytest.mark.dear
@pytest.mark.parametrize("top", ["chainforge", "stages", "plugins"])
def test_every_word_of_every_problem_is_on_the_page(top: str) -> None:
    """Read in another way than the script does: each constant piece of a first argument, by itself."""
    calls = [(path, call) for path in sorted((ROOT / top).rglob("*.py")) for call in raised(path)]
    assert calls
    for path, call in calls:
        first = call.args[0]
        parts = first.values if isinstance(first, ast.JoinedStr) else [first]
        for part in parts:
            if isinstance(part, ast.Constant):
                words = " ".join(re.sub("[`…]+", " ", str(part.value)).split())
                assert words in PROSE, f"{path.relative_to(ROOT)}:{call.lineno}: {words!r}"


def test_the_page_has_hundreds_of_messages_and_no_empty_one() -> None:
    headings = re.findall(r"^#### (.+)$", PAGE, re.MULTILINE)
    assert len(headings) > 400
    assert all(set(heading) - set("`…:;,. ") for heading in headings)
    assert PAGE.count("\n- `") > len(headings) * 0.9  # nearly all fixes are known


def patterns() -> list[re.Pattern[str]]:
    return [
        re.compile(".*".join(map(re.escape, problem.problem.split("…"))), re.DOTALL)
        for problem in errors_page.problems()
    ]


def missing_profile() -> None:
    compose("nope")


def missing_file() -> None:
    list(read_rows(Path("nowhere.jsonl")))


def missing_settings() -> None:
    load_settings(RunSettings, "run")


@pytest.mark.dear
@pytest.mark.parametrize("fail", [missing_profile, missing_file, missing_settings])
def test_a_message_that_was_really_raised_is_found(
    fail: "object", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ChainForgeError) as caught:
        fail()  # type: ignore[operator]
    assert [pattern for pattern in patterns() if pattern.fullmatch(caught.value.problem)]


SAMPLES = [
    ('raise ChainForgeError("it is " "cold", "warm it")', [("it is cold", "warm it")]),
    ('raise ChainForgeError(f"{a}{b} is {c!r}", f"set {d}")', [("… is …", "set …")]),
    (
        "raise cf.ChainForgeError(f\"it {'is' if a else 'was'} so\", \"x\")",
        [("it is so", "x"), ("it was so", "x")],
    ),
    ('FIX = "mend it"\ndef f():\n    raise ChainForgeError("broken", FIX)', [("broken", "mend it")]),
    ('def f():\n    text = f"no {a}"\n    raise ChainForgeError(text, "x")', [("no …", "x")]),
    ("raise ChainForgeError(error.problem, error.fix)", []),
    ('raise unknown("bench", name, known)', [("there is no bench called '…'", "did you mean '…'? known: …")]),
    ('raise ValueError("no error of ours", "x")', []),
]


@pytest.mark.parametrize(("code", "expected"), SAMPLES)
def test_a_message_is_read_from_the_code(code: str, expected: list[tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(code)
    assert sorted(errors_page.messages(errors_page.Module(tmp_path / "x.py"))) == expected


def test_troubleshooting_has_the_things_that_happen_and_its_messages_exist() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    symptoms = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert len(symptoms) >= 25
    ours = [
        *(
            "is already running",
            "but what lies there was made by no step",
            "the loss is",
            "the gradient norm is",
        ),
        *(
            "has a weight that is not finite",
            "None for every completion by RL step",
            "is worse than its parent",
        ),
        *("no trace was accepted", "no completion was accepted", "is not set", "a sandbox did not start"),
        *("bubblewrap is not installed", "processes cannot meet", "there is not enough memory for"),
    ]
    for words in ours:
        assert words in PROSE, words
        assert words in " ".join(re.sub("[`…]+", " ", text).split()), words
