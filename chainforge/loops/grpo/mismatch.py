"""A sampler that is not quite the policy: whether it may be, how far it is off, and when to say so."""

from collections.abc import Mapping, Sequence

import torch

from chainforge.algorithms.importance_sampling import mismatch
from chainforge.config.correction import FAR, MOST_MASKED, CorrectionSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.loops.grpo.metrics import DRIFT, MASKED
from chainforge.models.batch import pad_rows
from chainforge.run.step import Step

PATIENCE = 3  # RL steps in a row


def is_exact(settings: GrpoSettings, step: Step) -> bool:
    """Whether the sampler computes what the learner does, but for the last digits of float32."""
    return settings.samples_exactly(step.settings.precision)


def correction_of(settings: GrpoSettings, step: Step) -> CorrectionSettings | None:
    """The correction, where it is on."""
    correction = settings.sampling_correction
    return None if correction.when == "never" or is_exact(settings, step) else correction


def mismatch_of(
    old: Sequence[Sequence[float] | None],
    sampled: Sequence[Sequence[float]],
    correction: CorrectionSettings | None,
) -> dict[str, float]:
    """How far log-probabilities of the sampler are from those of the policy; nothing where nobody asks."""
    if correction is None:
        return {}
    width, cpu = max(map(len, sampled)), torch.device("cpu")
    mask_NT = torch.arange(width) < torch.tensor([len(row) for row in sampled])[:, None]
    old_NT = pad_rows([row for row in old if row is not None], width, cpu)
    return mismatch(old_NT, pad_rows(sampled, width, cpu), mask_NT, **correction.bounds)


class Alarm:
    """Says once, on the terminal and in logs/, that the sampler has drifted away from the policy.

    Where several RL steps in a row are too far off; it hears nothing where the correction is off.
    """

    def __init__(self, settings: GrpoSettings, step: Step) -> None:
        self._settings, self._step = settings, step
        self._in_a_row, self._said = 0, correction_of(settings, step) is None

    def hear(self, number: int, metrics: Mapping[str, float]) -> None:
        """The figures of RL step `number`."""
        drift, masked = metrics.get(DRIFT, 0.0), metrics.get(MASKED, 0.0)
        self._in_a_row = self._in_a_row + 1 if drift > FAR or masked > MOST_MASKED else 0
        if self._said or self._in_a_row < PATIENCE:
            return
        self._said = True
        text = (
            f"{self._step.name}: for {PATIENCE} RL steps, up to {number}, the sampler has been far from the "
            f"policy: their log-probabilities differ by {drift:.3g} nats per token, and {masked:.0%} of the "
            f"completions are left out\n  -> {self._advice(drift)}; docs/mismatch.md has more"
        )
        self._step.warn("mismatch", text)

    def _advice(self, drift: float) -> str:
        settings, precision = self._settings, self._step.settings.precision
        if drift <= FAR:
            return (
                "give sampling_correction.sequence_band more room, or set it to null: token_cap alone stays"
            )
        if settings.max_lag:
            return "set max_lag to 0 or lower learning_rate: the policy moves too far in one update"
        if settings.engine.kind == "vllm":
            return "look for quantization in runtime.vllm.arguments, or try run.precision float32"
        if precision == "float32":
            return "the engine samples from other weights than those that learn: find out why"
        return "try run.precision float32, or float16 on a GPU, whose rounding is finer than that of bfloat16"
