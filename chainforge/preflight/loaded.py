"""The model that a step would start from, loaded."""

from collections.abc import Sequence
from pathlib import Path

import torch

from chainforge.config.loading import Choice
from chainforge.models.checkpoint import Policy, load_policy
from chainforge.preflight.stand_in import Inputs
from chainforge.project.new_policy import new_policy
from chainforge.run.step import Step


def load_like(
    checkpoint: Path | None,
    new: Choice | None,
    texts: Sequence[str],
    inputs: Inputs,
    step: Step,
    device: torch.device,
) -> tuple[Policy, str, bool]:
    """(the policy, its name, whether it stands for a checkpoint that is still to be made)."""
    chosen = new and inputs.without_missing(new)
    stands_in = False
    if checkpoint is not None:
        chosen = inputs.model(checkpoint)
        stands_in = chosen is not None
        if chosen is None:
            return load_policy(checkpoint, device), str(checkpoint), False
        if not chosen.plugin:
            folder = Path(str(chosen.settings["folder"]))
            return load_policy(folder, device), str(folder), True
    assert chosen is not None
    name = str(chosen.settings.get("model", chosen.plugin))
    return new_policy(chosen, inputs.plugins, texts, step, device), name, stands_in
