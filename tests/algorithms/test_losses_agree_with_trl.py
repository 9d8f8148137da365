"""Losses, gradients, logged means and advantages agree with TRL 1.16, whose own methods run here.

TRL's methods are called on a minimal stand-in for the trainer: only where its tensors come from is made up.
"""

import math
import random
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from fakes import SUPERCOT
from torch import Tensor

from chainforge.algorithms.advantages import TIE, advantages, decoupled_advantages, zero_variance_N
from chainforge.algorithms.importance_sampling import importance_weights, mismatch
from chainforge.algorithms.losses import LOSSES, LossSettings
from chainforge.algorithms.policy_loss import loss_denominator, policy_loss, stat_means
from chainforge.loops.grpo.metrics import MISMATCH_NAMES, UPDATE_NAMES
from chainforge.scoring import Scorer, WeightedReward

pytestmark = [pytest.mark.peer, pytest.mark.slow]

CASES_PER_LOSS = 500  # times seven losses
TOLERANCE = 1e-6
UPDATE = UPDATE_NAMES | MISMATCH_NAMES
STAT_NAMES = {
    "kl": "kl",
    "clip_ratio/low_mean": "clip_low",
    "clip_ratio/high_mean": "clip_high",
    "clip_ratio/region_mean": "clip_region",
    "cispo_clip_ratio": "clip_high",
}


@cache
def trl() -> ModuleType:
    """Imported when first used: it takes seconds, and every run of pytest imports this file."""
    module: ModuleType = pytest.importorskip(
        "trl", reason="TRL is needed only for this comparison", exc_type=ImportError
    )
    return module


def random_settings(rng: random.Random, loss_type: str) -> LossSettings:
    """A loss with random clips and KL; k3, because TRL has no other estimator."""
    clip_ratio = rng.choice((0.05, 0.2, 0.5, 10.0))
    high = rng.choice((None, 0.1, 0.28, 10.0))
    clips = loss_type not in ("cispo", "sapo")
    if loss_type == "cispo":
        high = rng.choice((0.9, 1.2, 5.0))
    start = 1 + (clip_ratio if high is None else high)
    return LossSettings(
        loss_type=loss_type,
        max_new_tokens=rng.randint(8, 40),
        clip_ratio=clip_ratio,
        clip_ratio_high=high,
        dual_clip=rng.choice((None, start + 0.01, start + 0.5, start + 3)) if clips else None,
        sapo_temperature_pos=rng.choice((0.5, 1.0, 2.0)),
        sapo_temperature_neg=rng.choice((1.05, 1.0, 3.0)),
        kl_coeff=rng.choice((0.0, 0.001, 0.04, 1.0)),
        kl_importance_weighted=rng.random() < 0.5,
    )


def random_step(rng: random.Random, micro_batches: int) -> dict[str, Tensor | None]:
    """The tensors of one optimizer step; the micro-batches are of equal size, as TRL's always are."""
    B, T = micro_batches * rng.randint(1, 4), rng.randint(2, 8)
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    drift = rng.choice((0.0, 0.05, 0.5))
    logp_BT = -torch.rand(B, T, generator=generator) * 3
    old_logp_BT = logp_BT + drift * torch.randn(B, T, generator=generator)
    mask_BT = torch.arange(T) < torch.randint(1, T + 1, (B, 1), generator=generator)
    if rng.random() < 0.3:  # tokens of a tool, in the middle
        mask_BT &= torch.rand(B, T, generator=generator) < 0.8
    if rng.random() < 0.1:  # a truncated completion that is left out
        mask_BT[0] = False
    return {
        "logp": logp_BT,
        "old": old_logp_BT if drift else None,  # None: on-policy
        "ref": logp_BT + 0.3 * torch.randn(B, T, generator=generator),
        "advantage": torch.randn(B, generator=generator) * (torch.rand(B, generator=generator) < 0.8),
        "mask": mask_BT,
        "importance": torch.rand(B, T, generator=generator) * 2 if rng.random() < 0.5 else None,
    }


