"""A loop's loss together with that of the routers, for models with experts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from chainforge.learner.learner import Loss, Sums
from chainforge.models.batch import Batch
from chainforge.models.policy_model import LogProbs


def with_router_loss(loss: Loss, weight: float, sequences: int) -> Loss:
    """The loss, and `weight` times the mean of the router loss over this many sequences of the step."""

    def both(places: Sequence[int], given: LogProbs, batch: Batch) -> tuple[Tensor, Sums]:
        part, sums = loss(places, given, batch)
        assert given.router_loss is not None, "the model was not asked for it"
        of_routers = torch.tensor([given.router_loss.item(), len(places)])  # (sum, count), as statistics are
        return part + weight / sequences * given.router_loss, sums | {"router_loss": of_routers}

    return both
