"""`chainforge plugins diff`: what is here against what is committed."""

import click

from chainforge.lock import make_lock
from chainforge.lock_diff import committed_lock, in_lines, lock_changes
from chainforge.plugins import load_plugins


@click.command("diff")
@click.argument("revision", default="HEAD")
def diff_plugins(revision: str) -> None:
    """Show how the plugins and code here differ from the plugins.lock.json of a git REVISION.

    Exit code 1 if they do: the steps in brackets would re-run. For CI, or after a fresh clone.
    """
    changes = lock_changes(committed_lock(revision), make_lock(load_plugins()))
    for change in in_lines(changes):
        click.echo(change)
    if changes:
        raise SystemExit(1)
    click.echo(f"plugins.lock.json of {revision} is what is here")
