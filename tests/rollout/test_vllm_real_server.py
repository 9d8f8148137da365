"""Starting, refusing and ending real servers: vLLM with SmolLM2, where one is installed (docs/vllm.md).

CHAINFORGE_VLLM=/path/of/vllm/env/bin/vllm CHAINFORGE_VLLM_MODEL=/path/of/SmolLM2 pytest -m server
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from fakes import make_step, policy

from chainforge.config.run import RunSettings
from chainforge.config.vllm import VllmSettings
from chainforge.errors import ChainForgeError
from chainforge.models.checkpoint import Policy, load_policy
from chainforge.rollout.vllm.server import Servers, join_servers, start_servers
from chainforge.run.step import Step

pytestmark = [pytest.mark.server, pytest.mark.slow]

VLLM, MODEL = os.environ.get("CHAINFORGE_VLLM"), os.environ.get("CHAINFORGE_VLLM_MODEL")
MAX_LEN = 256


@pytest.fixture(scope="module")
def smollm2() -> Policy:
    if not VLLM or not MODEL:
        pytest.skip("set CHAINFORGE_VLLM and CHAINFORGE_VLLM_MODEL: see docs/vllm.md")
    return load_policy(Path(MODEL), torch.device("cpu"))


def step_of(**vllm: object) -> Step:
    settings = VllmSettings.model_validate({"command": VLLM, **vllm})
    step = make_step("grpo", vllm=settings, rollout_rows=16)
    return Step(step.name, RunSettings(precision="bfloat16"), step.runtime)


@pytest.fixture
def servers(smollm2: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    monkeypatch.chdir(tmp_path)
    assert MODEL
    started = start_servers(Path(MODEL).resolve(), step_of(), smollm2, max_len=MAX_LEN)
    yield started
    started.close()


def below() -> list[psutil.Process]:
    """All processes that this one has started, and that run."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


def eventually(holds: Callable[[], bool], within_s: float = 60.0) -> bool:
    end = time.monotonic() + within_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.1)
    return holds()


def test_it_serves_what_the_step_needs_others_join_it_or_are_refused_and_closed_nothing_is_left(
    servers: Servers, smollm2: Policy
) -> None:
    before = below()
    assert any("EngineCore" in " ".join([process.name(), *process.cmdline()]) for process in before)
    servers.check_alive("sampling")
    step = step_of(urls=servers.urls)
    joined = join_servers(step, smollm2, max_len=MAX_LEN)
    assert joined.model == servers.model
    joined.close()  # which ends nothing
    servers.check_alive("sampling")
    for other, length, said in (
        (smollm2, MAX_LEN + 1, f"serves up to {MAX_LEN} tokens"),
        (policy(), MAX_LEN, "serves another model than the checkpoint's"),
        (Policy(smollm2.model, policy().tokenizer), MAX_LEN, "another tokenizer"),
    ):
        with pytest.raises(ChainForgeError, match=said):
            join_servers(step, other, max_len=length)
    servers.close()
    assert eventually(lambda: not [process for process in below() if process in before])


def test_one_whose_arguments_give_raw_logprobs_is_refused(
    smollm2: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert MODEL
    step = step_of(arguments=["--logprobs-mode", "raw_logprobs"])
    with pytest.raises(ChainForgeError, match="log-probabilities of the raw logits"):
        start_servers(Path(MODEL).resolve(), step, smollm2, max_len=MAX_LEN)


def test_it_says_why_it_did_not_start(
    smollm2: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    step = step_of(arguments=["--no-such-argument"])
    with pytest.raises(ChainForgeError, match="vLLM ended before it served") as told:
        start_servers(tmp_path, step, smollm2, max_len=MAX_LEN)
    assert "no-such-argument" in told.value.problem
    with pytest.raises(ChainForgeError, match="vLLM ended before it served") as told:
        start_servers(tmp_path / "absent", step_of(), smollm2, max_len=MAX_LEN)
    assert "absent" in told.value.problem.partition(":")[2]


def test_where_its_engine_is_killed_the_step_is_told(servers: Servers) -> None:
    engine = next(p for p in below() if "EngineCore" in " ".join([p.name(), *p.cmdline()]))
    os.kill(engine.pid, signal.SIGKILL)
    told: list[str] = []

    def is_told() -> bool:
        try:
            servers.check_alive("sampling")
        except ChainForgeError as error:
            told.append(error.problem)
        return bool(told)

    assert eventually(is_told)
    assert "while sampling" in told[0]
