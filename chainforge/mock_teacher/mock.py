"""What a mock teacher is made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from chainforge.errors import ChainForgeError, unknown
from chainforge.hookspecs import Teacher
from chainforge.mock_teacher.dialects import DIALECTS
from chainforge.mock_teacher.filler import Filler
from chainforge.mock_teacher.script import FaultScript
from chainforge.providers.prices import Prices

PRICES = Prices(table="mock", hit=Decimal("0.003"), miss=Decimal("0.15"), output=Decimal("0.60"))


@dataclass(frozen=True, kw_only=True)
class MockTeacher:
    """A teacher to be served.

    `teachers` are asked in turn, and `filler` answers what none of them can read. Without a `key`, any is
    accepted, though one must be sent. An answer takes `latency_s`, and a stream `tokens_per_s` from then on.
    Above `cap` requests at a time or `rpm` a minute, the next is refused at once, with `retry_after_s` if
    given. With `cache`, a system message that opens a conversation is billed as found in the cache.
    `ledger` is a file for a line per request.
    """

    teachers: Sequence[Teacher] = ()
    dialect: str = "deepseek"
    filler: Filler = field(default_factory=Filler)
    faults: FaultScript = field(default_factory=FaultScript)
    prices: Prices = PRICES
    key: str | None = None
    latency_s: float = 0.0
    tokens_per_s: float | None = None
    cap: int | None = None
    rpm: int | None = None
    retry_after_s: float | None = None
    cache: bool = True
    models: tuple[str, ...] = ("deepseek-flash", "deepseek-v4-pro")
    balance_usd: str = "100.00"
    ledger: Path | None = None

    def __post_init__(self) -> None:
        if self.dialect not in DIALECTS:
            raise unknown("dialect", self.dialect, DIALECTS)
        for name in ("latency_s", "retry_after_s"):
            if (getattr(self, name) or 0) < 0:
                raise ChainForgeError(f"{name} is {getattr(self, name)}", "seconds are 0 or more")
        for name in ("tokens_per_s", "cap", "rpm"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ChainForgeError(f"{name} is {value}", "give a number above 0, or leave it out")
