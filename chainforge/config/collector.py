"""How teachers behind an API are asked: changes the bill and the time, never an answer."""

from typing import Annotated, Literal

from pydantic import Field

from chainforge.config.loading import Settings, load_settings, read_params
from chainforge.config.types import AtLeast0, Seconds

SECTION = "collector"


class CollectorSettings(Settings):
    """Section `collector`: not watched by `dvc repro`."""

    budget_usd: AtLeast0 | Literal["none"] | None = None
    """USD that each step's journal may ever cost, never passed: two steps may cost twice as much; none: no
    cap; null: paid teachers stop."""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Most calls in flight; fewer where the provider refuses more."""
    deadline_s: Seconds = 1800.0
    """Seconds until a call without an answer is given up."""
    off_peak_only: bool = False
    """Wait while the provider's higher price is on."""
    stream: bool = False
    """Stream answers, to watch them come; costs ten times the processor time."""
    retry_refused: bool = False
    """Ask again, last of all, what the provider refused while it answered other questions."""
    reuse: list[str] = Field(default_factory=list)
    """Folders of other journals, whose answers are taken instead of asking again."""


def collector_settings() -> CollectorSettings:
    """Those of params.yaml; the defaults where it has no such section."""
    return load_settings(CollectorSettings, SECTION) if SECTION in read_params() else CollectorSettings()
