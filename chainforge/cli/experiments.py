"""`chainforge experiments`: what `dvc exp show` knows, in as many columns as a terminal has."""

import json
import subprocess
import sys

import click

from chainforge.errors import ChainForgeError


@click.command()
@click.option("-A", "--all-commits", is_flag=True, help="Of every commit, not of HEAD alone.")
def experiments(all_commits: bool) -> None:
    """Every experiment: the settings in which they differ, and pass@1 of each checkpoint."""
    from chainforge.report.experiments import format_experiments, read_experiments

    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", *(["-A"] if all_commits else [])]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode != 0:
        reason = (ended.stderr.strip().splitlines() or ["it gave no reason"])[0]
        raise ChainForgeError(f"dvc exp show failed: {reason}", "experiments need git: git init, then commit")
    click.echo(format_experiments(read_experiments(json.loads(ended.stdout))))
