"""How the processes of a step share a batch: each has all the weights, and computes some of the sequences."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel

from chainforge.learner.forward_passes import Passes, add_sums, forward_passes
from chainforge.learner.learner import Sums
from chainforge.models.adapters import adapter_weights, plain_weights
from chainforge.models.batch import Tokens
from chainforge.models.policy_model import PolicyModel
from chainforge.run.world import World

T = TypeVar("T")
BUCKET = 2**25  # elements


class DataParallel:
    """Gradients are added up before each optimizer step. A process alone has nothing to exchange.

    Every method is called by all processes, equally often and in the same order.
    """

    splits_weights = False  # whether a process holds a part of each weight only

    def __init__(self, world: World) -> None:
        self.world = world

    def distribute(self, model: PolicyModel, precision: str) -> None:
        """Make the model ready, before the optimizer sees its weights."""

    def own(self, sequences: Sequence[Tokens]) -> tuple[list[int], list[Tokens]]:
        """What this process computes, places and sequences: about as many tokens as every other one."""
        size, rank = self.world.size, self.world.rank
        longest_first = sorted(range(len(sequences)), key=lambda place: -len(sequences[place]))
        rounds = [longest_first[start : start + size] for start in range(0, len(sequences), size)]
        dealt = [places if number % 2 == 0 else places[::-1] for number, places in enumerate(rounds)]
        own = sorted(places[rank] for places in dealt if rank < len(places))
        return own, [sequences[place] for place in own]

    def gather(self, places: Sequence[int], found: Sequence[T]) -> list[T]:
        """What all processes found for all places, in order."""
        said = self.world.gather(dict(zip(places, found, strict=True)))
        return [value for _, value in sorted((pair for each in said for pair in each.items()), key=_place)]

    def passes(
        self,
        model: PolicyModel,
        own: Sequence[Tokens],
        most_tokens: int,
        *,
        share: bool = True,
        sparse: bool = False,
    ) -> Passes:
        """`forward_passes` of this process."""
        share = share and not self.splits_weights  # prompts would be passes of their own
        passes = forward_passes(model, own, most_tokens, share=share, sparse=sparse)
        return self.even_out(passes, model.device)

    def even_out(self, passes: Passes, device: torch.device) -> Passes:
        """The micro-batches of this process. Where weights are split, all processes need equally many."""
        return passes

    def weigh(self, loss: Tensor) -> Tensor:
        """The loss whose gradients, once they are together, are those of the sum over all processes."""
        return loss

    def add_up_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Make each gradient the sum over all processes. One that nobody has stays away."""
        if self.world.size == 1:
            return
        for bucket in _buckets(parameters):
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            exists = grads[0].new_tensor([p.grad is not None for p in bucket], dtype=grads[0].dtype)
            flat = torch.cat([exists, *(grad.flatten() for grad in grads)])  # one message, not one for each
            dist.all_reduce(flat)
            exists, *added = flat.split([len(bucket), *(grad.numel() for grad in grads)])
            for parameter, somewhere, total in zip(bucket, exists.tolist(), added, strict=True):
                if parameter.grad is not None:
                    parameter.grad.copy_(total.view_as(parameter))
                elif somewhere:
                    parameter.grad = total.view_as(parameter).clone()

    def add_up(self, loss: float, sums: Sums) -> tuple[float, Sums]:
        """Loss and sums over all processes."""
        if self.world.size == 1:
            return loss, sums
        said = self.world.gather((loss, {name: value.cpu() for name, value in sums.items()}))
        total = Sums()
        for _, theirs in said:
            add_sums(total, theirs)
        return sum(loss for loss, _ in said), total

    def whole(self, weight: Tensor) -> Tensor:
        """All of a weight, in every process."""
        return weight

    def gather_weights(self, model: PreTrainedModel) -> tuple[Mapping[str, Tensor] | None, dict[str, Tensor]]:
        """What the first process writes: all weights, or None for those of the model as it stands; and those
        of its adapter."""
        adapter = {name: self.whole(weight) for name, weight in adapter_weights(model).items()}
        return self._gather_all(model) if adapter or self.splits_weights else None, adapter

    def _gather_all(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """All weights of the plain model, on the CPU of the first process; nothing in the others."""
        names = dict(model.named_parameters())  # tied weights once
        also = dict(model.named_parameters(remove_duplicate=False)).keys() - names.keys()
        gathered = {}
        for name, weight in plain_weights(model):
            if name not in also:
                whole = self.whole(weight)
                if self.world.is_first:
                    gathered[name] = whole.cpu()
        return gathered


def _buckets(parameters: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters that travel together: of one type, and not too large to be copied."""
    bucket: list[Tensor] = []
    size = 0
    for parameter in parameters:
        if bucket and (size + parameter.numel() > BUCKET or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel()
    if bucket:
        yield bucket


def _place(pair: tuple[int, object]) -> int:
    return pair[0]
