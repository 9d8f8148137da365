"""`chainforge mock-teacher`: from the command line to an answer, and to the bill."""

import ast
import json
import os
import signal
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mock_asking import label, question
from tree import ROOT, project_files

from chainforge.cli import cli
from chainforge.cli.mock_teacher import load_teachers, read_faults, read_prices
from chainforge.errors import ChainForgeError
from chainforge.mock_teacher.faults import FAULTS
from chainforge.mock_teacher.mock import PRICES
from chainforge.mock_teacher.script import FaultScript
from chainforge.plugins import load_plugins, plugin_settings
from chainforge.providers.prices import FREE

SERVING = {"serve", "server"}  # the modules that need aiohttp
COMMAND = [sys.executable, "-c", "from chainforge.cli import cli; cli()", "mock-teacher", "--port", "0"]


def post(url: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
    asked = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), headers, method="POST"
    )
    try:
        with urllib.request.urlopen(asked, timeout=300) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.dearest
@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_the_load_teachers_the_profile_and_ends_with_the_bill(
    root: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    command = [*COMMAND, "--faults", "server_error=1.0", "--ledger", str(ledger), "--dialect", "vllm"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().split()[4]
            refused, _ = post(url, question(), label())
            status, answer = post(url, question(), label(attempt=1))
        finally:
            server.send_signal(ending)
            said = server.stdout.read()
    assert (refused, status, server.returncode) == (500, 200, 0)
    message = answer["choices"][0]["message"]
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert message["reasoning"]
    assert [line["status"] for line in lines] == [500, 200]
    table = {line[:24].strip(): line[24:] for line in said.splitlines()}
    assert (table["requests"], table["answers"], table["by fault"]) == ("2", "1", "1 server_error")
    assert Decimal(table["billed usd"]) == Decimal(lines[1]["cost"]) > 0


@pytest.mark.slow
def test_the_teachers_are_those_of_the_profile_s_collecting_steps(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    plugins = load_plugins()
    expected = []
    for name, wrong in (("procedural", 0.03), ("procedural_instructions", 0.03)):
        entry = plugins.pick("teachers", name)
        terse = 0.35 if name == "procedural" else 0.3
        expected.append(
            entry.component(**plugin_settings(entry, {"terse_fraction": terse, "wrong_fraction": wrong}))
        )
    assert [vars(teacher) for teacher in load_teachers("tiny")] == [vars(teacher) for teacher in expected]
    assert load_teachers("none") == []
    with pytest.raises(ChainForgeError, match="there is no profile called 'tny'"):
        load_teachers("tny")


def test_faults_come_from_a_text_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("rates: {hang: 0.5}\nseed: 9\n")
    assert read_faults(None, None, None) == FaultScript()
    assert read_faults("hang=0.5", 4, 2) == FaultScript(rates={"hang": 0.5}, seed=4, attempts=2)
    assert read_faults(str(path), None, None) == FaultScript(rates={"hang": 0.5}, seed=9)
    assert read_faults(str(path), 4, 0).seed == 4
    with pytest.raises(ChainForgeError, match=r"there is no file nowhere\.yaml"):
        read_faults("nowhere.yaml", None, None)


def test_prices_are_free_or_three_numbers() -> None:
    assert read_prices("free") == FREE
    assert read_prices(None) == PRICES
    prices = read_prices("1,2,3.5")
    assert (prices.hit, prices.miss, prices.output, prices.peak_hours) == (1, 2, Decimal("3.5"), ())
    for text in ("1,2", "a,b,c", "", "1,2,-3", "1,2,nan"):
        with pytest.raises(ChainForgeError, match="--prices"):
            read_prices(text)


def test_every_fault_is_listed() -> None:
    told = CliRunner().invoke(cli, ["mock-teacher", "--list-faults"])
    assert told.exit_code == 0
    assert [line.split()[0] for line in told.output.splitlines()[1:]] == list(FAULTS)


def test_a_wrong_fault_is_told_in_two_lines(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    told = CliRunner().invoke(cli, ["mock-teacher", "--faults", "hangs=0.5"])
    assert told.exit_code == 1
    assert "did you mean 'hang'" in told.output


def test_without_its_extra_it_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    for module in SERVING:
        monkeypatch.delitem(sys.modules, f"chainforge.mock_teacher.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    ended = CliRunner().invoke(cli, ["mock-teacher", "--port", "0"])
    assert ended.exit_code == 1
    assert isinstance(ended.exception, SystemExit)
    assert ended.stderr.splitlines() == [
        "Error: chainforge mock-teacher needs the package aiohttp",
        "  -> pip install 'chainforge-r1[mock-teacher]'",
    ]
    assert CliRunner().invoke(cli, ["mock-teacher", "--list-faults"]).exit_code == 0


@pytest.mark.slow
def test_nothing_but_the_server_imports_its_library() -> None:
    found = set()
    for path in (path for path in project_files() if path.suffix == ".py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "aiohttp" for name in names):
                found.add(path.relative_to(ROOT / "chainforge/mock_teacher").stem)
    assert found == SERVING
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needing = {name for name, lines in project["optional-dependencies"].items() if "aiohttp" in str(lines)}
    assert needing == {"mock-teacher", "dev"}
    assert "aiohttp" not in str(project["dependencies"])


@pytest.mark.slow
def test_no_other_command_waits_for_the_server_s_library() -> None:
    code = "import sys, chainforge.cli; print({'aiohttp', 'torch', 'openai'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"


@pytest.mark.slow
def test_a_ledger_that_cannot_be_written_stops_it_before_it_serves(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "nowhere" / "x.jsonl", tmp_path, tmp_path / "pipe"):
        told = CliRunner().invoke(cli, ["mock-teacher", "--port", "0", "--ledger", str(path)])
        assert told.exit_code == 1, told.output
        assert "the ledger cannot be written" in told.stderr
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.dear
@pytest.mark.parametrize(
    "content",
    [b"rates: 2024-13-45", b"rates: [", b"\xff", b"- 1", b"x: " + b"[" * 5000, b"seed: " + b"9" * 6000],
)
def test_a_file_of_faults_that_is_none_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "faults.yaml").write_bytes(content)
    told = CliRunner().invoke(cli, ["mock-teacher", "--faults", str(tmp_path / "faults.yaml")])
    assert told.exit_code == 1, told.output
    assert isinstance(told.exception, SystemExit)
    assert "\n  -> " in told.stderr
