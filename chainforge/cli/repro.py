"""`chainforge repro`: `dvc repro`, steps that do not wait for each other at once, and torch imported once."""

import os
import subprocess
import sys
from pathlib import Path

import click

from chainforge.run.warm_start import start_server

GPUS = ("nvidia[0-9]*", "kfd", "dxg")  # in /dev: of NVIDIA, of AMD, of either under Windows


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    help="Steps at once. Default: 2 where there are cores for two and no GPU, else 1.",
)
@click.argument("arguments", metavar="[ARGUMENT OF DVC REPRO]...", nargs=-1, type=click.UNPROCESSED)
def repro(jobs: int | None, arguments: tuple[str, ...]) -> None:
    """Run `dvc repro`, with steps at once, and import torch once for all steps.

    Arguments and exit code are those of `dvc repro`. Plain `dvc repro` makes the same bytes and takes longer.
    This needs Linux; elsewhere it is `dvc repro`.

    Steps that do not wait for each other run at once: a checkpoint is evaluated while the next is trained.
    The first shows its progress; what another says follows when it ends. With options of `dvc repro`, such
    as --force, one step runs at a time.

    Steps that train, sample or evaluate are forked from a process that has imported torch and transformers.
    """
    environment = dict(os.environ)
    if server := start_server(environment):
        environment["PATH"] = f"{server.folder}:{environment['PATH']}"
    only_names = not any(argument.startswith("-") for argument in arguments)
    if sys.platform == "linux" and only_names and (at_once := jobs or room_for()) > 1:
        from chainforge.repro.at_once import repro_at_once

        os.environ.update(environment)
        if (code := repro_at_once(arguments, at_once)) is not None:
            raise click.exceptions.Exit(code)
    command = [sys.executable, "-P", "-m", "dvc", "repro", *arguments]  # -P: as `dvc`, nothing of this folder
    if os.name == "nt":
        raise click.exceptions.Exit(subprocess.run(command).returncode)
    # This process becomes dvc, and the server ends with it: no one has to hand on signals or the exit code.
    os.execve(command[0], command, environment)


def room_for() -> int:
    """How many steps this machine has cores for, two at most: memory is for one and what runs beside it."""
    from chainforge.config.loading import load_settings
    from chainforge.config.run import RunSettings, RuntimeSettings
    from chainforge.errors import ChainForgeError

    try:
        run, runtime = load_settings(RunSettings, "run"), load_settings(RuntimeSettings, "runtime")
    except ChainForgeError:
        return 1  # the step `lock` says what is wrong
    # Not asked of torch: to import it would take longer than all else here.
    gpu = any(any(Path("/dev").glob(name)) for name in GPUS)
    if (gpu and runtime.device != "cpu") or runtime.processes == "auto":
        return 1
    return 2 if 2 * run.threads * runtime.processes <= len(os.sched_getaffinity(0)) else 1
