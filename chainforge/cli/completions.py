"""`chainforge completions`: every completion that a run has left, to read and to take elsewhere."""

from pathlib import Path

import click

from chainforge.cli.complete import complete, sampling_steps
from chainforge.cli.project import Place, ProjectCommand
from chainforge.cli.show import show
from chainforge.errors import ChainForgeError

step_option = click.option(
    "--step",
    "steps",
    multiple=True,
    help="Only of this one; again for more.",
    shell_complete=complete(sampling_steps),
)


@click.group()
def completions() -> None:
    """Rollouts of GRPO, rejection samples and answers of evaluations, in one schema.

    Answers of evaluations are always there; the rest is kept with runtime.keep_completions: true.
    docs/lineage.md has the columns.
    """


@completions.command("export", cls=ProjectCommand)
@click.argument("file", type=Place(), metavar="FILE.parquet")
@step_option
def export(file: Path, steps: tuple[str, ...]) -> None:
    """Write them into one Parquet file, which pandas, DuckDB and polars open; needs the extra `parquet`."""
    from chainforge.completions.parquet import write_parquet
    from chainforge.completions.rows import find_completions

    if file.suffix != ".parquet":
        raise ChainForgeError(
            f"{file} does not end in .parquet", "name the file completions.parquet, for example"
        )
    found = find_completions(steps)
    count = write_parquet(found, file)
    tell(found.notes)
    show(f"{count:,} completions of {len(found.steps)} steps: {file}")


@completions.command("view", cls=ProjectCommand)
@click.option("--output", type=Place(), default="logs/completions.html", show_default=True, help="The page.")
@click.option("--limit", type=click.IntRange(1), default=50_000, show_default=True, help="Completions in it.")
@step_option
def view(output: Path, limit: int, steps: tuple[str, ...]) -> None:
    """Write one page to search and filter them in a browser, without a network."""
    from chainforge.completions.page import render_page
    from chainforge.completions.rows import find_completions
    from chainforge.outputs import write_text

    found = find_completions(steps)
    page, shown, total = render_page(found, limit)
    write_text(output, page)
    tell(found.notes)
    part = f"{shown:,} of {total:,} completions, spread evenly" if shown < total else f"{total:,} completions"
    show(f"{part}: {output.resolve()}")


def tell(notes: tuple[str, ...]) -> None:
    """What was left out, on stderr."""
    for note in notes:
        show(note, err=True)
