"""What a vLLM server is asked over HTTP: each call with a time limit, and an error that names it.

API: https://docs.vllm.ai/en/stable/serving/openai_compatible_server.html
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from chainforge.errors import ChainForgeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

CONNECT_S = 30.0
AGAIN = "read the log of the server; then run the same command again: the step goes on from its last save"


class ServerFailed(ChainForgeError):
    """A server did not answer, or answered with an error. `status`: of HTTP, if there was an answer."""

    def __init__(self, problem: str, fix: str = AGAIN, status: int | None = None) -> None:
        super().__init__(problem, fix)
        self.status = status


def call(
    url: str,
    path: str,
    *,
    doing: str,
    within_s: float,
    body: Any = None,
    params: Any = None,
    method: str = "POST",
) -> Any:
    """The JSON or text of one answer, or None for an empty one. `doing`: what for, as "loading the weights".

    Raises ServerFailed.
    """
    import httpx2

    limit = httpx2.Timeout(within_s, connect=min(CONNECT_S, within_s))
    try:
        with httpx2.Client(base_url=url, timeout=limit, trust_env=False) as http:
            answer = http.request(method, path, json=body, params=params)
    except httpx2.HTTPError as error:
        raise _unanswered(url, doing, error, within_s) from error
    return _content(url, doing, answer)


async def ask_all(
    url: str,
    bodies: Iterable[Any],
    take: Callable[[int, Any], None],
    *,
    at_once: int,
    stall_s: float,
    doing: str,
) -> None:
    """Ask for these completions, at most `at_once` at a time; each answer goes to `take(place, answer)`.

    Raises ServerFailed, also where none of them ends for `stall_s` seconds. Then the others are cancelled.
    """
    waiting = iter(enumerate(bodies))
    pending, done = set[asyncio.Task[tuple[int, Any]]](), set[asyncio.Task[tuple[int, Any]]]()
    async with _connect(url, at_once) as http:

        async def ask(place: int, body: Any) -> tuple[int, Any]:
            return place, await _completion(http, url, body, doing)

        try:
            while True:
                room = at_once - len(pending)
                pending |= {asyncio.create_task(ask(*each)) for each in islice(waiting, room)}
                if not pending:
                    return
                done, pending = await asyncio.wait(
                    pending, timeout=stall_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    raise ServerFailed(
                        f"{url}: {doing}: {len(pending)} completions are under way, and none has ended "
                        f"for {stall_s:g} s",
                        f"if that can be, raise runtime.vllm.answer_timeout_s; else {AGAIN}",
                    )
                for task in done:
                    take(*task.result())
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, *done, return_exceptions=True)


def scores(
    url: str, model: str, sequences: Sequence[Sequence[int]], *, doing: str, within_s: float
) -> list[list[float]]:
    """Log-probabilities of the tokens of each sequence after its first, in nats at temperature 1. `within_s`:
    for one sequence; at the first a server may compile its kernels."""
    found = []
    for ids in sequences:
        body = {
            "model": model,
            "prompt": list(ids),
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }
        answer = call(url, "/v1/completions", body=body, doing=doing, within_s=within_s)
        try:
            given = answer["choices"][0]["prompt_logprobs"][1:]
            found.append(
                [float(each[str(token)]["logprob"]) for token, each in zip(ids[1:], given, strict=True)]
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServerFailed(
                f"{url}: {doing}: the answer has no log-probabilities of the prompt ({error!r:.200})",
                "use a vLLM that knows prompt_logprobs, as 0.32",
            ) from error
    return found


@asynccontextmanager
async def _connect(url: str, connections: int) -> "AsyncIterator[httpx2.AsyncClient]":
    import httpx2

    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    timeout = httpx2.Timeout(None, connect=CONNECT_S)
    async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=timeout, trust_env=False) as http:
        yield http


async def _completion(http: "httpx2.AsyncClient", url: str, body: Any, doing: str) -> Any:
    import httpx2

    try:
        answer = await http.post("/v1/completions", json=body)
    except httpx2.HTTPError as error:
        raise _unanswered(url, doing, error, CONNECT_S) from error
    return _content(url, doing, answer)


def _content(url: str, doing: str, answer: "httpx2.Response") -> Any:
    if answer.is_success:
        try:
            return answer.json()
        except ValueError:
            return answer.text or None
    try:
        said = answer.json()
        reason = said["error"]["message"] if "error" in said else said["detail"]
    except (KeyError, TypeError, ValueError):
        reason = answer.text or answer.reason_phrase
    raise ServerFailed(
        f"{url}: {doing}: it answers {answer.status_code}: {' '.join(str(reason).split()):.300}",
        status=answer.status_code,
    )


def _unanswered(url: str, doing: str, error: "httpx2.HTTPError", within_s: float) -> ServerFailed:
    import httpx2

    if isinstance(error, httpx2.TimeoutException):
        return ServerFailed(f"{url}: {doing}: no answer within {within_s:g} s")
    reason = str(error) or type(error).__name__
    return ServerFailed(f"{url}: {doing}: the connection broke, or there was none ({reason:.200})")
