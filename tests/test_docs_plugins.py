"""docs/plugins.md: every block of it is run, each in the way in which a reader would use it."""

import csv
import json
import re
import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes import ROOT, TEXTS, prompt, response
from fresh import Fresh, make_project
from ruamel.yaml import YAML

from chainforge.jsonl import write_records, write_rows
from chainforge.plugins import load_plugins
from chainforge.project.claims import NOTED
from chainforge.project.lock import make_lock
from chainforge.project.profiles import compose
from chainforge.records import Example

PAGE = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
PYTHON = [code for language, code in BLOCKS if language == "python"]
PLUGINS = [code for code in PYTHON if "hookimpl" in code]
COMMANDS = [line for language, code in BLOCKS if language == "bash" for line in code.splitlines()]


def only(language: str) -> list[str]:
    return [code for found, code in BLOCKS if found == language]


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`more` over `base`; a plugin with its settings is replaced whole."""
    both = dict(base) | dict(more)
    for key in base.keys() & more.keys():
        if isinstance(base[key], Mapping) and isinstance(more[key], Mapping) and "plugin" not in more[key]:
            both[key] = merged(base[key], more[key])
    return both


def add_plugins(folder: Path) -> None:
    """The plugins of the page as files, named by what they say they are."""
    (folder / "plugins").mkdir(exist_ok=True)
    for code in PLUGINS:
        role, name = re.findall(r'"""(\w+)[\w ]* `(\w+)`', code)[0]
        (folder / f"plugins/{role.lower()}_{name}.py").write_text(code, encoding="utf-8")


def test_every_block_is_of_a_kind_that_is_run_here() -> None:
    assert {language for language, _ in BLOCKS} == {"bash", "python", "yaml", "toml"}
    assert PAGE.count("```") == 2 * len(BLOCKS)
    assert {line.split()[0] for line in COMMANDS} == {"chainforge", "pip", "python", "dvc"}
    assert len(PYTHON) - len(PLUGINS) == 1


