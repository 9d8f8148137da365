"""Every mistake gets one message with the fix, exit code 1, no traceback, and no half-written output."""

import importlib
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from chainforge.project.profiles import compose
from chainforge.project.stage import run_stage

ACCEPTED = Path("data/cot/accepted.jsonl")
JSONL = {"plugin": "jsonl", "train": "inputs/train.jsonl", "eval": "inputs/eval.jsonl"}
GONE = object()


@dataclass(frozen=True)
class Project:
    """A small project of its own: the real graph, stages and plugins, the settings of profile smoke."""

    folder: Path

    def set(self, dotted: str, value: Any) -> None:
        """Change one setting of params.yaml."""
        *path, leaf = dotted.split(".")
        yaml = YAML(typ="safe", pure=True)
        params = yaml.load(self.read("params.yaml"))
        node = params
        for key in path:
            node = node[key]
        node[leaf] = value
        if value is GONE:
            del node[leaf]
        with (self.folder / "params.yaml").open("w", encoding="utf-8") as file:
            yaml.dump(params, file)

    def read(self, path: str | Path) -> str:
        return (self.folder / path).read_text(encoding="utf-8")

    def write(self, path: str, *lines: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def run(self, verb: str, step: str) -> str:
        """Run a step as `python -m stages.VERB STEP` does, here. What it says when it stops, or nothing."""
        stage = importlib.import_module(f"stages.{verb}")
        said = io.StringIO()
        with chdir(self.folder), redirect_stderr(said):
            code = run_stage(stage.main, [f"stages/{verb}.py", step])
        return said.getvalue() if code else ""

    def files(self) -> dict[str, bytes]:
        """Everything that a step may write, but not the untracked logs."""
        made = (path for top in ("data", "checkpoints", "metrics", "plots") for path in self.outputs(top))
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in made}

    def outputs(self, top: str) -> list[Path]:
        return [path for path in (self.folder / top).rglob("*") if path.is_file()]

    def refuses(self, verb: str, step: str, *words: str) -> None:
        """The step stops, its message matches every pattern and has a fix, and no file has changed."""
        before = self.files()
        message = self.run(verb, step)
        assert message, f"{step} ran through"
        for word in words:
            assert re.search(word, message), message
        assert "\n  -> " in message
        assert "traceback" not in message.lower(), "nobody foresaw this"
        assert self.files() == before


def make_project(folder: Path, root: Path) -> Project:
    shutil.copytree(root / "plugins", folder / "plugins", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "dvc.yaml", folder)
    with chdir(root):
        (folder / "params.yaml").write_text(compose("smoke"), encoding="utf-8")
    return Project(folder)


