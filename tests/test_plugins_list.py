"""`chainforge plugins list`: every name, where it comes from, who uses it; what does not load, and why."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from chainforge.cli import cli
from chainforge.cli.roles import as_role
from chainforge.plugins import ROLES, load_plugins
from chainforge.project.profiles import compose

pytestmark = pytest.mark.slow

MINE = """
import chainforge as cf

@cf.hookimpl
def register_rewards(register):
    register({name!r}, lambda completions: [1.0] * len(completions))
"""


@pytest.fixture
def project(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real graph, bundled plugins and settings of tiny, to change."""
    monkeypatch.chdir(root)
    (tmp_path / "params.yaml").write_text(compose("tiny"), encoding="utf-8")
    (tmp_path / "dvc.yaml").symlink_to(root / "dvc.yaml")
    (tmp_path / "plugins").mkdir()
    for path in (root / "plugins").glob("*.py"):
        (tmp_path / "plugins" / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["plugins", "list", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def as_json(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(listed(*arguments, "--json"))
    return found


def change(**settings: Any) -> None:
    yaml = YAML(typ="safe", pure=True)
    params = yaml.load(Path("params.yaml").read_text())
    for dotted, value in settings.items():
        section, key = dotted.split("__")
        params[section][key] = value
    with Path("params.yaml").open("w") as file:
        yaml.dump(params, file)


def test_every_plugin_has_a_line_of_at_most_100_columns(project: Path) -> None:
    lines = listed().splitlines()
    assert lines[0].split() == ["NAME", "ROLE", "FROM", "USED", "BY"]
    assert all(len(line) <= 100 for line in lines)
    named = [tuple(line.split()[:3]) for line in lines[1:] if line[0] != " "]
    roles = {"rewards": "reward", "prompt_sources": "prompt-source"}
    roles |= {"teachers": "teacher", "student_models": "student-model"}
    entries = load_plugins().entries.values()
    assert sorted(named) == sorted((e.name, roles[e.role], e.source) for e in entries)


def test_the_steps_that_use_a_plugin_are_named_cells_of_one_stanza_by_its_name(project: Path) -> None:
    used = {(row["role"], row["name"]): row["used_by"] for row in as_json()["plugins"]}
    assert used["rewards", "correct"] == [
        "filter_cot",
        "filter_general",
        "grpo_reasoning",
        "rejection_sampling",
        "grpo_final",
        "distill_data",
        "evaluate",
    ]
    assert used["student_models", "tiny_qwen2"] == ["sft_cold_start", "sft_refine", "distill"]
    assert used["student_models", "pretrained"] == []
    assert used["teachers", "procedural"] == ["collect_cot"]
    assert used["prompt_sources", "procedural_instructions"] == ["prompts@general"]


def test_one_cell_alone_is_named_as_such(project: Path) -> None:
    params = YAML(typ="safe", pure=True).load(Path("params.yaml").read_text())
    student = params["students"]["qwen_student_cold_start"]
    student["model"] = {"plugin": "pretrained", "model": "gpt2"}
    change(students__qwen_student_cold_start=student)
    used = {(row["role"], row["name"]): row["used_by"] for row in as_json()["plugins"]}
    assert used["student_models", "pretrained"] == ["distill@qwen_student_cold_start"]
    assert used["student_models", "tiny_qwen2"][-1] == "distill@qwen_distilled_student"


def test_a_plugin_that_does_not_load_is_listed_with_its_reason_and_hides_no_other(project: Path) -> None:
    before = listed()
    (project / "plugins/broken.py").write_text("raise OSError('no licence key')\n")
    (project / "plugins/empty.py").write_text('"""Nothing to see."""\n')
    assert listed() == before + (
        "does not load: plugins/broken.py: OSError: no licence key\n"
        "does not load: plugins/empty.py: ValueError: has no @cf.hookimpl function\n"
    )
    assert set(as_json()["broken"]) == {"plugins/broken.py", "plugins/empty.py"}


def test_a_name_that_a_step_selects_but_nothing_provides_is_listed(project: Path) -> None:
    change(grpo_final__rewards={"correct": 1.0, "gone": 0.5}, grpo_reasoning__rewards={"gone": 0.5})
    assert "does not exist: reward gone, named by grpo_reasoning, grpo_final\n" in listed()
    assert as_json()["missing"] == [
        {"role": "reward", "name": "gone", "used_by": "grpo_reasoning, grpo_final"}
    ]


def test_without_a_project_the_folder_s_and_the_bundled_ones_are_listed_but_not_their_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plugins").mkdir()
    Path("plugins/mine.py").write_text(MINE.format(name="mine"))
    head, *rows = [line.split() for line in listed().splitlines()]
    assert head == ["NAME", "ROLE", "FROM", "USED", "BY"]
    assert [row for row in rows if not row[2].startswith("bundled/")] == [
        ["mine", "reward", "plugins/mine.py", "-"]
    ]
    assert ["format", "reward", "bundled/reward_format.py", "-"] in rows
    assert all(row[3:] == ["-"] for row in rows)


def test_settings_that_do_not_load_hide_no_plugin(project: Path) -> None:
    change(grpo__kl_coeff="much")
    said = listed()
    assert said.count("plugins/") == len(load_plugins().entries)
    assert "which steps use them is not known: params.yaml: grpo" in said


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_be_written_in_every_usual_way(role: str, project: Path) -> None:
    singular = role.removesuffix("s")
    for written in (role, singular, singular.replace("_", "-"), role.replace("_", "-")):
        assert as_role(None, None, written) == role  # type: ignore[arg-type]
        assert {row["role"] for row in as_json("--role", written)["plugins"]} == {role}
    assert CliRunner().invoke(cli, ["plugins", "list", "--role", "rewardish"]).exit_code == 2
