"""Profiles: whole sets of settings, laid over one another with their comments kept."""

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML
from tree import PROFILES, ROOT

from chainforge.cli import cli
from chainforge.config.loading import read_params
from chainforge.errors import ChainForgeError
from chainforge.project.profiles import as_arguments, changed_by_hand, compose, names, use

REPEATED = ("qwen2.5-0.5b-gsm8k-lora", "qwen2.5-1.5b-gsm8k-lora")  # as published: the answer is after ####

ASKED_FOR_A_NUMBER = ("smollm2",)  # a sum, whose answer is all that the summary has


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profiles").mkdir()
    for name in PROFILES:
        shutil.copy(ROOT / f"profiles/{name}.yaml", tmp_path / "profiles")
    (tmp_path / "dvc.yaml").symlink_to(ROOT / "dvc.yaml")
    monkeypatch.chdir(tmp_path)


def plain(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return loaded


def flat(node: Any, at: str = "") -> dict[str, Any]:
    """Every leaf by its dotted name."""
    if not isinstance(node, dict) or not node:
        return {at: node}
    return {k: v for key, value in node.items() for k, v in flat(value, f"{at}.{key}").items()}


@pytest.mark.dear
@pytest.mark.parametrize("name", PROFILES)
def test_a_composed_profile_says_everything_that_its_overlay_says(name: str) -> None:
    composed = flat(plain(compose(name)))
    overlay = flat(plain(Path(f"profiles/{name}.yaml").read_text()))
    assert {key: composed.get(key) for key in overlay} == overlay
    assert composed[".profile"] == name
    assert compose(name) == compose(name)


@pytest.mark.dear
@pytest.mark.parametrize("name", PROFILES)
def test_a_composed_profile_keeps_the_comments_and_has_a_head_of_its_own(name: str) -> None:
    text = compose(name)
    assert text.splitlines()[0] == Path(f"profiles/{name}.yaml").read_text().splitlines()[0]
    base = Path("profiles/tiny.yaml").read_text()
    assert "\n# Changes no result, so `dvc repro` does not watch it.\n" in base
    assert "# Changes no result, so `dvc repro` does not watch it.\n" in text
    if name != "tiny":
        assert base.splitlines()[0] not in text  # the base's head describes the base


@pytest.mark.dear
@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_in_use_is_the_active_settings_and_unchanged(name: str) -> None:
    assert changed_by_hand() == []  # there is nothing yet
    use(name)
    assert read_params() == plain(compose(name))
    assert changed_by_hand() == []
    assert as_arguments(name) == []


@pytest.mark.dear
@pytest.mark.parametrize("name", sorted(set(PROFILES) - {"tiny", "smoke", *ASKED_FOR_A_NUMBER, *REPEATED}))
def test_a_profile_with_a_real_model_tells_it_where_the_answer_goes(name: str) -> None:
    settings: Any = plain(compose(name))
    assert r"\boxed{}" in settings["prompts"]["reasoning"]["source"]["instruction"]
    assert settings["collect_cot"]["teacher"]["box"] is True  # so the recorded answers go there too


@pytest.mark.parametrize("name", PROFILES)
def test_the_report_compares_every_checkpoint_with_what_it_came_from(name: str) -> None:
    settings = plain(compose(name))
    first = () if settings["untouched"] else ("qwen_sft_ckpt",)
    without = {*first, "qwen_student_cold_start"}  # the control itself
    assert {*settings["report"]["parents"], *without} == {*settings["checkpoints"], *without}


def test_what_was_changed_by_hand_is_listed() -> None:
    use("smoke")
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("seed: 17", "seed: 18").replace("  threads: 1\n", ""))
    assert changed_by_hand() == ["run.seed", "run.threads"]
    Path("params.yaml").write_text(text + "\nmine: 1\n")
    assert changed_by_hand() == ["mine"]
    Path("params.yaml").write_text(text.replace("profile: smoke", "profile: my-own"))
    assert changed_by_hand() == ["profile"]
    Path("params.yaml").write_text(text.replace("seed: 17", "seed: 17 # the first prime I thought of"))
    assert changed_by_hand() == []


