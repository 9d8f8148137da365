"""A group of commands that tells errors plainly."""

import click

from chainforge.errors import ChainForgeError


class Group(click.Group):
    """Shows a ChainForgeError as two lines and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ChainForgeError as error:
            raise click.ClickException(str(error)) from None
