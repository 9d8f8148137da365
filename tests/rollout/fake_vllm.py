"""A stand-in for `vllm serve`, for tests: the endpoints that ChainForge uses, over a tiny model, on a CPU.

    python tests/rollout/fake_vllm.py serve FOLDER --port 8000 --dtype float32 [what else vllm serve takes]

It draws tokens with ChainForge's own sampler and computes log-probabilities with transformers, so they are
true. Requests and replies have the shapes of vLLM 0.32, environment variables and flags the same effects. As
on a CPU, where the folder that it was started on ties its embeddings, `reload_weights` never changes the LM
head. What goes wrong is asked for by flags of its own (`Faults`).
`GET /fake/calls`: all that it was asked.
"""

import argparse
import json
import math
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

VERSION = "0.32.0"
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Faults:
    """What goes wrong. Counts are of requests for completions."""

    stale: bool = False  # says that it took new weights, and did not
    stale_from: int = 0  # so from this sync on, which counts from 1; 0: never
    die_after: int = -1  # ends itself, as if killed, when the next one arrives
    hang_after: int = -1  # never answers those that follow
    refuse_after: int = -1  # answers those that follow with status 500
    slow_start_s: float = 0.0  # before it listens
    fail_start: str = ""  # says this and ends with code 1, before it listens
    child: bool = False  # has a process of its own, as vLLM has EngineCore
    deaf: bool = False  # it and its child ignore SIGTERM
    version: str = VERSION
    sync_takes_s: float = 0.0


@dataclass
class Served:
    """What the flags of `vllm serve` and its environment decide."""

    folder: Path
    name: str
    max_len: int = 512
    dtype: str = "float32"
    processed: bool = True
    dev: bool = True
    lora: bool = True
    sleeps: bool = True
    faults: Faults = field(default_factory=Faults)


