"""What the shell offers: the names that the project has, and silence where anything is wrong."""

from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from chainforge.cli import cli


def offered(line: str) -> list[str]:
    """The words that would complete the last one of a line."""
    *words, begun = line.split(" ")
    complete = BashComplete(cli, {}, "chainforge", "_CHAINFORGE_COMPLETE")
    return [item.value for item in complete.get_completions(words, begun)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("", "results"),
        ("profile use s", "smoke"),
        ("profile args ", "tiny"),
        ("mock-teacher --profile t", "tiny"),
        ("plugins check fo", "format"),
        ("plugins check --role r", "reward"),
        ("plugins new te", "teacher"),
        ("collect --step collect_", "collect_general"),
        ("compare HEAD --bench ", "reasoning"),
        ("compare HEAD --checkpoint qwen_rl", "qwen_rl_ckpt_final"),
    ],
)
def test_names_are_offered_in_the_project_and_below(
    line: str, word: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert word in offered(line)
    monkeypatch.chdir(project / "sub")
    assert word in offered(line)
    assert all(name.startswith(line.split(" ")[-1]) for name in offered(line))


def test_nothing_is_offered_or_said_where_nothing_can_be(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (project / "params.yaml").write_text("[")
    assert offered("collect --step ") == []
    monkeypatch.chdir("/")
    assert offered("profile use ") == []
    assert capfd.readouterr() == ("", "")
