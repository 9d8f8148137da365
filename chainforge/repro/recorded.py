"""The order of dvc.lock: the one that steps have when they run one after the other, whoever ended first."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from chainforge.project.recorded import DVC_LOCK

if TYPE_CHECKING:
    from dvc.repo import Repo


def order_recorded(repo: "Repo", names: Sequence[str]) -> None:
    """Put the entries of dvc.lock in the order of these names, which are all that it can have."""
    from dvc.utils.serialize import modify_yaml

    if not DVC_LOCK.exists():  # nothing has ended well
        return
    with repo.lock, modify_yaml(DVC_LOCK) as content:
        entries = content["stages"]
        for name in dict.fromkeys(names):
            if name in entries:
                entries[name] = entries.pop(name)
