"""The process in which plugins are tried: it says which one it is at, so that its death tells who did it."""

import atexit
import json
import os
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from chainforge.errors import describe
from chainforge.plugins.find import Candidate
from chainforge.plugins.registered import register_plugin


def main() -> None:
    """Try the plugins of the last argument; what comes of it goes to the descriptor before it."""
    descriptor, told = int(sys.argv[1]), json.loads(sys.argv[2])
    os.set_inheritable(descriptor, False)
    write, real_exit = os.write, os._exit  # before a plugin replaces them

    def say(*message: str) -> None:
        write(descriptor, json.dumps(message).encode() + b"\n")

    def done() -> None:
        say("done")
        real_exit(0)  # threads that go on do no harm: this process is about to end

    atexit.register(done)  # the first is the last to be called: after whatever plugins register
    found = [Candidate(who, source, _place(place)) for who, source, place in told]
    modules: dict[str, str] = {}
    sys.unraisablehook = lambda failure: say("lost", *_at_exit(failure, modules, found))
    for one in found:
        say("trying", one.who)
        try:
            module = one.load()
            modules[module.__name__] = one.who
            register_plugin(one.source, module, {})
        except (Exception, SystemExit):
            pass  # reported when it is really imported
        except BaseException as error:
            say("lost", one.who, describe(error))
        say("tried", one.who)
    atexit._run_exitfuncs()


def _place(place: Any) -> Path | EntryPoint:
    return Path(place) if isinstance(place, str) else EntryPoint(*place)


def _at_exit(failure: Any, modules: dict[str, str], found: list[Candidate]) -> tuple[str, str]:
    """Whose function raised at the end of the program."""
    module = getattr(failure.object, "__module__", None)
    who = modules.get(str(module), "")
    return who, f"what it leaves to the end of the program (atexit) raises {describe(failure.exc_value)}"
