"""`chainforge results`, `timings` and `settings`: what a run left, and what can be set."""

import json
from pathlib import Path

import click

from chainforge.errors import ChainForgeError


@click.command()
def results() -> None:
    """Print every checkpoint's held-out results, and where the report is."""
    from chainforge.report.results import format_table, stage_rows

    path = Path("reports/stages.json")
    if not path.is_file():
        raise ChainForgeError("there are no results yet", "run: dvc repro")
    click.echo(format_table(stage_rows(path)))
    click.echo(f"\nThe report: {Path('reports/index.html').resolve()}")


@click.command()
def settings() -> None:
    """Print docs/settings.md: every setting with its type, default and meaning."""
    from chainforge.settings_page import settings_page

    click.echo(settings_page(), nl=False)


@click.command()
def timings() -> None:
    """Print how long each step took when it last ran here."""
    records = [
        json.loads(path.read_text()) for path in Path("logs").rglob("*.json") if "not-finite" not in path.name
    ]
    for record in records:
        click.echo(f"{record['step']:<48}{record['wall_s']:>9.1f} s{record['peak_mb']:>8} MB")
    click.echo(f"{'all':<48}{sum(r['wall_s'] for r in records):>9.1f} s")
