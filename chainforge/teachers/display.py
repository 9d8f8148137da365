"""A collection as it goes: live on a terminal, one line now and then elsewhere, or JSON."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from chainforge.defuse import defuse
from chainforge.run.progress import LOG_SECONDS
from chainforge.teachers.collector import Collector

Watch = Callable[[Collector], None]
LIVE_S = 0.25
JSON_S = 1.0
PROBLEM = 120  # characters


@contextmanager
def display(title: str, *, as_json: bool = False) -> Iterator[Watch]:
    """Yield what shows a collector; the last state is shown when the block ends, however it ends.

    Where nobody can be shown anything any more, because the terminal was closed, the collection goes on.
    """
    newest: list[Collector] = []
    with ExitStack() as screen:
        if as_json:
            show, seconds = partial(print_json, title), JSON_S
        elif sys.stderr.isatty():
            show, seconds = partial(update, screen.enter_context(live()), title), LIVE_S
        else:
            show, seconds = partial(print_line, title), float(LOG_SECONDS)
        try:
            yield every(seconds, show, newest)
        finally:
            if newest:
                with suppress(OSError, ValueError):
                    show(newest[0])


@contextmanager
def live() -> Iterator[Live]:
    """A live display on stderr, which may be gone by its end."""
    shown = Live(console=Console(stderr=True), refresh_per_second=1 / LIVE_S)
    shown.start()
    try:
        yield shown
    finally:
        with suppress(OSError, ValueError):
            shown.stop()


def every(seconds: float, show: Watch, newest: list[Collector]) -> Watch:
    """Show at most once in `seconds`, and remember whom."""
    last = time.monotonic()

    def watch(collector: Collector) -> None:
        nonlocal last
        newest[:] = [collector]
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            with suppress(OSError, ValueError):
                show(collector)

    return watch


def figures(collector: Collector) -> Mapping[str, Any]:
    """What there is to say, by name."""
    tally, budget = collector.tally, collector.budget
    eta_s = tally.eta_s()
    return {
        "done": tally.done,
        "total": tally.total,
        "in_flight": len(collector.flying),
        "limit": int(collector.limit.value),
        "tokens_per_s": round(tally.rates()[0], 1),
        "spent_usd": str(budget.spent),
        "possibly_paid_usd": str(budget.lost),
        "budget_usd": None if budget.cap is None else str(budget.cap),
        "retries": dict(sorted((+tally.retries).items())),
        "skipped": tally.skipped,
        "refused": tally.causes["refused"] + tally.left_out,
        "newest_problem": tally.problem,
        "streamed_characters": tally.characters,
        "eta_s": None if eta_s is None else round(eta_s),
        "waiting_for": tally.waiting_for,
        "stopping": str(collector.stopped.problem) if collector.stopped else "",
    }


def sentence(collector: Collector) -> str:
    """The figures in words, without those that are nothing."""
    f = figures(collector)
    cap = "" if f["budget_usd"] is None else f" of {f['budget_usd']}"
    spent = f"{float(f['spent_usd']):.4f}{cap} USD" if collector.priced else "cost unknown"
    if collector.budget.lost:
        spent += f" (+{float(f['possibly_paid_usd']):.4f} possibly)"
    retries = ", ".join(f"{cause} {count}" for cause, count in f["retries"].items())
    parts = [
        f"{f['in_flight']} in flight of {f['limit']}",
        f"{f['tokens_per_s']:,.0f} tokens/s",
        spent,
        f"asked again: {retries}" if retries else "",
        f"{f['skipped']} without an answer" if f["skipped"] else "",
        f"{collector.tally.left_out} refused before" if collector.tally.left_out else "",
        f"newest problem: {f['newest_problem']:.{PROBLEM}}" if f["newest_problem"] else "",
        f"{f['streamed_characters']:,} characters streamed" if f["streamed_characters"] else "",
        f"waiting for {f['waiting_for']}" if f["waiting_for"] else "",
        f"{f['stopping']}: waiting for the calls in flight" if f["stopping"] and f["in_flight"] else "",
    ]
    return defuse(" · ".join(part for part in parts if part))


def heading(collector: Collector) -> str:
    tally = collector.tally
    eta_s = tally.eta_s()
    eta = "" if eta_s is None or tally.done >= tally.total else f", {timedelta(seconds=round(eta_s))} left"
    return f"{tally.done:,} of {tally.total:,} ({tally.done / max(tally.total, 1):.0%}){eta}"


def update(live: Live, title: str, collector: Collector) -> None:
    live.update(panel(title, collector))


def panel(title: str, collector: Collector) -> Group:
    """Two lines: a bar, and the figures."""
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(collector.tally.total, 1), completed=collector.tally.done, width=40)
    row.add_row(Text(title, style="bold"), bar, heading(collector))
    return Group(row, Text(sentence(collector), style="dim"))


def print_line(title: str, collector: Collector) -> None:
    sys.stderr.write(f"{title}: {heading(collector)} · {sentence(collector)}\n")
    sys.stderr.flush()


def print_json(title: str, collector: Collector) -> None:
    sys.stdout.write(json.dumps({"step": title, **figures(collector)}) + "\n")
    sys.stdout.flush()
