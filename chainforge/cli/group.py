"""The command `chainforge` as a group: every error told plainly, in the project's folder."""

from collections.abc import Mapping
from typing import Any

import click

from chainforge.cli.boundary import boundary, open_output


class Group(click.Group):
    """Holds the boundary around reading the command line and around a command; lists commands by section."""

    sections: Mapping[str, Mapping[click.Command, str]]

    def add_sections(self, sections: Mapping[str, Mapping[click.Command, str]]) -> None:
        """Add commands; under each title those of a section, with the line that the list has of them."""
        self.sections = sections
        for commands in sections.values():
            for command in commands:
                self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list."""
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(command.name or "", line) for command, line in commands.items()])

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the options before the command."""
        open_output()
        with boundary():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> object:
        """Read the command's own options, and run it."""
        with boundary():
            return super().invoke(ctx)
