"""Plugins: found, checked, picked; a broken one is reported, and is an error only when selected."""

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import ROOT

from chainforge.cli import cli
from chainforge.errors import ChainForgeError
from chainforge.plugins import (
    ROLES,
    Entry,
    Plugins,
    load_plugins,
    make_component,
    plugin_settings,
    prompts_from,
)
from chainforge.project.code_digests import digest_module
from chainforge.records import Prompt

BROKEN = {
    "import_error": "ModuleNotFoundError: No module named 'no_such_package_anywhere'",
    "exits": "SystemExit: usage: exits.py FILE",
    "raises_at_registration": "RuntimeError: no licence key",
    "exits_at_registration": "SystemExit: no licence key",
    "no_hook": "ValueError: has no @cf.hookimpl function",
    "misspelt_hook": "PluginValidationError: unknown hook 'register_reward' in plugin",
    "unknown_argument": "PluginValidationError: Plugin 'chainforge_plugin_unknown_argument' for hook",
    "taken_name": "ValueError: the name 'first' is already taken by {folder}/a_first.py",
    "same_name_twice": "ValueError: the name 'twice' is already taken by {folder}/same_name_twice.py",
    "not_callable": "TypeError: teachers 'constant' is not callable",
    "half_way": "KeyError: 'the other half'",
}
WHOLE = """
import chainforge as cf

@cf.hookimpl
def register_rewards(register):
    register({name!r}, lambda completions: [1.0] * len(completions), conversational={conversational})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good plugins, one before and one after every broken one."""
    found = tmp_path / "plugins"
    found.mkdir()
    (found / "a_first.py").write_text(WHOLE.format(name="first", conversational=False))
    (found / "zz_last.py").write_text(WHOLE.format(name="last", conversational=True))
    return found


def add_broken(folder: Path, name: str) -> None:
    (folder / f"{name}.py").write_text((ROOT / f"tests/broken_plugins/{name}.py").read_text())


def reason(folder: Path, name: str) -> str:
    return BROKEN[name].format(folder=folder.as_posix())


