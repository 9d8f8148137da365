"""Wait for servers to start."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

from chainforge.errors import ChainForgeError
from chainforge.rollout.vllm.client import ServerFailed, call
from chainforge.rollout.vllm.process import ServerProcess
from chainforge.run.progress import progress
from chainforge.run.step import Step

HEALTH_S = 20.0  # for a sign of life; a server with much to do is slow to answer
LOOK_S = 0.1


def await_servers(step: Step, folder: Path, urls: Sequence[str], processes: Sequence[ServerProcess]) -> None:
    """Wait until each answers that it is well.

    Raises ChainForgeError as soon as one ends, and after runtime.vllm.start_timeout_s.
    """
    limit = step.runtime.vllm.start_timeout_s
    deadline = time.monotonic() + limit
    bar = progress(range(len(urls)), f"{step.name}: vLLM loads", total=len(urls), unit="server")
    with bar:
        for url, process in zip(urls, processes, strict=True):
            what = f"vLLM at {url} to load {folder}; its log: {process.log}"
            while not _is_well(url):
                process.check_runs(f"vLLM ended before it served {folder}", "mend that, and run it again")
                if time.monotonic() > deadline:
                    said = process.last_words()
                    raise ChainForgeError(
                        f"waited {limit:g} s (runtime.vllm.start_timeout_s) for {what}; it says: {said}",
                        "raise that setting if it was still at work, or mend what the log tells",
                    )
                bar.set_postfix_str(f"up to {math.ceil(deadline - time.monotonic())} s", refresh=False)
                bar.update(0)
                time.sleep(LOOK_S)
            bar.update(1)


def _is_well(url: str) -> bool:
    try:
        call(url, "/health", doing="starting", within_s=HEALTH_S, method="GET")
    except ServerFailed:
        return False
    return True
