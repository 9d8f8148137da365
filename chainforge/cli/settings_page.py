"""docs/settings.md, written from the settings classes: `chainforge settings > docs/settings.md`."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from chainforge.algorithms.losses import LOSSES
from chainforge.config.adapter import AdapterSettings
from chainforge.config.collector import CollectorSettings
from chainforge.config.correction import CorrectionSettings
from chainforge.config.distill import OnPolicySettings
from chainforge.config.engine import EngineSettings
from chainforge.config.loading import Choice, Role
from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.config.sampling import SamplingSettings
from chainforge.config.sft import SftSettings
from chainforge.config.types import OneOf, PluginSettings, Real
from chainforge.config.verbs import VERBS
from chainforge.config.vllm import VllmSettings
from chainforge.config.watch import WatchSettings

SECTIONS = {
    "prompts": "`prompts.NAME`, one for each set",
    "bench": "`benches.NAME`, one for each benchmark",
    "collect": "`collect`, then `collect_cot` or `collect_general`",
    "filter": "`filter`, then `filter_cot` or `filter_general`",
    "sft": "`sft`, then `sft_cold_start` or `sft_refine` with `base_model`",
    "distill": "`sft`, `distill`, then `students.NAME`",
    "grpo": "`grpo`, then `grpo_reasoning` or `grpo_final`",
    "sample": "`sample`, then `rejection_sampling` or `distill_data`",
    "evaluate": "`evaluate`, then `benches.NAME`, with `base_model` in `evaluate_base`",
    "gate": "`gates.STEP`; STEP is `grpo_reasoning`, `rejection_sampling`, `grpo_final` or `distill_data`",
    "report": "`report`",
}
GROUPS: dict[type[BaseModel], tuple[str, str]] = {
    OptimizerSettings: ("Optimizer", "`sft` and `grpo`"),
    SamplingSettings: ("Sampling", "`grpo`, `sample`, `evaluate` and `distill.on_policy`"),
}
NAMES: dict[Any, str] = {
    Path: "path", str: "text", bool: "true or false", int: "whole number", float: "number", NoneType: "null",
    dict[str, Real]: "reward: weight, …", dict[str, str]: "name: name, …", list[str]: "names",
    PluginSettings: "reward: settings, …",
    AdapterSettings: "an adapter",
    EngineSettings: "an engine", VllmSettings: "servers", CorrectionSettings: "a correction",
    OnPolicySettings: "own answers", WatchSettings: "a watch",
}  # fmt: skip
FAR_OFF = 10_000  # a bound that nobody meets on purpose is not shown
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
HEAD = """\
# Settings

Written by `chainforge settings > docs/settings.md` from the classes in `chainforge/config/`: edit those.
A step reads the sections of `params.yaml` that `dvc.yaml` lists under its `params`, from general to
special: `grpo_reasoning` reads `grpo`, then `grpo_reasoning`, and the later one counts where both have a
setting. One that is left out has the default below. A wrong name, type or range stops the run before any
work, with the nearest known name; so does a number far beyond what anybody trains with, whose bound is not
shown here. A plugin is given as `{plugin: NAME, …}` with its own settings beside
the name (its file says which), or as `NAME` alone. A reward is given as `NAME: weight`; the settings of those
that have any stand in `reward_settings`, by the name of the reward.

Also there: `profile`, the name of the active profile; `base_model`, the plugin whose model the recipe starts
from; `students`, a section for each; `checkpoints`, the folders to evaluate, in the order of the report;
`untouched: [base]`, to evaluate the base model as it is before them.
Names of sets of prompts, benches, students and checkpoints are letters, digits, `_` and `-` (benches without
`-`), at most 64. No text holds `${`: DVC would read it as a reference.

What a step writes lies below `data/`, `checkpoints/`, `metrics/`, `plots/` or `reports/` of the project, is
no other step's, and is not tracked by git. A step refuses to replace what no step has made.
"""
LOSS_PAGE = """\
## Losses

What `grpo.loss_type` selects: the rows of `chainforge/algorithms/losses.py`. An optimizer step has N
completions i of n_i tokens t. A is a completion's advantage, β = `kl_coeff`, L = `max_new_tokens`; clip(ρ)
holds ρ between 1 − `clip_ratio` and 1 + `clip_ratio_high` (`clip_ratio` where that is null). Every loss is
−(sum over i and t of w·(m·g − β·KL)) / D.

| loss_type | ratio ρ | gain g | clipped | weight w | divisor D | arXiv |
|---|---|---|---|---|---|---|
LOSSES

`clipped`: first what `clip_ratio/low_mean` counts where A < 0, then what `clip_ratio/high_mean` counts where
A > 0. τ is `sapo_temperature_pos` where A > 0, else `sapo_temperature_neg`. p_old is of the policy before its
first update on the rollout.

