"""What surrounds every stage script."""

import ast
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from chainforge.config.grpo import GrpoSettings
from chainforge.errors import ChainForgeError
from chainforge.plugins import Plugins
from chainforge.project.stage import Run, run_stage, stage
from chainforge.run.ending import Interrupted

LOCK = ["stages/lock.py", "lock"]


class Odd(BaseException):
    """Neither an Exception nor one of Python's own."""


@pytest.fixture(autouse=True)
def _in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).symlink_to(root / name)


def raises(error: BaseException) -> Callable[[str], None]:
    def main(_: str) -> None:
        raise error

    return main


@pytest.mark.parametrize(
    "main",
    [
        raises(SystemExit(0)),
        raises(SystemExit()),
        raises(KeyboardInterrupt()),
        raises(GeneratorExit()),
        raises(Odd("odd")),
        lambda _: os._exit(0),
        lambda _: sys.exit("bye"),
        lambda _: os.execv("/bin/true", ["true"]),
    ],
)
def test_whatever_a_step_does_it_ends_well_only_where_it_has_ended(
    main: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_stage(main, LOCK) == 1
    problem, fix = capsys.readouterr().err.strip().splitlines()
    assert problem.startswith("lock: ")
    assert fix.startswith("  -> ")
    assert "logs/lock.traceback.txt" in fix
    assert Path("logs/lock.traceback.txt").is_file()
    assert not Path("logs/lock.json").exists()


def test_a_lack_of_memory_is_two_lines_that_say_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_stage(raises(MemoryError()), LOCK) == 1
    problem, fix = capsys.readouterr().err.strip().splitlines()
    assert problem.startswith("lock: there is not enough memory")
    assert "runtime.micro_batch_tokens" in fix
    assert not Path("logs/lock.json").exists()


def test_a_step_that_ends_leaves_a_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_stage(lambda _: None, LOCK) == 0
    assert Path("logs/lock.json").is_file()
    assert capsys.readouterr().err == ""


def test_ctrl_c_is_no_error_of_a_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_stage(raises(Interrupted()), LOCK) == 1
    assert "stopped at once; run the same command again" in capsys.readouterr().err


def test_an_error_has_its_own_exit_code() -> None:
    error = ChainForgeError("no key", "set one")
    error.exit_code = 3
    assert run_stage(raises(error), LOCK) == 3


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["stages/grpo.py"],
            "takes one step, found 0 arguments: ''\n.*STEP is one of: grpo_reasoning, grpo_final",
        ),
        (["stages/lock.py", "a", "b"], "takes one step, found 2 arguments: 'a b'"),
        (["stages/lock.py", "--what"], "no step in dvc.yaml called '--what'\n  -> known: lock"),
        (["stages/lock.py", "\udcff"], "no step in dvc.yaml called"),
        (["stages/sft.py", "grpo_final"], "no step in dvc.yaml called 'grpo_final'"),
    ],
)
def test_a_command_line_that_names_no_step(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_: str) -> None:
        pytest.fail("it ran")

    assert run_stage(main, argv) == 1
    told = capsys.readouterr().err
    assert re.search(words, told), told


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_runs_nothing(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_stage(raises(RuntimeError()), ["stages/grpo.py", option]) == 0
    assert "usage: python -m stages.grpo STEP" in capsys.readouterr().out


SCRIPTS = [path for path in (Path(__file__).parents[1] / "stages").glob("[a-z]*.py") if path.stem != "lock"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_stage_script_holds_its_inputs_by_one_line(script: Path) -> None:
    (main,) = (
        node
        for node in ast.parse(script.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    (line,) = map(ast.unparse, main.decorator_list)
    assert re.fullmatch(r"stage\(\w+\)", line)


@pytest.mark.parametrize(
    ("kind", "urls", "taken"), [("vllm", [], 2), ("local", [], 0), ("vllm", ["http://localhost:8000"], 0)]
)
def test_gpus_of_servers_are_kept_from_the_processes_of_the_steps_that_start_them(
    kind: str, urls: list[str], taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = YAML(typ="safe", pure=True).load(Path("params.yaml").read_text(encoding="utf-8"))
    params["runtime"]["vllm"] = {"gpus": 2, "urls": urls}
    params["grpo"]["engine"] = {"kind": kind}
    Path("params.yaml").unlink()
    Path("params.yaml").write_text(json.dumps(params), encoding="utf-8")
    asked: list[int] = []
    monkeypatch.setattr("chainforge.project.stage.count_processes", lambda _, taken: asked.append(taken) or 1)

    @stage(GrpoSettings)
    def main(run: Run[GrpoSettings]) -> None: ...

    run_stage(main, ["stages/grpo.py", "grpo_final"], several_processes=True)
    assert asked == [taken]


def test_inputs_are_held_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []

    @contextmanager
    def hold(name: str, *_: object) -> Iterator[str]:
        did.append(f"held for {name}")
        yield "inputs"
        did.append("compared")

    monkeypatch.setattr("chainforge.project.stage.load_plugins", Plugins)
    monkeypatch.setattr("chainforge.project.stage.hold_inputs", hold)

    @stage(GrpoSettings)
    def main(run: Run[GrpoSettings]) -> None:
        did.append(f"{run.inputs} of {run.step.name}, {run.settings.num_rl_steps > 0}")

    main("grpo_final")
    assert did == ["held for grpo_final", "inputs of grpo_final, True", "compared"]
