"""`chainforge plugins`: what params.yaml can name."""

import click

from chainforge.cli.plugins_check import check_plugin
from chainforge.cli.plugins_diff import diff_plugins
from chainforge.cli.plugins_list import list_plugins
from chainforge.cli.plugins_new import new_plugin


@click.group()
def plugins() -> None:
    """Rewards, prompt sources, teachers and student models."""


for command in (list_plugins, new_plugin, check_plugin, diff_plugins):
    plugins.add_command(command)
