"""A server that repeats the key wherever it can: the key is in no file and no line that is said."""

import json
from pathlib import Path
from typing import Any

import pytest
from odd_answers import DONE, bill, chunked, dumps, event, events, framed, honest
from odd_runs import by_command, prompts, text
from odd_server import Asked, Said, Step, http

pytestmark = pytest.mark.usefixtures("quick", "home")

KEY = "sk-marked-5ac1d0e2"


def changed(asked: Asked, change: Any) -> list[bytes]:
    answer = honest(asked)
    change(answer)
    return framed(answer, asked)


def repeating(asked: Asked) -> Said:
    """Each prompt has the key in another place of what comes first, then an answer."""
    key, answer = asked.key, honest(asked)
    broken = b"".join([*events(answer), DONE])[:-90] if asked.streamed else dumps(answer)[:-9]
    error = {"error": {"message": f"{key} is not allowed", "code": key, "key": {"nested": [key]}}}
    places: list[list[Step]] = [
        [http(400, dumps(error))],
        [http(500, f"<h1>{key}</h1>".encode())],
        [http(429, dumps(error), {"retry-after": key, "x-key": key}, reason=key)],
        [http(200, dumps(error))],
        [http(200, broken.replace(b"odd-1", key.encode()))],
        [http(200, key.encode() + b" is all that there is")],
        [f"HTTP/1.1 {key}\r\n\r\n".encode(), "close"],
        [http(307, b"", {"location": f"http://{key}:99999/"})],
        list(changed(asked, lambda a: a["choices"][0]["message"].update(content=f"it is {key}, I think"))),
        list(changed(asked, lambda a: a["choices"][0]["message"].update({key: key}))),
        list(changed(asked, lambda a: a["choices"][0].update(finish_reason=key))),
        list(changed(asked, lambda a: a.update(model=key, id=key))),
        list(changed(asked, lambda a: a["usage"].update({key: 3}))),
        list(
            chunked(
                [
                    event({"choices": [{"index": 0, "delta": {"content": part}}]})
                    for part in (key[:9], key[9:])
                ]
            )
        ),
        list(chunked([*events(answer)[:3], event({"error": {"message": key}})])),
        [http(200, json.dumps({"choices": [{"message": {"content": key}}], "odd": key}).encode())],
    ]
    place = next(n for n in range(len(places)) if asked.prompt == text(n))
    return Said(steps=places[place] if asked.number == 0 else framed(answer, asked), tokens=bill(answer))


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["whole", "streamed"])
def test_a_key_that_is_repeated_is_kept_nowhere(
    wire: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    more = ["--stream"] if wire == "streamed" else []
    said = by_command(tmp_path / "out", prompts(16), repeating, "--concurrency", "1", *more)
    assert KEY not in said
    assert "15 of 16 answered" in said
    assert [
        path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ] == []
    assert b"[key]" in (tmp_path / "out/journal.jsonl").read_bytes()
