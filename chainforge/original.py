"""Where the project itself lies, also for a step of an experiment that DVC runs in a copy of it."""

import os
from pathlib import Path


def original_root() -> Path:
    """The project's folder: what is to outlive a copy lies there. DVC names it to each step as DVC_ROOT."""
    return Path(os.environ.get("DVC_ROOT", "."))
