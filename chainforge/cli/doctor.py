"""`chainforge doctor`: what is wrong with a run, and which setting to change."""

import click

from chainforge.cli.complete import complete, diagnosed_steps
from chainforge.cli.project import ProjectCommand
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.errors import ChainForgeError, unknown


@click.command(cls=ProjectCommand)
@click.argument("step", required=False, shell_complete=complete(diagnosed_steps))
@click.option("--strict", is_flag=True, help="Exit code 1 where an error is found; for scripts.")
@as_json_option
@click.pass_context
def doctor(ctx: click.Context, step: str | None, strict: bool, as_json: bool) -> None:
    """Say what is wrong with a run, and which setting to change.

    STEP is one of dvc.yaml, such as grpo_reasoning or evaluate@qwen_sft_ckpt-reasoning. Without it, every
    step that has left something is looked at; one that still runs, as far as it is. Nothing is computed
    anew: this reads plots/, logs/, metrics/ and data/eval/.

    An error spoils the result, a warning may, a note is good to know. docs/doctor.md has every rule with its
    thresholds. The exit code is 0 whatever is found, unless --strict is given.
    """
    from chainforge.doctor.finding import Severity
    from chainforge.doctor.read import known_steps, nothing_to_read, read_runs
    from chainforge.doctor.table import diagnose
    from chainforge.doctor.text import as_json as json_of
    from chainforge.doctor.text import as_text

    steps = known_steps()
    if step is not None and step not in steps:
        raise unknown("step that the doctor has rules for", step, steps)
    runs = list(read_runs([steps[step]] if step is not None else steps.values()))
    if not runs:
        if step is not None:
            raise nothing_to_read(step)
        raise ChainForgeError("no step has left anything to look at yet", "run: dvc repro")
    findings = diagnose(runs)
    if as_json:
        show_json(json_of(runs, findings))
    else:
        show(as_text(runs, findings))
    if strict and any(finding.sign.severity is Severity.ERROR for finding in findings):
        ctx.exit(1)
