"""Settings of an adapter, for every verb that trains."""

from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import Field

from chainforge.config.loading import Settings
from chainforge.config.types import Repeats
from chainforge.errors import ChainForgeError

Rank = Annotated[int, Field(ge=1, le=4096)]
Targets = Annotated[list[str], Field(min_length=1)]
PACKAGES = {"lora": ("peft",), "qlora": ("peft", "bitsandbytes")}


class AdapterSettings(Settings):
    """Two small matrices beside each large one, which is frozen: W + alpha / rank · BA."""

    kind: Literal["lora", "qlora"]
    """lora: the frozen weights stay as they are; qlora: they are rounded to 4 bits (nf4), on CUDA only."""
    rank: Rank = 32
    """Rows of A and columns of B."""
    alpha: Repeats = 32
    """Weight of the adapter, times rank."""
    targets: Literal["all-linear"] | Targets = "all-linear"
    """Which linear layers: all but the output layer, or those with these names, such as [q_proj, v_proj]."""

    def check_installed(self) -> None:
        """Raise ChainForgeError where a package is missing, with the command that installs it."""
        for package in PACKAGES[self.kind]:
            if find_spec(package) is None:
                raise ChainForgeError(
                    f"adapter.kind {self.kind} needs the package {package}",
                    f"pip install 'chainforge-r1[{self.kind}]'",
                )

    def check_device(self, device: str) -> None:
        """Raise ChainForgeError where this kind does not work on a device of that type."""
        if self.kind == "qlora" and device != "cuda":
            raise ChainForgeError(
                f"adapter.kind qlora needs CUDA, and the device is {device}: elsewhere bitsandbytes cannot "
                "compute a backward pass after a forward pass without gradients",
                "set adapter.kind to lora, or run on a machine that has CUDA",
            )