@pytest.fixture
def project(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.syspath_prepend(root)
    return make_project(tmp_path, root)


@pytest.fixture(scope="module")
def begun_once(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Project:
    project = make_project(tmp_path_factory.mktemp("begun"), root)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        for step in ("prompts@reasoning", "prompts@general", "collect_cot", "filter_cot"):
            assert project.run(re.split("[@_]", step)[0], step) == ""
    return project


@pytest.fixture
def begun(project: Project, begun_once: Project) -> Project:
    """A project whose data steps have run."""
    for made in ("data", "metrics"):
        shutil.copytree(begun_once.folder / made, project.folder / made)
    project.write("logs/outputs.txt", *begun_once.read("logs/outputs.txt").splitlines())
    return project


def shell(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_mistake_is_told_on_stderr_with_exit_code_1_and_no_traceback(project: Project, root: Path) -> None:
    for code in ("chainforge", "stages"):
        (project.folder / code).symlink_to(root / code)
    project.set("grpo.kl_coef", 0.05)
    ended = shell(project, "stages.lock", "lock")
    assert ended.returncode == 1
    assert "there is no setting in params.yaml: grpo called 'kl_coef'" in ended.stderr
    assert "-> did you mean 'kl_coeff'?" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (project.folder / "plugins.lock.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("grpo.kl_coef", 0.05, "grpo called 'kl_coef'\n  -> did you mean 'kl_coeff'"),
        ("sft_cold_start.num_epoch", 2, "sft_cold_start called 'num_epoch'\n  -> did you mean 'num_epochs'"),
        ("prompts.reasoning.trian", 5, r"prompts\.reasoning called 'trian'\n  -> did you mean 'train'"),
        ("run.sed", 17, "params.yaml: run called 'sed'\n  -> did you mean 'seed'"),
        ("runtime.devise", "cpu", "runtime called 'devise'\n  -> did you mean 'device'"),
        ("grpo_final.start_from", GONE, "start_from is missing\n  -> add it to one of: grpo, grpo_final"),
        ("grpo_reasoning", GONE, "no section 'grpo_reasoning'"),
        ("sft_cold_start", 3, "sft_cold_start must be a section, found 3"),
        ("students", GONE, "no students, which dvc.yaml asks for"),
        ("run.seed", "seventeen", r"run\.seed is 'seventeen'.*integer"),
        ("run.seed", -1, r"run\.seed is -1.*greater than or equal to 0"),
        ("run.response_format", "xml", r"run\.response_format is 'xml'.*supercot"),
        ("runtime.device", "gpu", r"runtime\.device is 'gpu'.*cuda"),
        ("grpo.kl_coeff", "0.1", r"grpo\.kl_coeff is '0\.1'.*number"),
        ("grpo.kl_coeff", -0.1, r"grpo\.kl_coeff is -0\.1.*greater than or equal to 0"),
        ("grpo.group_size", 1, r"grpo\.group_size is 1.*greater than or equal to 2"),
        ("grpo_final.num_rl_steps", 2.5, r"grpo_final\.num_rl_steps is 2\.5.*integer"),
        ("grpo.loss_type", "ppo", r"grpo\.loss_type is 'ppo'.*dapo"),
        ("grpo_reasoning.rewards", {}, r"grpo_reasoning\.rewards is \{\}"),
        ("grpo_reasoning.rewards", {"correct": "much"}, r"rewards\.correct is 'much'"),
        ("sft.learning_rate", 0, r"sft\.learning_rate is 0.*greater than 0"),
        ("sft_cold_start.model", "tiny_qwen2", "no model of its own, it starts from base_model"),
        ("sft_cold_start.start_from", "checkpoints/mine", r"checkpoints/mine, which dvc\.yaml does not list"),
        ("evaluate.reward", "style", "evaluate"),
    ],
)
def test_a_wrong_setting_stops_before_any_work(project: Project, key: str, value: Any, words: str) -> None:
    project.set(key, value)
    project.refuses("lock", "lock", words)
    assert not (project.folder / "plugins.lock.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("grpo_reasoning.rewards", {"corect": 1.0}, "no reward called 'corect'\n  -> did you mean 'correct'"),
        ("filter.reward", "formatt", "no reward called 'formatt'\n  -> did you mean 'format'"),
        ("prompts.general.source", "procedual_reasoning", "no prompt source called 'procedual_reasoning'"),
        ("collect_cot.teacher.plugin", "procedura", "no teacher called 'procedura'\n  -> did you mean"),
        ("base_model.plugin", "qwen9", "no student model called 'qwen9'.*\n.*known: pretrained"),
        (
            "base_model.hiden",
            64,
            "tiny_qwen2.*no setting called 'hiden'\n  -> did you mean 'hidden'",
        ),
        ("collect_cot.teacher.wrong_fraction", "few", "wrong_fraction is 'few'"),
        ("prompts.reasoning.source", {"plugin": "jsonl", "train": "a"}, "needs the setting 'eval'"),
    ],
)
def test_a_plugin_or_a_plugins_setting_that_is_not_there(
    project: Project, key: str, value: Any, words: str
) -> None:
    project.set(key, value)
    project.refuses("lock", "lock", words)


@pytest.mark.slow
def test_a_plugin_that_does_not_load_is_named_where_its_reward_is_missed(project: Project) -> None:
    project.write("plugins/reward_mine.py", "import nothing_of_that_name")
    project.set("filter.reward", "mine")
    project.refuses("lock", "lock", "no reward called 'mine'", r"reward_mine\.py: ModuleNotFoundError")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grpo: [1", "params.yaml, line .*not YAML"),
        ("run:\n  seed: 1\n  seed: 2\n", "params.yaml, line 3: not YAML"),
        ("", "params.yaml holds no settings"),
        (None, "there is no params.yaml in"),
    ],
)
def test_a_params_file_that_cannot_be_read(project: Project, text: str | None, words: str) -> None:
    (project.folder / "params.yaml").unlink()
    if text is not None:
        project.write("params.yaml", text)
    project.refuses("lock", "lock", words)


