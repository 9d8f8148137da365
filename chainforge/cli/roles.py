"""Roles as the command line names them: reward, prompt-source, teacher, student-model."""

import click

from chainforge.errors import ChainForgeError, unknown
from chainforge.plugins import ROLES, Entry, Plugins, role_title


def title(role: str) -> str:
    """A role in the singular, as a user writes it."""
    return role_title(role).replace(" ", "-")


NAMES = f"[{'|'.join(map(title, ROLES))}]"


def as_role(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The role that is meant, singular or plural, with - or _: a click callback."""
    if value is None:
        return None
    role = value.replace("-", "_").removesuffix("s") + "s"
    if role not in ROLES:
        raise click.BadParameter(f"{value!r} is not one of {', '.join(map(title, ROLES))}", ctx, param)
    return role


def find(plugins: Plugins, name: str, role: str | None) -> Entry:
    """The plugin of that name. Without a role, the only one; raises ChainForgeError if there are several."""
    roles = [role] if role else [kind for kind, known in plugins.entries if known == name]
    if len(roles) > 1:
        raise ChainForgeError(
            f"{name!r} is a {' and a '.join(map(title, roles))}", f"say which: --role {title(roles[0])}"
        )
    if roles:
        return plugins.pick(roles[0], name)
    error = unknown("plugin", name, {known for _, known in plugins.entries})
    broken = "".join(f"\n  -> does not load: {who}: {why}" for who, why in sorted(plugins.broken.items()))
    raise ChainForgeError(error.problem, error.fix + broken)
