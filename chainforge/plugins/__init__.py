"""Find, check and pick plugins.

A plugin that fails to import, ends its process, never returns, raises while it registers, misspells a hook or
claims a taken name never breaks the others: it is reported, and is an error only where a step selects it.
"""

from chainforge.plugins.entry import ROLES, Entry, Plugins, role_title
from chainforge.plugins.find import FOLDER, import_file
from chainforge.plugins.load import load_plugins
from chainforge.plugins.made import make_component, make_reward_function, prompts_from
from chainforge.plugins.registered import register_plugin
from chainforge.plugins.settings import plugin_settings

__all__ = [
    "FOLDER",
    "ROLES",
    "Entry",
    "Plugins",
    "import_file",
    "load_plugins",
    "make_component",
    "make_reward_function",
    "plugin_settings",
    "prompts_from",
    "register_plugin",
    "role_title",
]