class Refused(Exception):
    """An error as vLLM reports it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Fake:
    """The state of one server. One request at a time computes."""

    def __init__(self, served: Served) -> None:
        self.served = served
        # all at once, as vLLM does: the step removes the folder as soon as the server is up
        self._files = {file.name: file.read_bytes() for file in served.folder.glob("*") if file.is_file()}
        self.calls: list[tuple[str, Any]] = []  # path and body
        self.adapters: dict[str, str] = {}
        self.syncs = 0
        self.completions = 0
        self.asleep: set[str] = set()
        self._merged: dict[str, Any] = {}
        self._lock = threading.RLock()

    def answer(self, path: str, query: dict[str, list[str]], body: Any) -> Any:
        """The reply as JSON, None for an empty one. Raises Refused."""
        self.calls.append((path, body | query if isinstance(body, dict) else query))
        dev = {
            "/reset_prefix_cache": lambda: {"success": True},
            "/sleep": lambda: self._sleep(query),
            "/wake_up": lambda: self._wake(query),
            "/is_sleeping": lambda: {"is_sleeping": bool(self.asleep)},
            "/pause": lambda: {"status": "paused"},
            "/resume": lambda: {"status": "resumed"},
            "/collective_rpc": lambda: self._rpc(body),
            "/server_info": lambda: {"vllm_config": {"model_config": {"model": str(self.served.folder)}}},
        }
        lora = {
            "/v1/load_lora_adapter": lambda: self._load_adapter(body),
            "/v1/unload_lora_adapter": lambda: self._unload_adapter(body),
        }
        known = {
            "/health": lambda: None,
            "/version": lambda: {"version": self.served.faults.version},
            "/v1/models": self._models,
            "/tokenize": lambda: self._tokenize(body),
            "/v1/completions": lambda: self._complete(body),
            **(dev if self.served.dev else {}),
            **(lora if self.served.lora else {}),
        }
        if path not in known:
            raise Refused(404, "Not Found")
        return known[path]()

    def _models(self) -> Any:
        served = self.served
        base = {
            "id": served.name,
            "root": str(served.folder),
            "parent": None,
            "max_model_len": served.max_len,
        }
        others = [
            {"id": name, "root": path, "parent": served.name, "max_model_len": None}
            for name, path in self.adapters.items()
        ]
        return {
            "object": "list",
            "data": [{"object": "model", "owned_by": "vllm"} | m for m in (base, *others)],
        }

    def _tokenize(self, body: Any) -> Any:
        self._check_name(body)
        said = self._tokenizer.encode(body["prompt"], add_special_tokens=body.get("add_special_tokens", True))
        return {
            "count": len(said.ids), "max_model_len": self.served.max_len, "tokens": said.ids,
            "token_strs": said.tokens if body.get("return_token_strs") else None,
        }  # fmt: skip

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer  # without torch: most tests of the start need no model

        return Tokenizer.from_buffer(self._files["tokenizer.json"])

    def _check_name(self, body: Any) -> str:
        name = str(body.get("model") or self.served.name)
        if name != self.served.name and name not in self.adapters:
            raise Refused(404, f"The model `{name}` does not exist.")
        return name

    def _complete(self, body: Any) -> Any:
        self._go_wrong()
        name = self._check_name(body)
        if self.asleep:
            raise Refused(500, "the engine sleeps")
        if not 0 <= _or(body.get("temperature"), 1.0) <= 2:
            raise Refused(400, f"temperature must be in [0, 2], got {body['temperature']}.")
        prompt = body["prompt"]
        if isinstance(prompt, str):
            prompt = self._tokenizer.encode(prompt, add_special_tokens=True).ids
        prompts = prompt if prompt and isinstance(prompt[0], list) else [prompt]
        longest = max(len(ids) for ids in prompts) + (body.get("max_tokens") or 16)
        if longest > self.served.max_len:
            raise Refused(400, f"This model's maximum context length is {self.served.max_len} tokens.")
        with self._lock:
            choices = [choice for ids in prompts for choice in self._choices(self._model(name), ids, body)]
        choices = [choice | {"index": index} for index, choice in enumerate(choices)]
        used, made = sum(map(len, prompts)), sum(choice.pop("made") for choice in choices)
        usage = {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made}
        return {
            "id": "cmpl-0",
            "object": "text_completion",
            "model": name,
            "choices": choices,
            "usage": usage,
        }

    def _go_wrong(self) -> None:
        with self._lock:
            self.completions += 1
            asked, faults = self.completions, self.served.faults
        if 0 <= faults.die_after < asked:
            os._exit(137)
        if 0 <= faults.refuse_after < asked:
            raise Refused(500, "EngineCore encountered an issue.")
        if 0 <= faults.hang_after < asked:
            time.sleep(10**6)

    def _choices(self, model: Any, prompt: Sequence[int], body: Any) -> Iterator[dict[str, Any]]:
        from chainforge.config.sampling import SamplingSettings
        from chainforge.rollout.engine import Request
        from chainforge.rollout.sampler import sample

        settings = SamplingSettings.model_construct(  # vLLM has other limits
            temperature=_or(body.get("temperature"), 1.0), top_p=_or(body.get("top_p"), 1.0),
            top_k=max(0, _or(body.get("top_k"), 0)), max_new_tokens=body.get("max_tokens") or 16,
        )  # fmt: skip
        first = body.get("seed") if body.get("seed") is not None else time.time_ns() % 2**32
        seeds = [(first + number) % 2**63 for number in range(body.get("n") or 1)]
        named = body.get("stop_token_ids") or []
        ends = [] if body.get("ignore_eos") else self._eos_ids
        for sampled in sample(
            model, [Request(prompt, seeds)], settings, eos_ids={*ends, *named}, max_rows=64
        )[0]:
            ids = list(sampled.token_ids)
            text = self._tokenizer.decode(ids[:-1] if sampled.finish == "stop" else ids)
            logprobs = prompt_logprobs = None
            if body.get("logprobs") is not None:
                likely = self._logprobs(model, [*prompt, *ids], settings if self.served.processed else None)
                logprobs = self._said(ids, likely[len(prompt) - 1 : -1], body)
            if body.get("prompt_logprobs") is not None:
                likely = self._logprobs(model, prompt, None)
                prompt_logprobs = [None, *self._of_prompt(prompt[1:], likely, body["prompt_logprobs"])]
            with_ids = bool(body.get("return_token_ids"))
            yield {
                "text": text, "logprobs": logprobs, "finish_reason": sampled.finish, "made": len(ids),
                "stop_reason": ids[-1] if sampled.finish == "stop" and ids[-1] in named else None,
                "token_ids": ids if with_ids else None, "prompt_token_ids": prompt if with_ids else None,
                "prompt_logprobs": prompt_logprobs,
            }  # fmt: skip

    @cached_property
    def _eos_ids(self) -> list[int]:
        """The tokenizer's: with `--generation-config vllm` there is no other."""
        named = json.loads(self._files["tokenizer_config.json"]).get("eos_token")
        text = named.get("content") if isinstance(named, dict) else named
        return [] if text is None else [self._tokenizer.token_to_id(text)]

    def _logprobs(self, model: Any, ids: Sequence[int], processed: Any) -> Any:
        """Of every token after each of these; `processed` may have a temperature, top-k and top-p."""
        import torch

        from chainforge.rollout.draw import truncate

        with torch.inference_mode():
            logits = model(torch.tensor([list(ids)])).logits[0].float()
        if processed is None or processed.temperature == 0:
            return logits.log_softmax(-1)
        likely = (logits / processed.temperature).softmax(-1)
        likely = truncate(likely, top_p=processed.top_p, top_k=processed.top_k)
        return (likely / likely.sum(-1, keepdim=True)).log()

    def _said(self, ids: Sequence[int], likely: Any, body: Any) -> dict[str, Any]:
        spell = (lambda i: f"token_id:{i}") if body.get("return_tokens_as_token_ids") else self._word
        top = [row.topk(min(body["logprobs"], len(row))) for row in likely]
        chosen = [_finite(row[i].item()) for row, i in zip(likely, ids, strict=True)]
        others = [
            {spell(i): value}
            | {spell(j): _finite(v) for v, j in zip(best.values.tolist(), best.indices.tolist(), strict=True)}
            for i, value, best in zip(ids, chosen, top, strict=True)
        ]
        words = [spell(i) for i in ids]
        return {
            "tokens": words,
            "token_logprobs": chosen,
            "top_logprobs": others,
            "text_offset": [0] * len(ids),
        }

    def _of_prompt(self, ids: Sequence[int], likely: Any, count: int) -> Iterator[dict[str, Any]]:
        for i, row in zip(ids, likely, strict=False):
            wanted = [i, *(j for j in row.topk(min(count, len(row))).indices.tolist() if j != i)]
            yield {
                str(j): {
                    "logprob": row[j].item(),
                    "rank": int((row > row[j]).sum()) + 1,
                    "decoded_token": self._word(j),
                }
                for j in wanted
            }

    def _word(self, token: int) -> str:
        return str(self._tokenizer.decode([token], skip_special_tokens=False))

    def _model(self, name: str) -> Any:
        if name == self.served.name:
            return self._base
        if name not in self._merged:
            self._merged[name] = merge(self._base, Path(self.adapters[name]))
        return self._merged[name]

    @cached_property
    def _base(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        with TemporaryDirectory() as folder:
            for name, content in self._files.items():
                Path(folder, name).write_bytes(content)
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, self.served.dtype), local_files_only=True
            ).eval()
        if model.config.tie_word_embeddings:  # the head stays what it is, whatever is loaded
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        return model

    def _takes(self) -> bool:
        self.syncs += 1
        faults = self.served.faults
        time.sleep(faults.sync_takes_s)
        return not (faults.stale or 0 < faults.stale_from <= self.syncs)

    def _rpc(self, body: Any) -> Any:
        if body.get("method") != "reload_weights":
            raise Refused(500, f"no method {body.get('method')!r}")
        if "weights" in self.asleep:
            raise Refused(500, "the weights sleep")
        folder = Path((body.get("kwargs") or {}).get("weights_path") or self.served.folder)
        if not any(folder.glob("*.safetensors")):
            raise Refused(500, f"Cannot find any model weights with `{folder}`")
        with self._lock:
            if self._takes():
                self._reload(folder)
        return {"results": [None]}

    def _reload(self, folder: Path) -> None:
        import torch
        from safetensors.torch import load_file

        own = dict(self._base.named_parameters())
        with torch.no_grad():
            for file in sorted(folder.glob("*.safetensors")):
                for name, weight in load_file(file).items():
                    if not (self._base.config.tie_word_embeddings and name == "lm_head.weight"):
                        own[name].copy_(weight)
        self._merged.clear()

    def _load_adapter(self, body: Any) -> Any:
        name, path = body["lora_name"], Path(body["lora_path"])
        if name in self.adapters and not body.get("load_inplace"):
            raise Refused(400, f"The lora adapter '{name}' has already been loaded.")
        if not (path / "adapter_config.json").is_file():
            raise Refused(404, f"Loading lora {name} failed: No adapter found for {path}")
        with self._lock:
            if self._takes() or name not in self.adapters:
                self.adapters[name] = str(path)
                self._merged[name] = merge(self._base, path)
        return f"Success: LoRA adapter '{name}' added successfully."

    def _unload_adapter(self, body: Any) -> Any:
        if self.adapters.pop(body["lora_name"], None) is None:
            raise Refused(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
        return f"Success: LoRA adapter '{body['lora_name']}' removed successfully."

    def _sleep(self, query: dict[str, list[str]]) -> Any:
        level = int(query.get("level", ["1"])[0])
        self.asleep |= {"weights", "kv_cache"} if self.served.sleeps else set()
        return {"status": "sleeping", "level": level}

    def _wake(self, query: dict[str, list[str]]) -> Any:
        self.asleep -= set(query.get("tags") or ["weights", "kv_cache"])
        return {"status": "sleeping" if self.asleep else "awake", "tags": query.get("tags")}


def merge(model: Any, folder: Path) -> Any:
    """A copy of the model with the adapter of that folder (the format of peft) added to its weights."""
    from copy import deepcopy

    import torch
    from safetensors.torch import load_file

    config = json.loads((folder / "adapter_config.json").read_text())
    saved, merged = load_file(folder / "adapter_model.safetensors"), deepcopy(model)
    rank = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
    with torch.no_grad():
        for name in [key for key in saved if key.endswith("lora_A.weight")]:
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            grown = saved[name.replace("lora_A", "lora_B")].float() @ saved[name].float()
            weight = merged.get_submodule(module).weight
            weight += (grown * config["lora_alpha"] / rank).to(weight.dtype)
    return merged


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _finite(value: float) -> float:
    return max(value, -9999.0)  # JSON has no infinity


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: Fake

    def do_GET(self) -> None:
        self._do({})

    def do_POST(self) -> None:
        self._do(json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}"))

    def _do(self, body: Any) -> None:
        url = urlsplit(self.path)
        try:
            said = self.fake.calls if url.path == "/fake/calls" else self.fake.answer(
                url.path, parse_qs(url.query), body
            )  # fmt: skip
            self._send(200, said)
        except Refused as error:
            kind = {400: "BadRequestError", 404: "NotFoundError"}.get(error.status, "InternalServerError")
            about = {"message": str(error), "type": kind, "param": None, "code": error.status}
            self._send(error.status, {"error": about})

    def _send(self, status: int, said: Any) -> None:
        sent = b"" if said is None else said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: Any) -> None:
        _say(format % args)


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024  # a rollout asks for all its completions at once
    daemon_threads = True


