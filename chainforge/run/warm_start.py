"""Steps that need not import torch: each is forked from one process that has, for as long as this one lives.

A folder for PATH holds a program `python`. It hands `python -m stages.VERB STEP` to warm_client.py, and that
to warm_server.py, which forks the step; any other command is the usual interpreter's. Bytes are the same
either way, and wherever something does not fit the step is started as usual.
"""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

VERBS = ("sft", "grpo", "sample", "distill", "evaluate")  # others take no longer to import than to fork
# What these import of other packages, and nothing of ChainForge: that is the step's own, from its folder.
LIBRARIES = (
    "jsonlines",
    "pluggy",
    "psutil",
    "pydantic",
    "ruamel.yaml",
    "tokenizers",
    "torch.distributed.tensor",
    "tqdm",
    "transformers.models.qwen2.modeling_qwen2",
)
PROGRAM = """#!/bin/sh
case "$1 $2" in {patterns}) PATH=${{PATH#{folder}:}}; exec {python} -I -S {client} {address} "$@";; esac
exec {python} "$@"
"""


@dataclass(frozen=True)
class WarmServer:
    """It removes `folder`, which is to be the first of PATH, when it ends."""

    folder: Path
    process: "subprocess.Popen[bytes]"


def start_server(environment: Mapping[str, str], libraries: Sequence[str] = LIBRARIES) -> WarmServer | None:
    """Start what forks steps until this process ends, also as another program (`exec`).

    It imports nothing before the first step asks. What Python and the libraries read of the environment as
    they start (PYTHONHASHSEED, GLIBC_TUNABLES, OMP_NUM_THREADS) it has of `environment`. That is enough: dvc
    hands on its own to every step. A step whose environment differs all the same is started as usual.

    None where steps are to be started as usual: not on Linux, `python` is another environment's, or there is
    no place for a program.
    """
    python = shutil.which("python", path=environment.get("PATH"))
    if sys.platform != "linux" or not python or _folder(python) != _folder(sys.executable):
        return None
    folder = Path(tempfile.mkdtemp(prefix="chainforge-"))  # nobody else may enter it
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "socket"))
            listening.listen()
            if not _write_program(folder):
                raise OSError
            return WarmServer(folder, _start(listening, folder, environment, libraries))
    except OSError:  # a name that is too long for a socket, a full disk, a file system without programs
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _folder(program: str) -> Path:
    return Path(program).parent.resolve()


def _write_program(folder: Path) -> bool:
    """Whether it can be run from there."""
    program = folder / "python"
    words = {
        "folder": folder,
        "python": sys.executable,
        "client": Path(__file__).with_name("warm_client.py"),
        "address": folder / "socket",
    }
    patterns = "|".join(f'"-m stages.{verb}"' for verb in VERBS)
    quoted = {name: shlex.quote(str(word)) for name, word in words.items()}
    program.write_text(PROGRAM.format(patterns=patterns, **quoted), encoding="utf-8")
    program.chmod(0o700)
    return os.access(program, os.X_OK)


def _start(
    listening: socket.socket, folder: Path, environment: Mapping[str, str], libraries: Sequence[str]
) -> "subprocess.Popen[bytes]":
    """In this process group, as its steps are then in that of dvc: a terminal's signals reach all."""
    number = listening.fileno()
    server = Path(__file__).with_name("warm_server.py")
    return subprocess.Popen(
        # -P: nothing is imported from the folder of that file
        [sys.executable, "-P", str(server), str(number), str(os.getpid()), str(folder), *libraries],
        pass_fds=[number],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
