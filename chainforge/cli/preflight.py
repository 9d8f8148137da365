"""`chainforge preflight`: what steps will need and whether they are set up right, before hours are spent."""

from dataclasses import asdict

import click

from chainforge.cli.complete import complete, trained_steps
from chainforge.cli.project import ProjectCommand
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.errors import ChainForgeError, unknown


@click.command(cls=ProjectCommand)
@click.argument("step", required=False, shell_complete=complete(trained_steps))
@click.option("--quick", is_flag=True, help="Load no model: check settings, keys, servers, sandbox and disk.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=6.0,
    show_default=True,
    help="For the try of one step, beside what loading its model takes. More is more exact.",
)
@as_json_option
def preflight(step: str | None, quick: bool, seconds: float, as_json: bool) -> None:
    """Try a little of STEP, or of every step that trains, samples or evaluates, and say what all of it needs.

    Predicts time, memory and disk from a few batches and a small rollout of the real model on the real
    prompts, and checks chat format, loss masks, rewards, keys and servers. Nothing is written, and no run is
    disturbed. Exit code 1 where a step cannot work. docs/preflight.md
    """
    from chainforge.config.loading import load_settings
    from chainforge.config.run import RuntimeSettings
    from chainforge.plugins import load_plugins
    from chainforge.preflight.judge import ranked
    from chainforge.preflight.surroundings import check_disk, check_surroundings
    from chainforge.preflight.table import lines
    from chainforge.project.graph import read_graph

    graph = read_graph()
    if step is not None and step not in graph:
        raise unknown("step in dvc.yaml", step, graph)
    chosen = [of for of in graph.values() if step in (None, of.name)]
    plugins = load_plugins()
    around = list(check_surroundings(chosen, plugins, load_settings(RuntimeSettings, "runtime")))
    estimates = []
    if not quick:
        from chainforge.preflight.attempt import try_steps
        from chainforge.preflight.trial import KINDS

        tried = [of for of in chosen if of.verb in KINDS]
        estimates = list(try_steps(tried, graph, plugins, seconds))
    around += check_disk(estimates)
    rows = ranked(estimates, around)
    if as_json:
        changes = [{"step": name, **asdict(finding)} for name, finding in rows]
        show_json({"steps": [estimate.as_json() for estimate in estimates], "changes": changes})
    else:
        for line in lines(estimates, around):
            show(line)
    if stops := [finding for _, finding in rows if finding.stops]:
        raise ChainForgeError(
            f"{len(stops)} of these would stop a run: {stops[0].problem}",
            stops[0].fix if len(stops) == 1 else "mend what is marked STOPS, then try again",
        )
