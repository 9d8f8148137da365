"""Ranges that settings have in common."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Above0 = Annotated[float, Field(gt=0)]
AtLeast0 = Annotated[float, Field(ge=0)]
File = Annotated[Path, Field(strict=False)]
Rewards = Annotated[dict[str, float], Field(min_length=1)]
