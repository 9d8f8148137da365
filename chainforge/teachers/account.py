"""What a journal's answers came from and cost."""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chainforge.teachers.journal import read_journal
from chainforge.teachers.line import TOKENS
from chainforge.teachers.paid import Paid

# In a message: what is different each time. The status in front is not.
VARYING = re.compile(r"(?<!^)\b(?=\w*\d)[\w-]+\b")
LONGEST_REASON = 100  # characters


@dataclass(slots=True)
class Account:
    """Of all calls in a journal, or of those about some questions. Days are in UTC.

    `reasons` has how often calls failed for a cause with messages alike, and the newest of these.
    """

    requests: int = 0
    answers: int = 0
    reused: int = 0
    models: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    reasons: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)  # why calls failed
    days: set[str] = field(default_factory=set)
    whose: dict[str, str] = field(default_factory=dict)  # the prompt of each question that failed
    synthetic: bool = False
    price_tables: set[str] = field(default_factory=set)
    paid: Paid = field(default_factory=Paid)


def account_of(folder: Path, about: Collection[str] | None = None) -> Account:
    """Add up a journal; with `about`, the calls for these fingerprints alone."""
    account = Account()
    for offset, record in read_journal(folder):
        kind = record["kind"]
        if kind in ("run", "written_off"):
            account.paid.add(offset, record)
            if kind == "run" and record["price_table"]:
                account.price_tables.add(record["price_table"])
            continue
        if about is not None and record["fingerprint"] not in about:
            continue
        account.paid.add(offset, record)
        account.requests += kind == "sent"
        if kind != "sent":
            account.causes[record["cause"]] += 1
        if kind == "failed":
            alike = (record["cause"], alike_of(record["message"]))
            account.whose[record["fingerprint"]] = record["prompt_id"]
            account.reasons[alike] = (account.reasons.get(alike, (0, ""))[0] + 1, record["message"])
        if kind == "answer":
            account.answers += 1
            account.reused += bool(record.get("reused"))
            account.models[record["model"]] += 1
            account.sources[str(record["reasoning_source"])] += 1
            account.tokens.update({name: record["usage"][name] for name in TOKENS})
            account.days.add(record["at"][:10])
            account.synthetic |= record["synthetic"]
    return account


def alike_of(message: str) -> str:
    """The same for messages that differ in a number or a name of a request alone."""
    return VARYING.sub("…", message)[:LONGEST_REASON]


def calls_json(account: Account, teacher: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """For the data-set card: what was asked, answered and paid."""
    return {
        "teacher": teacher,
        "parameters": parameters,
        "models": dict(sorted(account.models.items())),
        "synthetic": account.synthetic,
        "first_day": min(account.days, default=None),
        "last_day": max(account.days, default=None),
        "requests": account.requests,
        "answers": account.answers,
        "possibly_paid": account.paid.broken + len(account.paid.flying),
        "possibly_paid_usd": str(account.paid.possibly),
        "tokens": {name: account.tokens[name] for name in TOKENS},
        "cost_usd": str(account.paid.spent) if account.price_tables else None,
        "price_table": ", ".join(sorted(account.price_tables)) or None,
    }
