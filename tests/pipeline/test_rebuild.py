"""Change X, and exactly these steps re-run: real DVC, the real graph, stand-ins for the work.

Of each change DVC's status tells the steps that it reaches first. `dvc repro` runs a few that stand for all,
and in `make test-all` every one.
"""

import json
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from contextlib import chdir
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import standin
from clone import Clone, copy_clone, make_clone, ran
from dvc.repo import Repo
from dvc.utils.serialize import _yaml
from fresh import Fresh, make_environment

from chainforge.config.loading import read_params
from chainforge.outputs import write_json
from chainforge.plugins import load_plugins
from chainforge.project.lock import make_lock

pytestmark = pytest.mark.slow

CHECKPOINTS = {"sft": "qwen_sft_ckpt", "final": "qwen_rl_ckpt_final", "student": "qwen_distilled_student"}
BENCHES = ("reasoning", "general")
# Which steps read what a step writes: the recipe, once more, by hand. `lock` always runs.
READ_BY: dict[str, tuple[str, ...]] = {
    "prompts": ("prompts reasoning", "prompts general"),
    "prompts reasoning": (
        *(
            "bench reasoning",
            "bench general",
            "collect_cot",
            "filter_cot",
            "filter_general",
            "grpo_reasoning",
        ),
        *("rejection_sampling", "grpo_final", "distill_data"),
    ),
    "prompts general": (
        *("bench reasoning", "bench general", "collect_general", "filter_cot", "filter_general"),
        *("grpo_final", "distill_data"),
    ),
    "bench reasoning": ("evaluate reasoning",),
    "bench general": ("evaluate general",),
    "collect_cot": ("filter_cot",),
    "collect_general": ("filter_general",),
    "filter_cot": ("sft_cold_start", "control", "report"),
    "filter_general": ("sft_refine", "report"),
    "sft_cold_start": ("grpo_reasoning", "student", "control", "evaluate sft", "report"),
    "grpo_reasoning": ("rejection_sampling", "sft_refine", "report"),
    "rejection_sampling": ("sft_refine", "report"),
    "sft_refine": ("grpo_final", "report"),
    "grpo_final": ("distill_data", "student", "evaluate final", "report"),
    "distill_data": ("student", "report"),
    "student": ("evaluate student", "report"),
    "control": ("report",),
    "evaluate": ("evaluate reasoning", "evaluate general"),
    "report": (),
}
READ_BY |= {f"evaluate {short}": tuple(f"{short} {bench}" for bench in BENCHES) for short in CHECKPOINTS}
READ_BY |= {f"evaluate {bench}": tuple(f"{short} {bench}" for short in CHECKPOINTS) for bench in BENCHES}
READ_BY |= {f"{short} {bench}": ("report",) for short in CHECKPOINTS for bench in BENCHES}
STEPS: dict[str, set[str]] = {name: set() for name in ("prompts", "evaluate")}
STEPS |= {f"evaluate {of}": set() for of in (*CHECKPOINTS, *BENCHES)}
STEPS |= {f"{verb} {name}": {f"{verb}@{name}"} for verb in ("prompts", "bench") for name in BENCHES}
STEPS |= {
    f"{short} {bench}": {f"evaluate@{name}-{bench}"}
    for short, name in CHECKPOINTS.items()
    for bench in BENCHES
}
STEPS |= {"student": {"distill@qwen_distilled_student"}, "control": {"distill@qwen_student_cold_start"}}
GATE = {
    "checkpoint": "qwen_rl_ckpt_final",
    "parent": "qwen_sft_ckpt",
    "benches": ["reasoning", "general"],
    "grader": "format",
}
SFT = ("sft_cold_start", "sft_refine", "student", "control")
GRPO = ("grpo_reasoning", "grpo_final")
EVERYTHING = ("prompts", *SFT)


def follows(*changed: str) -> set[str]:
    """These steps, and all that reads what they write, directly or not."""
    found: set[str] = set()
    waiting = list(changed)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += READ_BY[name]
    return {step for name in found for step in STEPS.get(name, {name})}


def install(clone: Clone, version: str, *, name: str = "bonus") -> None:
    """A distribution with one reward, as pip would leave it, on the clone's PYTHONPATH."""
    site = clone.folder / "installed"
    uninstall(clone, name)
    info = site / f"chainforge_{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: chainforge-{name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[chainforge]\n{name} = chainforge_{name}\n")
    (site / f"chainforge_{name}.py").write_text(
        "import chainforge as cf\n\n\ndef reward(completions):\n    return [1.0 for _ in completions]\n\n\n"
        f"@cf.hookimpl\ndef register_rewards(register):\n    register({name!r}, reward)\n"
    )