def test_a_step_that_dvc_yaml_does_not_have(project: Project) -> None:
    project.refuses("grpo", "grpo_reasonin", "no step in dvc.yaml called 'grpo_reasonin'\n  -> did you mean")


def questions(*texts: str, start: int = 0) -> list[str]:
    return [f'{{"id": "{start + i}", "question": "{text}", "answer": "1"}}' for i, text in enumerate(texts)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train", "words"),
    [
        (None, "no file inputs/train.jsonl"),
        ([], "inputs/train.jsonl is empty"),
        (["", "  "], "inputs/train.jsonl is empty"),
        ([*questions("a"), "who are you?"], "inputs/train.jsonl, line 2: not JSON"),
        ([*questions("a"), "", '["b"]'], "inputs/train.jsonl, line 3: expected an object, found list"),
        (['{"query": "a", "answer": "1"}'], "line 1: there is no field 'question'\n  -> .*query"),
        ([*questions("a"), *questions("b")], "line 2: id '0' is that of line 1 too"),
        (questions("a", " C ", start=10), "evaluation prompt '50' is also training prompt '11'"),
    ],
)
def test_a_prompts_file_with_a_mistake(begun: Project, train: list[str] | None, words: str) -> None:
    begun.set("prompts.reasoning.source", JSONL)
    begun.write("inputs/eval.jsonl", *questions("c", start=50))
    if train is not None:
        begun.write("inputs/train.jsonl", *train)
    begun.refuses("prompts", "prompts@reasoning", words)


@pytest.mark.slow
def test_a_prompts_file_that_is_not_utf8(begun: Project) -> None:
    begun.set("prompts.reasoning.source", JSONL)
    begun.write("inputs/eval.jsonl", *questions("c"))
    (begun.folder / "inputs/train.jsonl").write_bytes(questions("caf\xe9")[0].encode("latin-1"))
    begun.refuses("prompts", "prompts@reasoning", "inputs/train.jsonl, line 1: not JSON")


@pytest.mark.parametrize(
    ("verb", "step", "missing"),
    [("collect", "collect_cot", "data/prompts/reasoning_train.jsonl"), ("report", "report", "metrics/eval")],
)
def test_an_input_that_no_step_has_made_yet(project: Project, verb: str, step: str, missing: str) -> None:
    project.refuses(verb, step, f"there is no (file )?{missing}")


@pytest.mark.slow
def test_a_hand_over_file_that_was_edited_by_hand(begun: Project) -> None:
    lines = begun.read("data/cot/traces.jsonl").splitlines()
    begun.write("data/cot/traces.jsonl", lines[0], lines[1].replace('"reasoning"', '"thoughts"'))
    begun.refuses("filter", "filter_cot", r"traces\.jsonl, line 2: unknown field 'thoughts'")


def test_calls_that_are_not_of_these_traces(begun: Project) -> None:
    lines = begun.read("data/cot/traces.jsonl").splitlines()
    begun.write("data/cot/traces.jsonl", *lines[:-1])
    begun.refuses("filter", "filter_cot", r"calls\.json is not of data/cot/traces\.jsonl")


def test_an_evaluation_set_that_dvc_does_not_watch(begun: Project) -> None:
    begun.write("inputs/aime.jsonl", *questions("a"))
    begun.set("filter.decontaminate", ["inputs/aime.jsonl"])
    begun.refuses("filter", "filter_cot", r"inputs/aime\.jsonl, which dvc\.yaml does not list for filter_cot")


@pytest.mark.dear
@pytest.mark.parametrize("content", [{}, {"README.md": "no model"}, {"config.json": "{}"}])
def test_a_base_model_folder_that_is_none(begun: Project, content: dict[str, str]) -> None:
    (begun.folder / "inputs/model").mkdir(parents=True)
    for name, text in content.items():
        begun.write(f"inputs/model/{name}", text)
    begun.set("base_model", {"plugin": "pretrained", "model": "./inputs/model"})
    begun.refuses("sft", "sft_cold_start", "inputs/model")


