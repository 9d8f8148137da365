"""The card says what dvc.lock says, of these weights alone; where they are not current, it says so."""

import json
import os
import re
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from a_project import Run
from fakes import policy
from huggingface_hub import ModelCard
from ruamel.yaml import YAML
from tree import ROOT, copy_project

from chainforge.cli.card import licence_of
from chainforge.errors import ChainForgeError
from chainforge.jsonl import write_rows
from chainforge.model_card.hide import ADDRESS, KEY, hide, refuse_secrets
from chainforge.models.checkpoint import save_policy
from chainforge.outputs import write_json, write_text
from chainforge.plugins import load_plugins
from chainforge.project.graph import dependencies, outputs, read_graph
from chainforge.project.lock import make_lock
from chainforge.response import tag_format

CKPT = "qwen_sft_ckpt"
STEPS = ("prompts@reasoning", "prompts@general", "collect_cot", "filter_cot", "sft_cold_start")
EVALUATION = f"evaluate@{CKPT}-reasoning"
FIGURES: dict[str, Any] = {
    "n": 8, "k": 2, "pass_at_1": 0.375, "ci95_lo": 0.125, "ci95_hi": 0.625, "greedy": 0.5,
    "greedy_ci95_lo": 0.25, "greedy_ci95_hi": 0.75, "maj_at_k": None, "format_rate": 1.0,
    "mean_tokens": 21.5, "truncated_rate": 0.0,
}  # fmt: skip
RECORD: dict[str, Any] = {
    "prompts": {"count": 8, "sha256": "0" * 64},
    "sampling": {
        "temperature": 1.0,
        "top_p": 1.0,
        "max_new_tokens": 24,
        "precision": "float32",
        "engine": "x",
    },
    "grader": {"decides": "correct"},
}


def make_run(folder: Path) -> None:
    """What a run of the first steps leaves, with made-up contents, recorded by DVC itself."""
    copy_project(folder, profile="smoke")
    with chdir(folder):
        graph = read_graph()
        for name in (*STEPS, EVALUATION):
            for path in [*dependencies(graph[name]), *outputs(graph[name])]:
                if path.suffix == ".jsonl":
                    write_rows(path, [{"from": path.stem}] * 3)
                elif path.name == f"{CKPT}" and not path.exists():
                    save_policy(policy(), path)
                elif path.suffix == ".md":
                    write_text(path, "---\nlicense: other\n---\n\n# Some chains of thought\n")
                elif path.suffix and not path.exists():
                    write_text(path, "{}\n")
        write_json(Path(f"metrics/eval/{CKPT}/reasoning.json"), FIGURES)
        write_json(Path(f"data/eval/{CKPT}/reasoning.record.json"), RECORD)
        write_json(Path("plugins.lock.json"), make_lock(load_plugins()))
        dvc("init", "--no-scm", "-f")
        dvc("commit", "-f", *STEPS, EVALUATION)


def dvc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-P", "-m", "dvc", "-q", *arguments], check=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("carded")
    make_run(folder)
    return folder


