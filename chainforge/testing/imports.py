"""The law that all roles share: a plugin is quick to import."""

import os
import subprocess
import sys
from pathlib import Path

from chainforge.plugins import Entry
from chainforge.testing.laws import Breach, demand

SLOW = ("torch", "transformers")
PROGRAM = """
import importlib, importlib.util, sys
name, file = sys.argv[1:3]
if file:
    spec = importlib.util.spec_from_file_location(name, file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
else:
    importlib.import_module(name)
print(*(slow for slow in sys.argv[3:] if slow in sys.modules))
"""


def imports_nothing_slow(entry: Entry) -> str | None:
    """Import the plugin's module in a process of its own, and look at what came with it."""
    name, file = entry.module.__name__, Path(str(entry.module.__file__))
    if file.name.startswith(("test_", "conftest")):
        return "not checked: it is defined in a test"
    of_the_folder = name == f"chainforge_plugin_{file.stem}"
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, str(file.resolve()) if of_the_folder else "", *SLOW],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise Breach(f"does not import on its own: {last:.200}")
    slow = ended.stdout.split()
    demand(not slow, f"imports {' and '.join(slow)}: import it inside a function")
    return None
