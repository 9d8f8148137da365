"""What a supervised step trains."""

from collections.abc import Sequence

import torch

from chainforge.config.sft import SftSettings
from chainforge.models.checkpoint import Policy, load_policy, make_policy
from chainforge.plugins import Plugins
from chainforge.records import Example
from chainforge.run.step import Step
from chainforge.wiring import load_student


def starting_policy(
    settings: SftSettings, plugins: Plugins, examples: Sequence[Example], step: Step, device: torch.device
) -> Policy:
    """The checkpoint that the step goes on from, or a new model of its plugin."""
    if settings.start_from:
        return load_policy(settings.start_from, device)
    assert settings.new_model is not None
    chosen, seed = settings.new_model, step.seed("model")
    texts = ["\n".join([*(m["content"] for m in e.messages), e.response]) for e in examples]
    return make_policy(*load_student(plugins, chosen.plugin, chosen.settings, seed=seed, texts=texts), device)
