"""What every stage script is wrapped in: inputs held from the start, errors told, the run recorded."""

import errno
import functools
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import psutil
from pydantic import BaseModel

from chainforge.config.loading import load_settings
from chainforge.config.run import RuntimeSettings
from chainforge.containment import no_leaving, real_exit
from chainforge.errors import ChainForgeError, unknown
from chainforge.outputs import write_text
from chainforge.plugins import Plugins, load_plugins
from chainforge.project.graph import read_graph, settings_of
from chainforge.project.held_inputs import hold_inputs
from chainforge.run.ending import LAUNCHER, Interrupted, end_with, say_last, unforeseen
from chainforge.run.fingerprint import Inputs
from chainforge.run.launch import count_processes, launch
from chainforge.run.meeting import OtherFailed
from chainforge.run.step import LOGS, Step, file_name, open_step
from chainforge.run.stopping import Stopped
from chainforge.run.world import World, is_launched, this_world

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True)
class Run(Generic[S]):
    """One run of a step: its settings, the plugins, and its inputs, which are held until it has ended."""

    step: Step
    settings: S
    plugins: Plugins
    inputs: Inputs


def stage(kind: type[S]) -> Callable[[Callable[[Run[S]], None]], Callable[[str], None]]:
    """Make `main(step name)` of a `main(run)` whose settings are of this class.

    The inputs are digested before `main` loads anything, and compared with what is there when it is done.
    """

    def wrap(main: Callable[[Run[S]], None]) -> Callable[[str], None]:
        @functools.wraps(main)
        def held(name: str) -> None:
            step, settings, plugins = open_step(name), settings_of(kind, name), load_plugins()
            with hold_inputs(name, settings, plugins) as inputs:
                main(Run(step, settings, plugins, inputs))

        vars(held)["settings_class"] = kind
        return held

    return wrap


def stage_main(main: Callable[[str], None], *, several_processes: bool = False) -> None:
    """All of `python -m stages.VERB STEP`: a problem is two lines on stderr and an exit code above 0.

    With `several_processes`, it starts as many as `runtime.processes` says, unless torchrun,
    `accelerate launch` or srun has decided that.
    """
    gc.freeze()  # what has been imported is not looked through again
    gc.enable()  # stages/__init__.py turned it off
    code = run_stage(main, sys.argv, several_processes=several_processes)
    end_with("")
    if code and this_world().size > 1:  # the ends of NCCL may wait for who is gone
        sys.stdout.flush()
        real_exit(code)
    sys.exit(code)


def run_stage(main: Callable[[str], None], argv: Sequence[str], *, several_processes: bool = False) -> int:
    """Run the step that the command line names. Returns the exit code, which is 0 for a whole result only."""
    verb = Path(argv[0]).stem
    if argv[1:] in (["-h"], ["--help"]):
        sys.stdout.write(
            f"usage: python -m stages.{verb} STEP   (dvc.yaml names the steps; dvc repro runs them)\n"
        )
        return 0
    name = argv[1] if len(argv) == 2 else f"stages.{verb}"
    world = World()
    try:
        world = this_world()
        if world.size > 1 and not several_processes:
            raise ChainForgeError(
                f"stages.{verb} runs in one process, not in {world.size} (WORLD_SIZE)",
                f"run it without torchrun and accelerate: python -m stages.{verb} STEP",
            )
        name = _checked_name(verb, argv[1:])
        runtime = load_settings(RuntimeSettings, "runtime")
        many = several_processes and not is_launched()
        count = _count_processes(main, name, runtime) if many else 1
        if count > 1:
            return launch(partial(run_stage, main, several_processes=True), argv, name, runtime, count)
        with no_leaving(), world.together(name, on_gpus=runtime.device in ("auto", "cuda")):
            main(name)
            _record(name, world)
    except BaseException as error:  # whatever a plugin raises, SystemExit(0) too
        is_told = isinstance(error, OtherFailed) and (error.is_near or not world.is_first)
        if not is_told:
            said_by = name if isinstance(error, Interrupted | Stopped | OtherFailed) else world.label(name)
            say_last(f"\n{_told(said_by, error)}\n")
        return error.exit_code if isinstance(error, ChainForgeError) else 1
    return 0


def _count_processes(main: Callable[[str], None], name: str, runtime: RuntimeSettings) -> int:
    """How many this step has. Where vLLM samples and nothing is learnt, one: each would load the model.

    No class of settings is imported for that: every step would depend on what it imports.
    """
    kind = getattr(main, "settings_class", None)
    settings = settings_of(kind, name) if kind else None
    sampling = getattr(settings, "on_policy", None) or settings  # of a student, what it writes itself
    engine = getattr(sampling, "engine", None)
    if engine is None or engine.kind != "vllm":
        return count_processes(runtime, taken=0)
    if not hasattr(settings, "learning_rate"):
        return 1
    return count_processes(runtime, taken=0 if runtime.vllm.urls else runtime.vllm.gpus)


def _record(name: str, world: World) -> None:
    """What the step took, in logs/: time since the first of its processes was started, memory of all."""
    process = psutil.Process(os.getppid() if LAUNCHER in os.environ else None)
    peaks = world.share(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    record = {
        "step": name,
        "wall_s": round(time.time() - process.create_time(), 2),  # imports are most of a short step
        "peak_mb": sum(peaks),
        "cpus": os.cpu_count(),
    }
    if world.size > 1:
        record["processes"] = world.size
    world.once(write_text, LOGS / f"{file_name(name)}.json", json.dumps(record) + "\n")


def _told(name: str, error: BaseException) -> str:
    """What is wrong, then what to do."""
    if isinstance(error, Interrupted):
        return unforeseen(name, error)
    return (explain(name, error) if isinstance(error, OSError) else unforeseen(name, error)) + _reminder()


def _checked_name(verb: str, arguments: Sequence[str]) -> str:
    """The one argument, which must be a step of this verb."""
    steps = ["lock"] if verb == "lock" else [s.name for s in read_graph().values() if s.verb == verb]
    if len(arguments) != 1:
        raise ChainForgeError(
            f"it takes one step, found {len(arguments)} arguments: {' '.join(arguments)!r:.100}",
            f"python -m stages.{verb} STEP, where STEP is one of: {', '.join(steps)}",
        )
    if arguments[0] not in steps:
        raise unknown("step in dvc.yaml", arguments[0], steps)
    return arguments[0]


def _reminder() -> str:
    """DVC removes a step's outputs before it runs; who had some wants to know that they are not lost."""
    had_outputs = Path("dvc.lock").is_file()
    return "\n  -> nothing is half written; dvc checkout brings earlier outputs back" if had_outputs else ""


def explain(name: str, error: OSError) -> str:
    """What the operating system refused, and what to do about it."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC or "No space left" in str(error):  # safetensors gives no number
        return f"{name}: the disk is full{where}\n  -> free some space (chainforge gc, old logs/), then again"
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return (
            f"{name}: cannot write or read{where}: {error.strerror}\n  -> give this user the right to do so"
        )
    if error.errno == errno.ENAMETOOLONG:
        return (
            f"{name}: a path is too long{where:.200}\n  -> move the project to a folder with a shorter path"
        )
    if error.filename or error.errno in (errno.EFBIG, errno.EDQUOT, errno.EMFILE, errno.EIO):
        return f"{name}: {error.strerror or error}{where}\n  -> check that path and its disk, then run again"
    return unforeseen(name, error)
