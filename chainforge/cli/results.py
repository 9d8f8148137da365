"""`chainforge results` and `settings`: what a run left, and what can be set."""

from pathlib import Path

import click

from chainforge.cli.project import ProjectCommand
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.errors import ChainForgeError


@click.command(cls=ProjectCommand)
@as_json_option
def results(as_json: bool) -> None:
    """Print every checkpoint's held-out results, and where the report is."""
    from chainforge.report.results import as_rows, stage_rows
    from chainforge.report.table import format_table

    path, page = Path("reports/stages.json"), Path("reports/index.html").resolve()
    if not path.is_file():
        raise ChainForgeError("there are no results yet", "run: dvc repro")
    rows = stage_rows(path)
    if as_json:
        return show_json({"results": as_rows(rows), "report": str(page)})
    show(format_table(rows))
    if on_development():
        show("\nThis is the development split (evaluate.split: dev), not the test.")
    show(f"\nThe report: {page}")


def on_development() -> bool:
    """Whether an evaluation that lies here was on the development split; its record says so."""
    records = Path("data/eval").glob("*/*.record.json")
    # as a text: a record that is broken is no reason to show no results
    return any('"split": "dev"' in path.read_text(encoding="utf-8", errors="replace") for path in records)


@click.command()
def settings() -> None:
    """Print docs/settings.md: every setting with its type, default and meaning."""
    from chainforge.cli.settings_page import settings_page

    click.echo(settings_page(), nl=False)
