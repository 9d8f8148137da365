"""What the report is about: the checkpoints in recipe order, the benches and how to read a sample."""

from chainforge.config.report import ReportSettings
from chainforge.response import TagFormat


class Subject(ReportSettings):
    """The settings of the step, and what it takes from other sections of params.yaml."""

    checkpoints: tuple[str, ...]
    """In recipe order."""
    benches: tuple[str, ...]
    """In the order of params.yaml."""
    reward: str
    """The evaluation's reward whose value is a sample's correctness."""
    response_format: TagFormat
    """How the sampled responses are written."""
    profile: str
    """The name of the active profile."""
    seed: int
    """It decides which problems are shown."""
