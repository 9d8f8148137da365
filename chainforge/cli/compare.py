"""`chainforge compare`: two runs on the same held-out problems."""

from contextlib import closing
from typing import Any

import click

from chainforge.cli.complete import bench_names, checkpoint_names, complete
from chainforge.cli.project import ProjectCommand
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.errors import unknown


@click.command(cls=ProjectCommand)
@click.argument("a")
@click.argument("b", default="workspace")
@click.option("--checkpoint", help="Only this one.", shell_complete=complete(checkpoint_names))
@click.option("--bench", help="Only this one.", shell_complete=complete(bench_names))
@click.option(
    "--examples", type=click.IntRange(0), default=2, show_default=True, help="Flips shown each way."
)
@click.option("--over", metavar="KEY", help="A and B are settings, each run with several KEY: run.seed.")
@click.option("-A", "--all-commits", is_flag=True, help="With --over: experiments of every commit.")
@as_json_option
def compare(
    a: str,
    b: str,
    checkpoint: str | None,
    bench: str | None,
    examples: int,
    over: str | None,
    all_commits: bool,
    as_json: bool,
) -> None:
    """What changed between two runs, and what that did.

    A and B are DVC experiments, git revisions, or `workspace`, the files as they lie here. The table has the
    paired difference of pass@1 over the held-out problems that both answered, with its 95% interval; below it
    are problems that flipped between wrong and right, by the greedy answer, or where a run has none, by more
    than half of the samples. Without --checkpoint and --bench they are of the cell where most flipped; --json
    has all of them.

    With --over run.seed, A and B are settings (grpo.kl_coeff=0) or beginnings of experiments' names, and the
    difference is that over the seeds which both have, with a sentence on whether it can be told from noise.
    """
    if over:
        text, found = over_seeds(a, b, over, checkpoint, bench, all_commits=all_commits)
        show_json(found) if as_json else show(text)
        return
    from chainforge.project.lock_diff import lock_changes
    from chainforge.report.compare.problems import compare_cell
    from chainforge.report.compare.revision import Revision
    from chainforge.report.compare.settings import changed_settings
    from chainforge.report.compare.text import Comparison

    with closing(Revision(a)) as before, closing(Revision(b)) as after:
        cells = list(dict.fromkeys([*after.cells, *before.cells]))
        checkpoints, benches = (set(names) for names in zip(*cells, strict=True))
        for kind, name, known in (("checkpoint", checkpoint, checkpoints), ("bench", bench, benches)):
            if name is not None and name not in known:
                raise unknown(kind, name, known)
        chosen = [cell for cell in cells if checkpoint in (None, cell[0]) and bench in (None, cell[1])]
        comparison = Comparison(
            a,
            b,
            changed_settings(before.params, after.params),
            lock_changes(before.lock, after.lock),
            [compare_cell(*cell, before.answers(*cell), after.answers(*cell)) for cell in chosen],
            {run.name: [cell for cell in chosen if cell in run.outdated] for run in (before, after)},
        )
    if as_json:
        show_json(comparison.as_json())
    else:
        show(comparison.as_text(examples, everywhere=bool(checkpoint or bench)))


def over_seeds(
    a: str, b: str, over: str, checkpoint: str | None, bench: str | None, *, all_commits: bool
) -> tuple[str, dict[str, Any]]:
    """What two settings differ by over seeds: for people, and for programs."""
    from chainforge.report.seeds.effect import as_json, as_text, effects, unpaired
    from chainforge.report.seeds.runs import Runs, choose

    with Runs(all_commits=all_commits) as runs:
        before, after = (choose(runs.all, side, over) for side in (a, b))
        found = effects(before, after)
    for kind, name, known in (
        ("checkpoint", checkpoint, {e.checkpoint for e in found}),
        ("bench", bench, {e.bench for e in found}),
    ):
        if name is not None and name not in known:
            raise unknown(kind, name, known)
    chosen = [e for e in found if checkpoint in (None, e.checkpoint) and bench in (None, e.bench)]
    return as_text(a, b, chosen, list(unpaired(before, after))), as_json(a, b, over, chosen)
