"""`chainforge seeds`: the recipe once per seed, and the scores side by side."""

import time
from collections.abc import Sequence

import click

from chainforge.cli.project import ProjectCommand
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.errors import ChainForgeError


@click.command(cls=ProjectCommand)
@click.argument("seeds", nargs=-1, type=click.IntRange(0))
@click.option("-S", "--set-param", "changes", multiple=True, metavar="KEY=VALUE", help="As in dvc exp run.")
@click.option(
    "--twins", type=click.IntRange(0, 16), default=0, help="Runs per seed that differ by rounding only."
)
@click.option(
    "--nudge",
    default="sft.learning_rate",
    show_default=True,
    help="The learning rate that twins change by a last digit.",
)
@click.option("--target", "targets", multiple=True, metavar="STEP", help="Only up to this step.")
@click.option("-A", "--all-commits", is_flag=True, help="Show the runs of every commit, not of HEAD alone.")
@as_json_option
def seeds(
    seeds: tuple[int, ...],
    changes: tuple[str, ...],
    twins: int,
    nudge: str,
    targets: tuple[str, ...],
    all_commits: bool,
    as_json: bool,
) -> None:
    """Run the recipe once per seed, then show each checkpoint's score by seed.

    Each seed is a DVC experiment of its own, named after its settings and seed. One that is there already, of
    the same settings and code, does not run again: the same command goes on where it stopped. Without seeds,
    it shows what there is. The mean's interval is over seeds, Student's, and says nothing of problems alone.
    """
    from chainforge.report.seeds.runs import Runs
    from chainforge.report.seeds.side_by_side import as_json as json_of
    from chainforge.report.seeds.side_by_side import as_text, groups

    if seeds:
        run_each(tuple(dict.fromkeys(seeds)), changes, twins, nudge, targets)
    elif changes or twins or targets:
        raise ChainForgeError("no seed is named", "chainforge seeds 17 18 19 -S KEY=VALUE")
    with Runs(all_commits=all_commits) as runs:
        found = groups(runs.all)
    if as_json:
        show_json(json_of(found))
    else:
        show(as_text(found) or "No two runs differ in the seed alone: chainforge seeds 17 18 19 makes some.")


def run_each(
    seeds: Sequence[int], changes: Sequence[str], twins: int, nudge: str, targets: Sequence[str]
) -> None:
    """A line per run on standard error. Raises ChainForgeError where one fails; those before it are kept."""
    from chainforge.cli.run_seeds import already, free_name, plan, run_experiment
    from chainforge.report.seeds.runs import Runs

    planned = [run for seed in seeds for run in plan(seed, changes, twins, nudge)]
    for number, one in enumerate(planned, start=1):
        with Runs() as runs:
            there = already(one, runs.all, targets)
            name = free_name(one.name, [run.name for run in runs.all])
        place = f"[{number}/{len(planned)}]"
        if there:
            show(f"{place} {there.name} is there", err=True)
            continue
        show(f"{place} {name} runs", err=True)
        began = time.monotonic()
        if code := run_experiment(one, name, targets):
            raise ChainForgeError(
                f"{name} ended with exit code {code}; what it says is above",
                "mend that, then type the same command: runs that have ended are not repeated",
            )
        show(f"{place} {name} done in {(time.monotonic() - began) / 60:.1f} min", err=True)
