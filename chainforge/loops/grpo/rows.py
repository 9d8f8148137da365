"""What one rollout gives the update: its completions with their advantages, in mini-batches."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from chainforge.config.grpo import GrpoSettings
from chainforge.loops.grpo.rollout import advantages_NG, equal_N
from chainforge.models.batch import Tokens
from chainforge.models.chat import encode_prompt, opening
from chainforge.records import Group
from chainforge.run.step import Step


@dataclass(slots=True)
class Row:
    """One completion as the update sees it. `learns` is false where its gradient is zero anyway.

    `old_logp` is None where the policy is still the one that sampled: there the ratio is one by construction.
    """

    tokens: Tokens
    sampled_logp: Sequence[float]
    old_logp: Sequence[float] | None
    ref_logp: Sequence[float]
    advantage: float
    masked: bool
    learns: bool


def make_rows(
    tokenizer: PreTrainedTokenizerBase, groups: Sequence[Group], settings: GrpoSettings, step: Step
) -> list[Row]:
    """Completions with their advantages, group by group."""
    prefill = opening(tokenizer, step.response_format)
    rows = []
    of_groups = zip(
        groups, advantages_NG(groups, settings).tolist(), equal_N(groups, settings).tolist(), strict=True
    )
    for group, advantage_G, is_equal in of_groups:
        kl_counts = settings.kl_coeff > 0 and not (is_equal and settings.drop_equal_groups)
        prompt_ids = encode_prompt(tokenizer, group.prompt.messages, prefill)
        for completion, advantage in zip(group.completions, advantage_G, strict=True):
            masked = settings.mask_truncated and completion.finish == "length"
            rows.append(
                Row(
                    Tokens(prompt_ids, completion.token_ids),
                    sampled_logp=completion.logprobs,
                    old_logp=None,
                    ref_logp=(),
                    advantage=advantage,
                    masked=masked,
                    learns=not masked and (advantage != 0 or kl_counts),
                )
            )
    return rows


def mini_batches(rows: Sequence[Row], settings: GrpoSettings) -> list[list[Row]]:
    """The mini-batches: every group whole, and as equal in size as possible."""
    groups = [rows[i : i + settings.group_size] for i in range(0, len(rows), settings.group_size)]
    parts = [groups[i :: settings.mini_batches] for i in range(settings.mini_batches)]
    return [[row for group in part for row in group] for part in parts]


@dataclass
class RolloutBuffer:
    """The rollout under way, with what its updates gave so far: what a run needs to go on inside of it.

    `number` counts rollouts from 1; 0 before the first. `drawn` prompts were used so far, and the rewards
    `applied` did so at least once."""

    number: int = 0
    rows: Sequence[Row] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    updates: list[dict[str, float]] = field(default_factory=list)
    drawn: int = 0
    applied: list[str] = field(default_factory=list)

    def fill(
        self, number: int, rows: Sequence[Row], metrics: dict[str, float], drawn: int, applied: list[str]
    ) -> None:
        """The next rollout, of which no update is done."""
        self.number, self.rows, self.metrics, self.updates = number, rows, metrics, []
        self.drawn, self.applied = drawn, applied

    def state_dict(self) -> dict[str, Any]:
        """Numbers, lists and mappings only."""
        rows = [asdict(row) for row in self.rows]
        return {
            "number": self.number,
            "rows": rows,
            "metrics": self.metrics,
            "updates": self.updates,
            "drawn": self.drawn,
            "applied": self.applied,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.number, self.metrics, self.updates = state["number"], state["metrics"], state["updates"]
        self.drawn, self.applied = state["drawn"], state["applied"]
        self.rows = [Row(**row | {"tokens": Tokens(**row["tokens"])}) for row in state["rows"]]
