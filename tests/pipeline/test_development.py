"""`evaluate.split`: dev puts other problems in place of the test, and nothing else changes."""

from pathlib import Path

import pytest
from clone import make_clone

from chainforge.jsonl import read_records
from chainforge.loops.development import twin_key
from chainforge.records import Prompt

BENCHES = ("reasoning", "general", "sums")


@pytest.mark.long
@pytest.mark.slow
def test_dev_and_back_gives_the_test_its_bytes_and_training_its_prompts(tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "clone")
    clone.put("benches", {**benches(), "sums": {"source": "arithmetic", "eval": 30, "dev": 10}})
    targets = [f"bench@{name}" for name in BENCHES]
    clone.repro(*targets)
    test = clone.sha256("data/prompts", "data/benches")
    held_out = {name: read_keys(clone.folder / f"data/benches/{name}.jsonl") for name in BENCHES}
    clone.put("evaluate.split", "dev")
    clone.repro(*targets)
    dev = clone.sha256("data/prompts", "data/benches")
    assert {path for path in test if test[path] == dev[path]} == {
        f"data/prompts/{name}_train.jsonl" for name in ("reasoning", "general")
    }
    trained = [read_keys(clone.folder / f"data/prompts/{name}_train.jsonl") for name in BENCHES[:2]]
    for name in BENCHES:
        keys = read_keys(clone.folder / f"data/benches/{name}.jsonl")
        assert keys
        assert not keys & held_out[name].union(*trained)
    clone.put("evaluate.split", "test")
    clone.repro(*targets)
    assert clone.sha256("data/prompts", "data/benches") == test


def benches() -> dict[str, dict[str, str]]:
    return {name: {"prompts": f"data/prompts/{name}_eval.jsonl"} for name in BENCHES[:2]}


def read_keys(path: Path) -> set[str]:
    return set(map(twin_key, read_records(path, Prompt)))
