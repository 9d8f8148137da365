"""Rewards on completions: the call conventions, every answer checked, no silent zero."""

from chainforge.scoring.pending import Pending
from chainforge.scoring.reward import WeightedReward
from chainforge.scoring.scorer import Scorer

__all__ = ["Pending", "Scorer", "WeightedReward"]
