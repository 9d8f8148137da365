"""Check all settings, and write down which code, plugins and files every step uses."""

from pathlib import Path

from chainforge.errors import ChainForgeError
from chainforge.lock import make_lock
from chainforge.lock_diff import committed_lock, in_lines, lock_changes
from chainforge.lock_entry import read_lock
from chainforge.outputs import write_json
from chainforge.plugins import load_plugins
from chainforge.run.finished import sweep
from chainforge.run.progress import say
from chainforge.run.step import open_step
from chainforge.run.work import work_root
from chainforge.stage import stage_main


def main(name: str) -> None:
    step = open_step(name)  # checks the sections that every step shares
    lock = make_lock(load_plugins())
    if step.runtime.locked and (changes := lock_changes(committed_lock(), lock)):
        raise ChainForgeError(
            f"plugins.lock.json is not the committed one: {'; '.join(in_lines(changes))}",
            "install what it names (chainforge plugins diff), or set runtime.locked to false and re-run them",
        )
    before = read_lock() or lock  # the first one is no change
    for change in in_lines(lock_changes(before, lock)):
        say(f"{name}: {change}")
    write_json(Path("plugins.lock.json"), lock)
    sweep(work_root())


if __name__ == "__main__":
    stage_main(main)
