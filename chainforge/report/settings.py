"""What the report is about: the checkpoints in recipe order, the benches and how to read a sample."""

from collections.abc import Mapping
from dataclasses import dataclass

from chainforge.errors import ChainForgeError
from chainforge.response import TagFormat


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """`parents` says which checkpoint each one is compared with; `reward` decides right or wrong."""

    checkpoints: tuple[str, ...]  # recipe order
    benches: tuple[str, ...]
    parents: Mapping[str, str]  # checkpoint -> the checkpoint it started from
    reward: str  # the evaluation's reward whose value is a sample's correctness
    response_format: TagFormat
    profile: str
    seed: int
    note: str = ""  # shown prominently; what a reader must know before believing a number
    samples_per_checkpoint: int = 4  # problems shown per bench, each answered by every checkpoint

    def __post_init__(self) -> None:
        if self.samples_per_checkpoint < 0:
            raise ChainForgeError(
                f"samples_per_checkpoint is {self.samples_per_checkpoint}", "set it to 0 (show none) or more"
            )
