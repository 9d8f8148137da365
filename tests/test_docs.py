"""The documentation says what the code does: trees, commands, settings, snippets and links are compared."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from fakes import SUPERCOT, completion, prompt, response, tokenizer
from ruamel.yaml import YAML
from tree import PROFILES, ROOT, project_files

from chainforge import hookspecs
from chainforge.algorithms.losses import LOSSES
from chainforge.cli import cli
from chainforge.cli.settings_page import SECTIONS, settings_page
from chainforge.plugins import Plugins, load_plugins, plugin_settings
from chainforge.project.graph import read_graph
from chainforge.records import Prompt, Trace
from chainforge.scoring import Scorer
from chainforge.wiring import make_reward

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = YAML(typ="safe", pure=True).load((ROOT / "profiles/tiny.yaml").read_text(encoding="utf-8"))


def between(text: str, mark: str) -> str:
    found = re.search(rf"<!-- {mark} -->(.*?)<!-- /{mark} -->", text, re.DOTALL)
    assert found, f"no {mark}"
    return found[1]


def fences(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def cells(table: str) -> Iterator[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    yield from ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])


def test_the_tree_in_the_readme_is_the_real_one() -> None:
    said, folder = set(), ""
    for line in between(README, "TREE").strip("`\n").splitlines()[1:]:
        name = line.split()[0]
        folder = folder if line[0] == " " else ""
        said.add(folder + name)
        folder = folder or name
    files = [path.relative_to(ROOT).as_posix() for path in project_files()]
    tops = {re.sub(r"(?<=/).*", "", name) for name in files}
    modules = {re.sub(r"(?<=chainforge/)([^/]+/?).*", r"\1", name) for name in files}
    ours = {name for name in tops | {m for m in modules if m.startswith("chainforge/")} if name[0] != "."}
    assert ours <= said
    assert all((ROOT / name).exists() for name in said)


def commands(tool: str) -> set[str]:
    """What the pages tell to type, without the tool's name."""
    found = []
    for page in PAGES:
        if page.name == "errors.md":  # its messages are sentences, such as `make room there`
            continue
        text = page.read_text(encoding="utf-8")
        typed = [line for block in fences(text, "bash") for line in block.splitlines()]
        typed += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
        found += [line.removeprefix(f"{tool} ") for line in typed if line.startswith(f"{tool} ")]
    assert found
    return set(found)


@pytest.mark.parametrize("command", sorted(commands("make")))
def test_every_make_target_that_the_pages_name_exists(command: str) -> None:
    assert re.search(rf"^{re.escape(command.split()[0])}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", sorted(commands("chainforge")))
def test_every_chainforge_command_that_the_pages_name_exists(command: str) -> None:
    group: click.Command = cli
    for word in command.split():
        if word.startswith("-") and isinstance(group, click.Group):
            assert any(word in option.opts for option in group.params), f"there is no option {word}"
            return
        if not isinstance(group, click.Group):
            break
        assert word in group.commands, f"there is no command {word}"
        group = group.commands[word]
    assert not isinstance(group, click.Group) or group.invoke_without_command


def test_every_setting_that_an_experiment_changes_exists() -> None:
    changed = [match for c in commands("dvc") for match in re.findall(r"-S '?([+~]?)([\w.]+)(?:=|')", c)]
    assert len(changed) >= 3
    for sign, dotted in changed:
        parent, _, leaf = dotted.rpartition(".")
        assert (leaf in value_of(parent)) == (sign != "+"), dotted


@pytest.mark.slow
def test_what_the_page_says_of_merging_and_references_is_what_dvc_does(tmp_path: Path) -> None:
    from dvc.utils.hydra import apply_overrides
    from omegaconf.errors import InterpolationKeyError

    params = tmp_path / "params.yaml"

    def after(*changes: str, text: str = "plain") -> Any:
        params.write_text(f"rewards: {{correct: 0.5, format: 0.2}}\ntext: {text}\n")
        apply_overrides(params, list(changes))
        return YAML(typ="safe", pure=True).load(params)["rewards"]

    assert after("rewards={correct: 1.0}") == {"correct": 1.0, "format": 0.2}
    assert after("~rewards.format") == {"correct": 0.5}
    with pytest.raises(InterpolationKeyError, match="amount"):
        after("rewards.format=0.1", text="costs ${amount}")


def value_of(dotted: str) -> Any:
    node = TINY
    for key in dotted.split("."):
        node = node[key]
    return node


@pytest.mark.parametrize("row", list(cells(between(README, "SETTINGS"))), ids=lambda row: row[0])
def test_the_settings_in_the_readme_have_the_values_of_tiny(row: list[str]) -> None:
    value = value_of(row[0].strip("`"))
    if isinstance(value, dict):
        value = value.get("plugin") or ", ".join(f"{name} {weight}" for name, weight in value.items())
    assert row[1] == str(value)


