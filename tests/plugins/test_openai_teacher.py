"""A teacher behind an OpenAI-compatible API fits the hook as it is: a client of the `openai` package."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import openai
import pytest
from fakes import make_step

import chainforge as cf
from chainforge.loops.collect import collect
from chainforge.run.work import Work

PROMPTS = [
    cf.Prompt(f"p{n}", "toy", ({"role": "user", "content": f"{n}+1=?"},), str(n + 1)) for n in range(12)
]


class Api(BaseHTTPRequestHandler):
    """Answers `n+1=?` the way DeepSeek's API does, reasoning beside the content."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = int(asked["messages"][-1]["content"].partition("+")[0])
        message = {"role": "assistant", "content": str(number + 1), "reasoning_content": f"after {number}"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@dataclass(frozen=True, kw_only=True)
class ApiTeacher:
    """What a plugin author would write; answers come in whatever order they arrive."""

    base_url: str

    def generate(self, prompts: Sequence[cf.Prompt], *, n: int, seed: int) -> Iterator[cf.Trace]:
        with openai.OpenAI(base_url=self.base_url, api_key="none") as client, ThreadPoolExecutor(4) as pool:

            def ask(prompt: cf.Prompt) -> cf.Trace:
                reply = client.chat.completions.create(model="m", messages=list(prompt.messages), seed=seed)
                message = reply.choices[0].message
                reasoning = message.model_extra["reasoning_content"]
                return cf.Trace(prompt.id, reasoning, message.content, "stop", "api")

            yield from reversed(list(pool.map(ask, [p for p in prompts for _ in range(n)])))


@pytest.fixture
def base_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_an_openai_client_collects_through_the_hook(
    base_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    traces = collect(ApiTeacher(base_url=base_url), PROMPTS, 2, make_step("collect_cot"), Work())
    assert [trace.prompt_id for trace in traces] == [p.id for p in PROMPTS for _ in range(2)]
    assert all(t.content == PROMPTS[int(t.prompt_id[1:])].answer for t in traces)
    assert traces[0].reasoning == "after 0"
