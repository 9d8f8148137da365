"""`chainforge watch`: one frame, one page, one server; hostile completions are shown and never obeyed."""

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fakes import completion, prompt

from chainforge.cli import cli
from chainforge.records import Group, Score
from chainforge.run.live import Live
from chainforge.run.metrics import StepTable
from chainforge.watching.page import POLICY
from chainforge.watching.read import Reader
from chainforge.watching.run import look
from chainforge.watching.serve import make_server

HOSTILE = (
    "<script>alert(1)</script>",
    "</pre></details><img src=x onerror=alert(1)>",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe",
    "[bold red]markup[/bold red] [/] {{ 7*7 }}",
    "w" * 10_000,
    "\ud800",
)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a GRPO step has left whose every text is hostile, the name of its reward as well."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run/logs"
    live = Live(folder / "grpo_reasoning")
    table = StepTable(folder / "grpo_reasoning.csv", ["reward", "rewards/<b>x\x1b[0m/mean"])
    for number, text in zip(live.follow(HOSTILE, HOSTILE[0], "step", 7, 0), HOSTILE, strict=True):
        asked = prompt(len(number), text, text)
        live.show([Group(asked, [completion(asked, text)] * 2, [Score(0.5, {"<i>": 0.5})] * 2)])
    for step in range(1, 8):
        table.add(step, reward=step / 7)
    return folder


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["watch", *arguments])
    assert result.exit_code == code, result.output
    return result


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def test_one_frame_shows_the_run_and_changes_nothing(logs: Path) -> None:
    before = snapshot(logs.parent)
    shown = run("--logs", str(logs), "--once").stdout
    for said in (
        "grpo_reasoning",
        "7 of 7 steps (100%)",
        "reward",
        "▁",
        "answer:",
        "▶ grpo_reasoning running",
    ):
        assert said in shown
    run("--logs", str(logs), "--once", "--web")
    told = json.loads(run("--logs", str(logs), "--json").stdout)
    assert (told["step"], told["done"], told["total"], told["last"]["reward"]) == (
        "grpo_reasoning",
        7,
        7,
        1.0,
    )
    assert snapshot(logs.parent) == before


def test_without_a_terminal_it_prints_one_frame_and_says_so(logs: Path) -> None:
    result = run("--logs", str(logs))
    assert "grpo_reasoning" in result.stdout
    assert "no terminal" in result.stderr


def test_nothing_in_a_frame_or_a_page_is_obeyed(logs: Path) -> None:
    for flags in (("--once",), ("--once", "--web")):
        shown = run("--logs", str(logs), *flags).stdout
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", shown)
    assert shown.count("<script>") == 1
    assert "<img" not in shown
    assert "<i>" not in shown
    assert "<b>x" not in shown
    assert "&lt;script&gt;alert(1)" in shown
    assert "{{ 7*7 }}" in shown
    assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?(https?:)?//", shown), "nothing comes from outside"
    assert POLICY in shown.replace("&#39;", "'")


def test_a_folder_or_a_step_that_is_not_there_is_named(logs: Path) -> None:
    assert "there is no folder" in run("--logs", "missing", "--once", code=1).stderr
    assert "grpo_reasoning" in run("--logs", str(logs), "--step", "grpo_reasonin", code=1).stderr


@pytest.fixture
def address(logs: Path) -> Iterator[str]:
    reader = Reader()
    with make_server(lambda: look(logs, [], reader, 2e9), 1.0, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def ask(address: str, **headers: str) -> tuple[int, Any, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


@pytest.mark.slow
def test_the_server_has_one_page_for_this_machine(address: str, logs: Path) -> None:
    status, headers, page = ask(f"{address}/?any")
    assert (status, "grpo_reasoning" in page) == (200, True)
    assert POLICY in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(f"{address}/../params.yaml")[0] == 404
    assert ask(address, Host="evil.example:80")[0] == 403
    (logs / "grpo_reasoning.csv").unlink()
    assert ask(address)[0] == 200
