"""What a supervised step trains."""

from collections.abc import Sequence

import torch

from chainforge.config.sft import SftSettings
from chainforge.models.checkpoint import Policy, load_policy
from chainforge.plugins import Plugins
from chainforge.project.new_policy import new_policy
from chainforge.records import Example
from chainforge.run.step import Step


def starting_policy(
    settings: SftSettings, plugins: Plugins, examples: Sequence[Example], step: Step, device: torch.device
) -> Policy:
    """The checkpoint that the step goes on from, or a new model of its plugin."""
    if settings.start_from:
        return load_policy(settings.start_from, device)
    assert settings.new_model is not None
    texts = ["\n".join([*(m["content"] for m in e.messages), e.response]) for e in examples]
    return new_policy(settings.new_model, plugins, texts, step, device)
