"""A group of commands that tells errors plainly."""

import click

from chainforge.errors import ChainForgeError


class Group(click.Group):
    """Shows a ChainForgeError as two lines, with its exit code."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ChainForgeError as error:
            told = click.ClickException(str(error))
            told.exit_code = error.exit_code  # type: ignore[misc]  # click reads it from the instance
            raise told from None
