"""Processes that need not import torch: each is forked from one that has, and has computed nothing."""

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

SERVER = ForkServerContext()  # a server per worker of pytest
SERVER.set_forkserver_preload(
    ["chainforge.learner.local_learner", "chainforge.loops.grpo.train", "chainforge.loops.sft"]
)


def start_script(
    arguments: Sequence[str], environment: Mapping[str, str], out: Path, err: Path
) -> ForkServerProcess:
    """A Python script in the folder that we are in, its streams in two files."""
    process = SERVER.Process(target=_be, args=(arguments, dict(environment), out, err), daemon=True)
    process.start()
    return process


def _be(arguments: Sequence[str], environment: Mapping[str, str], out: Path, err: Path) -> None:
    for stream, path in ((1, out), (2, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(arguments)
    runpy.run_path(arguments[0], run_name="__main__")
