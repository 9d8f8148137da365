"""What the user brings along, in the copy of the project in which DVC runs a queued experiment."""

import os
from pathlib import Path

from chainforge.original import original_root

BROUGHT = Path("inputs")  # models and data: git ignores it, and a copy has only what git tracks


def link_brought() -> None:
    """In a copy, link what lies in `inputs/` of the project and is not here. Elsewhere nothing happens."""
    original = (original_root() / BROUGHT).resolve()
    if not original.is_dir() or original == BROUGHT.resolve() or BROUGHT.is_symlink():
        return
    BROUGHT.mkdir(exist_ok=True)
    for path in original.iterdir():
        here = BROUGHT / path.name
        if not os.path.lexists(here):
            here.symlink_to(path)