def test_the_settings_page_is_the_generated_one() -> None:
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "chainforge settings > docs/settings.md"
    assert set(re.findall(r"`(\w+)`", "".join(row[0] for row in cells(page.split("## Losses")[1])))) == {
        *LOSSES
    }


def test_the_settings_page_names_every_section_of_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for step in read_graph().values():
        for section in step.sections:
            named = re.sub(r"^(students|benches|prompts)[.].*", r"\1.NAME", section)
            assert f"`{named}`" in SECTIONS[step.verb]


def test_the_graph_in_the_readme_has_every_step() -> None:
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert set(stages) <= set(re.findall(r"\w+", fences(README, "mermaid")[0]))


def test_every_hook_is_documented() -> None:
    hooks = {name for name in vars(hookspecs) if name.startswith("register_")}
    assert hooks
    assert hooks <= set(re.findall(r"\w+", (ROOT / "docs/plugins.md").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def snippets(tmp_path_factory: pytest.TempPathFactory) -> Plugins:
    """Every Python snippet of the pages, as a plugin file."""
    folder = tmp_path_factory.mktemp("snippets")
    found = [s for page in PAGES for s in fences(page.read_text(encoding="utf-8"), "python")]
    found = [snippet for snippet in found if "hookimpl" in snippet]  # the others are tests of plugins
    for number, snippet in enumerate(found):
        (folder / f"snippet_{number}.py").write_text(snippet, encoding="utf-8")
    plugins = load_plugins(folder)
    assert not plugins.broken
    assert len({entry.source for entry in plugins.entries.values() if "snippet" in entry.source}) == len(
        found
    )
    return plugins


@pytest.mark.parametrize(("name", "expected"), [("short", 0.8), ("steps", 1 / 3), ("exact", 1.0)])
def test_the_rewards_in_the_pages_work(snippets: Plugins, name: str, expected: float) -> None:
    entry = snippets.pick("rewards", name)
    reward = make_reward(entry)
    problem = prompt(1, "6*7=?", "42")
    text = response("6*7=42. So".ljust(80 - len(response("", "42"))), "42")
    (group,) = Scorer((reward,), SUPERCOT, 10.0).score([problem], [[completion(problem, text)]])
    assert group.scores[0].total == pytest.approx(expected)


def test_the_prompt_source_in_the_pages_works(snippets: Plugins, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("question,answer,level\n6*7=?,42,easy\n")
    source = snippets.pick("prompt_sources", "csv_problems")
    settings = plugin_settings(source, {split: str(tmp_path / f"{split}.csv") for split in ("train", "eval")})
    (found,) = source.component(split="train", n=5, seed=17, **settings)
    asked = ({"role": "user", "content": "6*7=?"},)
    assert found == Prompt("train-1", "train", asked, "42", {"level": "easy"})


def test_the_teacher_in_the_pages_works(snippets: Plugins, tmp_path: Path) -> None:
    (tmp_path / "said.jsonl").write_text('{"question": "6*7=?", "reasoning": "So.", "answer": "42"}\n')
    entry = snippets.pick("teachers", "written")
    teacher = entry.component(**plugin_settings(entry, {"file": str(tmp_path / "said.jsonl")}))
    asked = [prompt(1, "6*7=?"), prompt(2, "6*8=?")]
    right, missing = Trace("p1", "So.", "42", "stop", "written"), Trace("p2", "", "", "error", "written")
    assert list(teacher.generate(asked, n=1, seed=17)) == [right, missing]


def test_the_student_model_in_the_pages_works(snippets: Plugins, tmp_path: Path) -> None:
    tokenizer().save_pretrained(tmp_path)
    entry = snippets.pick("student_models", "small_llama")
    model, its = entry.component(**plugin_settings(entry, {"tokenizer": str(tmp_path)})).load(
        seed=17, texts=[]
    )
    assert model(input_ids=its("6*7=?", return_tensors="pt").input_ids).logits.shape[-1] == len(its)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = re.sub(
        r"^```.*?^```|<!--(?! /?[A-Z]).*?-->", "", page.read_text(encoding="utf-8"), flags=re.S | re.M
    )
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        titles = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w-]", "", t.lower().replace(" ", "-")) for t in titles]


def test_the_changelog_has_a_place_for_the_next_change() -> None:
    first, *_ = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first == "Unreleased"


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_described_and_named_in_the_pages(name: str) -> None:
    path = ROOT / f"profiles/{name}.yaml"
    assert re.match(r"# [A-Z].+[.:,]\n", path.read_text(encoding="utf-8")), (
        "`chainforge profile list` shows it"
    )
    assert f"`{name}`" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
