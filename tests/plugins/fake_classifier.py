"""A stand-in for `vllm serve MODEL --runner pooling --convert classify`, over a tiny classifier: its numbers
are true. It can be told what goes wrong."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

DROP = "the connection, without a word"


@dataclass
class Classifier:
    """`faults` are taken one per request for scores: a status, DROP, or what to answer in place of scores."""

    model: Any
    tokenizer: Any
    name: str = "rm"
    key: str | None = None
    longest: int = 512
    version: str = "0.32.0"
    owner: str = "vllm"
    url: str = ""
    faults: list[int | str | dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def answer(self, path: str, body: Any, sent_key: str | None) -> tuple[int, Any]:
        if path == "/version":
            return 200, {"version": self.version}
        if self.key and sent_key != f"Bearer {self.key}":
            return 401, {"error": f"Unauthorized: {sent_key} is not it"}
        if path == "/v1/models":
            card = {"id": self.name, "owned_by": self.owner, "max_model_len": self.longest}
            return 200, {"object": "list", "data": [card]}
        if path != "/classify":
            return 404, {"detail": "Not Found"}
        with self.lock:
            self.asked.append(body)
            fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, int):
            return fault, {"error": {"message": f"it is broken, {sent_key}", "code": fault}}
        return (0, None) if fault == DROP else (200, fault or self.classify(body))

    def classify(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body["truncate_prompt_tokens"] <= self.longest, "vLLM refuses that"
        text = self.tokenizer.apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=body["add_generation_prompt"]
        )
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        most = body["truncate_prompt_tokens"]
        ids = ids[-most:] if body.get("truncation_side") == "left" else ids[:most]
        with self.lock, torch.no_grad():
            scores = self.model(input_ids=torch.tensor([ids])).logits[0]
        if body.get("use_activation") is not False:
            scores = scores.softmax(-1) if len(scores) > 1 else scores.sigmoid()
        label = self.model.config.id2label[int(scores.argmax())]
        item = {"index": 0, "label": label, "probs": scores.tolist(), "num_classes": len(scores)}
        return {"object": "list", "model": self.name, "data": [item]}


@contextmanager
def serving(classifier: Classifier) -> Iterator[Classifier]:
    class Api(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def reply(self, body: Any) -> None:
            status, said = classifier.answer(self.path, body, self.headers["Authorization"])
            if not status:
                self.close_connection = True
                return
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    classifier.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield classifier
    finally:
        server.shutdown()
        server.server_close()
