"""The table of experiments: only the settings that differ, every checkpoint, about 150 columns."""

from typing import Any

import pytest

from chainforge.report.experiments import (
    changed_keys,
    common_prefix,
    format_experiments,
    read_experiments,
    wrap_name,
)

CHECKPOINTS = (
    "qwen_sft_ckpt",
    "qwen_rl_ckpt_stage2",
    "qwen_sft_ckpt_stage3",
    "qwen_rl_ckpt_final",
    "qwen_distilled_student",
    "qwen_student_cold_start",
)


def revision(rate: float | None, **settings: Any) -> dict[str, Any]:
    missing = {"error": {"type": "FileNotFoundError", "msg": "no such file"}}
    evaluated = {"data": {"n": 20, "pass_at_1": rate}}
    files = [f"metrics/eval/{c}/{bench}.json" for c in CHECKPOINTS for bench in ("reasoning", "general")]
    return {
        "rev": "0123456789abcdef",
        "data": {
            "timestamp": "2026-11-24T00:36:49",
            "params": {"params.yaml": {"data": {"run": {"seed": 17}, "grpo": settings}}},
            "metrics": {"metrics/grpo_final.json": {"data": {"reward": 0.75}}}
            | dict.fromkeys(files, missing if rate is None else evaluated),
        },
    }


def entry(name: str | None, state: str, rate: float | None, **settings: Any) -> dict[str, Any]:
    made = revision(rate, **settings)
    return {"name": name, "executor": {"state": state} if state else None, "revs": [made]}


def shown() -> list[dict[str, Any]]:
    """As `dvc exp show --json` has it."""
    workspace = {**revision(0.5, kl_coeff=0.01, steps=2), "rev": "workspace", "data": None, "error": {}}
    entries = [
        entry("fine-ness", "success", 0.625, kl_coeff=0.05, steps=2),
        entry(None, "", 0.25, kl_coeff=0.01, steps=2),
        entry("waits", "queued", 0.5, kl_coeff=0.1, steps=2),
        entry("broke", "failed", None, kl_coeff=0.1, steps=2, clip=[1, 2]),
    ]
    baseline = {**revision(None, kl_coeff=0.01, steps=2), "name": "main", "experiments": entries}
    return [workspace, baseline]


def test_every_run_has_its_line_with_its_state_or_time() -> None:
    table = format_experiments(read_experiments(shown()))
    lines = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line[:1] not in ("─", "")}
    assert lines["fine-ness"][:2] == ["11-24", "00:36"]
    assert lines["fine-ness"].count("62.5") == 12
    assert lines["0123456"].count("25.0") == 12
    assert lines["waits"][0] == "queued"
    assert "50.0" not in lines["waits"], "DVC gives a queued one the figures of what it starts from"
    assert lines["broke"][0] == "failed"
    assert lines["main"].count("–") >= 12
    assert "workspace" in lines


def test_only_settings_that_differ_have_a_column() -> None:
    experiments = read_experiments(shown())
    assert changed_keys(experiments) == ["grpo.kl_coeff", "grpo.clip"]
    assert changed_keys(experiments[:3]) == ["grpo.kl_coeff"]
    assert changed_keys(experiments[:2]) == []


def test_the_recipe_fits_a_terminal() -> None:
    table = format_experiments(read_experiments(shown()))
    assert max(map(len, table.splitlines())) <= 160


def test_many_changed_settings_are_counted() -> None:
    runs = [entry("a", "", 0.5, x=1), entry("b", "", 0.5, x=1, **{f"s{i}": i for i in range(9)})]
    table = format_experiments(read_experiments([{**revision(0.5, x=1), "experiments": runs}]))
    assert "4 more settings differ: grpo.s5, grpo.s6, grpo.s7, grpo.s8" in table


def test_a_graph_without_any_result_has_a_table() -> None:
    assert "main" in format_experiments(read_experiments([{**revision(None), "name": "main"}]))


@pytest.mark.parametrize(
    ("names", "prefix"),
    [(CHECKPOINTS, "qwen_"), (("a_b", "b_b"), ""), (("mine",), ""), (("a_b", "a"), ""), ((), "")],
)
def test_what_all_checkpoints_begin_with_is_said_once(names: tuple[str, ...], prefix: str) -> None:
    assert common_prefix(names) == prefix


def test_long_names_go_over_several_lines() -> None:
    assert wrap_name("student_cold_start") == ["student", "cold", "start"]
    assert wrap_name("grpo.kl_coeff") == ["grpo.kl", "coeff"]
    assert wrap_name("distilled") == ["distilled"]
