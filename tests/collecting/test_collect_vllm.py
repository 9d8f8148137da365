"""The collector against a real server: vLLM with a small model, where one is installed.

    CHAINFORGE_VLLM=/path/of/vllm/env/bin/vllm CHAINFORGE_VLLM_MODEL=/path/of/a/model pytest -m server

A model that small does not think, so its answers are held to the form `<think>…</think>…` by a pattern.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from asking import PLUGINS, prompts

from chainforge.config.collector import CollectorSettings
from chainforge.hookspecs import ApiTeacher
from chainforge.teachers.account import account_of
from chainforge.teachers.answers import answer_all
from chainforge.teachers.question import questions
from chainforge.teachers.stops import CollectionStopped
from chainforge.teachers.traces import traces_of

pytestmark = [pytest.mark.server, pytest.mark.slow]

VLLM, MODEL = os.environ.get("CHAINFORGE_VLLM"), os.environ.get("CHAINFORGE_VLLM_MODEL")
PATTERN = "<think>[a-z0-9+=. ]{10,40}</think>[0-9]{1,3}"
STARTS_WITHIN_S = 300
SETTINGS = CollectorSettings(concurrency=16, deadline_s=120)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of our own; `small` is the model's name there."""
    if not VLLM or not MODEL:
        pytest.skip("set CHAINFORGE_VLLM and CHAINFORGE_VLLM_MODEL: see docs/vllm.md")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [VLLM, "serve", MODEL, "--served-model-name", "small", "--port", str(port)]
    more = ["--max-model-len", "1024", "--dtype", "bfloat16", "--enforce-eager"]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    log = tmp_path_factory.mktemp("vllm") / "log"
    with log.open("wb") as said:
        server = subprocess.Popen([*command, *more], stdout=said, stderr=said, env=environment)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=60)


def wait_until_healthy(health: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urlopen(health) as answer:
                if answer.status == 200:
                    return
        except URLError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


def small(url: str, **settings: object) -> ApiTeacher:
    chosen = {"preset": "vllm", "base_url": url, "model": "small", "max_tokens": 64}
    teacher: ApiTeacher = PLUGINS.pick("teachers", "openai_compatible").component(**chosen | settings)
    return teacher


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_every_question_gets_an_answer_with_its_reasoning_apart(
    url: str, stream: bool, tmp_path: Path
) -> None:
    teacher = small(url, extra_body={"structured_outputs": {"regex": PATTERN}})
    asked = list(questions(teacher, prompts(24), 2, 17))
    settings = SETTINGS.model_copy(update={"stream": stream})
    paid = answer_all(teacher, asked, tmp_path, settings, about={"plugin": "openai_compatible"})
    traces = list(traces_of(teacher, asked, tmp_path, paid))
    assert [trace.prompt_id for trace in traces] == [question.prompt_id for question in asked]
    whole = [trace for trace in traces if trace.finish == "stop"]
    assert len(whole) > len(traces) // 2
    assert all(trace.content.isdigit() and "<" not in trace.reasoning for trace in whole)
    assert {trace.origin for trace in traces} == {"small"}
    account = account_of(tmp_path)
    assert set(account.sources) <= {"inline", "None"}
    assert account.tokens["output"] > 0
    assert len({trace.reasoning for trace in whole}) > 1  # two samples are two


def test_a_model_that_does_not_reason_is_told_of_soon(url: str, tmp_path: Path) -> None:
    teacher = small(url)
    asked = list(questions(teacher, prompts(60), 1, 17))
    with pytest.raises(CollectionStopped, match="without reasoning") as stopped:
        answer_all(teacher, asked, tmp_path, SETTINGS, about={"plugin": "openai_compatible"})
    assert stopped.value.exit_code == 8


def test_a_model_that_is_not_served_stops_the_run(url: str, tmp_path: Path) -> None:
    teacher = small(url, model="another")
    with pytest.raises(CollectionStopped, match="another") as stopped:
        answer_all(
            teacher,
            list(questions(teacher, prompts(8), 1, 17)),
            tmp_path,
            SETTINGS,
            about={"plugin": "openai_compatible"},
        )
    assert stopped.value.exit_code == 5
