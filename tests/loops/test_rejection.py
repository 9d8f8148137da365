"""Rejection sampling: every completion is kept, or dropped for exactly one reason."""

import math
from typing import Any

from fakes import completion, group, prompt
from hypothesis import given
from hypothesis import strategies as st

from chainforge.config.sample import SampleSettings
from chainforge.loops.rejection import accept
from chainforge.records import Group


def settings_of(**changes: Any) -> SampleSettings:
    paths = {"output": "out", "start_from": "in", "prompts": "in", "rewards": {"correct": 1.0}}
    return SampleSettings(**paths | {"keep_per_prompt": 2} | changes)


def scored(number: int, *answers: tuple[str, float]) -> Group:
    p = prompt(number)
    return group(p, [completion(p, text) for text, _ in answers], [reward for _, reward in answers])


def test_each_reason_to_drop_a_completion_is_reached_and_counted() -> None:
    groups = [
        scored(1, ("a", 1.0), ("a ", 1.0), ("bb", 1.2), ("ccc", 1.0), ("d", 0.5), ("e", math.nan)),
        scored(2, ("wrong", 0.0), ("too", 0.9)),
    ]
    examples, counts = accept(groups, settings_of())
    assert [(e.prompt_id, e.response) for e in examples] == [("p1", "bb"), ("p1", "a")]
    assert examples[0].messages == groups[0].prompt.messages
    assert examples[0].origin == "toy"
    assert counts == {
        "prompts": 2, "prompts_without": 1, "read": 8, "kept": 2,
        "dropped/duplicate": 1, "dropped/low_reward": 4, "dropped/over_quota": 1,
    }  # fmt: skip


def test_the_best_is_one_per_prompt() -> None:
    groups = [scored(n, ("long answer", 1.0), ("short", 1.0), ("poor", 0.2)) for n in (1, 2)]
    examples, counts = accept(groups, settings_of(policy="best", keep_per_prompt=1))
    assert [(e.prompt_id, e.response) for e in examples] == [("p1", "short"), ("p2", "short")]
    assert counts["prompts_without"] == 0


answers = st.lists(
    st.tuples(st.sampled_from(["a", "b", "b ", "cc"]), st.sampled_from([0.0, 1.0, 1.2, math.nan])),
    min_size=1,
    max_size=6,
)


@given(groups=st.lists(answers, max_size=5), keep=st.integers(1, 3), bar=st.sampled_from([0.0, 1.0, 2.0]))
def test_kept_and_dropped_add_up_to_all(groups: Any, keep: int, bar: float) -> None:
    made = [scored(n, *group) for n, group in enumerate(groups)]
    examples, counts = accept(made, settings_of(keep_per_prompt=keep, min_reward=bar))
    dropped = sum(count for name, count in counts.items() if name.startswith("dropped/"))
    assert counts["read"] == sum(map(len, groups)) == counts["kept"] + dropped
    assert counts["kept"] == len(examples)
    per_prompt = [sum(e.prompt_id == g.prompt.id for e in examples) for g in made]
    assert counts["prompts"] == len(made)
    assert counts["prompts_without"] == per_prompt.count(0)
    assert max(per_prompt, default=0) <= keep
