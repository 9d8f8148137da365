"""The rules, in the order in which findings are told, and what they say of the steps of a run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from chainforge.doctor import data_rules, held_out_rules, policy_rules, rollout_rules
from chainforge.doctor.finding import Finding, Sign
from chainforge.doctor.runs import EvaluationRun, GrpoRun, Run, SelectionRun, SftRun

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Rule(Generic[R]):
    """`check` looks at a step of the kind that the rule is about; `name` is its heading in docs/doctor.md."""

    name: str
    about: type[R]
    check: Callable[[R], Sign | None]


RULES: tuple[Rule[Any], ...] = (
    Rule("mostly-dropped", SelectionRun, data_rules.mostly_dropped),
    Rule("too-few-examples", SftRun, data_rules.too_few_examples),
    Rule("loss-not-falling", SftRun, data_rules.loss_not_falling),
    Rule("overfitting", SftRun, data_rules.overfitting),
    Rule("too-few-prompts", GrpoRun, data_rules.too_few_prompts),
    Rule("rate-too-high", GrpoRun, policy_rules.rate_too_high),
    Rule("truncated", GrpoRun, rollout_rules.truncated),
    Rule("equal-rewards", GrpoRun, rollout_rules.equal_rewards),
    Rule("reward-hacking", GrpoRun, held_out_rules.reward_hacking),
    Rule("form-only", GrpoRun, rollout_rules.form_only),
    Rule("rate-too-low", GrpoRun, policy_rules.rate_too_low),
    Rule("entropy-collapse", GrpoRun, policy_rules.entropy_collapse),
    Rule("entropy-explosion", GrpoRun, policy_rules.entropy_explosion),
    Rule("kl-blow-up", GrpoRun, policy_rules.kl_blow_up),
    Rule("mismatch", GrpoRun, policy_rules.mismatch),
    Rule("length-drift", GrpoRun, rollout_rules.length_drift),
    Rule("evaluation-truncated", EvaluationRun, held_out_rules.evaluation_truncated),
    Rule("worse-than-parent", EvaluationRun, held_out_rules.worse_than_parent),
    Rule("noise-over-effect", EvaluationRun, held_out_rules.noise_over_effect),
)


def diagnose(runs: Iterable[Run]) -> list[Finding]:
    """What the rules say of these steps: step by step, in the order of the rules."""
    return [
        Finding(run.step, rule.name, sign)
        for run in runs
        for rule in RULES
        if isinstance(run, rule.about) and (sign := rule.check(run))
    ]
