"""The whole pipeline at its smallest, run once for all these tests."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import clone as clones
import pytest
from clone import Clone, Finished, copy_clone, environment, make_clone
from tree import ROOT

from chainforge.run import warm_start
from chainforge.run.warm_start import start_server

# What a stand-in and `lock` import. It is this checkout's code, which reads the clone that it is started in.
OF_STAND_INS = (
    *("chainforge.config.verbs", "chainforge.plugins", "chainforge.project.held_inputs"),
    *("chainforge.project.lock_diff", "chainforge.project.preflight.project", "chainforge.run.finished"),
    *("chainforge.report.compare.gate", "chainforge.run.step"),
)


@pytest.fixture(scope="session", autouse=True)
def warm() -> Iterator[None]:
    """Steps that tests wait for share one import of torch; those that they kill or interrupt do not."""
    server = start_server(environment())
    if server is None:
        yield
        return
    clones.WARM.append(str(server.folder))
    yield
    clones.WARM.clear()
    server.process.kill()
    server.process.wait()
    shutil.rmtree(server.folder)


@pytest.fixture(scope="session")
def stand_by() -> Iterator[tuple[str, ...]]:
    """Folders for PATH in which the steps of a stand-in graph share one import of ChainForge."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm_start, "VERBS", [path.stem for path in (ROOT / "stages").glob("[a-z]*.py")])
        server = start_server(environment(), OF_STAND_INS)
    if server is None:
        yield ()
        return
    yield (str(server.folder),)
    server.process.kill()
    server.process.wait()
    shutil.rmtree(server.folder)


def make_finished(folder: Path) -> None:
    """Every step is a real one; two of the checkpoints are evaluated."""
    clone = make_clone(folder)
    clone.put("checkpoints", ["qwen_sft_ckpt", "qwen_rl_ckpt_stage2"])
    clone.put("runtime.keep_completions", True)
    clone.put("report.parents", {"qwen_rl_ckpt_stage2": "qwen_sft_ckpt"})
    clone.commit("two are evaluated")
    steps = clone.repro()
    (folder / "logs/steps.json").write_text(json.dumps(steps))


@pytest.fixture(scope="session")
def finished(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Finished:
    """Look, but do not touch."""
    clone = Clone(made_once("finished", make_finished))
    return Finished(clone, tuple(json.loads((clone.folder / "logs/steps.json").read_text())))


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Clone:
    """A finished clone of one's own, to change."""
    return copy_clone(finished.clone, tmp_path / "copy")
