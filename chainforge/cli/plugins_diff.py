"""`chainforge plugins diff`: what is here against what is committed."""

import click

from chainforge.cli.project import ProjectCommand
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.plugins import load_plugins
from chainforge.project.lock import make_lock
from chainforge.project.lock_diff import compared_lock, in_lines, lock_changes


@click.command("diff", cls=ProjectCommand)
@click.argument("revision", default="HEAD")
@as_json_option
@click.pass_context
def diff_plugins(ctx: click.Context, revision: str, as_json: bool) -> None:
    """Show how the plugins and code here differ from the plugins.lock.json of a git REVISION.

    Exit code 1 if they do: the steps in brackets would re-run. For CI, or after a fresh clone.
    """
    before, whose = compared_lock(revision)
    changes = lock_changes(before, make_lock(load_plugins()))
    if whose is None:
        click.echo("no git repository: compared with plugins.lock.json as it lies here", err=True)
    if as_json:
        show_json({"revision": whose, "same": not changes, "changes": changes})
    elif changes:
        show("\n".join(in_lines(changes)))
    else:
        show(f"plugins.lock.json{'' if whose is None else f' of {whose}'} is what is here")
    if changes:
        ctx.exit(1)
