"""A stand-in for the Hugging Face hub: as much of its API as one commit of a model needs."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "a" * 34


class Hub(ThreadingHTTPServer):
    """`repos` has (private, files) by name, `asked` every request; `refuse` answers those paths with 403."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, tuple[bool, dict[str, bytes]]] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.refuse = "nothing"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None: ...

    def reply(self, value: Any, code: int = 200, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        for name, text in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def handle_any(self) -> None:
        hub, path, body = self.server, self.path.partition("?")[0], self.body()
        hub.asked.append(f"{self.command} {path}")
        if self.command != "PUT" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.reply({"error": "Invalid username or password."}, 401)
        if hub.refuse in path:
            return self.reply({"error": "You may not write here."}, 403)
        if path.startswith("/api/models/"):
            return self.of_a_repo(path.removeprefix("/api/models/"), body)
        return self.reply(self.of_no_repo(path, body), ETag='"x"')

    def of_no_repo(self, path: str, body: bytes) -> Any:
        hub = self.server
        if path.startswith("/lfs/"):
            hub.objects[path.rpartition("/")[2]] = body
            return {}
        wanted = json.loads(body or b"{}")
        if path == "/api/repos/create":
            name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            hub.repos[name] = (wanted.get("private") or wanted.get("visibility") == "private", {})
            return {"url": f"{hub.url}/{name}", "name": name}
        if path.endswith(".git/info/lfs/objects/batch"):
            return {"transfer": "basic", "objects": [self.upload(one) for one in wanted["objects"]]}
        if path == "/api/validate-yaml":
            assert wanted["content"].startswith("---\n")
            return {"errors": [], "warnings": []}
        assert path == "/api/whoami-v2", path
        return {"name": "me", "type": "user"}

    def of_a_repo(self, path: str, body: bytes) -> None:
        hub, (owner, name, *what) = self.server, path.split("/")
        repo = f"{owner}/{name}"
        if repo not in hub.repos:
            return self.reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        if not what or what[0] == "revision":
            return self.reply({"id": repo, "private": hub.repos[repo][0], "siblings": [], "sha": "0" * 40})
        if what[0] == "preupload":
            return self.reply({"files": [self.mode(file["path"]) for file in json.loads(body)["files"]]})
        assert what[0] == "commit", path
        for line in map(json.loads, body.splitlines()):
            self.commit(repo, line["key"], line["value"])
        url = f"{hub.url}/{repo}/commit/{'1' * 40}"
        return self.reply({"success": True, "commitOid": "1" * 40, "commitUrl": url})

    do_GET = do_POST = do_PUT = handle_any

    def upload(self, wanted: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.server.url}/lfs/{wanted['oid']}"
        return wanted | {"actions": {"upload": {"href": href}}}

    def mode(self, path: str) -> dict[str, Any]:
        how = "lfs" if path.endswith(".safetensors") else "regular"
        return {"path": path, "uploadMode": how, "shouldIgnore": False}

    def commit(self, repo: str, kind: str, value: dict[str, Any]) -> None:
        files = self.server.repos[repo][1]
        if kind == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif kind == "lfsFile":
            files[value["path"]] = self.server.objects[value["oid"]]


@contextmanager
def a_hub() -> Iterator[Hub]:
    """One that runs until the block ends."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
