"""What `lock` refuses before any work: the graph of the settings, names, texts, plugins' own values."""

import json
import os
from collections.abc import Mapping
from contextlib import chdir
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from chainforge.config.evaluate import EvaluateSettings
from chainforge.config.run import RuntimeSettings
from chainforge.config.vllm import VllmSettings
from chainforge.errors import ChainForgeError
from chainforge.plugins import Plugins, load_plugins
from chainforge.project.gates import OPEN, gate_file, guarded_steps, open_gates
from chainforge.project.graph import dependencies, outputs, read_graph, settings_of
from chainforge.project.lock import make_lock
from chainforge.project.lock_entry import held_lock, parse_lock, read_lock
from chainforge.project.preflight.components import looks_like_path
from chainforge.project.preflight.device import check_device, check_training
from chainforge.project.preflight.engine import check_engines
from chainforge.project.preflight.project import check_project
from chainforge.project.profiles import compose

ROOT = Path(__file__).resolve().parents[1]
GONE = object()


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins(ROOT / "plugins")


@cache
def smoke() -> dict[str, Any]:
    """The settings of that profile; they are written as JSON, which is YAML that is quick to read."""
    with chdir(ROOT):
        settings: dict[str, Any] = YAML(typ="safe", pure=True).load(compose("smoke"))
    return settings


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(json.dumps(smoke()), encoding="utf-8")
    Path("dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())


def put(changes: Mapping[str, Any]) -> None:
    """Change settings of params.yaml by their dotted names."""
    params = json.loads(Path("params.yaml").read_text(encoding="utf-8"))
    for dotted, value in changes.items():
        *path, leaf = dotted.split(".")
        node = params
        for key in path:
            node = node[key]
        node[leaf] = value
        if value is GONE:
            del node[leaf]
    Path("params.yaml").write_text(json.dumps(params), encoding="utf-8")


def refused(plugins: Plugins) -> str:
    with pytest.raises(ChainForgeError) as caught:
        check_project(plugins, RuntimeSettings())
    assert caught.value.fix
    return str(caught.value)


@pytest.mark.slow
def test_the_project_as_it_is_passes(plugins: Plugins) -> None:
    check_project(plugins, RuntimeSettings())


STUDENT = "students.qwen_distilled_student"


@pytest.mark.dear
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({STUDENT: GONE}, "checkpoints has qwen_distilled_student, but no step makes"),
        ({"checkpoints": ["by_hand"]}, "checkpoints has by_hand, but no step makes checkpoints/by_hand"),
        ({"report.parents": {"qwen_sft_ckpt": "x"}}, "no checkpoint for report.parents called 'x'"),
        (
            {"benches.mine": {"prompts": "data/prompts/x.jsonl"}},
            "x.jsonl, which is not there and which no step",
        ),
        ({"benches.mine": {"source": "gsm8", "eval": 5}}, "no prompt source called 'gsm8'"),
        ({"benches.mine": {}}, "benches.mine: it has neither prompts nor a source"),
        ({"benches.mine": {"source": "countdown", "prompts": "x"}}, "it has both prompts and a source"),
        ({"benches.mine": {"source": "countdown", "evall": 5}}, "benches.mine called 'evall'"),
        ({"benches.my-bench": {"source": "countdown"}}, "benches has the name my-bench"),
        ({"profile": None}, "profile is None"),
        ({"profile": GONE}, "profile is None"),
        ({"collect.instruction": "Write ${amount} dollars."}, "collect.instruction has ${ in"),
        (
            {"grpo_reasoning.start_from": "checkpoints/none"},
            "(grpo_reasoning.start_from), which is not there",
        ),
        ({"grpo.reward_settings": {"nobody": {}}}, "no reward called 'nobody'"),
        (
            {"grpo.reward_settings": {"correct": {"strict": True}}},
            "has no settings, and reward_settings has 'strict' for it",
        ),
        (
            {"grpo_final.rewards": {"correct": 1.0, "overlong": 1.0}},
            "needs the setting 'max_tokens'\n  -> add it to reward_settings.overlong",
        ),
        (
            {
                "grpo_final.rewards": {"correct": 1.0, "overlong": 1.0},
                "grpo.reward_settings": {"overlong": {"max_tokens": 9, "cash": 4}},
            },
            "no setting called 'cash'\n  -> did you mean 'cache'?",
        ),
        (
            {
                "filter.reward": "overlong",
                "filter.reward_settings": {"overlong": {"max_tokens": 9, "cache": 10}},
            },
            "cannot be made with these settings: ValueError: cache is above 0 and at most max_tokens",
        ),
        ({"grpo_reasoning.prompts": "none.jsonl"}, "(grpo_reasoning.prompts), which is not there"),
        ({f"{STUDENT}.examples": "data/none.jsonl"}, "data/none.jsonl, which is not there"),
        ({f"{STUDENT}.teacher": GONE}, f"{STUDENT}.teacher is None"),
        (
            {f"{STUDENT}.model.tokenizer": "checkpoints/none"},
            "tokenizer names checkpoints/none, which is not",
        ),
        ({f"{STUDENT}.model.tokenizer": "checkpoints/qwen_rl_ckpt_stage2"}, "dvc.yaml does not list"),
        ({"filter.decontaminate": ["none.jsonl"]}, "decontaminate names none.jsonl, which dvc.yaml does not"),
        ({"sft_cold_start.start_from": "checkpoints/qwen_rl_ckpt_final"}, "dvc.yaml does not list"),
        ({"benches.reasoning.prompts": "data/other.jsonl"}, "dvc.yaml does not list"),
        ({"base_model": {"plugin": "pretrained", "model": "inputs/none"}}, "names inputs/none, which is not"),
        ({"base_model": {"plugin": "tiny_qwen2", "hidden": 17}}, "hidden 17, heads 2 and kv_heads 2"),
        ({"base_model": None}, "there is no base_model"),
        ({"sft_refine.model": "tiny_qwen2"}, "it starts from base_model"),
        ({"collect_cot.teacher.wrong_fraction": 2}, "wrong_fraction is 2"),
        ({"prompts.general.source.families": ["none"]}, "families: ['none']"),
        ({"prompts.reasoning.source.families": []}, "families: []"),
        (
            {"prompts.reasoning.source": {"plugin": "jsonl", "train": "a.jsonl", "eval": "b.jsonl"}},
            "prompts@reasoning: prompt source jsonl: train names a.jsonl, which is not there",
        ),
    ],
)
def test_what_would_stop_a_later_step_is_told_at_once(
    plugins: Plugins, changes: Mapping[str, Any], words: str
) -> None:
    put(changes)
    assert words in refused(plugins)