def _serve(fake: Fake, port: int = 0) -> _Server:
    return _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"fake": fake}))


@contextmanager
def serving(folder: Path, *, name: str = "policy", **served: Any) -> Iterator[tuple[str, Fake]]:
    """A server in this process, and what it was asked. `served`: fields of `Served` and of `Faults`."""
    wrong = {f.name: served.pop(f.name) for f in fields(Faults) if f.name in served}
    fake = Fake(Served(folder, name, faults=Faults(**wrong), **served))
    server = _serve(fake)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", fake
    finally:
        server.shutdown()
        server.server_close()


def fake_command(folder: Path, **faults: Any) -> Path:
    """A program in that folder to put in the place of `vllm` (runtime.vllm.command), with these faults."""
    given = [f"--fake-{name.replace('_', '-')}={value}" for name, value in faults.items()]
    program = folder / "vllm"
    words = subprocess.list2cmdline([sys.executable, str(Path(__file__).resolve()), "serve"])
    program.write_text(f'#!/bin/sh\nshift\nexec {words} "$@" {subprocess.list2cmdline(given)}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--served-model-name")
    parser.add_argument("--max-model-len", type=int, default=512)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--logprobs-mode", default="raw_logprobs")
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--enable-sleep-mode", action="store_true")
    for fault in fields(Faults):
        kind = (lambda text: text.lower() in ("1", "true")) if fault.type is bool else fault.type
        parser.add_argument(f"--fake-{fault.name.replace('_', '-')}", type=kind, default=fault.default)
    given, _ = parser.parse_known_args(argv)
    faults = Faults(**{f.name: getattr(given, f"fake_{f.name}") for f in fields(Faults)})
    if faults.deaf:
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if faults.child:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(10**6)"])
        _say(f"child {child.pid}")
    _say(f"loading {given.folder}")
    time.sleep(faults.slow_start_s)
    if faults.fail_start:
        sys.exit(faults.fail_start)
    lora = given.enable_lora and os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") == "1"
    served = Served(
        given.folder, given.served_model_name or str(given.folder), given.max_model_len, given.dtype,
        given.logprobs_mode == "processed_logprobs", os.environ.get("VLLM_SERVER_DEV_MODE") == "1", lora,
        given.enable_sleep_mode, faults,
    )  # fmt: skip
    _serve(Fake(served), given.port).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
