"""`chainforge chance`: what rounding alone does to a run, as a figure."""

from pathlib import Path

import click

from chainforge.cli.project import Place, ProjectCommand
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.errors import ChainForgeError


@click.command(cls=ProjectCommand)
@click.argument("a")
@click.argument("b", required=False)
@click.option("--checkpoint", default="qwen_rl_ckpt_stage2", show_default=True, help="Whose scores.")
@click.option("--bench", default="reasoning", show_default=True, help="On which bench.")
@click.option("--step", default="grpo_reasoning", show_default=True, help="Whose training curves.")
@click.option("--column", default="reward", show_default=True, help="Of plots/STEP.csv.")
@click.option("--output", type=Place(), help="Where the figure goes, an .svg; none without.")
@click.option("-A", "--all-commits", is_flag=True, help="Experiments of every commit, not of HEAD alone.")
@as_json_option
def chance(
    a: str,
    b: str | None,
    checkpoint: str,
    bench: str,
    step: str,
    column: str,
    output: Path | None,
    all_commits: bool,
    as_json: bool,
) -> None:
    """The spread of twins, that of seeds, and the effect of B against A.

    A and B are settings (grpo.kl_coeff=0) or beginnings of experiments' names. Twins are runs of the same
    settings and seed that differ by rounding only: chainforge seeds 17 --twins 3 makes them.
    """
    from chainforge.outputs import write_text
    from chainforge.report.seeds.chance import as_json as json_of
    from chainforge.report.seeds.chance import as_text, draw, spreads
    from chainforge.report.seeds.runs import SEED, Runs, choose

    if output is not None and output.suffix != ".svg":
        raise ChainForgeError(f"the figure is SVG, and {output} is called otherwise", "--output chance.svg")
    with Runs(all_commits=all_commits) as runs:
        sides = [(side, choose(runs.all, side, SEED)) for side in (a, b) if side is not None]
        found = spreads(runs.all, sides[0], sides[1] if b else None, (checkpoint, bench), step)
    if output is not None:
        write_text(output, draw(found, (checkpoint, bench), step, column))
    if as_json:
        show_json(json_of(found))
    else:
        show(as_text(found))
