"""vLLM servers of a step: where they run, how they start and end, and which ones are refused."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from fake_vllm import fake_command, serving
from fakes import MadeUp, make_step, policy, prompt, qwen2, tokenizer

from chainforge.config.sampling import SamplingSettings
from chainforge.config.vllm import VllmSettings
from chainforge.errors import ChainForgeError
from chainforge.models.checkpoint import Policy, save_policy
from chainforge.providers.secrets import environment_without_keys
from chainforge.rollout.complete import complete, longest_sequence
from chainforge.rollout.vllm import server
from chainforge.rollout.vllm.command import MODEL, Plan, serve_arguments, serve_environment
from chainforge.rollout.vllm.gpus import place_servers, visible_gpus
from chainforge.rollout.vllm.process import ServerProcess, find_program
from chainforge.rollout.vllm.room import context_len, cpu_cache_gib, memory_share, most_taken
from chainforge.rollout.vllm.server import Servers, count_sharing, join_servers, start_servers
from chainforge.run.step import Step

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0
FOUR, EIGHT = tuple("0123"), tuple("01234567")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint."""
    made = tmp_path_factory.mktemp("served") / "policy"
    save_policy(policy(), made)
    return made


@pytest.fixture(autouse=True)
def in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def step_of(**vllm: Any) -> Step:
    return make_step(vllm=VllmSettings(**vllm), rollout_rows=64)


def eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


# Where they run


@pytest.mark.parametrize(
    ("visible", "gpus", "tensor_parallel", "learners", "places"),
    [
        ((), 0, 1, 1, [()]),  # a CPU
        (("0",), 0, 1, 1, [("0",)]),  # one GPU, shared
        (EIGHT, 0, 1, 8, [(name,) for name in EIGHT]),  # each shared
        (EIGHT, 0, 2, 8, [("0", "1"), ("2", "3"), ("4", "5"), ("6", "7")]),
        (EIGHT, 0, 1, 1, [("0",)]),  # a learner of one process uses one of them
        (EIGHT, 2, 1, 6, [("6",), ("7",)]),
        (EIGHT, 4, 2, 4, [("4", "5"), ("6", "7")]),
        (("GPU-a", "GPU-b"), 1, 1, 1, [("GPU-b",)]),
    ],
)
def test_servers_get_the_last_gpus_or_those_of_the_learner(
    visible: tuple[str, ...], gpus: int, tensor_parallel: int, learners: int, places: list[tuple[str, ...]]
) -> None:
    settings = VllmSettings(gpus=gpus, tensor_parallel=tensor_parallel)
    assert place_servers(visible, settings, learners) == places