@pytest.mark.parametrize("name", ["$(touch x)", "a b", "a@b", "a; touch x #", "a.b", "-a", "", "x" * 65])
@pytest.mark.parametrize("where", ["checkpoints", "students"])
def test_a_name_that_a_shell_could_misread_is_refused(plugins: Plugins, name: Any, where: str) -> None:
    student = smoke()["students"]["qwen_distilled_student"]
    put({where: [name] if where == "checkpoints" else {name: student}})
    with pytest.raises(ChainForgeError, match="has the name"):
        read_graph()


@pytest.mark.dear
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoints": "x"}, "checkpoints is 'x'"),
        ({"checkpoints": []}, "checkpoints is []"),
        ({"checkpoints": [5]}, "checkpoints has the name 5"),
        ({"checkpoints": [None]}, "checkpoints has the name None"),
        ({"checkpoints": ["qwen_sft_ckpt"] * 2}, "checkpoints has qwen_sft_ckpt twice"),
        ({"students": []}, "students is []"),
        ({"students": {"a": None}}, "students.a must be a section, found None"),
        ({"students": {"a": 3}}, "students.a must be a section, found 3"),
        ({"report": []}, "report must be a section, found []"),
        ({"report.parents": "x"}, "report.parents is 'x'"),
        ({"report.parents": {"qwen_sft_ckpt": 5}}, "report.parents.qwen_sft_ckpt is 5"),
        ({"benches": None}, "benches is None"),
        ({"grpo": 3}, "grpo must be a section, found 3"),
    ],
)
def test_a_section_of_another_shape_is_told_by_its_name(
    plugins: Plugins, changes: Mapping[str, Any], words: str
) -> None:
    put(changes)
    assert words in refused(plugins)


GATE = {"checkpoint": "qwen_sft_ckpt", "parent": "base", "benches": ["general"], "grader": "correct"}


@pytest.mark.slow
def test_a_gate_is_a_step_before_another_and_without_one_the_graph_has_none(plugins: Plugins) -> None:
    without = read_graph()
    assert not [step for step in without.values() if step.verb == "gate"]
    put({"untouched": ["base"], "gates": {"grpo_reasoning": GATE}, "report.parents.qwen_sft_ckpt": "base"})
    check_project(plugins, RuntimeSettings())
    graph = read_graph()
    assert graph.keys() - without.keys() == {
        "gate@grpo_reasoning", "evaluate_base@base-reasoning", "evaluate_base@base-general"
    }  # fmt: skip
    assert set(outputs(graph["gate@grpo_reasoning"])) & set(dependencies(graph["grpo_reasoning"]))
    assert settings_of(EvaluateSettings, "evaluate_base@base-general").base_model
    assert not settings_of(EvaluateSettings, "evaluate@qwen_sft_ckpt-general").base_model


