"""Outputs are hard links into DVC's cache: one copy on the disk, and whoever writes in place spoils both.

These tests try to spoil it. Protection by file mode is no help: root, as in a container, may write anyway.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clone import Clone, Finished
from ruamel.yaml import YAML
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from chainforge.jsonl import write_rows
from chainforge.outputs import whole_file, whole_folder, write_json, write_text
from chainforge.run.metrics import StepTable

OUTPUTS = ("checkpoints", "data", "metrics", "plots", "reports")


def objects(clone: Clone) -> Iterator[Path]:
    return (path for path in (clone.folder / ".dvc/cache/files/md5").glob("??/*") if path.is_file())


def spoilt(clone: Clone) -> list[str]:
    """Objects of which the content is not what the name says."""
    names = ((path.parent.name + path.name.removesuffix(".dir"), path) for path in objects(clone))
    return [name for name, path in names if hashlib.md5(path.read_bytes()).hexdigest() != name]


def linked(clone: Clone) -> set[str]:
    """The outputs that are hard links into the cache."""
    cached = {path.stat().st_ino for path in objects(clone)}
    files = (path for top in OUTPUTS for path in (clone.folder / top).rglob("*") if path.is_file())
    return {path.relative_to(clone.folder).as_posix() for path in files if path.stat().st_ino in cached}


def cached_outputs(clone: Clone) -> set[str]:
    """The files that DVC keeps in its cache, by its own account."""
    stages = YAML(typ="safe", pure=True).load((clone.folder / "dvc.yaml").read_text())["stages"]
    assert stages["report"]["outs"] == ["reports/index.html", "reports/curves.svg"]
    written = {*clone.sha256("checkpoints", "data"), "reports/index.html", "reports/curves.svg"}
    made = {path for path in written if not path.startswith("data/gates/")}  # where none is set: by lock
    assert len(made) > 50
    return made


@pytest.mark.slow
def test_every_output_is_on_the_disk_once(finished: Finished) -> None:
    """But for a small file that is the same in several checkpoints: DVC links the first."""
    clone = finished.clone
    outputs, links = cached_outputs(clone), linked(clone)
    copies = {path: clone.folder / path for path in outputs - links}
    same = {(clone.folder / path).read_bytes() for path in links}
    assert all(path.stat().st_size < 20_000 and path.read_bytes() in same for path in copies.values())
    assert {path for path in outputs if path.endswith((".safetensors", ".jsonl"))} <= links
    assert spoilt(clone) == []


@pytest.mark.long
@pytest.mark.slow
def test_a_step_that_is_run_by_hand_over_its_linked_outputs_spoils_nothing(
    finished: Finished, copy: Clone
) -> None:
    """By hand, because DVC unlinks the outputs of a step before it runs it."""
    copy.run("dvc", "checkout", "--relink")
    everything = cached_outputs(copy)
    assert linked(copy) == everything
    before = copy.sha256(*OUTPUTS)
    copy.put("run.seed", 18)
    copy.run("python", str(Path(__file__).with_name("by_hand.py")), *finished.steps)
    after = copy.sha256(*OUTPUTS)
    assert {name for name in everything if after[name] != before[name]} >= {
        "checkpoints/qwen_rl_ckpt_final/model.safetensors",
        "checkpoints/qwen_distilled_student/model.safetensors",
        "data/prompts/reasoning_train.jsonl",
        "data/cot/traces.jsonl",
        "data/cot/accepted.jsonl",
        "data/rejection/accepted.jsonl",
        "data/distill/accepted.jsonl",
        "data/eval/qwen_rl_ckpt_stage2/general.jsonl",
        "reports/index.html",
        "reports/curves.svg",
    }, "these steps were to write something else"
    assert spoilt(copy) == []
    assert list(copy.folder.rglob("*.partial")) == []


@pytest.mark.long
@pytest.mark.slow
def test_another_repro_over_linked_outputs_spoils_nothing(copy: Clone) -> None:
    copy.run("dvc", "checkout", "--relink")
    copy.put("collect_cot.max_prompts", 50)
    assert "collect_cot" in copy.repro("filter_cot")
    assert spoilt(copy) == []
    copy.put("collect_cot.max_prompts", None)
    assert "collect_cot" not in copy.repro("filter_cot"), "the cache has it"


@pytest.mark.slow
def test_the_test_would_notice(copy: Clone) -> None:
    copy.run("dvc", "checkout", "--relink")
    path = copy.folder / "data/cot/accepted.jsonl"
    path.chmod(0o644)
    with path.open("a") as file:
        file.write("\n")
    assert len(spoilt(copy)) == 1


@pytest.mark.slow
def test_a_checkpoint_holds_its_weights_in_one_type_and_nothing_else(finished: Finished) -> None:
    folders = sorted((finished.clone.folder / "checkpoints").iterdir())
    assert len(folders) == 6
    for folder in folders:
        (weights,) = folder.glob("*.safetensors")
        with safe_open(weights, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        assert len({tensor.dtype for tensor in tensors.values()}) == 1
        assert tensors.keys() <= model.state_dict().keys(), "no optimizer state"
        bytes_of_weights = sum(tensor.nbytes for tensor in tensors.values())
        assert weights.stat().st_size < bytes_of_weights + 20_000
        others = sum(path.stat().st_size for path in folder.iterdir() if path != weights)
        assert others < 500_000, "a tokenizer and settings"


def in_folder(path: Path) -> None:
    with whole_folder(path.parent) as folder:
        (folder / path.name).write_text("new", encoding="utf-8")


def piecewise(path: Path) -> None:
    with whole_file(path) as file:
        file.write("n")
        file.flush()
        file.write("ew")


def table(path: Path) -> None:
    rows = StepTable(path.parent.parent / "logs/live.csv", ["loss"])
    rows.add(1, loss=0.5)
    rows.publish(path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "write_text": lambda path: write_text(path, "new"),
    "write_json": lambda path: write_json(path, {"new": 1}),
    "write_rows": lambda path: write_rows(path, [{"new": 1}]),
    "whole_file": piecewise,
    "whole_folder": in_folder,
    "StepTable.publish": table,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("mode", [0o444, 0o644])
def test_a_writer_replaces_a_link_and_leaves_what_it_points_to(name: str, mode: int, tmp_path: Path) -> None:
    kept, output = tmp_path / "cache/object", tmp_path / "data/output"
    kept.parent.mkdir()
    output.parent.mkdir()
    kept.write_text("old", encoding="utf-8")
    kept.chmod(mode)
    os.link(kept, output)
    WRITERS[name](output)
    assert kept.read_text(encoding="utf-8") == "old"
    assert "old" not in output.read_text(encoding="utf-8")
    assert output.stat().st_ino != kept.stat().st_ino