@pytest.mark.slow
@pytest.mark.parametrize("block", only("yaml"))
def test_the_settings_are_ones_that_the_graph_takes(
    block: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    yaml = YAML(typ="safe", pure=True)
    params = merged(yaml.load(compose("tiny")), yaml.load(block))
    monkeypatch.chdir(tmp_path)
    with Path("params.yaml").open("w") as file:
        yaml.dump(params, file)
    add_plugins(tmp_path)
    for name in ("dvc.yaml", "stages", "chainforge"):
        Path(name).symlink_to(root / name)
    for path in (root / "plugins").glob("*.py"):
        Path("plugins", path.name).symlink_to(path)
    (named,) = re.findall(r"plugin: (\w+)", block)
    assert f":{named}'" in str(make_lock(load_plugins()))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """A project with the plugins of the page, and with what the commands of the page read."""
    made = make_project(tmp_path_factory.mktemp("page"))
    add_plugins(made.folder)
    for split in ("train", "eval"):
        path = made.folder / f"inputs/{split}.csv"
        path.parent.mkdir(exist_ok=True)
        with path.open("w", newline="") as file:
            rows = [{"question": f"{split} {i}", "answer": str(i), "level": "easy"} for i in range(30)]
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    asked = [prompt(i) for i in range(1, 6)]
    rows = [
        {
            "prompt_id": p.id,
            "source": p.source,
            "question": p.messages[-1]["content"],
            "answer": p.answer,
            "samples": [{"text": text} for text in TEXTS],
            "greedy": None,
        }
        for p in asked
    ]
    write_rows(made.folder / "data/eval/qwen_rl_ckpt_final/reasoning.jsonl", rows)
    accepted = [Example(p.id, p.messages, response("A. " * i), "toy") for i, p in enumerate(asked)]
    write_records(made.folder / "data/rejection/accepted.jsonl", accepted)
    noted = ("data/rejection/accepted.jsonl", "data/eval/qwen_rl_ckpt_final/reasoning.jsonl")
    made.write(
        NOTED.as_posix(), "".join(f"{path}\n" for path in noted)
    )  # as the steps themselves note what they make
    return made


@pytest.mark.slow
def test_every_command_does_what_the_page_says_in_the_order_of_the_page(fresh: Fresh) -> None:
    said = {}
    for line in COMMANDS:
        # the whole recipe takes minutes; its first step reads all settings and finds all plugins
        said[line] = fresh.run(f"{line} lock" if line.startswith("dvc exp run") else line)
    checks = [text for line, text in said.items() if " check " in line]
    assert len(checks) == 4
    assert all("\nok " in text and "FAILED" not in text for text in checks)
    lock = json.loads((fresh.folder / "plugins.lock.json").read_text())
    assert lock["grpo_final"]["plugins"]["rewards:length_bonus"]["distribution"] == "chainforge-length-bonus"
    listed = fresh.run("chainforge plugins list")
    assert re.search(r"^length_bonus +reward +chainforge-length-bonus 0\.1\.0 +grpo_final$", listed, re.M)
    assert "does not load" not in listed


@pytest.mark.long
@pytest.mark.slow
def test_every_plugin_of_the_page_keeps_its_contract(fresh: Fresh) -> None:
    fresh.run(
        "python -c 'from chainforge.plugins import load_plugins as l;"
        'm, t = l().pick("student_models", "tiny_qwen2").component().load(seed=1, texts=["1"]);'
        't.save_pretrained("checkpoints/tokenizer")\''
    )
    fresh.write("inputs/said.jsonl", '{"question": "12+35=?", "reasoning": "So.", "answer": "47"}\n')
    settings = {
        "csv_problems": "--set train=inputs/train.csv --set eval=inputs/eval.csv",
        "written": "--set file=inputs/said.jsonl",
        "small_llama": "--set tokenizer=checkpoints/tokenizer",
    }
    names = [re.findall(r'register\("(\w+)"', code)[0] for code in PLUGINS]
    assert len(names) == 8
    for name in names:
        assert "FAILED" not in fresh.run(f"chainforge plugins check {name} {settings.get(name, '')}")


@pytest.mark.slow
def test_the_tests_of_the_page_pass(fresh: Fresh) -> None:
    (code,) = [code for code in PYTHON if code not in PLUGINS]
    fresh.write("mine/test_steps.py", code)
    assert "2 passed" in fresh.run("python -m pytest -p no:cacheprovider mine/test_steps.py")


@pytest.mark.slow
def test_the_entry_point_of_the_page_is_found(fresh: Fresh) -> None:
    (block,) = only("toml")
    ((entry, package),) = tomllib.loads(block)["project"]["entry-points"]["chainforge"].items()
    fresh.write("own/pyproject.toml", f'[project]\nname = "own"\nversion = "2.5"\n\n{block}')
    (code,) = [code for code in PLUGINS if '"steps"' in code]
    fresh.write(f"own/{package}/__init__.py", code.replace('"steps"', '"packaged"'))
    fresh.run("pip install ./own")
    assert re.search(r"^packaged +reward +own 2\.5 ", fresh.run("chainforge plugins list"), re.M)
    assert "packaged" not in fresh.run(f"CHAINFORGE_DISABLE_PLUGINS={entry},x chainforge plugins list")


def test_every_option_of_a_reward_and_every_fixture_is_in_a_table() -> None:
    from chainforge import pytest_plugin
    from chainforge.reward_options import RewardOptions

    rows = "\n".join(line for line in PAGE.splitlines() if line.startswith("| `"))
    for option in RewardOptions.__dataclass_fields__:
        assert f"`{option}=" in rows
    for fixture in vars(pytest_plugin):
        if type(vars(pytest_plugin)[fixture]).__name__ == "FixtureFunctionDefinition":
            assert f"`{fixture}" in rows
    titles = re.findall(r"^## (.+)$", PAGE, re.M)
    assert all(a != b for a, b in pairwise(titles))
