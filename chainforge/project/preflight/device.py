"""What training needs of the machine: a device, and one that an adapter or precision can use; packages."""

import subprocess
import sys
from collections.abc import Mapping

from chainforge.config.loading import load_settings
from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.run import RunSettings, check_precision
from chainforge.config.verbs import VERBS
from chainforge.errors import ChainForgeError
from chainforge.project.graph import GraphStep

SECONDS = 120
PROBES = {
    "cuda": "__import__('torch').cuda.is_available()",
    "mps": "__import__('torch').backends.mps.is_available()",
}


def check_device(device: str) -> None:
    """Raise ChainForgeError where torch does not find the device that was asked for by name."""
    if device in PROBES and not is_there(device):
        raise ChainForgeError(
            f"runtime.device is {device}, and torch finds no such device here",
            "set it to auto or cpu, or run on a machine that has one; if this one has, see "
            '"No GPU is seen" in docs/troubleshooting.md',
        )


def check_training(graph: Mapping[str, GraphStep], device: str) -> None:
    """Raise ChainForgeError where training needs a package or a device that is not there."""
    precision = load_settings(RunSettings, "run").precision
    if precision == "float16" and device == "auto":
        device = next((name for name in PROBES if is_there(name)), "cpu")
    check_precision(precision, device)
    for step in graph.values():
        settings = load_settings(VERBS[step.verb], *step.sections)
        if not isinstance(settings, OptimizerSettings):
            continue
        settings.check_installed(precision)
        if adapter := settings.adapter:
            if device == "auto" and adapter.kind == "qlora":
                device = "cuda" if is_there("cuda") else "cpu"
            adapter.check_device(device)


def is_there(device: str) -> bool:
    """Whether torch finds it. In a process of its own: torch takes seconds to import."""
    code = f"import sys; sys.exit(0 if {PROBES[device]} else 3)"
    try:
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return True  # the steps report it themselves
    return ended.returncode != 3