def uninstall(clone: Clone, name: str = "bonus") -> None:
    for path in (clone.folder / "installed").glob(f"chainforge_{name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def make_standing_in(folder: Path, path: tuple[str, ...]) -> None:
    clone = replace(make_clone(folder), path=path)
    standin.install(clone.folder)
    clone.put("checkpoints", list(CHECKPOINTS.values()))
    clone.put("report.parents", {})
    clone.put("grpo_reasoning.rewards", {"correct": 1.0})
    clone.put("grpo_final.rewards", {"correct": 1.0, "lively": 0.5, "bonus": 0.1})
    install(clone, "1.0.0")
    assert set(clone.repro()) == {"lock"} | follows(*EVERYTHING)


@pytest.fixture(scope="session")
def standing_in(made_once: Callable[[str, Callable[[Path], None]], Path], stand_by: tuple[str, ...]) -> Clone:
    """Three checkpoints are evaluated; `bonus`, of a distribution, is a reward of `grpo_final` alone."""
    return Clone(made_once("standing-in", lambda folder: make_standing_in(folder, stand_by)), stand_by)


@pytest.fixture
def clone(standing_in: Clone, tmp_path: Path) -> Clone:
    return copy_clone(standing_in, tmp_path / "copy")


Edit = Callable[[Clone], None]


def text(path: str, old: str, new: str) -> Edit:
    return lambda clone: clone.edit(path, old, new)


def setting(key: str, value: object) -> Edit:
    return lambda clone: clone.put(key, value)


ROWS: dict[str, tuple[Edit, set[str]]] = {
    "nothing": (lambda clone: None, set()),
    # every section of params.yaml
    "run": (setting("run.seed", 18), follows(*EVERYTHING)),
    "runtime": (setting("runtime.micro_batch_tokens", 4096), set()),
    "collector": (setting("collector.concurrency", 8), set()),
    "prompts": (setting("prompts.general.train", 31), follows("prompts general")),
    "collect": (setting("collect.samples", 2), follows("collect_cot", "collect_general")),
    "collect_cot": (setting("collect_cot.max_prompts", 50), follows("collect_cot")),
    "collect_general": (setting("collect_general.max_prompts", 20), follows("collect_general")),
    "filter": (setting("filter.max_characters", 1999), follows("filter_cot", "filter_general")),
    "filter_cot": (setting("filter_cot.prompts", "data/prompts/reasoning_eval.jsonl"), follows("filter_cot")),
    "filter_general": (
        setting("filter_general.prompts", "data/prompts/general_eval.jsonl"),
        follows("filter_general"),
    ),
    "base_model": (setting("base_model.mlp", 48), follows("sft_cold_start", "sft_refine")),
    "sft": (setting("sft.weight_decay", 0.2), follows(*SFT)),
    "sft_cold_start": (setting("sft_cold_start.num_epochs", 3.0), follows("sft_cold_start")),
    "sft_refine": (setting("sft_refine.num_epochs", 3.0), follows("sft_refine")),
    "grpo": (setting("grpo.kl_coeff", 0.05), follows(*GRPO)),
    "grpo_reasoning": (setting("grpo_reasoning.num_rl_steps", 3), follows("grpo_reasoning")),
    "grpo_final": (setting("grpo_final.num_rl_steps", 3), follows("grpo_final")),
    "sample": (setting("sample.min_reward", 0.1), follows("rejection_sampling", "distill_data")),
    "rejection_sampling": (setting("rejection_sampling.samples", 3), follows("rejection_sampling")),
    "distill_data": (setting("distill_data.samples", 3), follows("distill_data")),
    "distill": (setting("distill.num_epochs", 2.0), follows("student", "control")),
    "students": (setting("students.qwen_distilled_student.num_epochs", 2.0), follows("student")),
    "checkpoints": (
        setting("checkpoints", [*CHECKPOINTS.values(), "qwen_student_cold_start"]),
        {f"evaluate@qwen_student_cold_start-{bench}" for bench in ("reasoning", "general")} | {"report"},
    ),
    "benches": (
        setting("benches.general.prompts", "data/prompts/general_train.jsonl"),
        follows("bench general"),
    ),
    "evaluate": (setting("evaluate.samples", 3), follows("evaluate")),
    "untouched": (
        setting("untouched", ["base"]),
        {f"evaluate_base@base-{bench}" for bench in ("reasoning", "general")} | {"report"},
    ),
    "gates": (setting("gates", {"distill_data": GATE}), {"gate@distill_data"}),
    "report": (setting("report.note", "Mine."), {"report"}),
    # code
    "a comment in a reward": (text("plugins/reward_lively.py", "def lively", "# why\ndef lively"), set()),
    "a docstring in the core": (
        text("chainforge/algorithms/losses.py", '"""Policy losses', '"""The policy losses'),
        set(),
    ),
    "a reward that one RL step uses": (
        text("plugins/reward_lively.py", "% 7 / 7", "% 5 / 5"),
        follows("grpo_final"),
    ),
    "a reward that many steps use": (
        text("plugins/reward_format.py", "p.reasoning.strip() and", "len(p.reasoning) > 3 and"),
        follows("rejection_sampling", "distill_data", "evaluate"),
    ),
    "logic of the loss": (
        text("chainforge/algorithms/policy_loss.py", "import torch\n", "import torch\n\nUNUSED = 1\n"),
        follows(*GRPO),
    ),
    "logic of the report": (text("chainforge/report/write.py", "indent=2", "indent=1"), {"report"}),
    # packages
    "an unused plugin installed": (lambda clone: install(clone, "1.0.0", name="other"), set()),
    "a used plugin upgraded, its source the same": (
        lambda clone: install(clone, "1.1.0"),
        follows("grpo_final"),
    ),
    "a used plugin removed and reinstalled": (
        lambda clone: (uninstall(clone), install(clone, "1.0.0"))[-1],
        set(),
    ),
}


WRITERS = {step: name for name in READ_BY for step in STEPS.get(name, {name})}


def reached(clone: Clone) -> set[str]:
    """The steps that a change reaches first, as DVC sees it, and all that reads what they write."""
    with chdir(clone.folder):
        write_json(Path("plugins.lock.json"), make_lock(load_plugins(), clone.folder))
        with warnings.catch_warnings(), Repo() as repo:
            warnings.simplefilter("ignore")
            told = repo.status()
    evaluated = {step for step in told if step.startswith("evaluate")}
    gates = {step for step in told if step.startswith("gate@")}  # nothing runs again for one that passes
    first = {WRITERS[step] for step in told.keys() - {"lock"} - evaluated - gates}
    return follows(*first, *(["report"] if evaluated else [])) | evaluated | gates


@pytest.fixture
def in_process(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages in `installed/` are found, as in `Clone.run`. DVC parses each text once, not once per step."""
    monkeypatch.syspath_prepend(clone.folder / "installed")
    monkeypatch.delitem(sys.modules, "chainforge_bonus", raising=False)
    parsed = cache(_yaml.parse_yaml)
    monkeypatch.setattr(_yaml, "parse_yaml", lambda *text, **how: deepcopy(parsed(*text, **how)))


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("row", ROWS)
def test_a_change_reaches_exactly_the_steps_that_use_it(clone: Clone, row: str) -> None:
    edit, expected = ROWS[row]
    edit(clone)
    assert reached(clone) == expected


TOGETHER = (
    ("nothing", "runtime", "collector", "a comment in a reward", "an unused plugin installed"),
    ("report", "evaluate", "filter_general", "a docstring in the core"),
)


@pytest.mark.dearest
@pytest.mark.parametrize("rows", TOGETHER, ids=" + ".join)
def test_what_a_change_reaches_is_what_runs(clone: Clone, rows: tuple[str, ...]) -> None:
    for row in rows:
        ROWS[row][0](clone)
    assert set(clone.repro()) == {"lock"}.union(*(ROWS[row][1] for row in rows))


@pytest.mark.long
@pytest.mark.parametrize("row", ROWS)
def test_a_change_reruns_exactly_the_steps_that_use_it(clone: Clone, row: str) -> None:
    edit, expected = ROWS[row]
    edit(clone)
    assert set(clone.repro()) == {"lock"} | expected


def test_an_experiment_reruns_the_rl_steps_and_what_follows(clone: Clone) -> None:
    assert set(ran(clone.run("dvc", "exp", "run", "-S", "grpo.kl_coeff=0.05"))) == {"lock"} | follows(*GRPO)
    assert read_params(clone.folder / "params.yaml")["grpo"]["kl_coeff"] == 0.05


def test_the_table_has_every_section_of_the_settings(clone: Clone) -> None:
    sections = set(re.findall(r"^(\w+):", (clone.folder / "params.yaml").read_text(), re.MULTILINE))
    assert sections - {"profile"} <= set(ROWS)


def test_a_gate_stops_a_run_that_was_spoilt_before_its_next_step(clone: Clone) -> None:
    """Setting a gate that passes runs nothing else again; one that fails stops DVC, and says how to go on."""
    clone.put("gates", {"distill_data": GATE})
    assert clone.repro() == ["lock", "gate@distill_data"]
    (clone.folder / standin.SPOILT).write_text("qwen_rl_ckpt_final")
    clone.put("grpo_final.num_rl_steps", 3)
    said = clone.run("dvc", "repro", "distill_data", fails=True)
    assert "really ran grpo_final" in said
    assert "really ran distill_data" not in said
    lost = "-100.0 points [-100.0, -87.3], from 100.0% to 0.0% on the same 40 problems"
    assert (
        "qwen_rl_ckpt_final is worse than its parent qwen_sft_ckpt, by format: "
        f"reasoning {lost}; general {lost}. distill_data does not start\n"
    ) in said
    assert "-> train it with other settings; or go on anyway: raise gates.distill_data.tolerance" in said
    assert "Traceback" not in said
    figures = json.loads((clone.folder / "metrics/gate/distill_data.json").read_text())
    assert figures["general/difference"] == -1.0
    clone.put("gates", {})
    assert "distill_data" in clone.repro("distill_data")


def test_a_removed_plugin_stops_before_any_work_and_comes_back(clone: Clone) -> None:
    uninstall(clone)
    said = clone.run("dvc", "repro", fails=True)
    assert "really ran" not in said
    assert "there is no reward called 'bonus': grpo_final used it from chainforge-bonus==1.0.0" in said
    assert "pip install chainforge-bonus==1.0.0" in said
    assert "dvc exp run -S '~grpo_final.rewards.bonus'" in said
    assert not re.search("Traceback", said)
    install(clone, "1.0.0")
    assert clone.repro() == ["lock"]


REALLY_RAN = re.compile(r"^really ran (\S+)$", re.MULTILINE)  # what a stand-in says


@pytest.mark.long
def test_a_reward_from_an_empty_folder_reruns_the_step_that_takes_it_and_what_follows(
    clone: Clone, tmp_path: Path
) -> None:
    project = Fresh(clone.folder, make_environment(tmp_path / "environment"))
    empty = Fresh(tmp_path / "empty", project.environment)
    empty.folder.mkdir()
    (site,) = project.environment.glob("lib/python*/site-packages")
    (site / "bonus.pth").write_text(f"{clone.folder / 'installed'}\n")  # which grpo_final uses already
    before = clone.sha256("checkpoints", "data", "metrics", "plots", "reports")

    empty.run("chainforge plugins new reward length_bonus")
    empty.run("pip install -e chainforge-length-bonus")
    said = project.run("dvc exp run -S '+grpo_final.rewards.length_bonus=0.1'")
    assert ran(said)[0] == "lock"
    assert set(REALLY_RAN.findall(said)) == follows("grpo_final")
    assert set(ran(said)) == {"lock"} | follows("grpo_final")
    assert "length_bonus: 0.1" in (clone.folder / "params.yaml").read_text()
    assert ran(project.run("dvc repro")) == ["lock"]

    project.run("python -m pip uninstall --quiet --yes chainforge-length-bonus")
    said = project.run("dvc exp run", fails=True)
    assert REALLY_RAN.findall(said) == []
    assert "there is no reward called 'length_bonus': grpo_final used it from chainforge-length-bonus" in said
    assert "install it again (pip install chainforge-length-bonus==0.1.0, or from its folder)" in said
    (fix,) = re.findall(r"dvc exp run -S '~grpo_final\.rewards\.length_bonus'", said)
    assert REALLY_RAN.findall(project.run(fix)) == [], "all of it is in the cache"
    assert clone.sha256("checkpoints", "data", "metrics", "plots", "reports") == before


@pytest.mark.long
def test_a_reverted_change_comes_from_the_cache(clone: Clone) -> None:
    before = clone.sha256("checkpoints", "data", "metrics", "plots", "reports")
    clone.put("grpo_final.num_rl_steps", 3)
    assert set(clone.repro()) == {"lock"} | follows("grpo_final")
    clone.put("grpo_final.num_rl_steps", 2)
    said = clone.run("dvc", "repro")
    assert "really ran" not in said
    assert "Stage 'grpo_final' is cached - skipping run" in said
    assert clone.sha256("checkpoints", "data", "metrics", "plots", "reports") == before


def test_code_edited_after_the_lock_is_not_run_under_the_old_name(clone: Clone) -> None:
    clone.edit("plugins/reward_lively.py", "% 7 / 7", "% 5 / 5")
    said = clone.run("python", "-m", "stages.grpo", "grpo_final", fails=True)
    assert "edited since the step `lock` ran: plugins.rewards:lively.digest" in said


def test_a_locked_run_refuses_another_plugin(clone: Clone) -> None:
    clone.run("git", "add", "--force", "plugins.lock.json")
    clone.run("git", "-c", "user.name=T", "-c", "user.email=t@t", "commit", "--quiet", "--message", "lock")
    assert "chainforge-bonus" not in clone.run("chainforge", "plugins", "diff")
    clone.put("runtime.locked", True)
    assert clone.repro() == ["lock"]
    install(clone, "1.1.0")
    said = clone.run("dvc", "repro", fails=True)
    assert "really ran" not in said
    assert "rewards:bonus: chainforge-bonus 1.0.0 -> 1.1.0 (grpo_final)" in said
    assert "chainforge-bonus 1.0.0 -> 1.1.0" in clone.run("chainforge", "plugins", "diff", fails=True)
