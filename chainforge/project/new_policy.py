"""A model that a plugin makes, ready to train or to sample from."""

from collections.abc import Sequence

import torch

from chainforge.config.loading import Choice
from chainforge.models.checkpoint import Policy, make_policy
from chainforge.plugins import Plugins
from chainforge.run.step import Step
from chainforge.wiring import load_student


def new_policy(
    chosen: Choice, plugins: Plugins, texts: Sequence[str], step: Step, device: torch.device
) -> Policy:
    """The model that this plugin makes; one with a tokenizer of its own makes it from the texts."""
    made = load_student(plugins, chosen.plugin, chosen.settings, seed=step.seed("model"), texts=texts)
    return make_policy(*made, device)
