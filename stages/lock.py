"""Check all settings, and write down which code, plugins and files every step uses."""

from pathlib import Path

from chainforge.errors import ChainForgeError
from chainforge.outputs import write_json
from chainforge.plugins import load_plugins
from chainforge.project.brought import link_brought
from chainforge.project.claims import note
from chainforge.project.gates import open_gates
from chainforge.project.graph import read_graph
from chainforge.project.lock import make_lock
from chainforge.project.lock_diff import committed_lock, in_lines, lock_changes
from chainforge.project.lock_entry import read_lock
from chainforge.project.preflight.project import check_project
from chainforge.project.recorded import outputs_of, read_recorded
from chainforge.project.stage import stage_main
from chainforge.run.finished import sweep
from chainforge.run.progress import say
from chainforge.run.step import open_step
from chainforge.run.work import work_root


def main(name: str) -> None:
    link_brought()
    step, plugins = open_step(name), load_plugins()  # checks the sections that every step shares
    lock = make_lock(plugins)
    check_project(plugins, step.runtime)
    if step.runtime.locked and (changes := lock_changes(committed_lock(), lock)):
        raise ChainForgeError(
            f"plugins.lock.json is not the committed one: {'; '.join(in_lines(changes))}",
            "install what it names (chainforge plugins diff), or set runtime.locked to false and re-run them",
        )
    before = read_lock() or lock  # the first one is no change
    for change in in_lines(lock_changes(before, lock)):
        say(f"{name}: {change}")
    open_gates(read_graph())
    write_json(Path("plugins.lock.json"), lock)
    note(map(Path, outputs_of(read_recorded())))  # they stay known when an older dvc.lock is checked out
    sweep(work_root())


if __name__ == "__main__":
    stage_main(main)