def trl_loss(
    step: dict[str, Any], settings: LossSettings, logp_BT: Tensor, whole: dict[str, Any], parts: int
) -> Any:
    """TRL's loss of a micro-batch, and its metrics."""
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp_BT, torch.zeros_like(logp_BT), None),
        loss_type="grpo" if settings.loss_type == "gspo" else settings.loss_type,
        importance_sampling_level="sequence" if settings.loss_type == "gspo" else "token",
        epsilon_low=settings.clip_ratio,
        epsilon_high=settings.clip_ratio if settings.clip_ratio_high is None else settings.clip_ratio_high,
        beta=settings.kl_coeff,
        max_completion_length=settings.max_new_tokens,
        args=SimpleNamespace(
            delta=settings.dual_clip,
            use_bias_correction_kl=settings.kl_importance_weighted,
            sapo_temperature_pos=settings.sapo_temperature_pos,
            sapo_temperature_neg=settings.sapo_temperature_neg,
            steps_per_generation=parts,
        ),
        accelerator=SimpleNamespace(num_processes=1, reduce=lambda x, reduction: x, gather=lambda x: x),
        current_gradient_accumulation_steps=parts,
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=step["importance"] is not None,
        vllm_importance_sampling_correction=True,
        _entropy_bonus_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    B, _ = logp_BT.shape
    inputs = {
        "prompt_ids": torch.zeros(B, 1, dtype=torch.long),
        "prompt_mask": torch.ones(B, 1, dtype=torch.long),
        "completion_ids": torch.zeros_like(logp_BT, dtype=torch.long),
        "completion_mask": step["mask"].long(),
        "advantages": step["advantage"],
        "num_items_in_batch": whole["mask"].sum(),
        "old_per_token_logps": step["old"],
        "ref_per_token_logps": step["ref"],
        "importance_sampling_ratio": step["importance"],
    }
    return trl().GRPOTrainer._compute_loss(trainer, None, inputs), trainer._metrics["train"]


