"""Whatever a command raises, and whatever becomes of its output: one message, an exit code, no traceback."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from chainforge.cli.group import Group
from chainforge.errors import ChainForgeError
from chainforge.run.crash import log_of

CHAINFORGE = [sys.executable, "-m", "chainforge"]


def ended(error: BaseException) -> Any:
    """How a command ends that raises this."""

    @click.group(cls=Group)
    def commands() -> None:
        """Commands."""

    @commands.command()
    def fails() -> None:
        """Fail."""
        raise error

    return CliRunner().invoke(commands, ["fails"])


def test_an_error_of_ours_is_two_lines_with_its_exit_code() -> None:
    error = ChainForgeError("it is wrong", "mend it")
    error.exit_code = 7
    result = ended(error)
    assert (result.exit_code, result.stdout) == (7, "")
    assert result.stderr == "Error: it is wrong\n  -> mend it\n"


@pytest.mark.parametrize(
    "error",
    [ValueError("x\ny"), KeyError(), RecursionError(), AssertionError("no")],
    ids=repr,
)
def test_an_error_that_nobody_expected_leaves_its_traceback_in_a_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = ended(error)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    first, second = result.stderr.splitlines()
    assert type(error).__name__ in first
    assert second.startswith("  -> ")
    assert str(log_of("chainforge")) in second
    text = log_of("chainforge").read_text()
    assert "Traceback" in text
    assert type(error).__name__ in text


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG])
def test_the_operating_systems_refusals_are_told(number: int) -> None:
    result = ended(OSError(number, os.strerror(number), "some/file"))
    assert result.exit_code == 1
    assert "\n  -> " in result.stderr
    assert number == errno.ENOSPC or "(some/file)" in result.stderr


def test_who_reads_no_further_gets_no_message() -> None:
    result = ended(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert (result.exit_code, result.output) == (141, "")


@given(st.sampled_from("\x1b\x00\x9b\u202e\u2066\r"))
def test_a_message_obeys_nobody(character: str) -> None:
    assert character not in ended(ChainForgeError(f"a{character}[2J", f"b{character}")).output


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize(
    ("redirect", "code", "said"),
    [
        ("> /dev/full", 1, "no room left"),
        (">&-", 1, "standard output is closed"),
        ("| true; exit ${PIPESTATUS[0]}", 141, ""),
    ],
)
def test_an_output_that_takes_nothing_is_told(redirect: str, code: int, said: str, root: Path) -> None:
    line = f"{' '.join(CHAINFORGE)} profile list {redirect}"
    result = subprocess.run(["bash", "-c", line], cwd=root, capture_output=True, text=True)
    assert result.returncode == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    assert bool(result.stderr) == bool(said)
