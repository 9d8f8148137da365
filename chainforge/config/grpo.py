"""Settings of the verb `grpo`."""

from dataclasses import fields
from typing import Annotated, Literal

from pydantic import Field, model_validator

from chainforge.algorithms.advantages import DECOUPLED, SCALES
from chainforge.algorithms.kl import KL_ESTIMATORS
from chainforge.algorithms.losses import LOSSES, LossSettings
from chainforge.config.correction import CorrectionSettings
from chainforge.config.impossible import Impossible
from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.sampling import SamplingSettings
from chainforge.config.types import (
    Above0,
    AtLeast0,
    Count,
    File,
    Fraction,
    Items,
    OneOf,
    Rate,
    Repeats,
    Rewards,
    Rounds,
    WarmTemperature,
)
from chainforge.config.watch import WatchSettings
from chainforge.errors import ChainForgeError


class GrpoSettings(OptimizerSettings, SamplingSettings):
    """Verb `grpo`: raise the reward of sampled completions, group by group."""

    temperature: WarmTemperature = 1.0
    """Of sampling and of the log-probabilities; greedy completions have nothing to compare."""
    output: File
    """Checkpoint folder to write."""
    start_from: File
    """Checkpoint folder."""
    prompts: File
    """JSONL of training prompts."""
    extra_prompts: File | None = None
    """A second JSONL of prompts; null for none."""
    extra_share: Fraction = 0.5
    """Share of the prompts drawn from `extra_prompts`."""
    rewards: Rewards
    """Reward plugin -> weight."""
    num_rl_steps: Items = 200
    """Rollouts. Each is followed by num_iterations x mini_batches optimizer steps."""
    prompts_per_step: Items = 16
    """Prompts per rollout."""
    group_size: Annotated[int, Field(ge=2, le=10_000)] = 8
    """Completions per prompt, G: a group of one has no baseline."""
    num_iterations: Repeats = 1
    """Passes over each rollout."""
    mini_batches: Repeats = 1
    """Optimizer steps per pass; a group is never split."""
    learning_rate: Rate = 1e-6
    """AdamW's peak rate."""
    loss_type: Annotated[str, OneOf(LOSSES)] = "grpo"
    """Which policy loss; docs/settings.md has the formulas."""
    clip_ratio: AtLeast0 = 0.2
    """Trust region: the ratio counts between 1 - clip_ratio and 1 + clip_ratio (R1: 10)."""
    clip_ratio_high: AtLeast0 | None = None
    """Another upper bound (DAPO: 0.28); for cispo the absolute cap. null: as clip_ratio."""
    dual_clip: Annotated[float, Field(gt=1, le=10**9)] | None = None
    """Bound of the ratio where the advantage is negative; null for none."""
    dppo_delta: Annotated[float, Field(gt=0, le=1)] = 0.2
    """For dppo: how far a token's probability may move until its gradient is gone."""
    sapo_temperature_pos: Above0 = 1.0
    """For sapo: how fast the gradient fades with the ratio, where the advantage is positive."""
    sapo_temperature_neg: Above0 = 1.05
    """The same where it is not."""
    sampling_correction: CorrectionSettings = CorrectionSettings()
    """What makes up for a sampler that is not quite the policy."""
    kl_coeff: AtLeast0 = 0.001
    """Weight of the KL to the reference model; at 0 the reference is never computed."""
    kl_estimator: Annotated[str, OneOf(KL_ESTIMATORS)] = "k3"
    """Schulman's estimators of the KL."""
    kl_importance_weighted: bool = False
    """Multiply the KL by the ratio (TRL's use_bias_correction_kl)."""
    ref_sync_steps: Count = 0
    """Every N steps the reference becomes the policy (R1: 400); 0 for never."""
    scale_rewards: Annotated[str, OneOf((*SCALES, DECOUPLED))] = "group"
    """What advantages are divided by: the standard deviation of the group, of the batch, nothing, the mean of
    the group (maxrl); gdpo: each reward by itself first."""
    mask_truncated: bool = False
    """Leave completions cut at max_new_tokens out of the loss; they still shape the baseline."""
    drop_equal_groups: bool = False
    """Leave groups whose rewards are all equal out of the KL term too: they cost time and teach nothing."""
    resample_rounds: Rounds = 0
    """Dynamic sampling: how often a step may replace groups whose rewards are all equal by new prompts."""
    watch: WatchSettings | None = None
    """What shows whether the policy pleases the rewards without being right; null for nothing."""
    max_lag: Literal[0, 1] = 0
    """1: the next rollout is sampled while the learner works on the last, by the policy of one update ago.
    Needs engine vllm, on GPUs of its own (runtime.vllm.gpus or urls)."""

    @property
    def loss(self) -> LossSettings:
        """The part of the settings that the loss needs."""
        return LossSettings(**{field.name: getattr(self, field.name) for field in fields(LossSettings)})

    def samples_exactly(self, precision: str) -> bool:
        """Whether the sampler computes what the learner does, but for the last digits of float32."""
        believed = self.sampling_correction.when != "always"
        return believed and self.engine.kind == "local" and precision == "float32"

    @model_validator(mode="after")
    def _possible(self) -> "GrpoSettings":
        try:
            _ = self.loss
        except ChainForgeError as error:
            raise Impossible(error.problem, error.fix) from None
        if self.watch and self.watch.reward in self.rewards:
            raise Impossible(
                f"watch.reward {self.watch.reward!r} is one of the rewards: it would see what they see",
                "name a reward plugin that trains nothing here, such as math beside correct",
            )
        if self.scale_rewards == "maxrl" and min(self.rewards.values()) < 0:
            raise Impossible(
                "scale_rewards maxrl divides by the mean reward, and a weight is negative",
                "use weights of 0 or more, or scale_rewards group",
            )
        if self.max_lag and self.engine.kind == "local":
            raise Impossible(
                "max_lag 1 samples while the learner works, and engine local shares its weights",
                "set engine to {kind: vllm}, or max_lag to 0",
            )
        if self.max_lag and self.resample_rounds:
            raise Impossible(
                "with max_lag 1 the groups that resample_rounds asks for would come from a later policy than "
                "those that they replace",
                "set resample_rounds to 0, or max_lag to 0",
            )
        if self.engine.kind == "vllm" and (self.top_p < 1 or self.top_k):
            raise Impossible(
                "vLLM gives log-probabilities after top_p and top_k, and the policy's are those before",
                "set top_p to 1.0 and top_k to 0, or engine to {kind: local}",
            )
        return self
