"""`chainforge upgrade`: a project's files brought to the version of ChainForge that is installed."""

import click

from chainforge.cli.project import ProjectCommand
from chainforge.cli.show import as_json_option, show, show_json
from chainforge.config.loading import read_params
from chainforge.errors import ChainForgeError


@click.command("upgrade", cls=ProjectCommand)
@click.option("--apply", "apply", is_flag=True, help="Write the changes. Without it, they are only shown.")
@click.option(
    "--keep", multiple=True, metavar="PATH", help="Leave this file as it is, without the version's changes."
)
@as_json_option
def upgrade(apply: bool, keep: tuple[str, ...], as_json: bool) -> None:
    """Show what the installed ChainForge would change in a project that `chainforge init` made.

    A file that you have not changed is replaced. One with your edits is merged, as git merges. Where your
    edits and the new ones meet, it is a conflict, and --apply writes nothing at all. It also refuses to write
    over changes that are not committed.
    """
    from chainforge.own_project.made import read_made
    from chainforge.own_project.upgrade import apply_upgrade, describe, plan_upgrade

    plan = plan_upgrade(read_made(), str(read_params().get("profile")), keep)
    if unknown := sorted(set(keep) - {change.path for change in plan.changes}):
        raise ChainForgeError(f"--keep {unknown[0]}: this version changes no such file", "leave it out")
    changes = [{"path": c.path, "kind": c.kind, "diff": c.diff()} for c in plan.changes]
    written = apply_upgrade(plan) if apply else 0
    if as_json:
        versions = {"from": plan.made.version, "to": plan.now.version}
        return show_json(versions | {"changes": changes, "settings": plan.settings, "written": written})
    for change in plan.changes:
        show("\n".join(describe(change)))
    for line in plan.settings:
        show(f"params.yaml, {line}")
    if not plan.changes:
        show(f"nothing to change: these files are those of ChainForge {plan.now.version}, with your edits")
    elif apply:
        show(
            f"{written} files written, {plan.made.version} -> {plan.now.version}. Next: git diff, git commit"
        )
    else:
        conflicts = f"; conflicts: {', '.join(plan.conflicts)}" if plan.conflicts else ""
        show(f"{plan.made.version} -> {plan.now.version}: nothing was written; --apply does{conflicts}")
