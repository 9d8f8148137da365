"""Settings of the verb `report`."""

from typing import Annotated

from pydantic import Field

from chainforge.config.loading import Settings


class ReportSettings(Settings):
    """Verb `report`: the table, the curves, the page."""

    note: str = ""
    """One honest sentence above the table: what this run is, and is not."""
    parents: dict[str, str] = Field(default_factory=dict)
    """Checkpoint -> the checkpoint it is compared with, problem by problem."""
    samples_per_bench: Annotated[int, Field(ge=0, le=1000)] = 6
    """Held-out problems shown with every checkpoint's completion."""