@pytest.mark.dear
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gates": {"sft_refine": GATE}}, "there is no step with a gate before it called 'sft_refine'"),
        ({"gates": {"grpo_reasoning": GATE | {"checkpoint": "x"}}}, "no checkpoint for gates.grpo_reasoning"),
        ({"gates": {"grpo_reasoning": GATE | {"benches": ["math"]}}}, "no bench for gates.grpo_reasoning"),
        ({"gates": {"grpo_reasoning": GATE | {"grader": "exact"}}}, "called 'exact'"),
        (
            {"gates": {"rejection_sampling": GATE | {"checkpoint": "qwen_rl_ckpt_stage2"}}},
            "qwen_rl_ckpt_stage2 was trained by correct, which cannot judge it as well",
        ),
        (
            {"gates": {"grpo_reasoning": GATE | {"checkpoint": "qwen_sft_ckpt_stage3"}}},
            "these steps wait for one another",
        ),
        ({"gates": None}, "gates is None"),
        ({"untouched": ["other"]}, "untouched is ['other']"),
        ({"untouched": None}, "untouched is None"),
        ({"untouched": [], "checkpoints": ["base"]}, "checkpoints has base, but no step makes"),
        ({"checkpoints": ["base"]}, "is to write data/eval/base/reasoning.jsonl, and evaluate_base@base"),
    ],
)
def test_a_gate_that_would_stop_nothing_or_judge_by_its_own_training_is_refused(
    plugins: Plugins, changes: Mapping[str, Any], words: str
) -> None:
    put({"untouched": ["base"]} | changes)
    assert words in refused(plugins)


def test_lock_opens_every_gate_that_is_not_set_with_the_bytes_of_one_that_passed() -> None:
    files = {path: name for path, name in guarded_steps(read_graph()).items()}
    assert set(files.values()) == {"grpo_reasoning", "rejection_sampling", "grpo_final", "distill_data"}
    open_gates(read_graph())
    assert {path.read_text() for path in files} == {OPEN}
    gate_file("grpo_reasoning").unlink()  # as DVC does before it runs the gate
    put({"untouched": ["base"], "gates": {"grpo_reasoning": GATE}})
    open_gates(read_graph())
    assert not gate_file("grpo_reasoning").exists()
    put({"gates": {}})
    open_gates(read_graph())
    assert gate_file("grpo_reasoning").read_text() == OPEN


def test_steps_that_wait_for_one_another_are_named(plugins: Plugins) -> None:
    put({"grpo_reasoning.start_from": "checkpoints/qwen_rl_ckpt_final"})
    assert "these steps wait for one another: " in refused(plugins)


def test_an_input_that_is_no_file_is_not_waited_for(plugins: Plugins) -> None:
    os.mkfifo("pipe.jsonl")
    put({"grpo_reasoning.prompts": "pipe.jsonl"})
    assert "pipe.jsonl (grpo_reasoning.prompts), which is neither a file nor a folder" in refused(plugins)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", False),
        ("gpt2", False),
        ("a text with / in it", False),
        ("./qwen", True),
        ("/models/qwen", True),
        ("~/qwen", True),
        ("inputs/qwen", True),
        ("checkpoints/qwen", True),
        ("models/qwen/base", True),
    ],
)
def test_a_folder_is_told_from_a_hub_name(text: str, path: bool) -> None:
    assert looks_like_path(text) == path


def test_a_device_that_is_not_there_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("auto", "cpu"):
        check_device(device)  # asks nobody
    monkeypatch.setattr("chainforge.project.preflight.device.PROBES", {"cuda": "False", "mps": "True"})
    check_device("mps")
    with pytest.raises(ChainForgeError, match=r"runtime\.device is cuda, and torch finds no such device"):
        check_device("cuda")


def test_an_adapter_that_cannot_be_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(kind: str, device: str, *, installed: bool = True, cuda: bool = False) -> None:
        monkeypatch.setattr("chainforge.config.adapter.find_spec", lambda name: name if installed else None)
        monkeypatch.setattr("chainforge.project.preflight.device.PROBES", {"cuda": str(cuda)})
        put({"grpo_final.adapter": {"kind": kind}})
        check_training(read_graph(), device)

    check("lora", "cpu")
    check("lora", "auto")
    check("qlora", "auto", cuda=True)
    for device in ("auto", "cpu"):
        with pytest.raises(ChainForgeError, match="qlora needs CUDA, and the device is cpu"):
            check("qlora", device)
    with pytest.raises(
        ChainForgeError, match=r"lora needs the package peft\n  -> pip install 'chainforge-r1\[lora\]'"
    ):
        check("lora", "cpu", installed=False)


def read_whole_graph() -> None:
    for step in read_graph().values():
        dependencies(step)