@pytest.mark.parametrize(
    ("visible", "gpus", "tensor_parallel", "learners", "said"),
    [
        ((), 1, 1, 1, "on a CPU"),
        ((), 0, 2, 1, "on a CPU"),
        (FOUR, 4, 1, 1, "of 4 GPUs the learner needs 1"),
        (FOUR, 2, 1, 3, "the learner needs 3"),
        (FOUR, 3, 2, 1, "the servers have 3 GPUs"),
        (FOUR, 0, 2, 1, "the servers have 1 GPUs"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(
    visible: tuple[str, ...], gpus: int, tensor_parallel: int, learners: int, said: str
) -> None:
    with pytest.raises(ChainForgeError, match=said):
        place_servers(visible, VllmSettings(gpus=gpus, tensor_parallel=tensor_parallel), learners)


def test_gpus_keep_the_names_that_the_environment_gives_them() -> None:
    assert visible_gpus(2, {}) == ("0", "1")
    assert visible_gpus(2, {"CUDA_VISIBLE_DEVICES": "5,GPU-x"}) == ("5", "GPU-x")


def test_a_step_of_one_process_that_trains_nothing_has_servers_on_all_its_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    step = step_of()
    assert count_sharing(step, frozen=True) == 1
    many = replace(step, runtime=step.runtime.model_copy(update={"processes": "auto", "device": "auto"}))
    assert count_sharing(many, frozen=True) == 4
    assert count_sharing(many, frozen=False) == 1
    apart = many.runtime.vllm.model_copy(update={"gpus": 2})
    runtime = many.runtime.model_copy(update={"vllm": apart})
    assert count_sharing(replace(many, runtime=runtime), frozen=True) == 1


def test_a_server_takes_what_the_learner_leaves() -> None:
    gpu, weights = 24e9, 6.2e9  # Qwen2.5-1.5B in float32
    shared = VllmSettings()
    assert memory_share(shared, gpu, weights + 1e9, 3.1e9) == pytest.approx(0.617, abs=0.002)
    assert memory_share(shared, gpu, 0, 0) == 0.9
    assert memory_share(VllmSettings(gpus=1), gpu, 0, 3.1e9) == 0.9
    assert memory_share(VllmSettings(memory_share=0.3), gpu, weights, 3.1e9) == 0.3
    with pytest.raises(ChainForgeError, match=r"beside the learner 0\.0 of 24\.0 GB"):
        memory_share(shared, gpu, most_taken(weights, weights, 3 * weights, 1), 3.1e9)


def test_where_processes_share_the_weights_what_counts_is_the_whole_model_before_they_do() -> None:
    """Qwen2.5-7B on eight GPUs with 80 GB: 30.5 GB of weights, and 91 GB of moments and reference."""
    weights, others = 30.5e9, 0.5e9
    assert most_taken(weights + others, weights, 3 * weights, 8) == weights + others
    assert most_taken(weights + others, weights, 3 * weights, 1) == 4 * weights + others
    assert most_taken(weights + others, weights, 3 * weights, 2) == 2 * weights + others
    assert memory_share(VllmSettings(), 80e9, weights + others, 15.2e9) == pytest.approx(0.587, abs=0.002)


def test_on_a_cpu_keys_and_values_of_a_full_batch_get_room_but_at_most_half_of_what_is_free() -> None:
    assert cpu_cache_gib(0, 8 * 2**30) == 1
    assert cpu_cache_gib(2.5 * 2**30, 8 * 2**30) == 3
    assert cpu_cache_gib(100 * 2**30, 8 * 2**30) == 4


def test_the_context_is_what_is_wanted_where_the_model_has_it() -> None:
    made = policy()
    assert context_len(made, 100) == 100
    assert context_len(made, None) == 512
    with pytest.raises(ChainForgeError, match="up to 513 tokens, and the model's context is 512"):
        context_len(made, 513)


def test_the_longest_sequence_is_the_longest_prompt_as_it_is_asked_with_the_longest_completion() -> None:
    step, settings, prompts = make_step(), SamplingSettings(max_new_tokens=7), [prompt(1), prompt(20)]
    engine = MadeUp()
    complete(engine, tokenizer(), prompts, 1, settings, step, seed=lambda place, number: 0)
    asked = max(len(request.prompt_ids) for request in engine.asked)
    assert longest_sequence(tokenizer(), prompts, settings, step) == asked + 7


# What they are called with


def test_the_command_line_says_all_that_sampling_depends_on() -> None:
    plan = Plan(Path("m"), "bfloat16", 64, 768, 17, 1234)
    line = " ".join(serve_arguments(plan, VllmSettings(arguments=["--block-size", "32"])))
    assert line == (
        "serve m --served-model-name policy --host 127.0.0.1 --port 1234 --dtype bfloat16 "
        "--max-model-len 768 --max-num-seqs 64 --seed 17 --generation-config vllm "
        "--logprobs-mode processed_logprobs --max-logprobs -1 --disable-uvicorn-access-log "
        "--enforce-eager --no-enable-chunked-prefill --max-num-batched-tokens 4096 --block-size 32"
    )


def test_on_gpus_it_has_their_memory_and_may_sleep_and_an_adapter_has_a_rank_that_vllm_knows() -> None:
    plan = Plan(Path("m"), "bfloat16", 64, 768, 17, 1, ("2", "3"), memory=0.45, adapter_rank=12, sleeps=True)
    line = " ".join(serve_arguments(plan, VllmSettings()))
    for part in (
        "--tensor-parallel-size 2 --gpu-memory-utilization 0.450",
        "--enable-sleep-mode",
        "--enable-lora --max-lora-rank 16 --max-loras 1",
    ):
        assert part in line
    assert "--enforce-eager" not in line


def test_a_server_sees_its_gpus_and_neither_keys_nor_the_launchers_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("DEEPSEEK_API_KEY", "HF_TOKEN", "VLLM_API_KEY", "RANK", "MASTER_ADDR", "PYTHONPATH"):
        monkeypatch.setenv(name, "secret-or-ours")
    monkeypatch.setenv("HF_HOME", "/cache")
    plan = Plan(Path("m"), "bfloat16", 64, 768, 17, 1, ("2", "3"), adapter_rank=8)
    seen = serve_environment(plan, environment_without_keys())
    assert "secret-or-ours" not in seen.values()
    assert seen["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert seen["HF_HOME"] == "/cache"
    assert seen["VLLM_SERVER_DEV_MODE"] == seen["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert seen["VLLM_NO_USAGE_STATS"] == seen["HF_HUB_OFFLINE"] == "1"
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in serve_environment(Plan(Path("m"), "", 1, 1, 1, 1), {})


# How they start and end


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that needs no torch, and so starts soon."""
    monkeypatch.setattr(server, "check_server", lambda *_, **__: MODEL)


def start(folder: Path, tmp_path: Path, *, limit: float = PATIENCE_S, **faults: Any) -> Servers:
    program = fake_command(tmp_path, **faults)
    step = step_of(command=str(program), start_timeout_s=limit)
    return start_servers(folder, step, policy())


def children(log: Path) -> list[psutil.Process]:
    """The processes that a stand-in says it has started."""
    pids = [int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("child ")]
    return [psutil.Process(pid) for pid in pids]


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_started_server_serves_the_folder(folder: Path, tmp_path: Path) -> None:
    servers = start(folder, tmp_path)
    try:
        assert (servers.model, servers.max_len, len(servers.urls)) == (MODEL, 512, 1)
        servers.check_alive("sampling")
    finally:
        servers.close()


def test_closed_it_is_gone_with_what_it_has_started(folder: Path, tmp_path: Path, unchecked: None) -> None:
    servers = start(folder, tmp_path, child=True)
    (child,) = children(Path("logs/grpo_reasoning.vllm.log"))
    servers.check_alive("sampling")
    servers.close()
    assert eventually(lambda: is_gone(child))
    assert not [p for p in psutil.Process().children(recursive=True) if "fake_vllm" in " ".join(p.cmdline())]


HOLDER = """
import sys, time
from pathlib import Path
from chainforge.rollout.vllm.process import ServerProcess
held = ServerProcess(sys.argv[2:], {}, Path(sys.argv[1]))
time.sleep(1000)
"""


@pytest.mark.parametrize("deaf", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_killed_with_its_step_it_is_gone(deaf: bool, folder: Path, tmp_path: Path) -> None:
    program, log = fake_command(tmp_path, child=True, deaf=deaf), tmp_path / "log"
    command = [sys.executable, "-c", HOLDER, str(log), str(program), "serve", str(folder), "--port", "0"]
    holder = subprocess.Popen(command)
    assert eventually(lambda: log.exists() and "loading" in log.read_text())
    (child,) = children(log)
    below = psutil.Process(holder.pid).children(recursive=True)
    assert child in below
    holder.kill()
    holder.wait()
    assert eventually(lambda: all(is_gone(process) for process in below))


def test_one_that_ends_before_it_serves_is_told_at_once(
    folder: Path, tmp_path: Path, unchecked: None
) -> None:
    with pytest.raises(ChainForgeError) as caught:
        start(folder, tmp_path, limit=1000, fail_start="ValueError: no room for keys and values")
    assert "exit code 1" in caught.value.problem
    assert "ValueError: no room for keys and values" in caught.value.problem
    assert "logs/grpo_reasoning.vllm.log" in caught.value.fix


def test_one_that_does_not_come_up_is_waited_for_no_longer_than_set(
    folder: Path, tmp_path: Path, unchecked: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        ChainForgeError, match=r"waited 1 s \(runtime.vllm.start_timeout_s\) for vLLM"
    ) as told:
        start(folder, tmp_path, limit=1.0, slow_start_s=1000.0)
    assert f"to load {folder}; its log: logs/grpo_reasoning.vllm.log" in told.value.problem
    assert "grpo_reasoning: vLLM loads" in capsys.readouterr().err


def test_a_program_that_is_not_there_is_named_with_the_way_to_install_it() -> None:
    with pytest.raises(ChainForgeError, match="there is no program 'no/such/vllm'") as told:
        find_program("no/such/vllm")
    assert "docs/vllm.md" in told.value.fix


def test_the_last_words_are_the_error_and_not_who_repeats_it(tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_text(
        "INFO loading\n(EngineCore pid=7) ERROR 11-28 [core.py:1] ValueError: too little memory\n"
        "Traceback (most recent call last):\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    process = ServerProcess(["cat", str(said)], os.environ, tmp_path / "log")
    assert eventually(lambda: process.ending() is not None)
    assert process.ending() == "exit code 0"
    assert process.last_words() == "ValueError: too little memory"
    process.close()


def test_a_server_that_is_killed_is_told_with_what_was_done(
    folder: Path, tmp_path: Path, unchecked: None
) -> None:
    servers = start(folder, tmp_path)
    try:
        served = [p for p in psutil.Process().children(recursive=True) if "--port" in p.cmdline()]
        os.kill(served[-1].pid, signal.SIGKILL)
        told = ""
        end = time.monotonic() + PATIENCE_S
        while "has ended" not in told and time.monotonic() < end:
            try:
                servers.check_alive("sampling 64 completions")
            except ChainForgeError as error:
                told = error.problem
        assert "has ended while sampling 64 completions (signal 9 (SIGKILL))" in told
    finally:
        servers.close()


# Which ones are joined, and which refused


def joined(url: str, of: Policy | None = None, *, max_len: int | None = 128, swaps: bool = True) -> Servers:
    return join_servers(step_of(urls=[url]), of or policy(), max_len=max_len, swaps=swaps)


def test_a_server_that_runs_is_joined_under_its_own_name(folder: Path) -> None:
    with serving(folder, name="mine") as (url, _):
        servers = joined(f"{url}/v1/")
        assert (servers.urls, servers.model, servers.max_len) == ([url], "mine", 128)
        servers.check_alive("sampling")
        servers.sleep()  # it is nobody's to send to sleep
        servers.close()


@pytest.mark.parametrize(
    ("served", "said"),
    [
        ({"max_len": 100}, "serves up to 100 tokens, and prompts with completions have up to 128"),
        ({"dev": False}, "without VLLM_SERVER_DEV_MODE=1"),
        ({"processed": False}, "raw logits"),
        ({"version": "0.27.3"}, r"has version 0\.27\.3, and ChainForge needs 0\.28 or newer"),
        ({"refuse_after": 0}, "EngineCore encountered an issue"),
    ],
)
def test_a_server_that_cannot_do_is_refused(served: dict[str, Any], said: str, folder: Path) -> None:
    with serving(folder, **served) as (url, _), pytest.raises(ChainForgeError, match=said):
        joined(url)


def test_one_without_dev_mode_will_do_where_no_weights_are_handed_over(folder: Path) -> None:
    with serving(folder, dev=False) as (url, _):
        joined(url, swaps=False)


def test_one_of_another_model_is_refused(folder: Path) -> None:
    other = Policy(qwen2(len(tokenizer()), hidden_size=24), tokenizer())
    said = f"serves another model than the checkpoint's: {folder} has hidden_size 16, the checkpoint 24"
    with serving(folder) as (url, _), pytest.raises(ChainForgeError, match=said):
        joined(url, other)


def test_one_of_another_tokenizer_is_refused(folder: Path) -> None:
    other = Policy(policy().model, tokenizer(("<a>", "</a>", "<b>", "</b>")))
    with serving(folder) as (url, _), pytest.raises(ChainForgeError, match="another tokenizer"):
        joined(url, other)


def test_a_url_that_nobody_serves_and_one_that_is_named_twice_are_refused(folder: Path) -> None:
    with pytest.raises(ChainForgeError, match=r"http://127\.0\.0\.1:9"):
        joined("http://127.0.0.1:9")
    with pytest.raises(ChainForgeError, match="names http://a twice"):
        join_servers(step_of(urls=["http://a", "http://a/v1"]), policy())


def test_a_newer_version_is_told_of_and_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(folder, version="0.99.0") as (url, _):
        joined(url)
    assert "ChainForge was tried with 0.28 to 0.33" in capsys.readouterr().err


# Sleep


def test_servers_that_share_the_learners_gpu_sleep_and_wake_once(folder: Path) -> None:
    with serving(folder) as (url, fake):
        servers = Servers(step_of(), [url], "policy", 128, sleeps=True)
        servers.wake()
        servers.sleep()
        servers.sleep()
        assert fake.asleep == {"weights", "kv_cache"}
        servers.wake(["weights"])
        assert fake.asleep == {"kv_cache"}
        servers.wake(["kv_cache"])
        servers.wake()
    assert [path for path, _ in fake.calls] == ["/sleep", "/wake_up", "/wake_up"]
    assert fake.calls[0][1]["level"] == ["1"]
