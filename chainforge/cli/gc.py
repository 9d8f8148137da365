"""`chainforge gc`: what the disk holds that no run needs any more."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click

from chainforge.cli.project import ProjectCommand
from chainforge.errors import ChainForgeError
from chainforge.run.exclusive import exclusive
from chainforge.run.finished import FINISHED, INPUTS, discard
from chainforge.run.work import work_root

KEEP = ("--workspace", "--all-branches", "--all-tags", "--all-experiments")
WITHOUT_GIT = ("--workspace",)


@click.command(cls=ProjectCommand)
@click.option("--unfinished", is_flag=True, help="Also the saved work of runs that were stopped.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def gc(unfinished: bool, dry_run: bool) -> None:
    """Remove resume folders that are done with, and say what `dvc gc` would free.

    A finished step's folder is of use only until DVC has recorded its result. What a live process holds
    stays.
    """
    root = work_root()
    freed = kept = 0
    for folder in sorted(path.parent for path in root.glob(f"*/{INPUTS}")):
        finished = (folder / FINISHED).exists()
        if finished or unfinished:
            freed += _remove(folder, "finished" if finished else "unfinished", dry_run)
        else:
            kept += size(folder)
            click.echo(f"kept     {human(size(folder)):>10}  {folder}  (unfinished)")
    click.echo(f"{root}: {human(freed)} {'would be ' if dry_run else ''}freed")
    if kept:
        click.echo(
            f"  of stopped runs {human(kept)} are kept: they go on from there, or --unfinished removes them"
        )
    _tell_about_dvc()


def _remove(folder: Path, state: str, dry_run: bool) -> int:
    """Bytes that went, or would go; none where a live process holds the folder."""
    try:
        with exclusive(folder / "lock", folder.name):
            freed = size(folder)
            if not dry_run:
                discard(folder)
    except ChainForgeError as error:
        click.echo(f"in use   {human(size(folder)):>10}  {folder}  ({error.problem})")
        return 0
    click.echo(f"{'would go' if dry_run else 'removed '} {human(freed):>10}  {folder}  ({state})")
    return freed


def _tell_about_dvc() -> None:
    """Ask `dvc gc` what it would remove; name the command that does it."""
    if not Path(".dvc").is_dir():
        return
    keep = KEEP if _git() else WITHOUT_GIT
    ended = subprocess.run(
        [sys.executable, "-m", "dvc", "gc", *keep, "--dry"], capture_output=True, text=True, errors="replace"
    )
    if ended.returncode != 0:
        reason = (ended.stderr.strip().splitlines() or ["it gave no reason"])[0]
        click.echo(f"DVC's cache: dvc gc could not be asked: {reason}")
        return
    objects = re.findall(r"^Removing (.+)$", ended.stdout + ended.stderr, flags=re.MULTILINE)
    freed = sum(path.stat().st_size for path in map(Path, objects) if path.is_file() and _only_here(path))
    click.echo(
        f"DVC's cache: {human(freed)} in {len(objects)} objects are of no "
        f"{'workspace, branch, tag or experiment' if keep == KEEP else 'workspace'}"
    )
    if objects:
        click.echo(f"  free them, while nothing runs: dvc gc {' '.join(keep)}")
        click.echo(
            "  afterwards `dvc exp apply` still brings a run back; its settings by hand make it run again"
        )
        if keep == KEEP:
            click.echo("  plain `dvc gc --workspace` would drop the results of all other experiments as well")


def _git() -> bool:
    try:
        return subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True).returncode == 0
    except OSError:  # git is not installed
        return False


def _only_here(path: Path) -> bool:
    """Whether removing it frees anything: a hard link elsewhere keeps the bytes."""
    return path.stat().st_nlink == 1


def size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum((Path(top) / name).lstat().st_size for top, _, names in os.walk(folder) for name in names)


def human(number: float) -> str:
    """12.3 MB."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
