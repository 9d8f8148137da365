"""`chainforge experiments`: what `dvc exp show` knows, in as many columns as a terminal has."""

import json
import subprocess
import sys

import click

from chainforge.cli.project import ProjectCommand
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.errors import ChainForgeError


@click.command(cls=ProjectCommand)
@click.option(
    "-A", "--all-commits", is_flag=True, help="Of every commit that has results, not of HEAD alone."
)
@as_json_option
def experiments(all_commits: bool, as_json: bool) -> None:
    """Every experiment: the settings in which they differ, and pass@1 of each checkpoint."""
    from chainforge.report.experiments import as_rows, format_experiments, read_experiments, with_results

    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", *(["-A"] if all_commits else [])]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if ended.returncode != 0:
        reason = (ended.stderr.strip().splitlines() or ["it gave no reason"])[0]
        raise ChainForgeError(f"dvc exp show failed: {reason}", "experiments need git: git init, then commit")
    found = read_experiments(json.loads(ended.stdout))
    if all_commits:
        found = with_results(found)
    if as_json:
        show_json({"experiments": as_rows(found)})
    else:
        show(format_experiments(found))
