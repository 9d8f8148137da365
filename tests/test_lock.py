"""plugins.lock.json: an edit changes the digest of exactly the steps that use what was edited."""

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tree import ROOT, copy_project

from chainforge.config.loading import read_params
from chainforge.errors import ChainForgeError
from chainforge.plugins import load_plugins
from chainforge.project import code_digests
from chainforge.project.code_digests import closure, digest_code
from chainforge.project.file_digests import digest_path
from chainforge.project.lock import make_lock

Lock = dict[str, Any]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's code, graph and settings, which is the current folder."""
    copy_project(tmp_path, profile="smoke")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lock() -> Lock:
    return make_lock(load_plugins())


def changed(before: Lock, after: Lock, at: str = "") -> set[str]:
    """The steps whose part of the lock differs."""
    found = set()
    for key in before.keys() | after.keys():
        old, new = before.get(key, {}), after.get(key, {})
        if "code" in old or "code" in new:
            found |= {f"{at}{key}"} if old != new else set()
        else:
            found |= changed(old, new, f"{at}{key}.")
    return found


def edit(path: str, change: Callable[[str], str]) -> None:
    file = Path(path)
    text = file.read_text()
    assert change(text) != text
    file.write_text(change(text))


def replacing(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


@pytest.mark.slow
def test_the_lock_is_the_same_each_time_and_has_every_step(project: Path) -> None:
    first = lock()
    assert first == lock() == json.loads(json.dumps(first))
    assert changed({}, first) >= {
        "prompts.reasoning", "prompts.general", "bench.reasoning", "bench.general", "collect_cot",
        "filter_cot", "sft_cold_start", "grpo_reasoning", "rejection_sampling", "sft_refine", "grpo_final",
        "distill_data", "distill.qwen_distilled_student", "evaluate.reasoning", "evaluate.general", "report",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("chainforge/loops/grpo/train.py", lambda text: "# a comment\n" + text),
        ("chainforge/loops/grpo/train.py", lambda text: text.replace("\n\n\n", "\n\n\n\n\n# a comment\n\n")),
        ("chainforge/loops/grpo/train.py", replacing('"""One turn of the body', '"""A turn of the body')),
        ("chainforge/loops/grpo/train.py", lambda text: "'''Another one.'''\n" + text),
        ("chainforge/models/chat.py", replacing('"""Token ids of a response', '"""Tokens of a response')),
        ("chainforge/config/grpo.py", replacing('"""Completions per prompt, G', '"""Completions, G')),
        ("plugins/reward_format.py", lambda text: text + "\n\n# the end\n"),
        ("plugins/reward_format.py", replacing('"""1.0 or 0.0', '"""One or nothing')),
        ("stages/grpo.py", replacing('"""GRPO', '"""The loop GRPO')),
    ],
)
def test_comments_docstrings_and_layout_change_nothing(
    project: Path, path: str, change: Callable[[str], str]
) -> None:
    before = lock()
    edit(path, change)
    assert changed(before, lock()) == set()


GRPO = {"grpo_reasoning", "grpo_final"}
DISTILL = {"distill.qwen_distilled_student", "distill.qwen_student_cold_start"}
SFT = {"sft_cold_start", "sft_refine"} | DISTILL
SAMPLE = {"rejection_sampling", "distill_data"}
EVALUATE = {"evaluate.reasoning", "evaluate.general"}
FILTER = {"filter_cot", "filter_general"}


