"""Two laws that all roles share: a plugin is quick to import, and imports the public API alone."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import chainforge
from chainforge.plugins import Entry
from chainforge.project.code_digests import PACKAGE, imports_of, package_files
from chainforge.providers.secrets import environment_without_keys
from chainforge.testing.laws import Breach, demand

SLOW = ("torch", "transformers")
LIMIT_S = 120.0
BESIDES = {"teachers": {"chainforge.providers.openai_chat"}}  # what a role may import too
PROGRAM = """
import importlib, importlib.util, os, sys
name, file, told = sys.argv[1:4]
if file:
    spec = importlib.util.spec_from_file_location(name, file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
else:
    importlib.import_module(name)
os.write(int(told), " ".join(slow for slow in sys.argv[4:] if slow in sys.modules).encode())
"""


def imports_nothing_slow(entry: Entry) -> str | None:
    """Import the plugin's module in a process of its own, and look at what came with it."""
    name, file = entry.module.__name__, Path(str(entry.module.__file__))
    if _is_a_test(file):
        return "not checked: it is defined in a test"
    of_the_folder = name == f"chainforge_plugin_{file.stem}"
    reading, writing = os.pipe()  # not stdout: a plugin may print
    try:
        path = str(file.resolve()) if of_the_folder else ""
        ended = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM, name, path, str(writing), *SLOW],  # -P: as the path says
            env=environment_without_keys() | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            pass_fds=[writing],
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        os.close(reading)
        raise Breach(f"did not import within {LIMIT_S:g} s") from None
    finally:
        os.close(writing)
    with os.fdopen(reading) as pipe:
        slow = pipe.read().split()
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise Breach(f"does not import on its own: {last:.200}")
    demand(not slow, f"imports {' and '.join(slow)}: import it inside a function")
    return None


def imports_the_public_api(entry: Entry) -> str | None:
    """Look for imports of what may change from one version to the next."""
    file = Path(str(entry.module.__file__))
    if _is_a_test(file):
        return "not checked: it is defined in a test"
    allowed = {PACKAGE, *(f"{PACKAGE}.{name}" for name in chainforge.__all__), *BESIDES.get(entry.role, ())}
    for path in package_files(entry.module) or [file]:
        for name in _ours(path):
            if name not in allowed and name.rpartition(".")[0] not in BESIDES.get(entry.role, ()):
                raise Breach(f"{path.name} imports {name}: import chainforge as cf, whose __all__ is the API")
    return None


def _ours(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_bytes())
    yield from (name for name in imports_of(tree) if name.partition(".")[0] == PACKAGE)


def _is_a_test(file: Path) -> bool:
    return file.name.startswith(("test_", "conftest"))
