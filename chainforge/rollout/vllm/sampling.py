"""Requests that servers work on, while the step may do other things."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from chainforge.rollout.engine import Request, Sampled
from chainforge.rollout.vllm.client import ask_all

Body = Callable[[Request, int], Any]  # of a request, and one of its seeds
Read = Callable[[str, Any], Sampled]  # of a server's url, and its answer


class Sampling:
    """One HTTP request per completion, sent by a thread of its own."""

    def __init__(
        self,
        urls: Sequence[str],
        requests: Sequence[Request],
        body: Body,
        read: Read,
        *,
        at_once: int,
        stall_s: float,
        doing: str,
    ) -> None:
        """`at_once`: at each server. `stall_s`: seconds without a completion, after which one is hung."""
        self._found: list[dict[int, Sampled]] = [{} for _ in requests]
        self._done: Future[None] = Future()
        self._loop = asyncio.new_event_loop()

        async def ask(url: str, places: Sequence[int]) -> None:
            asked = [(place, number) for place in places for number in range(len(requests[place].seeds))]

            def take(index: int, answer: Any) -> None:
                place, number = asked[index]
                self._found[place][number] = read(url, answer)

            bodies = (body(requests[place], requests[place].seeds[number]) for place, number in asked)
            await ask_all(url, bodies, take, at_once=at_once, stall_s=stall_s, doing=doing)

        async def ask_servers() -> None:
            parts = deal([len(request.seeds) for request in requests], len(urls))
            async with asyncio.TaskGroup() as group:
                for url, places in zip(urls, parts, strict=True):
                    group.create_task(ask(url, places))

        self._task = self._loop.create_task(ask_servers())
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._task)
        except BaseExceptionGroup as group:  # of the servers' errors the first says enough
            self._done.set_exception(group.exceptions[0])
        except BaseException as error:
            self._done.set_exception(error)
        else:
            self._done.set_result(None)
        finally:
            self._loop.close()

    def wait(self) -> list[list[Sampled]]:
        """One list per request, in the order of its seeds. Raises ChainForgeError where a server failed."""
        self._done.result()
        return [[of_request[number] for number in range(len(of_request))] for of_request in self._found]

    def cancel(self) -> None:
        """Ask for nothing more: servers stop what nobody waits for."""
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._task.cancel)


def deal(sizes: Sequence[int], servers: int) -> list[list[int]]:
    """Places of the groups for each server: whole ones, so that a prompt is read once, and the largest first,
    each to who has least. It depends on the sizes alone."""
    parts: list[list[int]] = [[] for _ in range(servers)]
    load = [0] * servers
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        least = min(range(servers), key=load.__getitem__)
        parts[least].append(place)
        load[least] += sizes[place]
    return [sorted(part) for part in parts]
