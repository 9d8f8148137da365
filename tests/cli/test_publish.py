"""What goes to the hub, and what keeps it from going there. The hub is a stand-in, on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from a_hub import TOKEN, Hub, a_hub
from huggingface_hub import constants

from chainforge.cli.export import check_repo
from chainforge.cli.publish import refuse_filled, send
from chainforge.errors import ChainForgeError

# huggingface_hub 2.4 itself uploads in a way that its HTTP library will drop
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with a_hub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An export as it is sent: the weights are a link."""
    made = tmp_path / "export"
    made.mkdir()
    (tmp_path / "weights").write_bytes(b"\x00weights" * 1000)
    (made / "model.safetensors").symlink_to(tmp_path / "weights")
    (made / "README.md").write_text("---\nlicense: unknown\n---\n\n# mine\n")
    return made


@pytest.mark.slow
def test_a_new_repository_is_private_and_gets_everything(hub: Hub, folder: Path) -> None:
    send("me/mine", folder, "mine", public=False, yes=True)
    private, files = hub.repos["me/mine"]
    assert private
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sum("/commit/" in line for line in hub.asked) == 1, "all or nothing"


@pytest.mark.parametrize("public", [True, False])
def test_a_repository_that_is_public_gets_nothing_by_mistake(public: bool, hub: Hub, folder: Path) -> None:
    hub.repos["me/mine"] = (False, {})
    if public:
        send("me/mine", folder, "mine", public=True, yes=True)
    else:
        with pytest.raises(ChainForgeError, match="there already, and public"):
            send("me/mine", folder, "mine", public=False, yes=True)
    assert bool(hub.repos["me/mine"][1]) == public


def test_nothing_is_created_or_sent_before_somebody_has_agreed(hub: Hub, folder: Path) -> None:
    with pytest.raises(ChainForgeError, match="no terminal to ask on"):
        send("me/mine", folder, "mine", public=False, yes=False)
    assert not hub.repos
    assert {line.partition(" ")[0] for line in hub.asked} == {"GET"}


def test_without_a_token_or_with_a_wrong_one_the_way_to_log_in_is_told(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token, words in ((TOKEN[:-1] + "b", r"\(401\)"), ("", "there is no token")):
        monkeypatch.setenv("HF_TOKEN", token)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        with pytest.raises(ChainForgeError, match=words) as caught:
            send("me/mine", folder, "mine", public=False, yes=True)
        assert "hf auth login" in caught.value.fix
        assert TOKEN[:-1] not in str(caught.value)


@pytest.mark.parametrize("path", ["/api/repos/create", "/preupload/", "/lfs/objects/batch", "/commit/"])
def test_what_the_hub_refuses_is_told_and_leaves_no_file(path: str, hub: Hub, folder: Path) -> None:
    hub.refuse = path
    with pytest.raises(ChainForgeError, match=r"refuses me/mine \(403\)[^\n]*You may not write here"):
        send("me/mine", folder, "mine", public=False, yes=True)
    assert not hub.repos.get("me/mine", (True, {}))[1]


def test_without_a_network_there_is_one_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_hub() as gone:
        url = gone.url
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ChainForgeError, match="cannot be reached"):
        send("me/mine", folder, "mine", public=False, yes=True)


@pytest.mark.parametrize("repo", ["mine", "a/b/c", "me/..", "me/a b", "-/x", ""])
def test_a_name_that_is_none_is_refused(repo: str) -> None:
    with pytest.raises(ChainForgeError, match="no name of a repository"):
        check_repo(repo)


def test_a_folder_with_something_in_it_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for path in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(ChainForgeError, match="not an empty folder"):
            refuse_filled(path)
    refuse_filled(tmp_path / "new")
