"""The command `chainforge` as a group: every error told plainly, in the project's folder."""

from typing import Any

import click

from chainforge.cli.boundary import boundary, open_output


class Group(click.Group):
    """Holds the boundary around reading the command line, and around the command."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the options before the command."""
        open_output()
        with boundary():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> object:
        """Read the command's own options, and run it."""
        with boundary():
            return super().invoke(ctx)
