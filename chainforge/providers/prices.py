"""What a call costs, in exact decimal USD."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from chainforge.errors import ChainForgeError
from chainforge.providers.calls import Usage
from chainforge.records import Message

MILLION = 1_000_000
TEMPLATE_TOKENS = 64  # more than any chat template adds per message
Window = Literal["peak", "off-peak"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """USD per million tokens off peak; `peak_factor` times as much in `peak_hours`, UTC, Monday to Friday.

    Public holidays are not known here: a call on one counts as peak, so the real bill is at most this.
    `table` names the price list and its date.
    """

    table: str
    hit: Decimal
    miss: Decimal
    output: Decimal
    peak_factor: Decimal = Decimal(1)
    peak_hours: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def as_set(usd_per_million: Mapping[str, float]) -> "Prices":
        """Those of a user who wrote {hit, miss, output}. Raises ChainForgeError for anything else."""
        if set(usd_per_million) != {"hit", "miss", "output"}:
            raise ChainForgeError(
                f"usd_per_million has {sorted(usd_per_million)}", "it has hit, miss and output"
            )
        hit, miss, output = (Decimal(str(usd_per_million[kind])) for kind in ("hit", "miss", "output"))
        return Prices(table="as set", hit=hit, miss=miss, output=output)

    def window(self, at: datetime) -> Window:
        """Whether a call that is sent at this time pays the higher price."""
        at = at.astimezone(UTC)
        inside = any(start <= at.hour < end for start, end in self.peak_hours)
        return "peak" if inside and at.weekday() < 5 else "off-peak"

    def cost(self, usage: Usage, window: Window) -> Decimal:
        """USD of one answer."""
        tokens = self.hit * usage.hit + self.miss * usage.miss + self.output * usage.output
        return tokens * (self.peak_factor if window == "peak" else 1) / MILLION

    def most(self, messages: Sequence[Message], max_tokens: int) -> Decimal:
        """The most that a call can cost: no cache, peak, every token that it may write.

        A prompt has at most as many tokens as bytes, besides what the chat template adds.
        """
        size = sum(len(m["content"].encode(errors="replace")) + TEMPLATE_TOKENS for m in messages)
        usage = Usage(hit=0, miss=size, output=max_tokens)
        return max(self.cost(usage, "peak"), self.cost(usage, "off-peak"))


FREE = Prices(table="free", hit=Decimal(0), miss=Decimal(0), output=Decimal(0))