def deviation(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative where values exceed 1."""
    return ((ours - theirs).abs() / theirs.abs().clamp(min=1)).max().item()


def compare(rng: random.Random, loss_type: str) -> dict[str, float]:
    """Deviation of one random configuration, of the loss, of its gradient and of the logged means."""
    settings = random_settings(rng, loss_type)
    micro_batches = (
        1 if loss_type == "bnpo" else rng.choice((1, 2, 3))
    )  # TRL's bnpo depends on the micro-batch
    whole = random_step(rng, micro_batches)
    ours, theirs = (whole["logp"].clone().requires_grad_() for _ in range(2))
    denominator = loss_denominator(settings, whole["mask"])
    size = len(whole["logp"]) // micro_batches
    stat_deviations, our_loss, their_loss = [], torch.zeros(()), torch.zeros(())
    for start in range(0, len(whole["logp"]), size):
        rows = slice(start, start + size)
        step = {name: None if value is None else value[rows] for name, value in whole.items()}
        old_logp_BT = ours[rows].detach() if step["old"] is None else step["old"]
        ref_logp_BT = step["ref"] if settings.kl_coeff else None
        loss, stats = policy_loss(
            ours[rows],
            old_logp_BT,
            ref_logp_BT,
            step["advantage"],
            step["mask"],
            settings,
            step["importance"],
        )
        our_loss = our_loss + loss / denominator
        loss, metrics = trl_loss(step, settings, theirs[rows], whole, micro_batches)
        their_loss = their_loss + loss
        means = stat_means(stats)
        shared = {name: values[0] for name, values in metrics.items() if name in STAT_NAMES}
        assert len(shared) == {"cispo": 1, "sapo": 0}.get(loss_type, 3) + (settings.kl_coeff != 0)
        stat_deviations += [abs(means[STAT_NAMES[name]] - value) for name, value in shared.items()]
    (our_grad_BT,), (their_grad_BT,) = (
        torch.autograd.grad(our_loss, ours),
        torch.autograd.grad(their_loss, theirs),
    )
    assert our_loss.dtype == their_loss.dtype == torch.float32
    return {
        "loss": deviation(our_loss, their_loss),
        "gradient": deviation(our_grad_BT, their_grad_BT),
        "logged means": max(stat_deviations, default=0.0),
    }


@pytest.mark.parametrize("loss_type", sorted(LOSSES.keys() - {"dppo"}))  # TRL has none
def test_loss_gradient_and_logged_means_agree(loss_type: str) -> None:
    rng = random.Random(loss_type)
    found = [compare(rng, loss_type) for _ in range(CASES_PER_LOSS)]
    assert not [case for case in found if not all(value <= TOLERANCE for value in case.values())]


def trl_rollout(
    parts_NGK: Tensor, weights_K: Tensor, *, sampled: list[list[float]] | None = None, **changes: Any
) -> tuple[dict[str, Tensor], Any]:
    """What TRL makes of these rewards and of a sampler's log-probabilities, and its metrics."""
    N, G, K = parts_NGK.shape
    ids, names = [[0] * len(row) for row in sampled or [[0.0]] * (N * G)], [str(k) for k in range(K)]
    made_up = dict(
        accelerator=SimpleNamespace(device="cpu", process_index=0, gather=lambda x: x),
        model=SimpleNamespace(training=True, is_gradient_checkpointing=False),
        args=SimpleNamespace(
            per_device_train_batch_size=1,
            steps_per_generation=1,
            gradient_accumulation_steps=1,
            gradient_checkpointing_kwargs=None,
        ),
        _generate=lambda prompts: (ids, ids, None, ["x"] * len(prompts), sampled, {}, None, None),
        _calculate_rewards=lambda *_: parts_NGK.view(N * G, K),
        _tokenizer=SimpleNamespace(pad_token_id=0),
        environment_factories=None,
        environments=None,
        tools=None,
        pad_to_multiple_of=None,
        mask_truncated_completions=False,
        num_iterations=1,
        num_generations=G,
        beta=0.0,
        use_vllm=False,
        vllm_importance_sampling_correction=True,
        multi_objective_aggregation="sum_then_normalize",
        reward_weights=weights_K,
        reward_funcs=names,
        reward_func_names=names,
        scale_rewards="group",
        log_multimodal=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _logs=defaultdict(list, rewards=defaultdict(list), extra=defaultdict(list)),
        _pending_extra_logs={},
        _pending_metrics={},
    )
    trainer = SimpleNamespace(**made_up | changes)
    output = trl().GRPOTrainer._generate_and_score_completions(trainer, [{"prompt": "x"}] * (N * G))
    return output, trainer._metrics["train"]


def weighted_rewards(parts_NGK: Tensor, weights_K: Tensor) -> Tensor:
    """What the scorer makes of these parts, where NaN is a reward that does not apply."""
    rewards = [WeightedReward(f"r{k}", weight, print, "") for k, weight in enumerate(weights_K.tolist())]
    scorer = Scorer(tuple(rewards), SUPERCOT, 1.0)
    parts = [dict(zip(scorer.weights, row, strict=True)) for row in parts_NGK.flatten(0, 1).tolist()]
    totals = [scorer.weigh({k: None if math.isnan(v) else v for k, v in row.items()}).total for row in parts]
    return torch.tensor(totals).view(parts_NGK.shape[:2])


def random_rewards(seed: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts, a share of them missing, and weights."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(5)
    for _ in range(100):
        N, G, K = rng.randint(1, 5), rng.randint(2, 8), rng.randint(1, 3)
        parts_NGK = torch.randint(0, 3, (N, G, K), generator=generator) / 2
        parts_NGK[torch.rand(N, G, K, generator=generator) < rng.choice((0.0, 0.2, 0.7))] = math.nan
        yield parts_NGK, torch.tensor([rng.choice((1.0, 0.2, -0.3)) for _ in range(K)])


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_agree(scale: str) -> None:
    for parts_NGK, weights_K in random_rewards(scale):
        reward_NG = weighted_rewards(parts_NGK, weights_K)
        output, _ = trl_rollout(parts_NGK, weights_K, scale_rewards=scale)
        ours, theirs = advantages(reward_NG, scale=scale), output["advantages"].view(reward_NG.shape)
        equal_N = zero_variance_N(reward_NG)  # exactly 0 here; TRL divides the rounding of the mean by 1e-4
        assert ours[equal_N].eq(0).all()
        assert theirs[equal_N].abs().le(TIE / 1e-4).all()
        torch.testing.assert_close(ours[~equal_N], theirs[~equal_N], atol=TOLERANCE, rtol=TOLERANCE)


def test_advantages_of_gdpo_agree() -> None:
    for parts_NGK, weights_K in random_rewards("gdpo"):
        output, _ = trl_rollout(parts_NGK, weights_K, multi_objective_aggregation="normalize_then_sum")
        ours, theirs = (
            decoupled_advantages(parts_NGK, weights_K),
            output["advantages"].view(parts_NGK.shape[:2]),
        )
        # where nothing differs we give exactly 0, and TRL what rounding leaves of the mean over the batch
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def random_mismatch(seed: int, *, same_length: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of policy and sampler, and the mask, of 8 completions."""
    generator = torch.Generator().manual_seed(seed)
    logp_BT = -torch.rand(8, 6, generator=generator) * 3
    spread_B1 = torch.rand(8, 1, generator=generator) * (0.03 if same_length else 1.0)
    sampled_BT = logp_BT + spread_B1 * torch.randn(8, 6, generator=generator)
    length_B1 = torch.randint(6 if same_length else 1, 7, (8, 1), generator=generator)
    return logp_BT, sampled_BT, torch.arange(6) < length_B1


def trl_importance(logp_BT: Tensor, sampled_BT: Tensor, mask_BT: Tensor, **mode: Any) -> tuple[Tensor, Any]:
    """TRL's weights and what it logs of them."""
    sampled = [row[kept].tolist() for row, kept in zip(sampled_BT, mask_BT, strict=True)]
    output, metrics = trl_rollout(
        torch.rand(2, 4, 1),
        torch.ones(1),
        sampled=sampled,
        use_vllm=True,
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp_BT, None, None),
        **{f"vllm_importance_sampling_{name}": value for name, value in mode.items()},
    )
    return output["importance_sampling_ratio"], metrics


@pytest.mark.parametrize("cap", [1.2, 2.0, 3.0])
def test_truncated_weights_and_what_is_logged_of_them_agree(cap: float) -> None:
    for seed in range(100):
        logp_BT, sampled_BT, mask_BT = random_mismatch(seed)
        width = int(mask_BT.sum(-1).max())
        logp_BT, sampled_BT, mask_BT = (x[:, :width] for x in (logp_BT, sampled_BT, mask_BT))
        theirs_BT, logged = trl_importance(
            logp_BT, sampled_BT, mask_BT, mode="token_truncate", clip_max=cap, clip_min=None
        )
        bounds: Any = {"token_cap": cap, "sequence_band": None}
        ours_BT = importance_weights(logp_BT, sampled_BT, mask_BT, **bounds)
        torch.testing.assert_close(ours_BT, theirs_BT, atol=TOLERANCE, rtol=TOLERANCE)
        figures = mismatch(logp_BT, sampled_BT, mask_BT, **bounds)
        shared = {UPDATE[name]: value for name, value in figures.items() if UPDATE[name] in logged}
        assert len(shared) == 5
        assert shared == {name: pytest.approx(logged[name][0], abs=TOLERANCE) for name in shared}


def test_completions_of_one_length_are_left_out_by_both() -> None:
    """TRL masks by the product of p / q, we by its geometric mean: its bounds are the n-th powers of ours."""
    masked = 0
    for seed in range(100):
        logp_BT, sampled_BT, mask_BT = random_mismatch(seed, same_length=True)
        theirs_B1, _ = trl_importance(
            logp_BT, sampled_BT, mask_BT, mode="sequence_mask", clip_max=1.01**6, clip_min=0.99**6
        )
        ours_BT = importance_weights(logp_BT, sampled_BT, mask_BT, token_cap=None, sequence_band=(0.99, 1.01))
        assert torch.equal(ours_BT == 0, (theirs_B1 == 0).expand_as(ours_BT))
        masked += int((theirs_B1 == 0).sum())
    assert 100 < masked < 700
