"""Settings: validated, merged from general to special, and every mistake named with its fix."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tree import PROFILES, ROOT

from chainforge.config.collect import CollectSettings
from chainforge.config.distill import DistillSettings
from chainforge.config.evaluate import EvaluateSettings
from chainforge.config.filter import FilterSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.config.loading import Choice, load_settings, read_params
from chainforge.config.prompts import PromptsSettings
from chainforge.config.run import RunSettings
from chainforge.config.sample import SampleSettings
from chainforge.config.sft import SftSettings
from chainforge.config.verbs import VERBS
from chainforge.errors import ChainForgeError
from chainforge.plugins import load_plugins
from chainforge.project.graph import read_graph, settings_of
from chainforge.project.lock import make_lock
from chainforge.project.profiles import compose, names, use

GRPO = """
grpo:
  learning_rate: 1e-6
  clip_ratio: 0.2
  num_rl_steps: 5
grpo_final:
  output: out
  start_from: in
  prompts: p.jsonl
  num_rl_steps: 7
  rewards:
    correct: 1
"""
SFT = "sft_x:\n  output: out\n  examples: e.jsonl\n"


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """params.yaml in a folder of its own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return Path("params.yaml")


def test_vllm_takes_temperatures_up_to_2(params: Path) -> None:
    warm = GRPO.replace("  clip_ratio", "  temperature: 2.5\n  engine: {kind: KIND}\n  clip_ratio")
    params.write_text(warm.replace("KIND", "local"))
    assert load_settings(GrpoSettings, "grpo", "grpo_final").temperature == 2.5
    params.write_text(warm.replace("KIND", "vllm"))
    with pytest.raises(ChainForgeError, match=r"vLLM takes temperatures up to 2, and this one is 2\.5"):
        load_settings(GrpoSettings, "grpo", "grpo_final")


def test_later_sections_win_over_earlier_ones(params: Path) -> None:
    params.write_text(GRPO)
    settings = load_settings(GrpoSettings, "grpo", "grpo_final")
    assert settings.num_rl_steps == 7
    assert settings.clip_ratio == 0.2
    assert settings.group_size == GrpoSettings.model_fields["group_size"].default
    assert load_settings(GrpoSettings, "grpo_final", "grpo").num_rl_steps == 5


def test_numbers_are_read_as_yaml_1_2_says(params: Path) -> None:
    params.write_text(GRPO)
    settings = load_settings(GrpoSettings, "grpo", "grpo_final")
    assert settings.learning_rate == 1e-6
    assert isinstance(settings.learning_rate, float)
    assert settings.rewards == {"correct": 1.0}  # a whole number will do for a fraction
    params.write_text("run:\n  response_format: on\n")
    with pytest.raises(ChainForgeError, match=r"run\.response_format is 'on'"):  # a word, not true
        load_settings(RunSettings, "run")