DRAWN = GRPO | SAMPLE | EVALUATE | DISTILL  # a student may learn from what it samples


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "change", "steps"),
    [
        ("chainforge/loops/grpo/train.py", replacing("number % settings", "(number + 1) % settings"), GRPO),
        ("chainforge/loops/grpo/prompt_mix.py", replacing('"order"', '"rank"'), GRPO),
        ("chainforge/algorithms/kl.py", replacing("/ 2", "/ 3"), SFT | GRPO),
        ("chainforge/loops/sft_batches.py", replacing("POOL = 32", "POOL = 33"), SFT),
        ("chainforge/algorithms/schedule.py", replacing("math.cos(", "math.sin("), SFT | GRPO),
        ("chainforge/rollout/draw.py", replacing("right=True", "right=False"), DRAWN),
        (
            "chainforge/models/chat.py",
            replacing("return [*_encode(", "return [0, *_encode("),
            GRPO | SFT | SAMPLE | EVALUATE,
        ),
        ("chainforge/config/filter.py", replacing("= 32768", "= 32767"), FILTER),
        ("chainforge/loops/evaluate.py", replacing("1, 0.0)", "2, 0.0)"), EVALUATE),
        ("chainforge/report/page.html.j2", lambda text: text + "<!-- signed -->", {"report"}),
        ("plugins/reward_format.py", replacing("float(", "1.0 - float("), GRPO | SAMPLE | EVALUATE),
        ("plugins/teacher_procedural.py", lambda text: text + "\nSPEED = 3\n", {"collect_cot"}),
        ("plugins/teacher_recorded.py", lambda text: text + "\nSPEED = 3\n", set()),  # nobody selects it
    ],
)
def test_an_edit_changes_exactly_the_steps_that_use_the_code(
    project: Path, path: str, change: Callable[[str], str], steps: set[str]
) -> None:
    before = lock()
    edit(path, change)
    assert changed(before, lock()) == steps


@pytest.mark.slow
def test_an_edit_of_a_model_changes_every_step_that_starts_from_it(project: Path) -> None:
    before = lock()
    fresh = {name for name in ("sft_cold_start", "sft_refine") if not read_params()[name].get("start_from")}
    edit("plugins/model_tiny_qwen2.py", lambda text: text + "\nSPEED = 3\n")
    assert changed(before, lock()) == fresh | DISTILL
    assert "sft_cold_start" in fresh


@pytest.mark.slow
def test_an_edit_of_what_all_share_changes_every_step(project: Path) -> None:
    before = lock()
    edit("chainforge/records.py", lambda text: text + "\nSPEED = 3\n")
    assert changed(before, lock()) == changed({}, before)


def test_the_closure_follows_imports_of_imports_inside_functions_and_of_names(tmp_path: Path) -> None:
    files = {
        "stages/verb.py": "import torch\nfrom chainforge.loops import verb\nimport chainforge.errors as e\n",
        "chainforge/__init__.py": "",
        "chainforge/errors.py": "",
        "chainforge/unused.py": "",
        "chainforge/loops/__init__.py": "from chainforge.far import away\n",
        "chainforge/loops/verb.py": "def run():\n    from chainforge.deep.down import thing\n",
        "chainforge/far.py": "away = 1\n",
        "chainforge/deep/__init__.py": "",
        "chainforge/deep/down.py": "import chainforge.loops.verb\nthing = 1\n",  # a circle
    }
    for name, code in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    found = closure(tmp_path, tmp_path / "stages/verb.py")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == sorted(
        name for name in files if "unused" not in name
    )


def test_moving_code_to_another_module_is_seen(tmp_path: Path) -> None:
    for name, code in {"a": "x = 1\n", "b": "y = 2\n"}.items():
        (tmp_path / f"{name}.py").write_text(code)
    before = digest_code([tmp_path / "a.py", tmp_path / "b.py"])
    (tmp_path / "a.py").write_text("x = 1\ny = 2\n")
    (tmp_path / "b.py").write_text("")
    assert digest_code([tmp_path / "a.py", tmp_path / "b.py"]) != before


