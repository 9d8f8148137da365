"""What was asked, answered and paid, beside the traces: `calls.json`."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from chainforge.config.loading import Choice
from chainforge.records import Trace


def in_process_calls(teacher: Choice, traces: Iterable[Trace], synthetic: bool | None) -> dict[str, Any]:
    """The calls of a teacher that runs here: nothing was paid, and null is what it has nothing to say on.

    `models` are the traces' origins.
    """
    models = Counter(trace.origin for trace in traces)
    return {
        "teacher": teacher.plugin,
        "parameters": teacher.settings,
        "models": dict(models),
        "synthetic": synthetic,
        "first_day": None,
        "last_day": None,
        "requests": None,
        "answers": models.total(),
        "possibly_paid": 0,
        "tokens": None,
        "cost_usd": None,
        "price_table": None,
    }
