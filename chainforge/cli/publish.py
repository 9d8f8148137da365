"""`chainforge publish`: a checkpoint with its card to the Hugging Face hub."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from chainforge import __version__
from chainforge.cli.card import base_option, gather, licence_option
from chainforge.cli.complete import complete
from chainforge.cli.find_model import checkpoint_folders, find_checkpoint
from chainforge.cli.gc import human
from chainforge.cli.project import Place, ProjectCommand
from chainforge.cli.show import show
from chainforge.errors import ChainForgeError
from chainforge.outputs import whole_folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


@click.command(cls=ProjectCommand)
@click.argument("checkpoint", shell_complete=complete(checkpoint_folders))
@click.argument("repo", metavar="USER/NAME")
@click.option(
    "--public", is_flag=True, help="Everybody may see it; without this, a new repository is private."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Write the folder that would be sent, and send nothing.")
@click.option("--out", type=Place(), help="With --dry-run, that folder.  [default: exports/CHECKPOINT]")
@click.option("--stale", is_flag=True, help="Also where its step would run again; the card says so.")
@licence_option
@base_option
def publish(
    checkpoint: str,
    repo: str,
    public: bool,
    yes: bool,
    dry_run: bool,
    out: Path | None,
    stale: bool,
    licence: str | None,
    base: str | None,
) -> None:
    """Send CHECKPOINT, a name below checkpoints/, to the Hugging Face hub: weights, tokenizer and its card.

    What will be sent is shown first. The token is that of `hf auth login`, or HF_TOKEN; no option takes one.
    All goes in one commit, so that what is there is whole.
    """
    from chainforge.cli.export import check_repo, export

    check_repo(repo)
    if out is not None and not dry_run:
        raise click.UsageError("--out goes with --dry-run")
    if out is not None:
        refuse_filled(out)
    facts = gather(find_checkpoint(checkpoint), repo, licence, base)
    if (changed := facts.changed) and not stale:
        raise ChainForgeError(
            f"{facts.checkpoint} is not what dvc repro would make now: {'; '.join(changed[:3])}"
            + (f"; and {len(changed) - 3} more" if len(changed) > 3 else ""),
            "run dvc repro first, or publish it as it is with --stale: its card will say so",
        )
    if dry_run:
        folder = out or Path("exports") / facts.checkpoint.name
        with whole_folder(folder) as partial:
            tell(export(facts, partial))
        return show(f"nothing was sent. The folder: {folder}")
    with TemporaryDirectory() as folder_name:
        tell(export(facts, Path(folder_name), link=True))
        send(repo, Path(folder_name), f"{facts.checkpoint.name} of ChainForge {__version__}", public, yes)


def refuse_filled(folder: Path) -> None:
    """Raise ChainForgeError where something lies: only `exports/` is ours to replace."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ChainForgeError(f"{folder} is not an empty folder", "name another: --out FOLDER, or remove it")


def tell(files: Sequence[Path]) -> None:
    """List the files and their sizes."""
    for path in files:
        show(f"{human(path.stat().st_size):>10}  {path.name}")
    show(f"{human(sum(path.stat().st_size for path in files)):>10}  in {len(files)} files")


def send(repo: str, folder: Path, message: str, public: bool, yes: bool) -> None:
    """Ask, then create the repository if there is none, and send the folder as one commit."""
    from huggingface_hub import HfApi, get_token

    if not get_token():
        raise ChainForgeError("there is no token of the Hugging Face hub here", LOG_IN)
    api = HfApi(library_name="chainforge", library_version=__version__)
    with told(repo, api.endpoint):
        user, private = api.whoami()["name"], visibility(api, repo)
    if private is False and not public:
        raise ChainForgeError(
            f"{repo} is there already, and public",
            "add --public, or name a repository that is private or new",
        )
    state = "a new one" if private is None else "there already: this will be its newest commit"
    seen = "public" if public and private in (None, False) else "private"
    show(f"to {api.endpoint}/{repo} ({seen}; {state}), as {user}")
    if not yes:
        confirm()
    with told(repo, api.endpoint):
        if private is None:
            api.create_repo(repo, private=not public)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    show(f"published: {api.endpoint}/{repo}")


def visibility(api: "HfApi", repo: str) -> bool | None:
    """Whether the repository is private; None where there is none, or none that this user may see."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return bool(api.model_info(repo).private)
    except RepositoryNotFoundError:
        return None


def confirm() -> None:
    """Ask. Raises ChainForgeError where there is nobody to answer."""
    if not sys.stdin.isatty():
        raise ChainForgeError("there is no terminal to ask on; nothing was sent", "add --yes to send it")
    if not click.confirm("Send it?"):
        raise ChainForgeError("nothing was sent", "run it again when you want to")


@contextmanager
def told(repo: str, endpoint: str) -> Iterator[None]:
    """Whatever the hub or the network says no with, in two lines."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except LocalTokenNotFoundError:
        raise ChainForgeError("there is no token of the Hugging Face hub here", LOG_IN) from None
    except OfflineModeIsEnabled:
        raise ChainForgeError(
            "HF_HUB_OFFLINE forbids to ask the hub", "unset it, and run this again"
        ) from None
    except HfHubHTTPError as error:
        code, reason = error.response.status_code, " ".join((error.server_message or str(error)).split())
        fix = LOG_IN if code in (401, 403) else "run it again later: nothing is there but whole commits"
        raise ChainForgeError(f"{endpoint} refuses {repo} ({code}): {reason:.200}", fix) from None
    except ChainForgeError:
        raise
    except Exception as error:  # httpx's own, and RuntimeError around them in threads of the upload
        reason = " ".join(str(error.__cause__ or error).split())
        raise ChainForgeError(
            f"{endpoint} cannot be reached, or broke off: {type(error).__name__}: {reason:.200}",
            "check the network and HF_ENDPOINT, and run it again: nothing is there but whole commits",
        ) from None