def test_a_base_model_folder_that_is_not_there(begun: Project) -> None:
    begun.set("base_model", {"plugin": "pretrained", "model": "./inputs/qwen"})
    begun.refuses("sft", "sft_cold_start", "inputs/qwen is not a model folder: no config.json")


@pytest.mark.dear
@pytest.mark.parametrize("content", [None, "{}", '{"model_type": "qwen2"}', "no JSON"])
def test_a_checkpoint_to_start_from_that_is_none(begun: Project, content: str | None) -> None:
    if content is not None:
        begun.write("checkpoints/qwen_sft_ckpt/config.json", content)
    begun.refuses("grpo", "grpo_reasoning", "checkpoints/qwen_sft_ckpt")


BAD_REWARD = '''
"""A reward with a fault."""
import math, time
import chainforge as cf

def bad(*, completions, **_):
    {body}

@cf.hookimpl
def register_rewards(register):
    register("bad", bad)
'''


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return 1 / 0", "raised ZeroDivisionError: division by zero"),
        ("time.sleep(60)", r"did not return within 0\.5 s for \d+ completions\n.*reward_timeout_s"),
        ("while True: pass", r"did not return within 0\.5 s"),
        ("return [math.nan for _ in completions]", "returned nan for completion 0"),
        ("return [math.inf for _ in completions]", "returned inf for completion 0"),
        ("return [1.0]", "returned 1 "),
        ("return ['good' for _ in completions]", "returned 'good'"),
        ("return 1.0", "reward 'bad'"),
        ("return None", "reward 'bad'"),
    ],
)
def test_a_reward_with_a_fault_stops_the_step(begun: Project, body: str, words: str) -> None:
    begun.write("plugins/reward_bad.py", BAD_REWARD.format(body=body))
    begun.set("filter.reward", "bad")
    begun.set("runtime.reward_timeout_s", 0.5)
    begun.refuses("filter", "filter_cot", words, r"reward 'bad' \(plugins/reward_bad\.py\)")


@contextmanager
def disk(folder: Path, options: str) -> Iterator[bool]:
    """Mount a small disk on the folder, where this user may; say whether it worked."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """A disk of 8 kB under the folder; without the right to mount one, no file may grow beyond that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with disk(folder, "size=8k") as mounted:
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**13, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FULL = "the disk is full|File too large"


@pytest.mark.slow
def test_a_full_disk_while_a_checkpoint_is_saved(begun: Project) -> None:
    with full_disk(begun.folder / "checkpoints"):
        begun.write("checkpoints/qwen_sft_ckpt/config.json", "the good one of before")
        begun.write("logs/outputs.txt", "checkpoints/qwen_sft_ckpt")
        message = begun.run("sft", "sft_cold_start")
        assert re.search(FULL, message), message
        assert [path.name for path in begun.outputs("checkpoints")] == ["config.json"]
        assert begun.read("checkpoints/qwen_sft_ckpt/config.json") == "the good one of before\n"


@pytest.mark.slow
def test_a_full_disk_is_told_with_what_to_do(begun: Project) -> None:
    begun.set("filter_cot.output", "data/out/accepted.jsonl")
    with full_disk(begun.folder / "data/out"):
        begun.refuses("filter", "filter_cot", FULL, "free some space|check that path")
    assert not (begun.folder / "data/out/accepted.jsonl").exists()


@pytest.mark.slow
def test_a_full_disk_while_prompts_are_written(project: Project) -> None:
    project.set("prompts.reasoning.train", 900)
    with full_disk(project.folder / "data/prompts"):
        project.refuses("prompts", "prompts@reasoning", FULL)


