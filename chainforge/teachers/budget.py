"""Money: what was spent, what may have been, what calls in flight may still cost."""

from decimal import Decimal


class Budget:
    """Never lets `spent + lost + reserved` pass the cap; None is no cap. All in USD.

    `lost` is the most that calls without an answer can have cost: cut off, timed out, or in flight when the
    process was killed.
    """

    def __init__(self, cap: Decimal | None, spent: Decimal = Decimal(0), lost: Decimal = Decimal(0)) -> None:
        self.cap = cap
        self.spent = spent
        self.lost = lost
        self.reserved = Decimal(0)

    def fits(self, most: Decimal) -> bool:
        """Whether a call that costs `most` at most may be sent now."""
        return self.cap is None or self.spent + self.lost + self.reserved + most <= self.cap

    def reserve(self, most: Decimal) -> None:
        """A call that costs `most` at most is about to be sent."""
        self.reserved += most

    def settle(self, most: Decimal, *, cost: Decimal = Decimal(0), lost: Decimal = Decimal(0)) -> None:
        """That call is over."""
        self.reserved -= most
        self.spent += cost
        self.lost += lost
