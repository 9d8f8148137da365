"""AdamW by torchao: moments in 8 bits, weights in bfloat16.

Sources: moments in blocks of 8 bits, arXiv 2110.02861; stochastic rounding, arXiv 2010.06192.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.optim import Optimizer

from chainforge.config.optimizer import check_torchao
from chainforge.run.seeds import derive

EIGHT_BIT = "adamw-8bit"


def torchao_adamw(groups: Sequence[Mapping[str, Any]], *, eight_bit: bool, **options: Any) -> Optimizer:
    """AdamW whose learning rates are tensors. Weights in bfloat16 are rounded at random after an update, up
    or down by how near each is: most updates would be too small to change them otherwise.

    What is drawn comes from torch's global generator of the weights' device.
    """
    check_torchao("optimizer adamw-8bit" if eight_bit else "run.precision bfloat16-weights")
    os.environ.setdefault("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1")  # of other parts, for other GPUs
    logging.getLogger("torchao").setLevel(logging.ERROR)
    from torchao.optim import AdamW8bit, _AdamW

    kind = AdamW8bit if eight_bit else _AdamW
    made: Optimizer = kind(list(groups), bf16_stochastic_round=True, **options)
    return made


@contextmanager
def drawing_from(device: torch.device, seed: int, step: int) -> Iterator[None]:
    """Inside, rounding at random is a function of seed and step: the same in every process and after a kill.

    torchao compiles its update, which on a CPU would need a compiler of C++: there it is not compiled.
    """
    devices = [device] if device.type == "cuda" else []
    eager = torch.compiler.set_stance("force_eager") if device.type == "cpu" else nullcontext()
    with torch.random.fork_rng(devices), eager:
        torch.manual_seed(derive(seed, "rounding", step))
        yield
