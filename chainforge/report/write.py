"""Write the report: tables for machines, one figure for the README, one page for people."""

import csv
import io
import json
from dataclasses import fields
from pathlib import Path

from chainforge.outputs import write_text
from chainforge.report.page import overview, render_page
from chainforge.report.results import Results, StageRow, as_rows, read_results
from chainforge.report.samples import read_samples
from chainforge.report.subject import Subject
from chainforge.report.watched import read_watched


def write_report(*, root: Path, out: Path, subject: Subject) -> Results:
    """Read `root`, write `out`: the same inputs give the same bytes.

    What a trimmed graph lacks is left out, with a note in the page. Raises ChainForgeError if a listed
    checkpoint was not evaluated; then nothing is written.
    """
    results = read_results(root, subject)
    samples = read_samples(root, results.cells, subject)
    files = {
        "stages.json": as_json(as_rows(results.stages)),
        "stages.csv": as_csv(results.stages),
        "summary.json": as_json(summary(results)),
        "paired.json": as_json(as_rows(results.paired)),
        "families.json": as_json(as_rows(results.families)),
        "curves.svg": overview(results, subject),
        "index.html": render_page(results, samples, read_watched(root, results.rl), subject),
    }
    for name, text in files.items():
        write_text(out / name, text)
    return results


def summary(results: Results) -> dict[str, dict[str, float]]:
    """pass@1 by bench and checkpoint, for `dvc metrics diff`."""
    by_bench: dict[str, dict[str, float]] = {}
    for row in results.stages:
        by_bench.setdefault(row.bench, {})[row.checkpoint] = row.pass_at_1
    return by_bench


def as_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(rows: tuple[StageRow, ...]) -> str:
    buffer = io.StringIO(newline="")
    table = csv.DictWriter(buffer, [f.name for f in fields(StageRow)], lineterminator="\n")
    table.writeheader()
    table.writerows(as_rows(rows))
    return buffer.getvalue()
