"""`chainforge collect`: ask a teacher behind an API, see what that costs, look at what is there."""

import json
from math import inf
from typing import Any

import click

from chainforge.cli.collect_estimate import say_estimate
from chainforge.cli.collect_plan import TEACHERS, Plan, plan_of_files, plan_of_step
from chainforge.cli.collect_status import status
from chainforge.cli.collect_traces import traces
from chainforge.cli.collect_verify import verify
from chainforge.cli.collect_write_off import write_off
from chainforge.cli.complete import collecting_steps, complete
from chainforge.cli.project import Place
from chainforge.config.collector import CollectorSettings, collector_settings
from chainforge.config.loading import PARAMS
from chainforge.jsonl import write_records
from chainforge.outputs import sha256_of, write_json
from chainforge.run.progress import say
from chainforge.teachers.account import account_of, calls_json
from chainforge.teachers.answers import answer_all
from chainforge.teachers.display import display
from chainforge.teachers.paid import Paid
from chainforge.teachers.traces import traces_of
from chainforge.teachers.unanswered import describe_unanswered
from chainforge.teachers.usable import names_of


class Budget(click.ParamType[float | str]):
    """USD, or "none"."""

    name = "USD|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """A number, or the word."""
        if value == "none":
            return "none"
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < inf:
            self.fail(f"{value!r} is neither a number of USD nor none", param, ctx)
        return number


@click.group("collect", invoke_without_command=True)
@click.option(
    "--step",
    default="collect_cot",
    show_default=True,
    shell_complete=complete(collecting_steps),
    help="Collect for this step of dvc.yaml …",
)
@click.option("--problems", type=Place(), help="… or for this JSONL of prompts,")
@click.option("--out", type=Place(), help="into this folder.")
@click.option("--teacher", metavar="NAME", help=f"With --problems: {', '.join(TEACHERS)}, or a plugin.")
@click.option("--model", help="With --problems: the model's name at the provider.")
@click.option("--base-url", help="With --problems: another server.")
@click.option("--effort", help="With --problems: how long to think (low, high, max).")
@click.option(
    "--max-tokens", type=click.IntRange(1), help="With --problems: of reasoning and answer together."
)
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="With --problems: more settings."
)
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=17, show_default=True, help="With --problems."
)
@click.option(
    "--samples", type=click.IntRange(1), help="Answers per prompt; raised later, only more are paid."
)
@click.option("--max-problems", type=click.IntRange(1), help="Only the first N prompts.", metavar="N")
@click.option("--budget-usd", type=Budget(), help="Never spend more, all runs on this journal together.")
@click.option("--concurrency", type=click.IntRange(1), help="Most calls in flight.")
@click.option(
    "--deadline",
    "deadline_s",
    type=click.FloatRange(0, 1e9, min_open=True),
    metavar="S",
    help="Seconds until a call is given up.",
)
@click.option("--off-peak-only", is_flag=True, default=None, help="Wait while the higher price is on.")
@click.option("--retry-truncated", is_flag=True, help="With --problems: once more, with twice the tokens.")
@click.option("--stream", is_flag=True, default=None, help="Stream the answers, to watch them come.")
@click.option(
    "--retry-refused", is_flag=True, default=None, help="Ask again what the provider refused before."
)
@click.option(
    "--reuse", type=Place(), multiple=True, metavar="DIR", help="Take answers of this journal, too."
)
@click.option("--dry-run", is_flag=True, help="Count, and say what it can cost; needs no key.")
@click.option("--json", "as_json", is_flag=True, help="Progress and result as JSON, a line a second.")
@click.pass_context
def collect(ctx: click.Context, /, **options: Any) -> None:
    """Ask a teacher behind an API for chains of thought.

    Without --problems, for a step of the pipeline: with the teacher, the prompts and the journal that `dvc
    repro` uses, which then has nothing left to pay. Every answer is kept in the journal before it counts; the
    same command goes on after whatever stopped it. Ctrl-C waits for the calls in flight, twice gives them up.

    \b
    chainforge collect --dry-run
    chainforge collect --budget-usd 5
    chainforge collect --problems hard.jsonl --out collected/hard --teacher deepseek --budget-usd 5
    chainforge collect status collected/hard

    Exit codes: 3 key refused, 4 no balance, 5 no such model, 6 budget used up, 7 requests refused,
    8 no reasoning in the answers, 9 provider out of reach, 10 unknown finish reasons, 130 stopped.
    """
    if ctx.invoked_subcommand:
        return
    plan = plan_of_files(options) if options["problems"] or options["out"] else plan_of_step(options)
    if options["dry_run"]:
        return say_estimate(plan, settings_with(options).concurrency)
    settings = settings_with(options)
    with display(plan.title, as_json=options["as_json"]) as watch:
        paid = answer_all(
            plan.teacher,
            plan.questions,
            plan.folder,
            settings,
            about=plan.about,
            retry_truncated=plan.retry_truncated,
            watch=watch,
        )
    if plan.traces:
        write_records(plan.traces, traces_of(plan.teacher, plan.questions, plan.folder, paid))
        account = account_of(plan.folder, names_of(paid, plan.questions))
        write_json(
            plan.folder / "calls.json",
            calls_json(account, plan.about["plugin"], dict(plan.teacher.identity))
            | {"traces_sha256": sha256_of(plan.traces)},
        )
    say_result(plan, paid, options["as_json"])


def say_result(plan: Plan, paid: Paid, as_json: bool) -> None:
    """The last lines."""
    for line in describe_unanswered(plan.questions, paid):
        say(line)
    asked, file = len(plan.questions), str(plan.traces or plan.folder)
    answered = sum(question.fingerprint in paid.finals for question in plan.questions)
    if as_json:
        result = {"step": plan.title, "answered": answered, "questions": asked}
        click.echo(json.dumps(result | {"spent_usd": str(paid.spent), "result": file}))
    else:
        click.echo(f"{answered:,} of {asked:,} answered, {paid.spent} USD: {file}")


def settings_with(options: dict[str, Any]) -> CollectorSettings:
    """Those of params.yaml, with the command line's on top."""
    base = collector_settings() if PARAMS.is_file() else CollectorSettings()
    given = {key: value for key, value in options.items() if key in CollectorSettings.model_fields}
    chosen = {
        key: list(map(str, value)) if key == "reuse" else value
        for key, value in given.items()
        if value is not None and value != ()
    }
    return CollectorSettings.model_validate(base.model_dump() | chosen)


collect.add_command(status)
collect.add_command(verify)
collect.add_command(traces)
collect.add_command(write_off)
