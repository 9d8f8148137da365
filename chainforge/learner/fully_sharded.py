"""Weights, gradients and moments split over the processes of a step, by FSDP2.

Source: https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from chainforge.errors import ChainForgeError
from chainforge.learner.data_parallel import DataParallel
from chainforge.learner.forward_passes import Passes
from chainforge.models.batch import Tokens, collate
from chainforge.models.four_bits import four_bit_names
from chainforge.models.policy_model import PolicyModel, layers_of
from chainforge.run.step import Step


class FullySharded(DataParallel):
    """Each process holds a part of every weight; a layer is put together while it computes."""

    splits_weights = True

    def distribute(self, model: PolicyModel, precision: str) -> None:
        """Split the layers one by one, then what is left: embeddings and head.

        In bfloat16 the layers travel rounded, as mixed precision would round them anyway. Sums of gradients
        stay in float32. Raises ChainForgeError for weights of 4 bits, and in float16.
        """
        if four_bit_names(model):
            raise ChainForgeError(
                "weights of 4 bits cannot be split over processes (adapter.kind is qlora)",
                "set runtime.sharding to data-parallel, or adapter.kind to lora",
            )
        if precision == "float16":
            raise ChainForgeError(
                "processes that split weights would each scale their own loss (run.precision is float16)",
                "set run.precision to bfloat16, or runtime.sharding to data-parallel",
            )
        rounded = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        policy = rounded if precision == "bfloat16" else MixedPrecisionPolicy(reduce_dtype=torch.float32)
        # Told, and not left to be found: on a machine with GPUs a step may run on the CPU all the same.
        mesh = init_device_mesh(model.device.type, (self.world.size,))
        for layer in layers_of(model.model):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh)

    def even_out(self, passes: Passes, device: torch.device) -> Passes:
        """Each pass puts layers together, which all processes have to do: who has fewer adds empty ones."""
        own = list(passes)
        most = max(self.world.gather(len(own)))
        yield from own
        for _ in range(most - len(own)):
            yield [], collate([Tokens([0], [0])], device)

    def weigh(self, loss: Tensor) -> Tensor:
        """FSDP2 averages gradients over the processes. (It can add them up, but not over gloo.)"""
        return loss * self.world.size

    def add_up_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Nothing to do: the backward pass has done it."""

    def whole(self, weight: Tensor) -> Tensor:
        """All of a weight, in every process."""
        return weight.full_tensor() if isinstance(weight, DTensor) else weight


def splits_weights(step: Step) -> bool:
    """Whether a process will hold a part of each weight only: asked for, and there are others for more."""
    return step.world.size > 1 and step.runtime.sharding == "fully-sharded"
