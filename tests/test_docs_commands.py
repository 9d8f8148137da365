"""Every command of a fenced block is one that its program takes: options, steps, files, variables."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tree import PROFILES, ROOT

from chainforge.cli import cli
from chainforge.project.graph import read_graph

PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
# Programs of others, of which the pages say no more than that they exist.
OTHERS = {
    *("accelerate", "curl", "docker", "export", "grep", "hf", "mkdir", "nvidia-smi", "pip", "printf", "srun"),
    *(
        "pytest",
        "sed",
        "torchrun",
        "unzip",
        "vllm",
        "for",
        "done",
        "do",
        ".",
        "source",
        "cd",
        "cp",
        "llama-cli",
        "ollama",
    ),
}
GIT = {"add", "clone", "commit", "checkout", "diff", "init", "log", "rm"}
FOLDERS = ("docs/", "plugins/", "profiles/", "benchmarks/", "tests/", "stages/", "chainforge/")
A_PLACE = re.compile(r"[A-Z][A-Z_]+|.*…")  # EXPERIMENT: to be filled in
Command = tuple[str, list[str]]


def split(block: str) -> Iterator[list[str]]:
    """The commands of a block of shell, as words."""
    text = re.sub(r"\\\n", " ", block)
    text = re.sub(r"\$\(.*\)", "SUBSTITUTED", text)
    text = re.sub(r"(^|[ \t])#.*", "", text, flags=re.MULTILINE)
    words = shlex.shlex(text, posix=True, punctuation_chars=";&|\n")
    words.whitespace, words.whitespace_split, words.commenters = " \t", True, ""
    command: list[str] = []
    for word in [*words, ";"]:
        if set(word) <= set(";&|\n"):
            yield from [command] if command else []
            command = []
        elif command or not re.fullmatch(r"[A-Za-z_]\w*=.*|do|then", word):
            command.append(word)


def commands(page: Path) -> list[list[str]]:
    found = re.findall(r"^ *```bash\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [command for block in found for command in split(block)]


ALL = [(page.name, words) for page in PAGES for words in commands(page)]


def of(program: str) -> list[Command]:
    """The commands of one program, however its path is written."""
    found = [(name, words[1:]) for name, words in ALL if words[0].split("/")[-1] == program]
    return [(name, words) for i, (name, words) in enumerate(found) if words not in [w for _, w in found[:i]]]


def shown(value: object) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def test_shell_is_split_as_a_shell_does() -> None:
    assert list(split("A=1 x -y 'a b' \\\n  z  # why\nfor i in 1 2; do p $i; done && q | r\n")) == [
        ["x", "-y", "a b", "z"],
        ["for", "i", "in", "1", "2"],
        ["p", "$i"],
        ["done"],
        ["q"],
        ["r"],
    ]


def test_every_program_is_one_that_is_looked_at() -> None:
    programs = {words[0].split("/")[-1] for _, words in ALL}
    assert programs - OTHERS == {"chainforge", "dvc", "git", "make", "python", "python3"}


@pytest.mark.parametrize(("page", "words"), of("chainforge"), ids=shown)
def test_chainforge_takes_it(page: str, words: list[str]) -> None:
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    assert not isinstance(command, click.Group) or not rest or rest[0].startswith("-"), rest
    options = {name for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]}
    options |= {"-h", "--help"}
    if not command.context_settings.get("ignore_unknown_options"):
        assert {word.split("=")[0] for word in rest if re.match(r"--?[a-zA-Z]", word)} <= options
    if words[:2] == ["profile", "use"] or words[0] == "memory":
        given = [word for word in rest[:1] if not word.startswith("-")]  # `memory` needs none
        assert {word for word in given if not A_PLACE.fullmatch(word)} <= set(PROFILES)


@pytest.mark.dear
@pytest.mark.parametrize(("page", "words"), of("dvc"), ids=shown)
def test_dvc_takes_it(page: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.cli.parser import get_main_parser

    taken = get_main_parser().parse_args(words)
    monkeypatch.chdir(ROOT)
    steps = {"lock"} | {name for step in read_graph() for name in (step, step.partition("@")[0])}
    if words[0] in ("repro", "commit") or words[:2] == ["exp", "run"]:
        assert {step for step in taken.targets if not A_PLACE.fullmatch(step)} <= steps


@pytest.mark.parametrize(("page", "words"), of("make"), ids=shown)
def test_make_has_the_target_and_the_variable(page: str, words: list[str]) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            assert re.search(rf"^{name} \?=|\$\({name}\)", text, re.MULTILINE), name
            assert name != "PROFILE" or value in PROFILES
        else:
            assert re.search(rf"^{word}:", text, re.MULTILINE), word


@pytest.mark.parametrize(("page", "words"), [*of("python"), *of("python3")], ids=shown)
def test_python_finds_what_it_runs(page: str, words: list[str]) -> None:
    if words[0] == "-m":
        assert (
            words[1] in ("venv", "pytest", "pip")
            or (ROOT / words[1].replace(".", "/")).with_suffix(".py").exists()
        )
    elif words[0] not in ("-c", "-") and not words[0].startswith("llama.cpp/"):  # cloned the line before
        assert (ROOT / words[0]).exists()


@pytest.mark.parametrize(("page", "words"), of("git"), ids=shown)
def test_git_is_asked_for_what_it_knows(page: str, words: list[str]) -> None:
    assert words[0] in GIT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_command_names_is_there_or_made_by_the_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = {word for words in commands(page) for word in words[1:] if word.startswith(FOLDERS)}
    made = set(re.findall(r"`((?:plugins|profiles)/[\w.]+)`", text)) | set(
        re.findall(r"(?:>|--output) (\S+)", text)
    )
    assert {path for path in named if not (ROOT / path).exists()} <= made


def test_every_profile_that_a_sentence_names_exists() -> None:
    for page in PAGES:
        named = re.findall(r"PROFILE=([\w.-]+)", page.read_text(encoding="utf-8"))
        assert {name for name in named if not A_PLACE.fullmatch(name)} <= set(PROFILES), page.name
