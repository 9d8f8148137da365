"""Which counts where a profile is laid over the base, setting by setting."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml.comments import CommentedMap
from test_profiles import flat

from chainforge.project.overlay import give_way, merge
from chainforge.project.stanzas import Stanza

leaves = st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
trees: Any = st.recursive(
    st.dictionaries(st.sampled_from("abc"), leaves, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), leaves | inner, max_size=3),
    max_leaves=8,
)


def commented(node: Any) -> Any:
    """The same mapping as ruamel loads it from a file, comments and all."""
    return CommentedMap((k, commented(v)) for k, v in node.items()) if isinstance(node, dict) else node


@pytest.mark.slow
@given(base=trees, overlay=trees)
def test_merging_lets_the_overlay_win_and_forgets_nothing_else(base: Any, overlay: Any) -> None:
    before, above = flat(base), flat(overlay)
    base = commented(base)
    merge(base, overlay)
    merged = flat(base)
    for key, value in above.items():
        if value != {}:
            assert merged[key] == value
    for key, value in before.items():
        covered = any(key == k or key.startswith(f"{k}.") or k.startswith(f"{key}.") for k in above)
        if key and not covered:
            assert merged[key] == value


def test_a_mapping_that_names_a_plugin_and_rewards_are_replaced_whole() -> None:
    base = commented(
        {
            "model": {"plugin": "tiny", "hidden": 64},
            "rewards": {"correct": 1.0, "format": 0.2},
            "grpo": {"a": 1, "b": 2},
        }
    )
    merge(base, {"model": {"plugin": "big", "path": "x"}, "rewards": {"correct": 2.0}, "grpo": {"b": 3}})
    assert base == {
        "model": {"plugin": "big", "path": "x"},
        "rewards": {"correct": 2.0},
        "grpo": {"a": 1, "b": 3},
    }


GRAPH = (
    Stanza(params=["run", "base_model", "sft", "sft_refine"]),
    Stanza(foreach="${students}", do={"params": ["sft", "distill", "students.${key}", "evaluate.split"]}),
)


def laid_over(base: Any, overlay: Any) -> Any:
    base = commented(base)
    give_way(base, overlay, GRAPH)
    merge(base, overlay)
    return base


def test_what_an_overlay_says_of_several_steps_counts_before_what_the_base_says_of_one() -> None:
    base = {
        "sft": {"rate": 1, "epochs": 1},
        "sft_refine": {"rate": 2, "from": "a"},
        "distill": {"epochs": 3, "weight": 0},
        "students": {"a": {"epochs": 4, "of": "b"}, "b": {"rate": 5, "of": "c"}, "c": 6},
    }
    assert laid_over(base, {"sft": {"rate": 7}}) == base | {
        "sft": {"rate": 7, "epochs": 1},
        "sft_refine": {"from": "a"},
        "students": {"a": {"epochs": 4, "of": "b"}, "b": {"of": "c"}, "c": 6},
    }
    assert laid_over(base, {"distill": {"epochs": 8}})["students"]["a"] == {"of": "b"}
    own = laid_over(base, {"sft": {"rate": 7}, "sft_refine": {"rate": 9}})
    assert own["sft_refine"] == {"rate": 9, "from": "a"}, "the overlay's word on that step is the last one"


@pytest.mark.slow
@given(base=trees, overlay=trees)
def test_the_base_counts_where_the_overlay_says_nothing_of_that_setting_at_all(
    base: Any, overlay: Any
) -> None:
    kept = commented(base)
    give_way(kept, overlay, [Stanza(params=["a", "b"])])
    general, special = (node if isinstance(node, dict) else {} for node in map(overlay.get, ("a", "b")))
    gone = general.keys() - special.keys()
    for name, section in base.items():
        is_special = name == "b" and isinstance(section, dict)
        assert kept[name] == ({k: v for k, v in section.items() if k not in gone} if is_special else section)
    assert kept.keys() == base.keys()


def test_settings_of_a_plugin_are_not_those_of_a_step() -> None:
    base = {"base_model": {"plugin": "tiny", "seed": 1}, "sft_refine": {"rate": 1}}
    assert laid_over(base, {"base_model": {"plugin": "big", "rate": 9}})["sft_refine"] == {"rate": 1}
    assert laid_over(base, {"run": {"seed": 9}})["base_model"] == base["base_model"]


@pytest.mark.parametrize("odd", [None, [], ["reasoning"], 3, "text"])
@pytest.mark.parametrize("name", ["sft", "sft_refine", "students", "evaluate"])
def test_a_base_with_an_odd_section_is_left_as_it_is(name: str, odd: Any) -> None:
    base = {"sft": {"rate": 1}, "sft_refine": {"of": 1}, "students": {"a": {"of": 1}}} | {name: odd}
    overlay = {key: {"rate": 2} for key in ("sft", "sft_refine", "students", "evaluate") if key != name}
    kept = commented(base)
    give_way(kept, overlay, GRAPH)
    assert kept == base
