"""Settings of the verb `gate`."""

from typing import Annotated

from pydantic import Field

from chainforge.config.loading import Settings
from chainforge.config.types import Fraction


class GateSettings(Settings):
    """Verb `gate`: stop before an expensive step where a checkpoint is worse than its parent."""

    checkpoint: str
    """The checkpoint that is judged, by its name in `checkpoints`."""
    parent: str
    """What it is held against, problem by problem: a name in `checkpoints`, or `base`."""
    benches: Annotated[list[str], Field(min_length=1)]
    """Guards: it must be significantly worse on none of them."""
    grader: str
    """One of `evaluate.rewards`, but none by which the checkpoint was trained: right is its full reward."""
    tolerance: Fraction = 0.0
    """So much worse may it be: it fails where all of the 95% interval lies further down."""
