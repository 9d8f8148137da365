"""`chainforge upgrade`: another version's files arrive, and no edit of the user's is lost."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tree import ROOT

from chainforge.bundle import COPIED, USED
from chainforge.cli import cli
from chainforge.config import loading
from chainforge.own_project import create, made, texts, upgrade

pytestmark = pytest.mark.slow

AUTHOR = ("-c", "user.name=T", "-c", "user.email=t@example.org")
SCRIPT, GRAPH, TINY = "stages/gate.py", "dvc.yaml", "profiles/tiny.yaml"
Edit = Callable[[str], str]


class Versions:
    """A project made by one version of ChainForge, and the files of the version that is installed now."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bundle = folder / "bundle"
        for path in (path for pattern in (*COPIED, *USED) for path in ROOT.glob(pattern)):
            copy = self.bundle / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
        self.patch = monkeypatch
        monkeypatch.setattr(texts, "bundle", lambda: self.bundle)
        self.version("1.0")
        create.create_project(folder / "mine", "tiny", git=False)
        (folder / "mine/.dvc/config.local").unlink()
        monkeypatch.chdir(folder / "mine")
        subprocess.run(["git", "init", "--quiet"], check=True)
        self.commit()

    def version(self, number: str) -> None:
        for module in (texts, made, create):
            self.patch.setattr(module, "__version__", number)

    def release(self, **edits: Edit) -> None:
        """Version 2.0, whose files are these edits of the first."""
        self.version("2.0")
        for name, edit in edits.items():
            change(self.bundle / name, edit)

    def commit(self) -> None:
        subprocess.run(["git", "add", "--all"], check=True)
        subprocess.run(["git", *AUTHOR, "commit", "--quiet", "--allow-empty", "-m", "x"], check=True)

    def upgrade(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(cli, ["upgrade", *arguments])
        assert result.exit_code == code, result.output
        assert code == 0 or "\n  -> " in result.stderr
        return result.output


def change(path: Path, edit: Edit) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(edit(before), encoding="utf-8")


def files() -> dict[str, bytes]:
    found = (path for path in Path().rglob("*") if path.is_file() and path.parts[0] != ".git")
    return {path.as_posix(): path.read_bytes() for path in found}


def top(text: str) -> str:
    return f"# theirs\n{text}"


def bottom(text: str) -> str:
    return f"{text}# mine\n"


def other_top(text: str) -> str:
    return f"# mine\n{text}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Versions:
    return Versions(tmp_path, monkeypatch)


def test_the_same_version_changes_nothing(project: Versions) -> None:
    change(Path(SCRIPT), bottom)
    before = files()
    assert "nothing to change" in project.upgrade()
    assert "nothing to change" in project.upgrade("--apply")
    assert files() == before


def test_an_untouched_file_is_replaced_an_edit_survives_and_a_second_time_changes_nothing(
    project: Versions,
) -> None:
    change(Path(GRAPH), bottom)
    change(Path("stages/sft.py"), bottom)
    project.commit()
    before = files()
    project.release(**{SCRIPT: top, GRAPH: top, "stages/new.py": top})
    shown = project.upgrade()
    assert files() == before  # shown, not written
    for line in (f"{SCRIPT}: replaced", f"{GRAPH}: merged", "stages/new.py: new", "+# theirs"):
        assert line in shown
    project.upgrade("--apply")
    now = files()
    assert now[SCRIPT] == b"# theirs\n" + before[SCRIPT]
    assert now[GRAPH] == b"# theirs\n" + before[GRAPH]  # which has the edit
    assert now[GRAPH].endswith(b"# mine\n")
    assert now["stages/new.py"] == b"# theirs\n"
    touched = {SCRIPT, GRAPH, "stages/new.py", "constraints.txt", ".chainforge/made.json"}
    assert {name for name in now if now[name] != before.get(name)} == touched
    project.commit()
    assert "nothing to change" in project.upgrade("--apply")
    assert files() == now


def test_a_conflict_is_told_and_nothing_is_written(project: Versions) -> None:
    change(Path(SCRIPT), other_top)
    project.commit()
    before = files()
    project.release(**{SCRIPT: top, GRAPH: top})
    assert f"{SCRIPT}: conflict" in project.upgrade()
    assert f"meet in {SCRIPT}; nothing was written" in project.upgrade("--apply", code=1)
    assert files() == before
    project.upgrade("--apply", "--keep", SCRIPT)
    assert files()[SCRIPT] == before[SCRIPT]
    assert files()[GRAPH] == b"# theirs\n" + before[GRAPH]
    project.commit()
    assert "nothing to change" in project.upgrade()  # decided once


@pytest.mark.parametrize("staged", [False, True])
def test_what_is_not_committed_is_not_written_over(project: Versions, staged: bool) -> None:
    project.release(**{SCRIPT: top})
    change(Path(SCRIPT), bottom)
    if staged:
        subprocess.run(["git", "add", "--all"], check=True)
    change(Path("stages/sft.py"), bottom)  # which the new version does not change
    before = files()
    assert f"not committed: {SCRIPT}\n" in project.upgrade("--apply", code=1)
    assert files() == before
    subprocess.run(["git", *AUTHOR, "commit", "--quiet", "-m", "x", SCRIPT], check=True)
    project.upgrade("--apply")
    assert files()[SCRIPT] == b"# theirs\n" + before[SCRIPT]


def test_a_file_that_the_user_has_deleted_stays_so_and_one_that_is_gone_is_left(project: Versions) -> None:
    Path(SCRIPT).unlink()
    project.commit()
    project.release(**{SCRIPT: top})
    (project.bundle / "stages/sft.py").unlink()
    shown = project.upgrade("--apply")
    assert f"{SCRIPT}: deleted" in shown
    assert "stages/sft.py: gone" in shown
    assert not Path(SCRIPT).exists()
    assert Path("stages/sft.py").exists()
    project.commit()
    assert "nothing to change" in project.upgrade()


def more_settings(text: str) -> str:
    return text.replace("  group_size: 8\n", "  group_size: 8\n  brand_new: 0.5\n").replace(
        "  seed: 17\n", "  seed: 18\n"
    )


@pytest.mark.parametrize("layout", ["as it was", "of DVC"])
def test_new_settings_are_shown_with_their_defaults_and_own_values_stay(
    project: Versions, layout: str
) -> None:
    assert "  group_size: 8\n" in (ROOT / TINY).read_text(encoding="utf-8")
    assert CliRunner().invoke(cli, ["profile", "use", "smoke"]).exit_code == 0
    change(Path("params.yaml"), lambda text: text.replace("  seed: 17\n", "  seed: 99\n"))
    if layout == "of DVC":
        change(
            Path("params.yaml"), lambda text: "\n".join(line.partition(" #")[0] for line in text.split("\n"))
        )
        change(Path("params.yaml"), lambda text: text.replace("\n\n", "\n"))
    project.commit()
    project.release(**{TINY: more_settings})
    shown = project.upgrade("--apply")
    assert "params.yaml, new setting grpo.brand_new: 0.5\n" in shown
    assert "params.yaml, run.seed: 17 -> 18; yours, 99, stays\n" in shown
    now = loading.read_params()
    assert (now["profile"], now["run"]["seed"], now["grpo"]["brand_new"]) == ("smoke", 99, 0.5)
    assert now["grpo"]["group_size"] == 4  # of smoke


def test_the_settings_are_those_of_the_profile_that_is_active_now_even_one_of_ones_own(
    project: Versions,
) -> None:
    change(Path("profiles/own.yaml"), lambda _: "# Mine\nprofile: own\ngrpo:\n  kl_coeff: 0.25\n")
    assert CliRunner().invoke(cli, ["profile", "use", "own"]).exit_code == 0
    project.commit()
    project.release(**{TINY: more_settings})
    project.upgrade("--apply")
    assert loading.read_params()["grpo"]["brand_new"] == 0.5
    assert loading.read_params()["grpo"]["kl_coeff"] == 0.25
    edited = json.loads(CliRunner().invoke(cli, ["profile", "diff", "--json"]).output)
    assert edited == {"profile": "own", "changed": {}}


def test_a_project_that_init_did_not_make_is_told_so(project: Versions) -> None:
    Path(".chainforge/made.json").write_text("{")
    assert "cannot be read" in project.upgrade(code=1)
    Path(".chainforge/made.json").unlink()
    assert "chainforge init did not make this project" in project.upgrade(code=1)


def test_for_programs_it_is_one_object(project: Versions) -> None:
    project.release(**{SCRIPT: top})
    said = json.loads(project.upgrade("--json"))
    assert (said["from"], said["to"], said["written"]) == ("1.0", "2.0", 0)
    assert {change["path"]: change["kind"] for change in said["changes"]} == {
        SCRIPT: "replaced",
        "constraints.txt": "replaced",
    }


LINES = st.lists(st.sampled_from("abc"), max_size=5).map(lambda lines: "".join(f"{x}\n" for x in lines))
TEXT = st.none() | LINES


@given(TEXT, TEXT, TEXT)
def test_no_edit_is_lost_whatever_the_three_texts(
    base: str | None, mine: str | None, theirs: str | None
) -> None:
    found = upgrade.change_of("x", base, mine, theirs)
    if found is None or found.kind not in upgrade.WRITTEN:
        return
    assert theirs is not None
    if mine in (None, base):
        assert found.after == theirs
    else:
        assert found.kind == "merged"
        added = set((mine or "").split()) - set((base or "").split())
        assert added <= set(found.after.split())


def test_an_environment_without_git_is_told(project: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    project.release(**{SCRIPT: top})
    monkeypatch.setitem(os.environ, "PATH", "")
    assert "git cannot be started" in project.upgrade("--apply", code=1)
