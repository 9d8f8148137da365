"""`chainforge repro`: `dvc repro`, and torch is imported once for all steps."""

import os
import subprocess
import sys

import click

from chainforge.run.warm_start import start_server


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", metavar="[ARGUMENT OF DVC REPRO]...", nargs=-1, type=click.UNPROCESSED)
def repro(arguments: tuple[str, ...]) -> None:
    """Run `dvc repro`, and import torch once for all steps.

    Arguments and exit code are those of `dvc repro`. Plain `dvc repro` makes the same bytes, and takes a few
    seconds longer for each step that trains, samples or evaluates: it imports torch and transformers anew.
    Here such steps are forked from a process that has imported them, which ends with dvc. On Linux only;
    elsewhere this is `dvc repro`.
    """
    environment = dict(os.environ)
    if server := start_server(environment):
        environment["PATH"] = f"{server.folder}:{environment['PATH']}"
    command = [sys.executable, "-P", "-m", "dvc", "repro", *arguments]  # -P: as `dvc`, nothing of this folder
    if os.name == "nt":
        raise click.exceptions.Exit(subprocess.run(command).returncode)
    # This process becomes dvc, and the server ends with it: no one has to hand on signals or the exit code.
    os.execve(command[0], command, environment)
