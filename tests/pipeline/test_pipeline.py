"""The whole graph in real clones, on profile smoke: every output, no idle work, the same bytes, killed."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from clone import Clone, Finished, environment, fake_environment, make_clone, ran
from ruamel.yaml import YAML
from transformers import AutoModelForCausalLM, AutoTokenizer

from chainforge.config.loading import read_params

pytestmark = pytest.mark.slow

HF_FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
}
COLUMNS = {
    "checkpoint",
    "bench",
    "n",
    "pass_at_1",
    "ci95_lo",
    "ci95_hi",
    "maj_at_k",
    "k",
    "format_rate",
    "mean_tokens",
    "truncated_rate",
}
BY_HAND = Path(__file__).with_name("by_hand.py")


def checkpoints(clone: Clone) -> list[str]:
    return list(read_params(clone.folder / "params.yaml")["checkpoints"])


def cells(*names: str) -> set[str]:
    return {f"evaluate@{name}-{bench}" for name in names for bench in ("reasoning", "general")}


def test_a_clone_uses_its_own_code(finished: Finished) -> None:
    said = finished.clone.run(
        "python", "-c", "import chainforge, stages; print(chainforge.__file__, stages.__file__)"
    )
    for file in said.split():
        assert Path(file).is_relative_to(finished.clone.folder)


def test_every_output_of_the_graph_exists(finished: Finished) -> None:
    locked = YAML(typ="safe", pure=True).load((finished.clone.folder / "dvc.lock").read_text())["stages"]
    assert set(locked) == set(finished.steps)
    outputs = [out["path"] for step in locked.values() for out in step.get("outs", [])]
    assert len(outputs) > 40
    for path in outputs:
        assert (finished.clone.folder / path).exists(), path


def test_no_working_file_is_left(finished: Finished) -> None:
    assert list(finished.clone.folder.rglob("*.partial")) == []
    untracked = finished.clone.run("git", "status", "--porcelain", "--untracked-files=all").splitlines()
    tops = {line[3:].split("/")[0] for line in untracked}
    assert tops <= {"dvc.lock", "plugins.lock.json", "metrics", "plots", "reports"}


def test_the_result_has_a_row_per_checkpoint_and_bench_in_recipe_order(finished: Finished) -> None:
    rows = json.loads((finished.clone.folder / "reports/stages.json").read_text())
    expected = [(c, b) for c in checkpoints(finished.clone) for b in ("reasoning", "general")]
    assert sorted((row["checkpoint"], row["bench"]) for row in rows) == sorted(expected)
    order = list(dict.fromkeys(row["checkpoint"] for row in rows))
    assert order == checkpoints(finished.clone)
    for row in rows:
        assert set(row) >= COLUMNS
        assert row["n"] == 20
        assert 0 <= row["ci95_lo"] <= row["pass_at_1"] <= row["ci95_hi"] <= 1
    assert "no results" not in finished.clone.run("chainforge", "results")


def test_a_checkpoint_is_a_plain_hugging_face_folder(finished: Finished) -> None:
    folders = sorted((finished.clone.folder / "checkpoints").iterdir())
    assert len(folders) == 6
    assert {folder.name for folder in folders} >= set(checkpoints(finished.clone))
    for folder in folders:
        names = {path.name for path in folder.iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= names <= HF_FILES
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        assert tokenizer.chat_template
        assert len(tokenizer) <= model.config.vocab_size


@pytest.mark.long
def test_evaluated_outside_of_the_graph_a_checkpoint_gives_the_same_answers(copy: Clone) -> None:
    said = copy.run("chainforge", "evaluate", "checkpoints/qwen_sft_ckpt", "--suite", "general")
    assert "general: 20 problems" in said
    for made, found in (("data/eval", "jsonl"), ("metrics/eval", "json")):
        inside = (copy.folder / made / f"qwen_sft_ckpt/general.{found}").read_bytes()
        assert (copy.folder / f"evaluations/qwen_sft_ckpt/general.{found}").read_bytes() == inside


def test_a_second_repro_runs_nothing_but_the_lock(copy: Clone) -> None:
    before = copy.sha256("checkpoints", "data", "metrics", "plots", "reports", "plugins.lock.json")
    assert copy.repro() == ["lock"]
    assert copy.sha256("checkpoints", "data", "metrics", "plots", "reports", "plugins.lock.json") == before


def test_the_same_seed_gives_the_same_bytes_in_another_place(finished: Finished, tmp_path: Path) -> None:
    other = Clone(tmp_path / "elsewhere, with a space")
    finished.clone.run("git", "clone", "--quiet", ".", str(other.folder))
    other.run("python", str(BY_HAND), *finished.steps)
    outputs = ("checkpoints", "data", "metrics", "plots", "reports", "plugins.lock.json")
    made = other.sha256(*outputs)
    assert len([name for name in made if name.endswith(".safetensors")]) == 6
    assert made == finished.clone.sha256(*outputs)


@pytest.mark.long
def test_an_output_with_the_same_bytes_as_before_stops_there(finished: Finished, copy: Clone) -> None:
    done = ran(copy.run("dvc", "exp", "run", "-S", "grpo.kl_coeff=0.05"))
    new, old = copy.sha256("checkpoints"), finished.clone.sha256("checkpoints")
    changed = {Path(name).parts[1] for name in new if new[name] != old[name]}
    trained = {"qwen_rl_ckpt_stage2", "qwen_rl_ckpt_final"}
    assert trained <= changed <= trained | {"qwen_sft_ckpt_stage3", "qwen_distilled_student"}
    follows = {"rejection_sampling", "sft_refine", "distill_data", "distill@qwen_distilled_student", "report"}
    evaluated = cells(*(changed & set(checkpoints(copy))))
    assert set(done) == {"lock", "grpo_reasoning", "grpo_final"} | follows | evaluated


@pytest.mark.long
def test_every_checkpoint_of_profile_smoke_is_evaluated(tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "clone")
    assert len(checkpoints(clone)) == 6
    assert cells(*checkpoints(clone)) <= set(clone.repro())


@pytest.mark.long
def test_a_killed_step_leaves_no_half_written_output(copy: Clone) -> None:
    copy.put("sft_cold_start.num_epochs", 5000.0)
    live = copy.folder / "logs/sft_cold_start.csv"
    live.unlink()
    command = ("dvc", "repro", "--single-item", "sft_cold_start")
    training = subprocess.Popen(
        command,
        cwd=copy.folder,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 600
    while not (live.exists() and live.read_text().count("\n") > 5) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(training.pid, signal.SIGKILL)
    assert training.wait() == -signal.SIGKILL
    assert live.read_text().count("\n") > 5, "it was killed before it trained"
    assert not (copy.folder / "checkpoints/qwen_sft_ckpt").exists()
    copy.put("sft_cold_start.num_epochs", 2.5)
    assert copy.repro("--single-item", "sft_cold_start") == ["sft_cold_start"]
    assert (copy.folder / "checkpoints/qwen_sft_ckpt/model.safetensors").is_file()
    assert list(copy.folder.rglob("*.partial")) == []


@pytest.mark.long
def test_a_tarball_without_git_works_after_setup(finished: Finished, tmp_path: Path) -> None:
    tarball = Clone(tmp_path / "tarball")
    tarball.folder.mkdir()
    finished.clone.run("git", "archive", "--output", str(tmp_path / "project.tar"), "HEAD")
    tarball.run("tar", "-xf", str(tmp_path / "project.tar"))
    fake_environment(tarball.folder)
    tarball.run("make", ".dvc/config")
    assert "no_scm = true" in (tarball.folder / ".dvc/config.local").read_text()
    assert sorted(tarball.repro("prompts")) == ["lock", "prompts@general", "prompts@reasoning"]
