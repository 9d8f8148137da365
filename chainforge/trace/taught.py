"""What teachers said about a problem, what that cost, and what the filter made of it."""

from pathlib import Path
from typing import Any

from chainforge.config.collect import CollectSettings
from chainforge.config.filter import FilterSettings
from chainforge.config.loading import load_settings
from chainforge.config.run import RunSettings
from chainforge.filtering.decisions import decisions_file
from chainforge.filtering.funnel import REASONS
from chainforge.jsonl import count_rows, read_rows
from chainforge.project.graph import GraphStep, settings_of
from chainforge.report.evaluations import read_numbers
from chainforge.response import tag_format
from chainforge.run.step import LOGS, file_name
from chainforge.teachers.answers import journal_folder
from chainforge.teachers.journal import read_journal
from chainforge.trace.about import rows_about

Facts = dict[str, Any]
TOLD = (
    "sent_at",
    "at",
    "latency_s",
    "model",
    "finish",
    "cause",
    "usage",
    "cost_usd",
    "http_status",
    "message",
)


def of_collect(step: GraphStep, prompt_id: str, _: str) -> Facts | None:
    """Calls of the journal, where the teacher is behind an API, and the traces that came of them."""
    settings = settings_of(CollectSettings, step.name)
    traces = [
        {"file": str(settings.output), "line": line, **row}
        for line, row in rows_about(settings.output, prompt_id)
    ]
    calls = read_calls(journal_folder(step.name), prompt_id)
    if not traces and not calls:
        return None
    return {"teacher": settings.teacher.plugin, "calls": calls, "traces": traces}


def read_calls(folder: Path, prompt_id: str) -> list[Facts]:
    """Every call about a prompt, in the order in which they were sent: attempts above 0 are retries."""
    calls: dict[tuple[str, int], Facts] = {}
    for _, record in read_journal(folder):
        if record.get("prompt_id") != prompt_id:
            continue
        key = (record["fingerprint"], record["attempt"])
        call = calls.setdefault(key, {"sample": record["sample"], "attempt": record["attempt"], "end": None})
        if record["kind"] == "sent":
            call["sent_at"] = record["at"]
        else:
            call |= {name: record[name] for name in TOLD if record.get(name) is not None}
            call |= {"end": record["kind"], "reused": bool(record.get("reused"))}
    return list(calls.values())


def of_filter(step: GraphStep, prompt_id: str, _: str) -> Facts | None:
    """For each trace of the problem, whether the filter kept it, and why not."""
    settings = settings_of(FilterSettings, step.name)
    traces = list(rows_about(settings.traces, prompt_id))
    accepted = list(rows_about(settings.output, prompt_id))
    if not traces or not settings.output.is_file():
        return None
    known = decisions_of(step.name, settings)
    form = tag_format(load_settings(RunSettings, "run").response_format)
    kept = {row["response"] for _, row in accepted}
    decisions = []
    for line, row in traces:
        reason = known.get(line, "unknown")
        if not known and form.render(row["reasoning"], row["content"]) in kept:
            reason = None
        words = (
            "why, is not known: logs/ are not of this run"
            if reason == "unknown"
            else REASONS.get(reason or "")
        )
        decisions.append({"line": line, "kept": reason is None, "reason": reason, "why": words})
    return {"traces": str(settings.traces), "decisions": decisions}


def decisions_of(step: str, settings: FilterSettings) -> dict[int, str | None]:
    """Why each trace, by its line, was dropped; null where it was kept.

    Empty where the log is gone, or is not of the run that wrote the metrics: DVC brings back no logs.
    """
    path, metrics = decisions_file(LOGS, file_name(step)), Path("metrics") / f"{file_name(step)}.json"
    if not path.is_file() or not metrics.is_file():
        return {}
    reasons = [row.get("reason") for _, row in read_rows(path)]
    told, traces = read_numbers(metrics), count_rows(settings.traces)
    if (len(reasons), reasons.count(None)) != (told.get("read"), told.get("kept")) or len(reasons) != traces:
        return {}
    return dict(enumerate(reasons, start=1))