@pytest.fixture
def finished(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    subprocess.run(["cp", "-a", str(made), str(tmp_path / "run")], check=True)
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
def test_the_card_is_that_of_the_run_and_goes_with_the_checkpoint_the_same_wherever_it_is_written(
    finished: Path, run: Run
) -> None:
    asked = ("card", CKPT, "--repo", "me/mine", "--license", "mit")
    text = run(*asked).stdout
    card = ModelCard(text)
    assert (card.data.license, card.data.model_name, card.data.pipeline_tag) == (
        "mit",
        CKPT,
        "text-generation",
    )
    first = card.data.eval_results[0]
    assert (first.dataset_name, first.dataset_args, first.metric_value) == (
        "reasoning",
        {"problems": 8},
        0.375,
    )
    assert first.metric_args["ci95"] == [0.125, 0.625]
    assert "| `reasoning` | 8 | 2 | 37.5% (12.5–62.5) | 50.0% (25.0–75.0) | – |" in text
    assert "random weights" in text
    assert all(f"<summary>{name} (" in text for name in STEPS)
    assert '"num_epochs": 2.0' in text
    assert "`student_models:tiny_qwen2` | `plugins/model_tiny_qwen2.py " in text
    assert "| `data/cot/accepted.jsonl` | 3 | `filter_cot` |" in text
    assert "Not current" not in text
    assert str(finished) not in text
    assert snippet_says_something(text, Path("checkpoints") / CKPT)
    exported = finished.with_name("moved")
    finished.rename(exported)
    os.chdir(exported)
    assert "nothing was sent" in run("publish", CKPT, "me/mine", "--license", "mit", "--dry-run").stdout
    files = {path.name: path.read_bytes() for path in (exported / "checkpoints" / CKPT).iterdir()}
    sent = {path.name: path.read_bytes() for path in (exported / "exports" / CKPT).iterdir()}
    link = "[data-filter_cot.md](data-filter_cot.md)"
    assert sent.pop("README.md").decode() == text.replace("`data/cot/README.md` |", f"{link} |")
    assert sent == files | {"data-filter_cot.md": Path("data/cot/README.md").read_bytes()}
    assert not any(path.is_symlink() for path in (exported / "exports" / CKPT).iterdir())


def snippet_says_something(card: str, folder: Path) -> bool:
    """Run the card's own example on a folder."""
    code = card.partition("```python\n")[2].partition("```")[0].replace("me/mine", str(folder))
    seeded = f"import torch\n\ntorch.manual_seed(0)\n{code}"
    ended = subprocess.run([sys.executable, "-c", seeded], capture_output=True)
    assert ended.returncode == 0, ended.stderr
    return bool(ended.stdout.strip())


@pytest.mark.slow
@pytest.mark.parametrize("revision", [None, "main"])
def test_a_pretrained_base_is_named(revision: str | None, finished: Path, run: Run) -> None:
    base = {"plugin": "pretrained", "model": "inputs/base"} | ({"revision": revision} if revision else {})
    yaml = YAML()
    recorded = yaml.load((finished / "dvc.lock").read_text())
    settings = recorded["stages"]["sft_cold_start"]["params"]["params.yaml"]
    assert settings["base_model"]["plugin"] == "tiny_qwen2"
    settings["base_model"] = base
    yaml.dump(recorded, finished / "dvc.lock")
    told = f", revision `{revision}`" if revision else ""
    assert f"The base model is `inputs/base`{told}." in run("card", CKPT).stdout


@pytest.mark.slow
def test_weights_that_would_be_made_anew_are_published_only_on_demand_and_then_the_card_says_so(
    finished: Path, run: Run
) -> None:
    params = finished / "params.yaml"
    params.write_text(params.read_text().replace("num_epochs: 2.0", "num_epochs: 3.0"))
    said = run("publish", CKPT, "me/mine", "--dry-run", code=1).stderr
    assert "sft_cold_start: sft_cold_start in params.yaml is modified" in said
    assert not (finished / "exports").exists()
    with (finished / "checkpoints" / CKPT / "config.json").open("a") as file:
        file.write("\n")
    run("publish", CKPT, "me/mine", "--dry-run", "--stale")
    card = (finished / "exports" / CKPT / "README.md").read_text()
    assert "**Not current.**" in card
    assert '"num_epochs": 2.0' in card, "as they were trained"
    assert "37.5%" not in card, "other bytes than those that were measured"


@pytest.mark.slow
def test_what_no_step_has_made_has_no_card(project: Path, run: Run) -> None:
    save_policy(policy(), project / "checkpoints/mine")
    assert "no step in dvc.lock has made checkpoints/mine" in run("card", "mine", code=1).stderr
    assert "there is no checkpoint called 'none'" in run("card", "none", code=1).stderr


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("license: apache-2.0", "apache-2.0"),
        ("license: other\nlicense_name: mine", "mine"),
        ("tags: [x]", None),
    ],
)
def test_the_licence_of_the_base_is_what_its_own_card_says(
    front: str, said: str | None, tmp_path: Path
) -> None:
    assert licence_of(str(tmp_path)) is None
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n\n# A model\n")
    assert licence_of(str(tmp_path)) == said


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ({"api_key": "abc"}, {"api_key": KEY}),
        ({"a": ["sk-" + "a1" * 20]}, {"a": [KEY]}),
        ({"base_url": "https://me:word@host/v1"}, {"base_url": ADDRESS}),
        ({"model": "/home/me/models/base"}, {"model": "…/base"}),
        ({"model": "../base", "n": 3, "s": "data/x.jsonl"}, {"model": "…/base", "n": 3, "s": "data/x.jsonl"}),
        ({"key_env": "MY_API_KEY"}, {"key_env": "MY_API_KEY"}),
        ({"note": "it is s3cr3t-of-mine!"}, {"note": KEY}),
    ],
    ids=json.dumps,
)
def test_keys_addresses_and_places_are_not_shown(
    setting: Any, shown: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "s3cr3t-of-mine!")
    assert hide(setting) == shown


@pytest.mark.parametrize("text", ["x hf_" + "a" * 34, "it is s3cr3t-of-mine!"])
def test_a_file_with_a_key_is_not_sent(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "s3cr3t-of-mine!")
    with pytest.raises(ChainForgeError, match=r"card\.md holds"):
        refuse_secrets(text, "card.md")
    refuse_secrets("nothing of the kind: task-specific", "card.md")


def test_the_example_in_the_pages_is_that_of_the_card() -> None:
    page = (ROOT / "docs/using-a-model.md").read_text().partition("```python\n")[2].partition("```")[0]
    template = (ROOT / "chainforge/model_card/card.md.j2").read_text()
    lines = template.partition("```python\n")[2].partition("```")[0]
    said = re.sub(r"{% if facts.prefill %}.*?{% endif %}\n", "", lines)
    values = {"facts.repo": "checkpoints/qwen_rl_ckpt_final"}
    values |= {f"tags[{place}]": tag for place, tag in enumerate(tag_format("supercot").tags)}
    assert re.sub(r"{{ (.+?) }}", lambda found: values[found[1]], said) == page
