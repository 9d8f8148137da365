"""Several processes of one step on this machine, started by torchrun's own launcher in this process.

The user sees our words alone. Who is asked to stop is this process: it asks the others, and waits for them.
"""

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from chainforge.config.run import RuntimeSettings
from chainforge.containment import real_exit
from chainforge.errors import ChainForgeError
from chainforge.run.crash import log_of
from chainforge.run.ending import BEREFT, LAUNCHER, MORE, TOLD, end_with, exit_code, say_last, watch_rank
from chainforge.run.world import World

Main = Callable[[Sequence[str]], int]
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
IMPATIENT_S = 5.0  # after a second Ctrl-C, for processes that are held inside of native code
NO_WORD = "\n{}: a process of it ended without a word, by native code of a plugin\n  -> {}\n"
END_S = 6.0  # for the others, once one has ended; then whoever is held is killed, as by a stopped debugger


def count_processes(runtime: RuntimeSettings, taken: int = 0) -> int:
    """How many processes the settings ask for. Raises ChainForgeError for more than there are GPUs for them:
    the others are `taken` by vLLM."""
    if runtime.processes == 1 or (runtime.processes == "auto" and runtime.device == "cpu"):
        return 1
    gpus = max(0, count_gpus(runtime) - taken)
    if runtime.processes == "auto":
        return max(1, gpus)
    if 0 < gpus < runtime.processes:
        raise ChainForgeError(
            f"runtime.processes is {runtime.processes}, and there are {gpus} GPUs for them: each needs one",
            f"set it to auto or at most {gpus}, or runtime.device to cpu",
        )
    return runtime.processes


def launch(main: Main, argv: Sequence[str], step: str, runtime: RuntimeSettings, count: int) -> int:
    """Run `main(argv)` in so many processes. Returns the exit code, once all of them have ended.

    On a CPU they are forked: what is imported by now is there already. CUDA does not outlive a fork.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    is_forked = sys.platform == "linux" and count_gpus(runtime) == 0
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=f"{step}-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        start_method="fork" if is_forked else "spawn",
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        signals_to_handle="SIGUSR2",  # it would end them 30 s after a Ctrl-C; a save may take minutes
    )
    os.environ[LAUNCHER] = str(os.getpid())
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # wherever the machine's name leads
    asked = _Asked(count)
    logging.disable(logging.CRITICAL)  # torchrun's words
    try:
        asked.listen()
        elastic_launch(config, run_rank)(main, list(argv))
    except ChildFailedError as error:
        rank, failure = min(error.failures.items())
        return _explain(step, World(rank, count), failure.exitcode, asked)
    except _Vanished:
        say_last(NO_WORD.format(step, MORE))
        return 1
    finally:
        logging.disable(logging.NOTSET)
        asked.kill()  # there is none left, but where the launcher itself has failed
    return 0


def run_rank(main: Main, argv: Sequence[str]) -> None:
    """One of the processes."""
    from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

    _prctl_pr_set_pdeathsig(signal.SIGKILL)  # when the launcher dies; Linux only, elsewhere `Peers` sees it
    if os.getppid() != int(os.environ[LAUNCHER]):
        real_exit(1)
    for number in (signal.SIGCHLD, signal.SIGTSTP, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)  # of the launcher
    os.setpgid(0, 0)  # a Ctrl-C goes to the launcher alone, which asks each process once
    logging.disable(logging.NOTSET)
    watch_rank(argv[-1])
    code = main(argv)
    end_with("")
    if code:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        real_exit(exit_code(code))


class _Vanished(Exception): ...  # all processes have ended, and torchrun does not know of it


class _Asked:
    """What this process was asked for by signals, which it hands on."""

    def __init__(self, count: int) -> None:
        self.times = 0
        self._count = count

    def listen(self) -> None:
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._hand_on)
        signal.signal(signal.SIGTSTP, self._pause)
        signal.signal(signal.SIGCHLD, self._await_end)

    def kill(self) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.alarm(0)
        _send(signal.SIGKILL)

    def _hand_on(self, number: int, _frame: FrameType | None) -> None:
        self.times += 1
        _send(number)
        if self.times > 1:
            _kill_in(IMPATIENT_S)

    def _pause(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z, until fg or bg."""
        _send(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        _send(signal.SIGCONT)

    def _await_end(self, _number: int, _frame: FrameType | None) -> None:
        """They end together: when they do well, torchrun lets go of all at once."""
        if len(multiprocessing.active_children()) < self._count and signal.getsignal(signal.SIGALRM) != _kill:
            _kill_in(END_S)


def _kill_in(seconds: float) -> None:
    signal.signal(signal.SIGALRM, _kill)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _kill(*_: Any) -> None:
    if not multiprocessing.active_children():
        raise _Vanished
    _send(signal.SIGKILL)


def _send(number: int) -> None:
    for process in multiprocessing.active_children():
        with suppress(ProcessLookupError):
            if process.pid:
                os.kill(process.pid, number)


def count_gpus(runtime: RuntimeSettings) -> int:
    """Asks the driver, and not CUDA: who starts CUDA cannot fork."""
    if runtime.device not in ("auto", "cuda"):
        return 0
    import torch

    return torch.cuda.device_count()


def _explain(step: str, world: World, code: int, asked: _Asked) -> int:
    """Say why a process has ended, unless it has itself. Returns the exit code."""
    if code > TOLD and code != TOLD + BEREFT:
        return code - TOLD
    if asked.times > 1:
        say_last(f"\n{step}: stopped at once; run the same command again: it goes on from its last save\n")
        return 1
    if code == TOLD + BEREFT:  # who ended first did so with code 0
        say_last(NO_WORD.format(step, MORE))
        return 1
    log = log_of(world.label(step))
    who, where = (
        f"{step}: rank {world.rank} of {world.size}",
        f"; where it was: {log}" if log.exists() else "",
    )
    if code == -signal.SIGKILL:
        say_last(f"\n{who} was killed (signal 9), most often for want of memory\n  -> {MORE}\n")
    elif code < 0:
        name = signal.Signals(-code).name
        say_last(
            f"\n{who} was ended by signal {-code} ({name}), most often by native code\n  -> {MORE}{where}\n"
        )
    else:
        say_last(f"\n{who} was ended by native code of a plugin (exit code {code})\n  -> {MORE}{where}\n")
    return 128 - code if code < 0 else code
