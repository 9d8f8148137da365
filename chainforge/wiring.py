"""From plugin names in params.yaml to the objects that loops take as arguments."""

from collections.abc import Mapping

from chainforge.plugins import Plugins
from chainforge.run.step import Step
from chainforge.scoring import Scorer, WeightedReward


def make_scorer(plugins: Plugins, rewards: Mapping[str, float], step: Step) -> Scorer:
    """The rewards of a step with their weights."""
    chosen = [(plugins.pick("rewards", name), weight) for name, weight in rewards.items()]
    return Scorer(
        tuple(
            WeightedReward(
                entry.name, weight, entry.component, entry.options.get("conversational", False), entry.source
            )
            for entry, weight in chosen
        ),
        step.response_format,
        step.runtime.reward_timeout_s,
        step.log,
    )