def test_every_broken_example_is_tried() -> None:
    assert sorted(path.stem for path in (ROOT / "tests/broken_plugins").glob("*.py")) == sorted(BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_reported_and_breaks_no_other(folder: Path, name: str) -> None:
    add_broken(folder, name)
    plugins = load_plugins(folder)
    assert set(plugins.entries) == {("rewards", "first"), ("rewards", "last")}
    assert list(plugins.broken) == [f"{folder.as_posix()}/{name}.py"]
    assert plugins.broken[f"{folder.as_posix()}/{name}.py"].startswith(reason(folder, name))
    assert "\n" not in plugins.broken[f"{folder.as_posix()}/{name}.py"]
    assert plugins.pick("rewards", "last").component(completions=["a"]) == [1.0]


def test_all_broken_plugins_together_break_no_other(folder: Path) -> None:
    for name in BROKEN:
        add_broken(folder, name)
    plugins = load_plugins(folder)
    assert set(plugins.entries) == {("rewards", "first"), ("rewards", "last")}
    assert len(plugins.broken) == len(BROKEN)


@pytest.mark.parametrize(
    ("name", "role", "wanted"),
    [
        ("import_error", "rewards", "mine"),
        ("misspelt_hook", "rewards", "unreachable"),
        ("taken_name", "rewards", "fresh"),
        ("half_way", "rewards", "half"),
        ("half_way", "teachers", "half"),
        ("not_callable", "teachers", "constant"),
    ],
)
def test_selecting_what_a_broken_plugin_would_have_given_says_why_it_is_not_there(
    folder: Path, name: str, role: str, wanted: str
) -> None:
    add_broken(folder, name)
    plugins = load_plugins(folder)
    with pytest.raises(ChainForgeError) as caught:
        plugins.pick(role, wanted)
    assert f"there is no {role[:-1]} called {wanted!r}" in caught.value.problem
    assert f"{name}.py: {reason(folder, name)}" in caught.value.fix


def test_a_syntax_error_is_reported_like_any_other(folder: Path) -> None:
    (folder / "typo.py").write_text("def broken(:\n")
    plugins = load_plugins(folder)
    assert plugins.names("rewards") == ["first", "last"]
    assert plugins.broken[f"{folder.as_posix()}/typo.py"].startswith("SyntaxError: ")


def test_an_unknown_name_is_an_error_with_the_nearest_one(folder: Path) -> None:
    with pytest.raises(ChainForgeError) as caught:
        load_plugins(folder).pick("rewards", "frist")
    assert str(caught.value) == (
        "there is no reward called 'frist'\n  -> did you mean 'first'? known: first, last"
    )
    with pytest.raises(ChainForgeError, match="there is no student model called 'first'\n  -> known: none"):
        load_plugins(folder).pick("student_models", "first")


def test_a_reward_says_how_it_wants_to_be_called_and_where_it_comes_from(folder: Path) -> None:
    plugins = load_plugins(folder)
    assert plugins.pick("rewards", "last").options == {"conversational": True}
    assert plugins.pick("rewards", "last").source == f"{folder.as_posix()}/zz_last.py"


def test_a_role_is_a_namespace_of_its_own(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "import chainforge as cf\n"
        + "".join(
            f"@cf.hookimpl\ndef register_{role}(register): register('first', lambda **settings: {role!r})\n"
            for role in ROLES
            if role != "rewards"
        )
    )
    plugins = load_plugins(folder)
    assert not plugins.broken
    assert all(plugins.names(role)[0] == "first" for role in ROLES)
    assert plugins.pick("teachers", "first").component() == "teachers"


def test_every_bundled_plugin_loads_and_serves_every_role(root: Path) -> None:
    plugins = load_plugins(root / "plugins")
    assert plugins.broken == {}
    assert all(plugins.names(role) for role in ROLES)


def test_no_folder_is_no_plugin(tmp_path: Path) -> None:
    assert load_plugins(tmp_path / "nowhere") == Plugins()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a made-up distribution on the path, as pip would leave it."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])

    def add(name: str, code: str, entry_point: str | None = None) -> None:
        info = site / f"{name}-1.2.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n")
        (info / "entry_points.txt").write_text(f"[chainforge]\n{name} = {entry_point or name}\n")
        (site / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()

    return add


def test_an_installed_package_is_found_by_its_entry_point(folder: Path, install: Callable[..., None]) -> None:
    install("toy_installed_rewards", WHOLE.format(name="installed", conversational=False))
    entry = load_plugins(folder).pick("rewards", "installed")
    assert entry.source == "toy_installed_rewards 1.2.3"
    assert entry.module.__name__ == "toy_installed_rewards"
    assert entry.component(completions=["a", "b"]) == [1.0, 1.0]


def test_a_plugin_in_a_package_is_all_of_that_package(
    folder: Path, install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("toy_package", "", "toy_package.plugin")
    package = tmp_path / "site-packages/toy_package"
    (tmp_path / "site-packages/toy_package.py").unlink()
    package.mkdir()
    for name, code in {
        "__init__": "",
        "plugin": "from toy_package.rules import *",
        "rules": WHOLE.format(name="packed", conversational=False),
    }.items():
        (package / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, f"toy_package.{name}", raising=False)
    module = load_plugins(folder).pick("rewards", "packed").module
    before = digest_module(module)
    (package / "rules.py").write_text("# a remark\n" + WHOLE.format(name="packed", conversational=False))
    assert digest_module(module) == before
    (package / "rules.py").write_text(WHOLE.format(name="packed", conversational=True))
    assert digest_module(module) != before


def test_an_installed_package_can_be_switched_off(
    folder: Path, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("toy_unwanted", WHOLE.format(name="installed", conversational=False))
    monkeypatch.setenv("CHAINFORGE_DISABLE_PLUGINS", "something, toy_unwanted")
    assert load_plugins(folder).names("rewards") == ["first", "last"]


@pytest.mark.parametrize(
    ("code", "entry_point", "complaint"),
    [
        ("import no_such_package_anywhere", None, "ModuleNotFoundError: No module named 'no_such_package"),
        ("raise SystemExit(3)", None, "SystemExit: 3"),
        (WHOLE.format(name="first", conversational=False), None, "ValueError: the name 'first' is already"),
        ("def plugin(): ...", "toy_broken:plugin", "TypeError: the entry point must name a module"),
        ("", "toy_broken:missing", "AttributeError: "),
    ],
)
def test_a_broken_installed_package_breaks_no_other(
    folder: Path, install: Callable[..., None], code: str, entry_point: str | None, complaint: str
) -> None:
    install("toy_broken", code, entry_point)
    install("toy_working", WHOLE.format(name="working", conversational=False))
    plugins = load_plugins(folder)
    assert plugins.names("rewards") == ["first", "last", "working"]
    assert plugins.broken["toy_broken 1.2.3 (toy_broken)"].startswith(complaint)


def test_every_broken_entry_point_of_a_distribution_is_reported(
    folder: Path, install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("toy_many", "import no_such_package_anywhere")
    site = tmp_path / "site-packages"
    entry_points = "[chainforge]\nfirst_half = toy_many\nlast_half = toy_many_more\nwhole = toy_whole\n"
    (site / "toy_many-1.2.3.dist-info/entry_points.txt").write_text(entry_points)
    (site / "toy_many_more.py").write_text(WHOLE.format(name="first", conversational=False))
    (site / "toy_whole.py").write_text(WHOLE.format(name="whole", conversational=False))
    plugins = load_plugins(folder)
    reasons = {
        "toy_many 1.2.3 (first_half)": "ModuleNotFoundError: No module named 'no_such_package_anywhere'",
        "toy_many 1.2.3 (last_half)": f"ValueError: the name 'first' is already taken by {folder}/a_first.py",
    }
    assert plugins.broken == reasons
    assert plugins.pick("rewards", "whole").source == "toy_many 1.2.3"
    monkeypatch.chdir(tmp_path)
    listed = CliRunner().invoke(cli, ["plugins", "list"]).output
    assert all(f"does not load: {who}: " in listed for who in reasons)


SETTINGS = """
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import chainforge as cf

def source(*, split: str, n: int, seed: int, path: Path, share: float = 0.5, tags: list[str] | None = None):
    return []

@dataclass(frozen=True, kw_only=True)
class AsDataclass:
    path: Path
    share: float = 0.5
    tags: list[str] | None = None

class AsClass:
    def __init__(self, *, path: Path, share: float = 0.5, tags: list[str] | None = None) -> None:
        self.path = path

@cf.hookimpl
def register_teachers(register):
    register("source", source)
    register("dataclass", AsDataclass)
    register("class", AsClass)
"""


@pytest.fixture(
    params=[(way, future) for way in ("source", "dataclass", "class") for future in (False, True)]
)
def factory(request: pytest.FixtureRequest, folder: Path) -> Entry:
    """One factory, written in each of the ways a factory can be written."""
    way, future = request.param
    (folder / "mine.py").write_text("from __future__ import annotations\n" * future + SETTINGS)
    plugins = load_plugins(folder)
    assert not plugins.broken
    return plugins.pick("teachers", way)


def test_settings_reach_a_factory_with_the_types_it_declares(factory: Entry) -> None:
    assert plugin_settings(factory, {"path": "a/b", "tags": ["x"], "share": 1}) == {
        "path": Path("a/b"),
        "tags": ["x"],
        "share": 1.0,
    }
    assert plugin_settings(factory, {"path": "a"}) == {"path": Path("a")}  # its own defaults are its own


@pytest.mark.parametrize(
    ("settings", "problem", "fix"),
    [
        ({"pth": "a"}, "there is no setting called 'pth'", "did you mean 'path'? known: path, share, tags"),
        ({"path": "a", "seed": 3}, "there is no setting called 'seed'", "known: path, share, tags"),
        ({"path": 3}, "path is 3: Input is not a valid path", "correct it in params.yaml"),
        ({"path": "a", "share": "half"}, "share is 'half': Input should be a valid number", "correct it in"),
        ({"path": "a", "tags": "x"}, "tags is 'x': Input should be a valid list", "correct it in params"),
        ({"share": 0.1}, "needs the setting 'path'", "add it beside `plugin` in params.yaml"),
    ],
)
def test_a_setting_that_cannot_be_is_an_error_that_names_plugin_and_setting(
    factory: Entry, settings: dict[str, Any], problem: str, fix: str
) -> None:
    with pytest.raises(ChainForgeError) as caught:
        plugin_settings(factory, settings)
    assert caught.value.problem.startswith(f"teacher {factory.name!r} ({factory.source})")
    assert problem in caught.value.problem
    assert fix in caught.value.fix


def test_an_annotation_that_cannot_be_resolved_is_an_error_that_names_it(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "import chainforge as cf\n"
        "def source(*, split, n, seed, path: 'NotImported' = None): ...\n"
        "@cf.hookimpl\ndef register_prompt_sources(register): register('mine', source)\n"
    )
    with pytest.raises(ChainForgeError, match=r"prompt source 'mine'.*name 'NotImported' is not defined"):
        plugin_settings(load_plugins(folder).pick("prompt_sources", "mine"), {})


def registers(name: object, options: str = "", head: str = "") -> str:
    return (
        f"{head}\nimport chainforge as cf\n\n@cf.hookimpl\ndef register_rewards(register):\n"
        f"    register({name!r}, lambda completions: [0.5] * len(completions){options})\n"
    )


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        (registers(5), "TypeError: a name is a text, not 5"),
        (registers("a b"), "ValueError: the name 'a b' cannot be: use letters, digits, _ and -"),
        (registers("a.b"), "ValueError: the name 'a.b' cannot be"),
        (registers("x", ", override='yes'"), "TypeError: override must be True or False, not 'yes'"),
        (
            registers("x", head="CHAINFORGE_API = 2"),
            "ValueError: CHAINFORGE_API is 2, and this ChainForge has",
        ),
        (registers("x", head="CHAINFORGE_API = '1'"), "ValueError: CHAINFORGE_API is '1'"),
        ("raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})", "Mute: (its message cannot be"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("import os\nos._exit(0)", "Left: os._exit was called"),
        ("input()", "EOFError"),
        ("'\udce9'", "SyntaxError: "),
    ],
)
def test_whatever_is_wrong_with_a_plugin_is_told_of_it_alone(folder: Path, code: str, complaint: str) -> None:
    (folder / "bad.py").write_text(code, encoding="utf-8", errors="surrogateescape")
    plugins = load_plugins(folder)
    assert plugins.names("rewards") == ["first", "last"]
    assert plugins.broken[f"{folder.as_posix()}/bad.py"].startswith(complaint)


def test_a_plugin_says_in_which_encoding_it_is_written(folder: Path) -> None:
    (folder / "bom.py").write_bytes(b"\xef\xbb\xbf" + registers("bom").encode())
    latin = registers("latin", head="# -*- coding: latin-1 -*-\nWORD = 'caf\xe9'")
    (folder / "latin.py").write_bytes(latin.encode("latin-1"))
    plugins = load_plugins(folder)
    assert plugins.names("rewards") == ["bom", "first", "last", "latin"]
    digests = {digest_module(plugins.pick("rewards", name).module) for name in ("bom", "latin")}
    assert len(digests) == 2


def test_an_expression_may_be_a_thousand_terms_deep_and_one_too_deep_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "deep.py").write_text(registers("deep", head="SUM = " + "+".join(["1"] * 1500)))
    module = load_plugins(folder).pick("rewards", "deep").module
    assert digest_module(module)
    (folder / "deep.py").write_text("SUM = " + "+".join(["1"] * 100_000))  # as edited afterwards
    with pytest.raises(ChainForgeError, match=r"deep\.py: its code cannot be read: (Recursion|Memory)Error"):
        digest_module(module)


def test_what_a_plugin_prints_is_not_taken_for_a_result(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "loud.py").write_text(registers("loud", head="import os\nprint('a')\nos.system('echo b')"))
    assert "loud" in load_plugins(folder).names("rewards")
    out, err = capfd.readouterr()
    assert out == ""
    assert {"a", "b"} <= set(err.split())


def test_two_files_that_claim_a_name_are_both_named_where_it_is_selected(folder: Path) -> None:
    (folder / "mine.py").write_text(registers("first"))
    plugins = load_plugins(folder)
    with pytest.raises(ChainForgeError) as caught:
        plugins.pick("rewards", "first")
    assert all(f"{folder.as_posix()}/{name}.py" in caught.value.problem for name in ("a_first", "mine"))
    assert "override=True" in caught.value.fix
    assert plugins.pick("rewards", "last")


@pytest.mark.parametrize("name", ["a_before", "b_after"])
def test_who_asks_to_override_takes_the_place_whatever_the_order(folder: Path, name: str) -> None:
    (folder / f"{name}.py").write_text(registers("first", ", override=True"))
    plugins = load_plugins(folder)
    assert plugins.broken == {}
    entry = plugins.pick("rewards", "first")
    assert entry.source == f"{folder.as_posix()}/{name}.py"
    assert entry.component(completions=["a"]) == [0.5]


@pytest.mark.parametrize("line", ["from helper import x", "from .helper import x", "import helper"])
def test_a_file_that_imports_a_file_beside_it_is_told_the_rule(folder: Path, line: str) -> None:
    (folder / "helper.py").write_text("x = 1\n")
    (folder / "user.py").write_text(registers("user", head=line))
    told = load_plugins(folder).broken[f"{folder.as_posix()}/user.py"]
    assert "files of" in told
    assert "cannot import each other: put the code into this file, or make a package" in told


class Odd:
    """Factories and what they make."""

    @staticmethod
    def raises(*, path: str = "") -> object:
        raise KeyError("no such thing")

    @staticmethod
    def exits() -> object:
        raise SystemExit(0)

    @staticmethod
    def needs(path: str) -> object:
        return path

    @staticmethod
    def nothing() -> object:
        return object()

    class NoSignature:
        __signature__ = "none"

    @staticmethod
    def annotated(*, path: object() = None) -> object:  # type: ignore[valid-type]
        return path


@pytest.mark.parametrize(
    ("name", "settings", "complaint"),
    [
        ("raises", {}, "cannot be made with these settings: KeyError: 'no such thing'"),
        ("exits", {}, "cannot be made with these settings: SystemExit: 0"),
        ("needs", {}, "takes 'path' by its place"),
        ("nothing", {}, "makes object, which has no `generate`"),
        ("NoSignature", {}, "its settings cannot be read: TypeError"),
        ("annotated", {"path": 1}, "path cannot be checked against its annotation"),
    ],
)
def test_a_factory_that_cannot_make_what_it_should_is_told_by_name(
    name: str, settings: dict[str, Any], complaint: str
) -> None:
    entry = Entry("teachers", "odd", getattr(Odd, name), {}, "plugins/odd.py", sys)
    with pytest.raises(ChainForgeError) as caught:
        make_component(entry, settings)
    assert str(caught.value).startswith("teacher 'odd' (plugins/odd.py)")
    assert complaint in caught.value.problem


def good(id: Any = "a", messages: Any = None, answer: Any = "1", columns: Any = None) -> Prompt:
    turn: Any = ({"role": "user", "content": "1?"},)
    return Prompt(id, "s", turn if messages is None else messages, answer, columns or {})


def half_way() -> Iterator[Prompt]:
    yield good()
    raise GeneratorExit


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (lambda: None, "gives NoneType, not prompts"),
        (lambda: [{}], "train prompt 1: expected a Prompt, found {}"),
        (half_way, "raised after 1 train prompts: GeneratorExit"),
        (lambda: [good(), good(id=5)], "train prompt 2: field 'id' must be a string, found 5"),
        (lambda: [good(id="")], "field 'id' is empty"),
        (lambda: [good(messages="text")], "field 'messages' must be a list"),
        (lambda: [good(answer=1)], "field 'answer' must be a string or null, found 1"),
        (lambda: [good(columns={"a": object()})], "field 'columns' holds what JSON cannot"),
        (lambda: [good(columns={5: 1})], "a column is called 5, which is no text"),
    ],
)
def test_a_source_that_gives_anything_but_prompts_is_told_by_name(
    given: Callable[[], Any], complaint: str
) -> None:
    entry = Entry("prompt_sources", "odd", lambda *, split, n, seed: given(), {}, "plugins/odd.py", sys)
    with pytest.raises(ChainForgeError) as caught:
        list(prompts_from(entry, {}, split="train", n=9, seed=1))
    assert "prompt source 'odd' (plugins/odd.py)" in caught.value.problem
    assert complaint in caught.value.problem


def test_a_source_that_never_ends_gives_as_many_as_were_asked_for() -> None:
    endless = lambda *, split, n, seed: map(good, map(str, itertools.count()))  # noqa: E731
    entry = Entry("prompt_sources", "odd", endless, {}, "plugins/odd.py", sys)
    assert [p.id for p in prompts_from(entry, {}, split="eval", n=3, seed=1)] == ["0", "1", "2"]