@pytest.mark.slow
def test_a_plugin_s_own_input_file_is_watched_and_what_the_graph_makes_is_not(project: Path) -> None:
    rows = [{"id": f"p{n}", "question": f"{n}?", "answer": str(n), "split": "train"} for n in range(3)]
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (project / "plugins/mine.py").write_text(
        "from pathlib import Path\nimport chainforge as cf\n"
        "def mine(*, split, n, seed, file: Path): return []\n"
        "@cf.hookimpl\ndef register_prompt_sources(register): register('mine', mine)\n"
    )
    source = re.compile(r"plugin: procedural_reasoning\n +families: .*")
    edit("params.yaml", lambda text: source.sub("plugin: mine\n      file: mine.jsonl", text))
    before = lock()
    assert before["prompts"]["reasoning"]["files"] == {"mine.jsonl": digest_path(Path("mine.jsonl"))}
    edit("mine.jsonl", lambda text: text + "{}\n")
    assert changed(before, lock()) == {"prompts.reasoning"}
    Path("mine.jsonl").unlink()
    assert lock()["prompts"]["reasoning"]["files"] == {"mine.jsonl": "missing"}
    assert "files" not in before["distill"]["qwen_distilled_student"]  # checkpoints/… is DVC's


@pytest.mark.slow
@pytest.mark.parametrize("minor", [11, 12, 13])
def test_code_has_one_digest_whatever_python_reads_it(minor: int) -> None:
    code = (
        "from pathlib import Path; from chainforge.project.code_digests import closure, digest_code;"
        "print(digest_code(closure(Path(), Path('stages/grpo.py'))))"
    )
    for other in (f"python3.{minor}", *Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")):
        bare = "import sys, types; sys.modules['chainforge'] = m = types.ModuleType('chainforge');"
        bare += "m.__path__ = ['chainforge'];"  # its packages are not installed there
        with suppress(FileNotFoundError):
            ended = subprocess.run((other, "-c", bare + code), cwd=ROOT, capture_output=True, text=True)
            if ended.returncode == 0:
                assert ended.stdout.strip() == digest_code(closure(ROOT, ROOT / "stages/grpo.py"))
                return
    pytest.skip(f"there is no Python 3.{minor} here")


@pytest.mark.slow
def test_what_is_remembered_of_code_changes_no_digest(project: Path) -> None:
    (project / ".dvc/tmp").mkdir(parents=True, exist_ok=True)
    read = _fresh_digest(project)
    remembered = sorted((project / ".dvc/tmp/chainforge-code").iterdir())
    assert len(remembered) > 50
    assert _fresh_digest(project) == read
    remembered[0].write_text("{")
    remembered[1].write_text("[]")
    remembered[2].unlink()
    assert _fresh_digest(project) == read
    stage = project / "stages/grpo.py"
    stage.write_text(f"{stage.read_text()}\nlast = 1\n")
    assert _fresh_digest(project) != read


def _fresh_digest(project: Path) -> str:
    code_digests._analyse.cache_clear()
    return digest_code(closure(project, project / "stages/grpo.py"))


@pytest.mark.slow
def test_making_the_lock_imports_neither_torch_nor_transformers(project: Path) -> None:
    code = (
        "import json, sys\n"
        "from stages import lock\n"
        "lock.main('lock')\n"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=project, check=True
    )
    assert done.stdout.strip() == "[]"
    assert json.loads(Path("plugins.lock.json").read_text()) == lock()


@pytest.mark.slow
def test_a_library_that_is_watched_belongs_to_every_step(project: Path) -> None:
    before = lock()
    edit("params.yaml", replacing("watch_versions: []", "watch_versions: [torch]"))
    after = lock()
    assert changed(before, after) == changed({}, before)
    assert set(after["sft_cold_start"]["env"]) == {"torch"}
    edit("params.yaml", replacing("[torch]", "[tor]"))
    with pytest.raises(ChainForgeError, match="names 'tor', which is not installed"):
        lock()


@pytest.mark.slow
def test_the_step_says_what_has_changed_since_it_last_ran(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> str:
        runpy.run_path(str(ROOT / "stages/lock.py"))["main"]("lock")
        return capsys.readouterr().err

    assert said() == "", "there was no lock"
    assert said() == ""
    edit("plugins/teacher_procedural.py", lambda text: text + "\nSPEED = 3\n")
    assert (
        said() == "lock: teachers:procedural: plugins/teacher_procedural.py: its code changed (collect_cot)\n"
    )
    assert said() == ""