STANZAS = (ROOT / "dvc.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{[", "dvc.yaml, line 1: not YAML"),
        ("- a", "dvc.yaml has no section `stages`"),
        ("x: 1", "dvc.yaml has no section `stages`"),
        ("stages: []", "dvc.yaml has no section `stages`"),
        ("stages:\n  a: null\n", "stages.a is None"),
        ("stages:\n  a: text\n", "stages.a is 'text'"),
        (STANZAS.replace("cmd: python -m stages.prompts prompts@${key}", "cmd: 3"), "stages.prompts.cmd"),
        (STANZAS.replace("foreach: ${students}", "foreach: [a, b]"), "stages.distill.foreach"),
        (STANZAS.replace("foreach: ${students}", "foreach: students"), "foreach of distill is 'students'"),
        (STANZAS.replace("    do:\n", "    done:\n"), "stages.prompts is None"),
        (STANZAS.replace("            - prompts.${key}\n", "            - 5\n", 1), "stages.prompts.params"),
        (STANZAS.replace("- ${collect_cot.prompts}", "- 4"), "stages.collect_cot.deps.0 is 4"),
        (STANZAS.replace("- ${collect_cot.prompts}", "- ${collect_cot.none}"), "has no collect_cot.none"),
    ],
)
def test_a_graph_of_another_shape_is_told_by_its_stanza(text: str, words: str) -> None:
    Path("dvc.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ChainForgeError) as caught:
        read_whole_graph()
    assert words in caught.value.problem


def test_a_graph_that_is_not_utf8_is_told() -> None:
    Path("dvc.yaml").write_bytes(b"stages: \xff")
    with pytest.raises(ChainForgeError, match=r"dvc\.yaml is not UTF-8"):
        read_graph()


@pytest.mark.slow
def test_two_steps_cannot_have_one_part_of_the_lock(plugins: Plugins) -> None:
    Path("dvc.yaml").write_text(
        STANZAS.replace("            - prompts.${key}\n", "            - distill\n", 1)
    )
    with pytest.raises(ChainForgeError, match="of which another step has a part"):
        make_lock(plugins, ROOT)


@pytest.mark.parametrize(
    "text",
    [
        "<<<<<<< HEAD\n{}\n",
        "[]",
        "5",
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"prompts": "text"}',
        '{"prompts": {"code": 3}}',
        '{"prompts": {"code": "x", "plugins": 5}}',
        '{"prompts": {"code": "x", "plugins": {"rewards:a": "text"}}}',
        '{"prompts": {"code": "x", "plugins": {"rewards:a": {}}}}',
        '{"prompts": {"code": "x", "files": {"a": 1}}}',
    ],
)
def test_a_lock_of_another_shape_is_none_and_no_step_runs_under_it(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_lock(text)
    Path("plugins.lock.json").write_text(text, encoding="utf-8")
    assert read_lock() == {}
    with pytest.raises(ChainForgeError, match=r"plugins\.lock\.json cannot be read: "):
        held_lock()


def test_where_no_lock_is_a_step_runs_under_none() -> None:
    assert held_lock() == {}


def test_a_pipe_in_place_of_the_lock_is_not_waited_for() -> None:
    os.mkfifo("plugins.lock.json")
    assert read_lock() == {}
    with pytest.raises(ChainForgeError, match=r"plugins\.lock\.json cannot be read: it is no file"):
        held_lock()


def test_vllm_must_be_there_for_the_steps_that_start_it() -> None:
    absent = RuntimeSettings(vllm=VllmSettings(command="no/such/vllm"))
    check_engines(read_graph(), absent)
    put({"sample.engine": {"kind": "vllm"}})
    said = "rejection_sampling samples with vLLM, and there is no program 'no/such/vllm'"
    with pytest.raises(ChainForgeError, match=said):
        check_engines(read_graph(), absent)
    check_engines(read_graph(), RuntimeSettings(vllm=VllmSettings(command="sh")))
    elsewhere = VllmSettings(command="no/such/vllm", urls=["http://localhost:8000"])
    check_engines(read_graph(), RuntimeSettings(vllm=elsewhere))


def test_servers_that_sleep_while_the_learner_works_cannot_sample_ahead() -> None:
    def check(device: str, **vllm: Any) -> None:
        check_engines(read_graph(), RuntimeSettings(device=device, vllm=VllmSettings(command="sh", **vllm)))

    put({"grpo.engine": {"kind": "vllm"}})
    check("cuda")
    put({"grpo.max_lag": 1})
    check("cuda", gpus=1)
    check("cuda", urls=["http://localhost:8000"])
    check("cpu")  # nobody sleeps there
    with pytest.raises(ChainForgeError, match=r"grpo_reasoning has max_lag 1.*its vLLM servers sleep then"):
        check("cuda")
