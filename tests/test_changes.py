"""The table of docs/architecture.md is true: what it says a change touches is enough, and is there."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tree import ROOT

from chainforge.config.grpo import GrpoSettings
from chainforge.config.run import RuntimeSettings
from chainforge.plugins import load_plugins
from chainforge.project.graph import read_graph, settings_of
from chainforge.project.preflight.project import check_project
from chainforge.project.profiles import compose

pytestmark = pytest.mark.slow

TABLE = re.search(
    r"<!-- CHANGES -->\n(.*?)<!-- /CHANGES -->", (ROOT / "docs/architecture.md").read_text(), re.DOTALL
)


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of the smallest profile, in a project without plugins of its own."""
    monkeypatch.chdir(ROOT)
    settings: dict[str, Any] = YAML(typ="safe", pure=True).load(compose("smoke"))
    monkeypatch.chdir(tmp_path)
    return settings


def write(params: dict[str, Any], graph: dict[str, Any]) -> None:
    """JSON is YAML."""
    Path("params.yaml").write_text(json.dumps(params), encoding="utf-8")
    Path("dvc.yaml").write_text(json.dumps(graph), encoding="utf-8")


def graph() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    return found


def test_the_table_has_thirteen_changes_and_every_file_is_there() -> None:
    assert TABLE
    rows = TABLE[1].splitlines()[2:]
    assert len(rows) == 13
    for path in re.findall(r"`([\w/.-]+/[\w.-]*)`", TABLE[1]):
        assert (ROOT / path).exists(), path


ADDED = """
import torch
from chainforge import response
from chainforge.algorithms import losses
losses.LOSSES["mine"] = losses.LOSSES["dapo"]
response.PRESETS["mine"] = response.TagFormat("a", "b")

from chainforge.algorithms.policy_loss import loss_denominator, policy_loss
from chainforge.cli.settings_page import settings_page
from chainforge.config.grpo import GrpoSettings
from chainforge.config.run import RunSettings
paths = {"output": "out", "start_from": "in", "prompts": "p", "rewards": {"correct": 1.0}}
settings = GrpoSettings(**paths, loss_type="mine", kl_coeff=0.0).loss
logp_BT, mask_BT = torch.tensor([[-1.0, -2.0]]), torch.ones(1, 2, dtype=torch.bool)
loss, _ = policy_loss(logp_BT, logp_BT, None, torch.ones(1), mask_BT, settings)
assert (float(loss), loss_denominator(settings, mask_BT)) == (-2.0, 2.0)
assert settings_page().count("`mine`") >= 2
assert response.tag_format(RunSettings(response_format="mine").response_format).tags[0] == "<a>"
"""


def test_a_loss_and_a_response_format_are_a_row_each(tmp_path: Path) -> None:
    """In a process of its own: settings read the names when they are imported."""
    ended = subprocess.run([sys.executable, "-c", ADDED], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr


def test_a_benchmark_is_a_line_that_names_its_source(params: dict[str, Any]) -> None:
    params["benches"]["mine"] = {"source": {"plugin": "arithmetic", "digits": 3}, "eval": 200}
    write(params, graph())
    check_project(load_plugins(ROOT / "plugins"), RuntimeSettings())
    assert {"bench@mine", *(f"evaluate@{name}-mine" for name in params["checkpoints"])} <= set(read_graph())


def test_a_benchmark_may_have_a_source_without_training_prompts(params: dict[str, Any]) -> None:
    Path("plugins").mkdir()
    Path("plugins/prompts_mine.py").write_text(
        "import chainforge as cf\n\n\n"
        "def mine(*, split, n, seed):\n    if split == 'train':\n"
        "        raise cf.ChainForgeError('none', 'take it for a bench')\n    return []\n\n\n"
        "@cf.hookimpl\ndef register_prompt_sources(register):\n    register('mine', mine)\n"
    )
    for bundled in (ROOT / "plugins").glob("*.py"):
        Path("plugins", bundled.name).symlink_to(bundled)
    params["benches"]["mine"] = {"source": "mine"}
    write(params, graph())
    check_project(load_plugins(), RuntimeSettings())


def test_a_set_of_prompts_is_a_line_and_a_step_trains_on_it_by_its_file(params: dict[str, Any]) -> None:
    params["prompts"]["mine"] = {"source": "countdown", "train": 100, "eval": 20}
    params["grpo_reasoning"]["prompts"] = "data/prompts/mine_train.jsonl"
    params["benches"]["mine"] = {"prompts": "data/prompts/mine_eval.jsonl"}
    write(params, graph())
    check_project(load_plugins(ROOT / "plugins"), RuntimeSettings())
    assert {"prompts@mine", "bench@mine"} <= set(read_graph())


def test_a_step_of_an_existing_verb_is_a_section_and_a_stanza(params: dict[str, Any]) -> None:
    output = "checkpoints/qwen_rl_ckpt_again"
    params["grpo_again"] = params["grpo_final"] | {
        "start_from": "checkpoints/qwen_rl_ckpt_final", "output": output
    }  # fmt: skip
    stanzas = graph()
    text = json.dumps(stanzas["stages"]["grpo_final"]).replace("grpo_final", "grpo_again")
    stanzas["stages"]["grpo_again"] = json.loads(text)
    write(params, stanzas)
    check_project(load_plugins(ROOT / "plugins"), RuntimeSettings())
    assert settings_of(GrpoSettings, "grpo_again").output == Path(output)


def test_a_reward_is_a_file_and_its_name(params: dict[str, Any]) -> None:
    Path("plugins").mkdir()
    Path("plugins/reward_mine.py").write_text(
        "import chainforge as cf\n\n\n"
        "def mine(completions, **_):\n    return [0.0 for _ in completions]\n\n\n"
        "@cf.hookimpl\ndef register_rewards(register):\n    register('mine', mine)\n"
    )
    for bundled in (ROOT / "plugins").glob("*.py"):
        Path("plugins", bundled.name).symlink_to(bundled)
    params["grpo_reasoning"]["rewards"]["mine"] = 0.1
    write(params, graph())
    check_project(load_plugins(), RuntimeSettings())