@pytest.mark.slow
@settings(max_examples=30)
@given(rate=st.floats(1e-12, 1.0, exclude_min=True))
def test_every_way_to_write_a_float_is_a_float(rate: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        for text in (repr(rate), f"{rate:e}", f"{rate:.20f}"):
            path.write_text(GRPO.replace("1e-6", text))
            wanted = float(text)
            if wanted > 0:
                found = load_settings(GrpoSettings, "grpo", "grpo_final", path=path).learning_rate
                assert found == wanted


def test_settings_cannot_be_changed(params: Path) -> None:
    params.write_text(GRPO)
    settings = load_settings(GrpoSettings, "grpo", "grpo_final")
    with pytest.raises(ValueError, match="frozen"):
        settings.clip_ratio = 0.3  # type: ignore[misc]


def test_a_file_that_changed_is_read_again_however_soon(params: Path) -> None:
    params.write_text("run:\n  seed: 1\n")
    stamp = params.stat()
    assert load_settings(RunSettings, "run").seed == 1
    params.write_text("run:\n  seed: 2\n")
    os.utime(params, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert load_settings(RunSettings, "run").seed == 2


MISTAKES: dict[str, tuple[tuple[str, str], str, str]] = {
    "a misspelt key": (
        ("clip_ratio:", "clip_ration:"),
        "there is no setting in params.yaml: grpo called 'clip_ration'",
        "did you mean 'clip_ratio'? known: temperature, top_p,",
    ),
    "a misspelt key in the special section": (
        ("start_from:", "start_form:"),
        "there is no setting in params.yaml: grpo_final called 'start_form'",
        "did you mean 'start_from'?",
    ),
    "a misspelt key of a group": (
        ("clip_ratio: 0.2", "adapter: {kind: lora, rnk: 8}"),
        "there is no setting in params.yaml: grpo.adapter called 'rnk'",
        "did you mean 'rank'? known: kind, rank, alpha, targets",
    ),
    "a group without what it is": (
        ("clip_ratio: 0.2", "adapter: {rank: 8}"),
        "params.yaml: grpo.adapter.kind is missing",
        "add it to one of: grpo, grpo_final",
    ),
    "an adapter by Muon": (
        ("clip_ratio: 0.2", "adapter: {kind: lora}\n  muon_learning_rate: 0.1"),
        "params.yaml: grpo_final: Muon is for whole matrices, not for the two thin ones of an adapter",
        "set muon_learning_rate to 0.0, or adapter to null",
    ),
    "text for a number": (
        ("0.2", "little"),
        "params.yaml: grpo.clip_ratio is 'little': input should be a valid number",
        "correct it in params.yaml",
    ),
    "a fraction for a count": (
        ("num_rl_steps: 7", "num_rl_steps: 7.5"),
        "params.yaml: grpo_final.num_rl_steps is 7.5: input should be a valid integer",
        "correct it in params.yaml",
    ),
    "truth for a number": (
        ("num_rl_steps: 7", "num_rl_steps: true"),
        "params.yaml: grpo_final.num_rl_steps is True: input should be a valid integer",
        "correct it in params.yaml",
    ),
    "a number in quotes": (
        ("1e-6", "'1e-6'"),
        "params.yaml: grpo.learning_rate is '1e-6': input should be a valid number",
        "correct it in params.yaml",
    ),
    "out of range": (
        ("1e-6", "0.0"),
        "params.yaml: grpo.learning_rate is 0.0: input should be greater than 0",
        "correct it in params.yaml",
    ),
    "not one of the words": (
        ("clip_ratio: 0.2", "loss_type: ppo"),
        "params.yaml: grpo.loss_type is 'ppo': input should be 'grpo', 'bnpo',",
        "correct it in params.yaml",
    ),
    "a group of one": (
        ("clip_ratio: 0.2", "group_size: 1"),
        "params.yaml: grpo.group_size is 1: input should be greater than or equal to 2",
        "correct it in params.yaml",
    ),
    "no rewards": (
        ("rewards:\n    correct: 1", "rewards: {}"),
        "params.yaml: grpo_final.rewards is {}: dictionary should have at least 1 item",
        "correct it in params.yaml",
    ),
    "a reward without a weight": (
        ("correct: 1", "correct: null"),
        "params.yaml: grpo_final.rewards.correct is None: input should be a valid number",
        "correct it in params.yaml",
    ),
    "a missing key": (
        ("  start_from: in\n", ""),
        "params.yaml: grpo_final.start_from is missing",
        "add it to one of: grpo, grpo_final",
    ),
    "a missing section": (
        ("grpo_final:", "grpo_last:"),
        "params.yaml: there is no section 'grpo_final'",
        "add it; the top level has: grpo, grpo_last",
    ),
    "a section that is none": (
        (GRPO[GRPO.index("grpo:") : GRPO.index("grpo_final:")], "grpo: 3\n"),
        "params.yaml: grpo must be a section, found 3",
        "indent its settings below",
    ),
    "cispo without its cap": (
        ("clip_ratio: 0.2", "loss_type: cispo"),
        "params.yaml: grpo_final: cispo needs clip_ratio_high, its cap on the ratio",
        "set it, e.g. to 5.0",
    ),
    "greedy sampling": (
        ("clip_ratio: 0.2", "temperature: 0.0"),
        "params.yaml: grpo.temperature is 0.0: input should be greater than 0",
        "correct it in params.yaml",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_an_error_that_names_file_key_and_fix(params: Path, mistake: str) -> None:
    (old, new), problem, fix = MISTAKES[mistake]
    assert old in GRPO
    params.write_text(GRPO.replace(old, new, 1))
    with pytest.raises(ChainForgeError) as caught:
        load_settings(GrpoSettings, "grpo", "grpo_final")
    assert caught.value.problem.startswith(problem)
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("run:\n  seed: 1\n bad: [\n", r"params\.yaml, line [34]: not YAML: .*\n  -> correct that line"),
        ("run: {seed: 1\n", r"params\.yaml, line 2: not YAML"),
        ("run:\n\tseed: 1\n", r"params\.yaml, line 2: not YAML"),
        ("run:\n  seed: 1\n  seed: 2\n", r"params\.yaml, line 3: not YAML: .*duplicate key"),
        ("- a\n- b\n", r"params\.yaml holds no settings\n.*chainforge profile use"),
        ("", r"params\.yaml holds no settings"),
        ("run:\n  seed: " + "9" * 6000, r"params\.yaml, line 2: not YAML: .* is no int"),
        ("run:\n  seed: 2026-13-45\n", r"params\.yaml, line 2: not YAML: .* is no timestamp"),
        ("run:\n  seed: !!float abc\n", r"params\.yaml, line 2: not YAML: 'abc' is no float"),
        ("run:\n  seed: !!bool abc\n", r"params\.yaml, line 2: not YAML: 'abc' is no bool"),
        ("run:\n  seed: !!python/object:os.system x\n", r"params\.yaml, line 2: not YAML"),
        ("? {a: 1}\n: 2\n", r"params\.yaml, line 1: not YAML: .*key"),
        ("run: {1: 2}\n", r"params\.yaml: run has the key 1, which is no text\n.*quotes"),
        ("run: {? [1, 2] : 3}\n", r"params\.yaml: run has the key \(1, 2\), which is no text"),
        ("run:\n  seed: 2026-11-28\n", r"params\.yaml: run\.seed is a date: 2026-11-28\n.*quotes"),
        ("run: !!set {a, b}\n", r"params\.yaml: run is a set"),
        ("run: " + "[" * 20_000 + "]" * 20_000, r"params\.yaml is nested more than 50 deep"),
        ("run: &a [*a]\n", r"params\.yaml is nested more than 50 deep"),
    ],
)
def test_what_is_not_yaml_is_an_error_that_names_the_line(params: Path, text: str, complaint: str) -> None:
    params.write_text(text)
    with pytest.raises(ChainForgeError, match=complaint):
        read_params()


def test_a_file_in_another_encoding_or_no_file_is_an_error(params: Path) -> None:
    with pytest.raises(
        ChainForgeError, match=r"there is no params\.yaml in .*\n.*chainforge profile use tiny"
    ):
        read_params()
    params.write_bytes("run: é\n".encode("latin-1"))
    with pytest.raises(ChainForgeError, match=r"params\.yaml is not UTF-8"):
        read_params()


def test_a_plugin_without_settings_may_be_named_alone(params: Path) -> None:
    long = "c:\n  output: o\n  calls: o\n  prompts: p\n  teacher:\n    plugin: recorded\n"
    params.write_text(long.replace("\n    plugin: recorded", " recorded"))
    short = load_settings(CollectSettings, "c")
    params.write_text(long)
    assert load_settings(CollectSettings, "c") == short
    assert short.teacher == Choice(plugin="recorded")
    assert short.teacher.settings == {}
    params.write_text(long + "    file: x.jsonl\n    speed: 3\n")
    assert load_settings(CollectSettings, "c").teacher.settings == {"file": "x.jsonl", "speed": 3}
    for wrong in ("teacher: 3", "teacher: {speed: 3}", "teacher: {plugin: 3}"):
        params.write_text(f"c:\n  output: o\n  calls: o\n  prompts: p\n  {wrong}\n")
        with pytest.raises(ChainForgeError, match=r"params\.yaml: c\.teacher"):
            load_settings(CollectSettings, "c")


def test_a_mistake_deep_in_a_section_is_named_with_its_whole_path(params: Path) -> None:
    whole = "{source: s, train: 1, eval: 1}"
    params.write_text(f"prompts:\n  general: {whole}\n  reasoning: {{source: s, trian: 1, eval: 1}}\n")
    with pytest.raises(ChainForgeError, match=r"prompts\.reasoning called 'trian'\n.*mean 'train'"):
        load_settings(PromptsSettings, "prompts.reasoning")
    params.write_text(f"prompts:\n  general: {whole}\n  reasoning: {{source: s, train: 0, eval: 1}}\n")
    with pytest.raises(ChainForgeError, match=r"prompts\.reasoning\.train is 0: input should be greater"):
        load_settings(PromptsSettings, "prompts.reasoning")


@pytest.mark.parametrize(
    ("kind", "text", "problem", "fix"),
    [
        (SftSettings, SFT, "start_from and model exclude each other", "exactly one of them"),
        (SftSettings, SFT + "  start_from: a\n  model: b\n", "exclude each other", "exactly one"),
        (
            DistillSettings,
            SFT + "  start_from: a\n  logit_kd_weight: 0.5\n",
            "needs a teacher",
            "set teacher to",
        ),
        (SftSettings, SFT + "  start_from: a\n  eval_fraction: 1.0\n", "should be less than 1", "correct it"),
        (
            EvaluateSettings,
            "sft_x:\n  prompts: p\n  reward: correct\n  rewards: [format]\n",
            "'correct' is not among rewards",
            "add it to evaluate.rewards",
        ),
        (
            EvaluateSettings,
            "sft_x:\n  prompts: p\n  rewards: {correct: 1.0, format: 1.0}\n",
            "rewards: weights have no effect here",
            "write the names alone: [correct, format]",
        ),
        (
            SampleSettings,
            "sft_x:\n  output: o\n  start_from: a\n  prompts: p\n  rewards: {a: 1.0}\n"
            "  policy: best\n  keep_per_prompt: 2\n",
            "policy best keeps one completion per prompt, not 2",
            "set keep_per_prompt to 1, or policy to distinct",
        ),
        (FilterSettings, "sft_x:\n", "output is missing", "add it to one of: sft_x"),
    ],
)
def test_settings_that_cannot_work_together_are_an_error(
    params: Path, kind: Any, text: str, problem: str, fix: str
) -> None:
    params.write_text(text)
    with pytest.raises(ChainForgeError) as caught:
        load_settings(kind, "sft_x")
    assert problem in caught.value.problem
    assert caught.value.problem.startswith("params.yaml: sft_x")
    assert fix in caught.value.fix


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the real graph and profiles, which is the current one."""
    (tmp_path / "profiles").mkdir()
    for name in ("dvc.yaml", *(f"profiles/{profile}.yaml" for profile in PROFILES)):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_profiles_and_tiny_comes_first(project: Path) -> None:
    assert {"tiny", "smoke"} <= set(PROFILES)
    assert names()[0] == "tiny"
    assert set(names()) == set(PROFILES)


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_has_valid_settings_for_every_step(project: Path, profile: str) -> None:
    use(profile)
    graph = read_graph()
    assert {step.verb for step in graph.values()} == set(VERBS) - {"gate"}, "no profile sets a gate"
    params = read_params()
    assert params["profile"] == profile
    students = {f"distill@{name}" for name in params["students"]}
    benches = {f"evaluate@{c}-{b}" for c in params["checkpoints"] for b in params["benches"]}
    assert students | benches <= set(graph)
    for name, step in graph.items():
        settings = settings_of(VERBS[step.verb], name)
        if isinstance(settings, GrpoSettings):
            assert settings.loss.max_new_tokens == settings.max_new_tokens
    lock = make_lock(load_plugins(ROOT / "plugins"), ROOT)
    assert set(lock["grpo_final"]["plugins"]) == {
        f"rewards:{name}" for name in params["grpo_final"]["rewards"]
    }


def test_a_setting_that_no_step_may_read_is_an_error(project: Path) -> None:
    use("tiny")
    with pytest.raises(
        ChainForgeError, match=r"there is no step in dvc\.yaml called 'grpo_finale'\n.*'grpo_final'"
    ):
        settings_of(GrpoSettings, "grpo_finale")


def test_what_the_graph_asks_for_and_params_lack_is_an_error(project: Path) -> None:
    (project / "params.yaml").write_text(compose("tiny").replace("\nstudents:", "\npupils:"))
    with pytest.raises(ChainForgeError, match=r"params\.yaml has no students, which dvc\.yaml asks for"):
        read_graph()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (RunSettings, "seed", 2**63),
        (RunSettings, "threads", 10**12),
        (SftSettings, "beta2", 1.0),
        (SftSettings, "muon_learning_rate", 1e300),
        (SftSettings, "learning_rate", 1e300),
        (SftSettings, "num_epochs", 1e300),
        (SftSettings, "batch_size", 10**12),
        (SampleSettings, "samples", 10**9),
        (SampleSettings, "top_p", 1e-300),
        (EvaluateSettings, "temperature", 1e-300),
        (EvaluateSettings, "samples", 10**9),
        (CollectSettings, "samples", 10**9),
        (GrpoSettings, "temperature", 1e-300),
        (GrpoSettings, "group_size", 10**9),
        (GrpoSettings, "mini_batches", 10**12),
        (GrpoSettings, "resample_rounds", 10**6),
        (GrpoSettings, "num_rl_steps", 10**12),
        (GrpoSettings, "rewards", {"correct": 1e308}),
        (GrpoSettings, "max_new_tokens", 10**12),
    ],
)
def test_a_size_that_nobody_means_is_refused(kind: Any, name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({name: value})
    told = [error for error in caught.value.errors() if error["loc"][0] == name]
    assert len(told) == 1
    assert told[0]["type"] in ("less_than_equal", "less_than", "greater_than_equal", "value_error")


def test_the_base_model_is_one_setting_for_both_steps_that_start_from_it(project: Path) -> None:
    use("tiny")
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("  hidden: 64\n", "  hidden: 32\n", 1))
    first, again = (settings_of(SftSettings, step).new_model for step in ("sft_cold_start", "sft_refine"))
    assert first == again
    assert first is not None
    assert first.settings["hidden"] == 32
    for step in ("sft_cold_start", "sft_refine"):
        (project / "params.yaml").write_text(text.replace(f"{step}:\n", f"{step}:\n  model: tiny_qwen2\n", 1))
        with pytest.raises(ChainForgeError, match="it starts from base_model"):
            settings_of(SftSettings, step)


def test_a_step_that_goes_on_from_a_checkpoint_has_no_use_for_the_base_model(project: Path) -> None:
    use("tiny")
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("  start_from: null", "  start_from: checkpoints/a", 1))
    settings = settings_of(SftSettings, "sft_refine")
    assert settings.new_model is None
    assert settings.base_model is None


@pytest.mark.parametrize(
    "wrong", [{"dual_clip": 1.1}, {"loss_type": "cispo", "clip_ratio_high": 5.0, "dual_clip": 9.0}]
)
def test_a_dual_clip_that_cannot_work_stops_before_any_training(wrong: dict[str, Any]) -> None:
    known = {"output": "a", "start_from": "b", "prompts": "c", "rewards": {"correct": 1.0}}
    with pytest.raises(ValueError, match="dual_clip"):
        GrpoSettings.model_validate(known | wrong)


@pytest.mark.parametrize("cut", [{"top_p": 0.9}, {"top_k": 50}])
def test_grpo_learns_from_the_whole_distribution_where_vllm_samples(cut: dict[str, float]) -> None:
    known = {
        "output": "a",
        "start_from": "b",
        "prompts": "c",
        "rewards": {"correct": 1.0, "short": -0.1},
    } | cut
    GrpoSettings.model_validate(known)
    with pytest.raises(ValueError, match="after top_p and top_k"):
        GrpoSettings.model_validate(known | {"engine": {"kind": "vllm"}})


def test_maxrl_with_a_negative_weight_stops_before_any_training() -> None:
    known = {"output": "a", "start_from": "b", "prompts": "c", "rewards": {"correct": 1.0, "short": -0.1}}
    with pytest.raises(ValueError, match="maxrl divides by the mean"):
        GrpoSettings.model_validate(known | {"scale_rewards": "maxrl"})
    GrpoSettings.model_validate(known | {"scale_rewards": "gdpo"})


def test_a_setting_of_the_correction_can_be_given_alone_and_a_misspelt_one_is_named(project: Path) -> None:
    use("tiny")
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("    token_cap: 2.0\n", "    token_cap: 5.0\n"))
    found = settings_of(GrpoSettings, "grpo_reasoning").sampling_correction
    assert (found.when, found.token_cap, found.sequence_band) == ("auto", 5.0, None)
    (project / "params.yaml").write_text(text.replace("    token_cap: 2.0\n", "    token_cop: 5.0\n"))
    with pytest.raises(ChainForgeError, match=r"(?s)sampling_correction.*did you mean 'token_cap'"):
        settings_of(GrpoSettings, "grpo_reasoning")
