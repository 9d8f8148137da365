"""The model that a user means: a checkpoint by its name, a folder, or a name of the hub."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chainforge.cli.project import from_here
from chainforge.errors import ChainForgeError, unknown

if TYPE_CHECKING:
    import torch

    from chainforge.models.checkpoint import Policy
    from chainforge.plugins import Plugins

CHECKPOINTS = Path("checkpoints")


def find_model(name: str, ctx: click.Context) -> str:
    """A folder, or else a name of the hub: `user/name`. Raises ChainForgeError where it is neither."""
    from chainforge.project.preflight.components import looks_like_path

    if (here := from_here(Path(name), ctx)).is_dir():
        return str(here)
    if "/" not in name.rstrip("/"):
        return str(find_checkpoint(name))
    if looks_like_path(name):
        raise ChainForgeError(
            f"there is no folder {name}", "name a model's folder, or a model of the hub: user/name"
        )
    return name


def find_checkpoint(name: str) -> Path:
    """The folder of a checkpoint of this project, given with or without `checkpoints/`."""
    name = name.removeprefix(f"{CHECKPOINTS}/").rstrip("/")
    folder = CHECKPOINTS / name
    if not folder.is_dir() or "/" in name or name in ("", ".", ".."):
        error = unknown("checkpoint", name, checkpoint_folders())
        raise ChainForgeError(error.problem, f"{error.fix}. dvc repro makes them. Of the hub: user/name")
    return folder


def checkpoint_folders() -> Iterable[str]:
    """The names of those that lie here."""
    return sorted(path.name for path in CHECKPOINTS.glob("*") if (path / "config.json").is_file())


def load_found(model: str, revision: str | None, plugins: "Plugins", device: "torch.device") -> "Policy":
    """What `find_model` found, as the plugin `pretrained` loads it."""
    from chainforge.models.checkpoint import make_policy
    from chainforge.wiring import load_student

    chosen = {"model": model} | ({"revision": revision} if revision else {})
    return make_policy(*load_student(plugins, "pretrained", chosen, seed=0, texts=()), device)