def test_a_full_disk_leaves_the_good_output_of_before(begun: Project) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, hard))
    try:
        begun.refuses("filter", "filter_cot", FULL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert begun.read(ACCEPTED)


@pytest.mark.slow
def test_an_output_folder_that_cannot_be_written(begun: Project) -> None:
    folder = begun.folder / "checkpoints"
    with disk(folder, "size=1m,ro") as mounted:
        if not mounted:
            folder.chmod(0o500)
        if os.access(folder, os.W_OK):  # root without the right to mount: nothing can refuse it
            folder.rmdir()
            folder.write_text("a file is in the way")
        begun.refuses("sft", "sft_cold_start", "cannot write|Not a directory|File exists")
        if not mounted and folder.is_dir():
            folder.chmod(0o700)


@pytest.mark.slow
def test_a_file_where_the_output_folder_should_be(begun: Project) -> None:
    begun.set("filter_cot.output", "data/mine/accepted.jsonl")
    begun.write("data/mine", "a file is in the way")
    begun.refuses("filter", "filter_cot", "data/mine")


ENDINGS = [
    ("os._exit(0)", r"os\._exit"),
    ("sys.exit(0)", r"(sys\.exit|SystemExit)"),
    ("os.execv('/bin/true', ['true'])", r"os\.execv was called"),
    ("raise Unspeakable", r"Unspeakable"),
    ("raise GeneratorExit", r"GeneratorExit"),
    ("raise KeyboardInterrupt", r"KeyboardInterrupt"),
]
ENDING_REWARD = '''
"""A reward that does not return."""
import os, sys
import chainforge as cf

class Unspeakable(BaseException):
    def __str__(self):
        raise RuntimeError("no text")

def bad(*, completions, **_):
    {body}

@cf.hookimpl
def register_rewards(register):
    register("bad", bad)
'''


@pytest.mark.slow
@pytest.mark.parametrize(("body", "words"), ENDINGS)
def test_a_reward_that_ends_its_process_or_raises_anything_ends_the_step_badly(
    begun: Project, body: str, words: str
) -> None:
    begun.write("plugins/reward_bad.py", ENDING_REWARD.format(body=body))
    begun.set("filter.reward", "bad")
    before = begun.files()
    message = begun.run("filter", "filter_cot")
    assert re.search(words, message), message
    assert "\n  -> " in message
    assert "Traceback" not in message
    assert begun.files() == before


@pytest.mark.slow
def test_a_reward_that_deletes_its_steps_input_is_found_out(begun: Project) -> None:
    begun.write(
        "plugins/reward_bad.py",
        ENDING_REWARD.format(body="os.unlink('data/cot/traces.jsonl'); return [1.0 for _ in completions]"),
    )
    begun.set("filter.reward", "bad")
    message = begun.run("filter", "filter_cot")
    assert re.search(r"(vanished: data/cot/traces\.jsonl|there is no file|No such file)", message), message
    assert "\n  -> " in message


@pytest.mark.dear
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("tokens", "many", "calls.json: tokens is 'many'"),
        ("tokens", {"hit": 1}, "calls.json: tokens has no 'miss'"),
        ("models", ["a"], r"calls.json: models is \['a'\]"),
        ("models", {"a": "two"}, "calls.json: models is"),
        ("requests", "7", "calls.json: requests is '7'"),
        ("parameters", None, "calls.json: parameters is None"),
    ],
)
def test_calls_whose_values_were_edited_by_hand(begun: Project, key: str, value: Any, words: str) -> None:
    calls = json.loads(begun.read("data/cot/calls.json"))
    begun.write("data/cot/calls.json", json.dumps(calls | {key: value}))
    begun.refuses("filter", "filter_cot", words)


@pytest.mark.dear
@pytest.mark.parametrize("path", ["data/cot/traces.jsonl", "data/cot/calls.json", "plugins.lock.json"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(begun: Project, path: str) -> None:
    (begun.folder / path).unlink(missing_ok=True)
    os.mkfifo(begun.folder / path)
    begun.refuses("filter", "filter_cot", path)


@pytest.mark.slow
def test_a_lock_that_is_made_anew_while_a_step_runs_is_found_out(begun: Project) -> None:
    assert begun.run("lock", "lock") == ""
    lock = json.loads(begun.read("plugins.lock.json"))
    lock["filter_cot"]["code"] = "other"
    begun.write("other.json", json.dumps(lock))
    begun.write(
        "plugins/reward_bad.py",
        ENDING_REWARD.format(
            body="os.replace('other.json', 'plugins.lock.json'); return [1.0 for _ in completions]"
        ),
    )
    message = begun.run("filter", "filter_cot")
    assert message == "", "the reward is not selected"
    begun.set("filter.reward", "bad")
    assert begun.run("lock", "lock") == ""
    begun.write("other.json", json.dumps(lock))
    assert re.search("while it ran, its inputs changed: .*code", begun.run("filter", "filter_cot"))
