"""Check all settings, and write down which code, plugins and files every step uses."""

from pathlib import Path

from chainforge.lock import make_lock
from chainforge.outputs import write_json
from chainforge.plugins import load_plugins
from chainforge.run.step import open_step, stage_main


def main(name: str) -> None:
    open_step(name)  # checks the sections that every step shares
    write_json(Path("plugins.lock.json"), make_lock(load_plugins()))


if __name__ == "__main__":
    stage_main(main)
