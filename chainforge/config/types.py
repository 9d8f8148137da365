"""Types that settings have in common: names from a table, and ranges.

The upper bounds are far above what anybody trains: what lies beyond is a slip of the finger, and would fill
the memory, or never end, before anybody notices.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import CoreSchema, core_schema

from chainforge.config.impossible import Impossible

MANY = 10**9
COLDEST = 0.01  # below it sampling is greedy but for the name, and logits / temperature can overflow


class OneOf:
    """Marks a text as one of these names: the keys of the table that has what they stand for."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.literal_schema(list(self.names))


def not_almost_greedy(temperature: float) -> float:
    """0, or warm enough to compute with."""
    if 0 < temperature < COLDEST:
        raise Impossible(f"{temperature} is too cold", f"set it to {COLDEST} or more; greedy decoding is 0")
    return temperature


Count = Annotated[int, Field(ge=0, le=MANY)]
Positive = Annotated[int, Field(ge=1, le=MANY)]
Repeats = Annotated[int, Field(ge=1, le=10_000)]  # of one prompt, or of one rollout
Rounds = Annotated[int, Field(ge=0, le=100)]
Items = Annotated[int, Field(ge=1, le=10**6)]  # held in memory together
Tokens = Annotated[int, Field(ge=1, le=10**7)]  # of one text
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=100)]
RateOr0 = Annotated[float, Field(ge=0, le=100)]
Epochs = Annotated[float, Field(gt=0, le=10_000)]
Seconds = Annotated[float, Field(gt=0, le=10**6)]
SecondsOr0 = Annotated[float, Field(ge=0, le=10**6)]
Above0 = Annotated[float, Field(gt=0, le=MANY)]
AtLeast0 = Annotated[float, Field(ge=0, le=MANY)]
Real = Annotated[float, Field(ge=-(10**6), le=10**6)]
Temperature = Annotated[float, Field(ge=0, le=100), AfterValidator(not_almost_greedy)]
WarmTemperature = Annotated[float, Field(gt=0, le=100), AfterValidator(not_almost_greedy)]
File = Annotated[Path, Field(strict=False)]
Rewards = Annotated[dict[str, Real], Field(min_length=1)]
PluginSettings = dict[str, dict[str, Any]]
