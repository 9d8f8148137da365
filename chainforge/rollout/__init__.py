"""The sampler: prompts in, completions with their log-probabilities out."""

from chainforge.rollout.sampler import Request, Sampled, sample

__all__ = ["Request", "Sampled", "sample"]
