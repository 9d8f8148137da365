"""What a step writes: its checkpoint, and the states from which it can go on."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from chainforge.learner.local_learner import LocalLearner
from chainforge.preflight.cost import Cost, timed
from chainforge.preflight.estimate import Estimate

MOST = 4e9  # bytes that are written to a temporary folder to see what that takes


def add_kept(estimate: Estimate, learner: LocalLearner, save_every_s: float) -> None:
    """Add the checkpoint and the saved states to an estimate whose other parts are complete."""
    state = float(sum(tensor.nbytes for tensor in _tensors(learner.state_dict())))
    estimate.saves = 2 * state  # the newest, and the one before
    weights = float(sum(weight.nbytes for _, weight in learner.weights()))
    estimate.checkpoint, cost = weights, Cost()
    if weights < MOST:
        with TemporaryDirectory() as folder:
            _, cost = timed(lambda: learner.save(Path(folder)))
            estimate.checkpoint = float(sum(p.stat().st_size for p in Path(folder).rglob("*")))
    often = estimate.cost.wall // max(save_every_s, 1.0)
    estimate.parts["checkpoint"] = cost
    estimate.parts["saved states"] = cost.times(often * state / max(weights, 1.0))


def _tensors(node: Any) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _tensors(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _tensors(value)
