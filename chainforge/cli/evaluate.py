"""`chainforge evaluate`: any model on any problems, outside of the graph."""

import re
from pathlib import Path
from typing import Any

import click

from chainforge.cli.complete import bench_names, complete
from chainforge.cli.find_model import find_model
from chainforge.cli.project import Place, ProjectCommand
from chainforge.cli.show import as_json_option, show, show_json


@click.command(cls=ProjectCommand)
@click.argument("model")
@click.option(
    "--suite",
    "suites",
    multiple=True,
    required=True,
    shell_complete=complete(bench_names),
    help="A bench of params.yaml, or a JSONL file. Several may be given.",
)
@click.option(
    "--harness",
    type=click.Choice(["chainforge", "lm-eval"]),
    default="chainforge",
    help="lm-eval: a suite may also be TASK=FILE, a task of lm-eval on a local file, or TASK=FILE,EXAMPLES.",
)
@click.option("--revision", help="Pin a model of the hub to this commit.")
@click.option("--out", type=Place(), help="Folder for the results.  [default: evaluations/MODEL]")
@click.option("--samples", type=click.IntRange(1, 10_000), help="Completions per problem.")
@click.option("--temperature", type=click.FloatRange(0, 100), help="0 is greedy.")
@click.option("--top-p", type=click.FloatRange(1e-6, 1), help="Nucleus.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Completions are cut here.")
@click.option("--greedy/--no-greedy", default=None, help="One greedy completion per problem as well.")
@click.option("--limit", type=click.IntRange(1), help="Only the first N problems of each suite.")
@click.option("--reward", help="The reward that decides.")
@click.option(
    "--answer-pattern", help="Where the answer of a JSONL's row is: a regular expression, one group."
)
@click.option("--instruction", help="Written below each question of a JSONL.")
@as_json_option
def evaluate(
    model: str,
    suites: tuple[str, ...],
    harness: str,
    revision: str | None,
    out: Path | None,
    limit: int | None,
    reward: str | None,
    answer_pattern: str | None,
    instruction: str | None,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Evaluate MODEL, a checkpoint, a folder or a name of the hub, on problems, outside of the graph.

    What no option says is as in the sections `evaluate`, `run` and `runtime` of params.yaml. A JSONL has
    prompts as `data/prompts/` does, or a question and an answer per row. The table goes to standard output;
    the answers, the figures and what they depend on go to SUITE.jsonl, SUITE.json and SUITE.record.json.
    A run that was stopped goes on when the same command is given again.
    """
    from chainforge.cli.evaluation import Evaluation, read_suite
    from chainforge.cli.lm_eval_harness import read_task, run_task
    from chainforge.plugins import load_plugins
    from chainforge.project.graph import param
    from chainforge.report.results import as_rows
    from chainforge.report.table import format_table

    plugins, ctx = load_plugins(), click.get_current_context()
    changes = {name: value for name, value in sampling.items() if value is not None}
    if reward is not None:
        changes |= {"reward": reward, "rewards": list(dict.fromkeys([*param("evaluate.rewards"), reward]))}
    model = find_model(model, ctx)
    name = re.sub(r"[^\w-]", "_", model.rstrip("/").rpartition("/")[2])
    folder = out or Path("evaluations") / name
    reading = {"answer_pattern": answer_pattern, "instruction": instruction}
    others = [suite for suite in suites if harness == "lm-eval" and "=" in suite]
    tasks = [read_task(suite, ctx) for suite in others]
    read = [read_suite(suite, plugins, limit, ctx, reading) for suite in suites if suite not in others]
    evaluation = Evaluation(model, revision, name, changes, plugins)
    most = evaluation.settings.max_new_tokens
    rows = [evaluation.run(suite, folder) for suite in read]
    rows += [row for task in tasks for row in run_task(task, model, revision, folder, most, limit)]
    if as_json:
        return show_json({"results": as_rows(rows), "folder": str(folder.resolve())})
    show(format_table(rows))
    show(f"\nAnswers and conditions: {folder}")