@pytest.mark.slow
@pytest.mark.parametrize("target", PROFILES)
@pytest.mark.parametrize("start", ["tiny", pytest.param("smoke", marks=pytest.mark.long)])
def test_the_arguments_of_a_profile_lead_dvc_to_that_profile(start: str, target: str) -> None:
    use(start)
    words = shlex.split(" ".join(as_arguments(target)))
    assert words[0::2] == ["-S"] * (len(words) // 2)
    if words:
        apply_overrides(Path("params.yaml").absolute(), words[1::2])
    assert read_params() == plain(compose(target))


def test_any_text_survives_as_an_argument() -> None:
    hostile = [
        "it's",
        "a;b: c, d",
        "'####\\s*(.+)'",
        "back\\",
        "back\\'s",
        '"',
        "${x}".strip("$"),
        "",
        "null",
        "1e-6",
        "#",
        "é",
    ]
    use("tiny")
    overlay = {"report": {"note": hostile[0]}, "mine": {"texts": hostile, "deep": {"n": None, "t": True}}}
    with Path("profiles/hostile.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(overlay | {"profile": "hostile"}, file)
    apply_overrides(Path("params.yaml").absolute(), shlex.split(" ".join(as_arguments("hostile")))[1::2])
    assert read_params() == plain(compose("hostile"))


@pytest.mark.parametrize(("head", "wanted"), [("", "# Profile mine\n"), ("# In C# or # two\n# 3\n", None)])
def test_a_profile_s_head_is_kept_as_written_and_need_not_be_there(head: str, wanted: str | None) -> None:
    Path("profiles/mine.yaml").write_text(f"{head}profile: mine\n")
    composed = compose("mine")
    lines = [line.rstrip() for line in composed.splitlines()]
    assert lines[: lines.index("profile: mine")] == (head or wanted or "").splitlines()
    assert plain(composed) == plain(compose("tiny")) | {"profile": "mine"}


@pytest.mark.parametrize("graph", [None, "stages: 5\n", "- 1\n"])
def test_without_a_graph_no_overlay_can_be_composed(graph: str | None) -> None:
    Path("dvc.yaml").unlink()
    if graph:
        Path("dvc.yaml").write_text(graph)
    with pytest.raises(ChainForgeError, match=r"dvc\.yaml"):
        compose("smoke")
    assert compose("tiny") == Path("profiles/tiny.yaml").read_text()


def test_an_unknown_profile_is_an_error_with_the_nearest_one() -> None:
    for act in (compose, use, as_arguments):
        if act is as_arguments:
            use("tiny")
        with pytest.raises(
            ChainForgeError, match="there is no profile called 'smok'\n  -> did you mean 'smoke'"
        ):
            act("smok")
    Path("params.yaml").write_text("profile: tiny\nmine: 1\n")  # edited, which matters less
    assert "no profile called 'smok'" in CliRunner().invoke(cli, ["profile", "use", "smok"]).stderr


def test_a_folder_without_profiles_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / "profiles")
    with pytest.raises(ChainForgeError, match=r"there is no profiles/tiny\.yaml\n.*in the project's folder"):
        names()


BROKEN = {
    "a YAML error": b"profile: mine\nrun: [\n",
    "nothing": b"",
    "a comment alone": b"# Mine\n",
    "a list": b"- 1\n",
    "a number as a section": b"profile: mine\nrun: 5\n",
    "no section": b"profile: mine\ngrpo: null\n",
    "a setting of another type": b"profile: mine\nrun:\n  seed: x\n",
    "an unknown setting": b"profile: mine\ngrpo:\n  kl_coef: 0.1\n",
    "not UTF-8": b"\xff\xfeprofile: mine\n",
    "another name": b"profile: yours\n",
    "no name": b"run:\n  seed: 5\n",
    "an impossible date": b"profile: mine\nx: 2024-13-45\n",
    "a number of thousands of digits": b"profile: mine\nx: " + b"9" * 6000 + b"\n",
    "nested deeply": b"profile: mine\nx: " + b"[" * 5000 + b"]" * 5000 + b"\n",
    "keys that are none": b"profile: mine\n? [1, 2]\n: 3\n5: 6\n",
}


@pytest.mark.dear
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_profile_that_is_none_changes_nothing_and_hides_no_other(content: bytes) -> None:
    use("tiny")
    before = Path("params.yaml").read_bytes()
    Path("profiles/mine.yaml").write_bytes(content)
    for words in (("use", "mine"), ("use", "mine", "--force")):
        result = CliRunner().invoke(cli, ["profile", *words])
        assert result.exit_code == 1, result.output
        assert isinstance(result.exception, SystemExit)
        assert "\n  -> " in result.stderr
        assert "profiles/mine.yaml" in result.stderr
    assert Path("params.yaml").read_bytes() == before
    listed = CliRunner().invoke(cli, ["profile", "list"]).stdout
    assert "smoke" in listed
    assert "mine" in listed


def test_what_is_no_file_is_no_profile() -> None:
    os.mkfifo("profiles/pipe.yaml")
    Path("profiles/folder.yaml").mkdir()
    Path("profiles/gone.yaml").symlink_to("nowhere")
    assert not {"pipe", "folder", "gone"} & set(names())
