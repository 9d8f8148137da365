"""The runs that are recorded in runs/: three good ones, and ones spoilt on purpose, one or more a rule.

The spoilt ones are of one small recipe, SMALL: sums of two numbers of up to two digits, 0.13 million
parameters. The good ones are `tiny` up to the first RL step, with fewer RL steps and problems: SHORTER.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SMALL: Mapping[str, Any] = {
    "prompts.reasoning.source": {"plugin": "arithmetic", "operators": "+"},
    "prompts.reasoning.train": 2500,
    "prompts.reasoning.eval": 300,
    "prompts.general.train": 60,
    "prompts.general.eval": 20,
    "collect_cot.teacher": {"plugin": "recorded"},
    "collect_cot.max_prompts": 1500,
    "sft_cold_start.num_epochs": 8.0,
    "sft.eval_every": 50,
    "grpo_reasoning.num_rl_steps": 20,
    "grpo.max_new_tokens": 48,
    "sample.max_new_tokens": 48,
    "evaluate.max_new_tokens": 48,
    "evaluate.samples": 2,
    "evaluate.greedy": False,
    "checkpoints": ["qwen_sft_ckpt", "qwen_rl_ckpt_stage2"],
    "report.parents": {"qwen_rl_ckpt_stage2": "qwen_sft_ckpt"},
    "benches": {"reasoning": {"prompts": "data/prompts/reasoning_eval.jsonl"}},
}
SHORTER: Mapping[str, Any] = {
    **{key: SMALL[key] for key in ("checkpoints", "report.parents", "benches", "evaluate.greedy")},
    "prompts.general.train": 60,
    "prompts.general.eval": 20,
    "evaluate.samples": 2,
    "evaluate.max_prompts": 300,
    "grpo_reasoning.num_rl_steps": 100,
}
PROMPTS = ("prompts@reasoning", "prompts@general")
FILTERED = (*PROMPTS, "collect_cot", "filter_cot")
COLD = (*FILTERED, "sft_cold_start")
GRPO = ("grpo_reasoning",)
EVALUATED = (
    "bench@reasoning",
    "evaluate@qwen_sft_ckpt-reasoning",
    "evaluate@qwen_rl_ckpt_stage2-reasoning",
)

PLUGINS = '''"""Rewards that no one should use."""

import chainforge as cf


def constant(completions, **_):
    return [0.5] * len(completions)


def long(completions, **_):
    return [min(len(text) / 400, 1.0) for text in completions]


def short(completions, **_):
    return [max(1 - len(text) / 150, 0.0) for text in completions]


def one_text(completions, **_):
    wanted = "<reasoning_process>1 + 1 = 2.</reasoning_process><summary>2</summary>"
    return [sum(map(str.__eq__, text, wanted)) / max(len(text), len(wanted)) for text in completions]


def variety(completions, **_):
    return [len(set(text)) / 60 for text in completions]


@cf.hookimpl
def register_rewards(register):
    for reward in (constant, long, short, one_text, variety):
        register(reward.__name__, reward)
'''


@dataclass(frozen=True)
class Recipe:
    """A run: what is set besides `usual`, and which steps are run and recorded.

    `rules` must be found in it. It starts from the cold start that spoilt runs share, or from nothing.
    """

    rules: tuple[str, ...] = ()
    change: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[str, ...] = GRPO
    from_nothing: bool = False
    usual: Mapping[str, Any] = field(default_factory=lambda: SMALL)


WATCH = {"prompts": "data/prompts/reasoning_eval.jsonl", "reward": "correct", "every": 5, "max_prompts": 200}
PAYS_LONG = {
    "grpo_reasoning.rewards": {"long": 1.0},
    "grpo.learning_rate": 1e-3,
    "grpo.max_new_tokens": 110,
}
SPOILT: Mapping[str, Recipe] = {
    "constant-reward": Recipe(
        ("equal-rewards",), {"grpo_reasoning.rewards": {"constant": 1.0}, "grpo_reasoning.num_rl_steps": 12}
    ),
    "limit-too-low": Recipe(("truncated",), {"grpo.max_new_tokens": 4, "grpo_reasoning.num_rl_steps": 12}),
    "pays-one-text": Recipe(
        ("entropy-collapse",),
        {
            "grpo_reasoning.rewards": {"one_text": 1.0},
            "grpo.learning_rate": 1e-3,
            "grpo_reasoning.num_rl_steps": 30,
        },
    ),
    "pays-short": Recipe(
        ("kl-blow-up",), {"grpo_reasoning.rewards": {"short": 1.0}, "grpo.learning_rate": 1e-3}
    ),
    "pays-variety": Recipe(
        ("entropy-explosion",), {"grpo_reasoning.rewards": {"variety": 1.0}, "grpo.learning_rate": 1e-3}
    ),
    "pays-long-watched": Recipe(
        ("reward-hacking",),
        {**PAYS_LONG, "grpo_reasoning.watch": WATCH},
    ),
    "pays-long-held-out": Recipe(
        ("reward-hacking", "worse-than-parent"),
        {**PAYS_LONG, "evaluate.max_prompts": 100, "evaluate.max_new_tokens": 110},
        (*GRPO, *EVALUATED),
    ),
    "pays-long-too": Recipe(
        ("length-drift", "reward-hacking"),
        {**PAYS_LONG, "grpo_reasoning.rewards": {"correct": 0.2, "long": 1.0}},
    ),
    "rate-times-100": Recipe(("rate-too-high",), {"grpo.learning_rate": 2e-2}),
    "rate-by-100": Recipe(("rate-too-low",), {"grpo.learning_rate": 2e-6, "grpo_reasoning.num_rl_steps": 15}),
    "band-too-narrow": Recipe(
        ("mismatch",),
        {
            "run.precision": "bfloat16",
            "grpo.sampling_correction.sequence_band": [0.9999, 1.0001],
            "grpo_reasoning.num_rl_steps": 10,
        },
    ),
    "weak-start": Recipe(
        ("form-only",),
        {
            "prompts.reasoning.source": {"plugin": "arithmetic", "operators": "+-"},
            "sft_cold_start.num_epochs": 4.0,
            "grpo_reasoning.num_rl_steps": 15,
        },
        (*COLD, *GRPO),
        from_nothing=True,
    ),
    "too-short-to-tell": Recipe(
        ("noise-over-effect",),
        {"evaluate.max_prompts": 60, "grpo_reasoning.num_rl_steps": 3},
        (*GRPO, *EVALUATED),
    ),
    "evaluation-limit-too-low": Recipe(
        ("evaluation-truncated",),
        {"evaluate.max_new_tokens": 4, "evaluate.max_prompts": 50},
        EVALUATED[:2],
    ),
    "many-epochs-of-few": Recipe(
        ("overfitting",),
        {"collect_cot.max_prompts": 100, "sft_cold_start.num_epochs": 60.0, "sft.eval_fraction": 0.2},
        COLD,
        from_nothing=True,
    ),
    "sft-rate-times-1000": Recipe(
        ("loss-not-falling",),
        {"sft.learning_rate": 3.0, "sft.muon_learning_rate": 6.0, "sft_cold_start.num_epochs": 2.0},
        COLD,
        from_nothing=True,
    ),
    "filter-too-strict": Recipe(
        ("mostly-dropped",), {"filter.max_characters": 14}, FILTERED, from_nothing=True
    ),
    "sampled-too-hot": Recipe(
        ("mostly-dropped",),
        {
            "sample.temperature": 2.0,
            "rejection_sampling.max_prompts": 100,
            "rejection_sampling.start_from": "checkpoints/qwen_sft_ckpt",
        },
        ("rejection_sampling",),
    ),
    "twelve-examples": Recipe(
        ("too-few-examples",), {"collect_cot.max_prompts": 12}, COLD, from_nothing=True
    ),
    "twenty-prompts": Recipe(
        ("too-few-prompts",),
        {"prompts.reasoning.train": 20, "grpo_reasoning.num_rl_steps": 3},
        (*COLD, *GRPO),
        from_nothing=True,
    ),
}
GOOD: Mapping[str, Recipe] = {
    f"good-{seed}": Recipe((), {"run.seed": seed}, (*COLD, *GRPO, *EVALUATED), True, SHORTER)
    for seed in (101, 202, 303)
}
RECIPES = {**SPOILT, **GOOD}