D is always that of the whole optimizer step, so `bnpo` and `dapo` are one. Use `dr_grpo` with
`scale_rewards: none`. `dual_clip` c replaces the unclipped ρ by min(ρ, c). A completion that
`mask_truncated` leaves out counts nowhere but in N.
KL, with d = log p_ref − log p: k1 is −d, k2 is d² / 2, k3 is exp(d) − 1 − d, each times ρ if
`kl_importance_weighted`.

m corrects for a sampler that is not quite the policy (`sampling_correction`); it is 1 where that is off. With
q the probability that the sampler gave a token, m = min(p_old / q, `token_cap`), and 0 in a completion where
exp(mean over t of log p_old − log q) is outside of `sequence_band`. No gradient flows through m. What it
leaves out still counts in N, in D and in the KL, as in TRL.

A = (r − mean of the group) / (s + 1e-4). s is the standard deviation, with n − 1, of the group's rewards or
of the batch's (`scale_rewards: batch`), or the mean of the group, where no reward may be negative (`maxrl`,
arXiv 2602.02710); `none` divides by nothing. `gdpo` (arXiv 2601.05242) computes an A for each reward alone,
adds them up by their weights, then takes off the mean over the batch and divides by its standard deviation
+ 1e-4. Where a group's rewards are equal, A is 0.
"""


def settings_page() -> str:
    """The whole page as Markdown."""
    tables: list[tuple[str, type[BaseModel]]] = [
        ("`run`: what every step shares", RunSettings),
        ("`runtime`: changes no result, and is not watched", RuntimeSettings),
        ("`collector`: changes the bill of a teacher behind an API, not its answers", CollectorSettings),
        *((f"`{verb}`\n\nSections: {SECTIONS[verb]}.", kind) for verb, kind in VERBS.items()),
        ("An adapter: `adapter` of `sft` and `grpo`", AdapterSettings),
        ("An engine: `engine` of `grpo`, `sample` and `evaluate`", EngineSettings),
        ("A student's own answers: `distill.on_policy`", OnPolicySettings),
        ("A watch: `grpo.watch`", WatchSettings),
        ("A correction: `grpo.sampling_correction`", CorrectionSettings),
        ("vLLM servers: `runtime.vllm`", VllmSettings),
        *((f"{title}: part of {verbs}", group) for group, (title, verbs) in GROUPS.items()),
    ]
    sections = ["\n".join([f"## {title}", "", *rows(kind), ""]) for title, kind in tables]
    return "\n".join([HEAD, *sections, LOSS_PAGE.replace("LOSSES", "\n".join(loss_rows()))])


def loss_rows() -> Iterator[str]:
    """A row for each loss: the formulas that the docstrings of its functions begin with."""
    for name, (*functions, arxiv) in LOSSES.items():
        formulas = [str(function.__doc__).partition(": ")[0] for function in functions]
        yield f"| `{name}` | {' | '.join(formulas)} | {arxiv} |"


def rows(kind: type[BaseModel]) -> Iterator[str]:
    """A table of the settings that the class itself defines."""
    yield "| setting | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in kind.model_fields.items():
        if name in kind.__annotations__:
            meaning = " ".join(str(field.description).split()).replace("|", "\\|")
            shown = type_name(field.annotation, field.metadata)
            yield f"| `{name}` | {shown} | {default(field)} | {meaning} |"
    shared = [title for group, (title, _) in GROUPS.items() if group in kind.__bases__]
    places = [f"{' and '.join(shared)}, below"] if shared else []
    places += ["`sft`, above"] if SftSettings in kind.__bases__ else []
    if places:
        yield f"\nAlso: {places[0]}. Where a setting is in both tables, this one counts."


def type_name(annotation: Any, marks: Iterable[Any] = ()) -> str:
    """The type in words, with its range."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0], arguments[1:])
    if origin in (Union, UnionType):
        return " or ".join(map(type_name, arguments))
    if origin is list and annotation not in NAMES:
        return f"list of: {type_name(arguments[0])}"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    flat = [mark for m in marks for mark in (m.metadata if isinstance(m, FieldInfo) else [m])]
    if annotation is Choice:
        return "plugin: " + next(str(mark).replace("_", " ") for mark in flat if isinstance(mark, Role))
    if names := [name for mark in flat if isinstance(mark, OneOf) for name in mark.names]:
        return ", ".join(f"`{name}`" for name in names)
    found = [(sign, getattr(m, key)) for m in flat for key, sign in SIGNS.items() if hasattr(m, key)]
    limits = [f"{sign} {limit:,}" for sign, limit in found if abs(limit) < FAR_OFF]
    return f"{NAMES[annotation]} {', '.join(limits)}".strip()


def default(field: FieldInfo) -> str:
    """The default as params.yaml would write it."""
    if field.is_required():
        return "–"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, float):
        return f"`{value:g}`".replace("e-0", "e-")
    if isinstance(value, BaseModel):
        return "below"
    return f"`{value}`" if isinstance(value, str) and value else f"`{json.dumps(value)}`"
