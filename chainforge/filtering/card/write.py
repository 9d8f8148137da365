"""Write the card: Markdown with the front matter that the Hugging Face hub reads."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainforge.config.filter import FilterSettings
from chainforge.filtering.funnel import REASONS, Funnel, sort_reasons
from chainforge.outputs import sha256_of
from chainforge.records import Example, Prompt
from chainforge.rendering import text_templates
from chainforge.response import TagFormat

SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)
QUANTILES = ("shortest", "10%", "25%", "median", "75%", "90%", "longest")
PLACES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """All that a card tells. `benchmarks` are the evaluation files with the number of their prompts."""

    settings: FilterSettings
    prompts: Mapping[str, Prompt]
    calls: Mapping[str, Any]
    examples: Sequence[Example]
    funnel: Funnel
    benchmarks: Mapping[str, int]
    response_format: TagFormat


def data_card(data: DataSet) -> str:
    """The whole card; `settings.output` is written already. The same data give the same bytes."""
    # What came from outside goes by `cell`.
    templates = text_templates(Path(__file__).parent, cell, number, as_json)
    settings = data.settings
    parts = [data.response_format.parse(example.response) for example in data.examples]
    reasoning = [len(part.reasoning) for part in parts if part]
    answers = [len(part.summary) for part in parts if part]
    return templates.get_template("card.md.j2").render(
        settings=settings,
        file=settings.output.name,
        calls=data.calls,
        kept=len(data.examples),
        prompts=len({example.prompt_id for example in data.examples}),
        size=next((name for limit, name in SIZES if len(data.examples) < limit), "n>10M"),
        sources=sorted(Counter(data.prompts[example.prompt_id].source for example in data.examples).items()),
        funnel=funnel_rows(data.funnel),
        read=data.funnel.read,
        quantiles=QUANTILES,
        lengths={"reasoning": quantiles(reasoning), "answer": quantiles(answers)},
        benchmarks=data.benchmarks,
        contaminated={reason: data.funnel.dropped[f"contaminated_{reason}"] for reason in ("exact", "ngram")},
        tags=data.response_format.tags,
        hashes={str(path): sha256_of(path) for path in (settings.prompts, settings.traces, settings.output)},
    )


def funnel_rows(funnel: Funnel) -> list[tuple[str, str, int, int]]:
    """Reason, what it means, dropped, left after it; in the order of the tests."""
    left, rows = funnel.read, []
    for reason in sort_reasons(funnel.dropped):
        left -= funnel.dropped[reason]
        rows.append((reason, REASONS.get(reason, ""), funnel.dropped[reason], left))
    return rows


def quantiles(lengths: Sequence[int]) -> list[int]:
    """The values at PLACES, each one that occurs: nothing is interpolated."""
    ascending = sorted(lengths)
    return [ascending[round(place * (len(ascending) - 1))] for place in PLACES]


def cell(value: object) -> str:
    """Text from outside as code in a table: on one line, without what would end the code or the cell."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "\\|")
    return f"`{text}`" if text else "–"


def number(value: float | str | None) -> str:
    """A count with commas; – for what nobody said."""
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def as_json(value: object) -> str:
    """One value of the front matter: JSON is YAML too."""
    return json.dumps(value, ensure_ascii=True)
