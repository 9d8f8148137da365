"""The newest saved state of a loop: whole or absent, at most two on the disk.

A file, or a folder where several processes wrote it together.
"""

import errno
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chainforge.memory import is_lack_of_memory
from chainforge.run.progress import say
from chainforge.run.shared_saves import place_like, read_shared, write_shared
from chainforge.run.world import World

SUFFIX, PARTIAL = ".pt", ".partial"


class Saves:
    """Numbered saves in a folder; a state is tensors, numbers, texts, lists and mappings: no code is read.

    `taken` is the number of the state that `newest` gave.
    """

    def __init__(self, folder: Path, world: World | None = None) -> None:
        self._folder, self._world = folder, world or World()
        self.taken: int | None = None

    def numbers(self) -> list[int]:
        """Of all whole saves, oldest first."""
        return sorted(int(path.stem) for path in self._folder.glob(f"*{SUFFIX}") if path.stem.isdecimal())

    def write(self, state: Mapping[str, Any]) -> None:
        """Add one, with the states of the global random generators. Raises OSError when the disk is full.

        Every process calls it.
        """
        numbers = self._world.share(self.numbers())[0]
        path = self._path(numbers[-1] + 1 if numbers else 0)
        partial = path.with_name(path.name + PARTIAL)
        whole = {"state": dict(state), "random": _random_states()}
        if self._world.is_first:
            for number in numbers[:-1]:
                remove(self._path(number))
        try:
            if self._world.size > 1:
                write_shared(partial, whole, is_first=self._world.is_first)
            else:
                self._write_file(partial, whole)
            self._world.once(os.replace, partial, path)
        finally:
            if self._world.is_first:
                remove(partial)

    def _write_file(self, path: Path, state: Mapping[str, Any]) -> None:
        import torch

        try:
            with path.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
        except RuntimeError as error:  # torch's own writer hides the number of the error
            if shutil.disk_usage(self._folder).free > 2**20:
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error

    def newest(self, now: Callable[[], Mapping[str, Any]] = dict) -> Mapping[str, Any] | None:
        """The newest readable state, random generators set to where they were; None if there is none.

        `now` gives the state as it is. Where a process holds parts of tensors only, it gets those parts.
        """
        generators = _random_states()
        *earlier, _ = [None, *self.numbers()]
        for number, before in zip(reversed(self.numbers()), reversed(earlier), strict=True):
            try:
                saved = self._read(self._path(number), {"state": now()})
                state: Mapping[str, Any] = saved["state"]
                _restore_random_states(saved["random"])
            except Exception as error:  # a broken disk; the save before it may be whole
                if is_lack_of_memory(error):
                    raise
                _restore_random_states(generators)
                instead = "starting afresh" if before is None else f"trying {self._path(before).name}"
                say(f"{self._path(number)} cannot be read ({_first_line(error)}): {instead}")
                continue
            self.taken = number
            return state
        return None

    def _read(self, path: Path, like: Mapping[str, Any]) -> Mapping[str, Any]:
        import torch

        if path.is_dir():
            return read_shared(path, like)
        saved: Mapping[str, Any] = torch.load(
            path, map_location="cpu", weights_only=True, mmap=self._world.size > 1
        )
        return place_like(saved, like) if self._world.size > 1 else saved

    @property
    def aside(self) -> Path:
        """The folder of saves that are whole, but do not fit."""
        return self._folder / "unfit"

    def set_aside(self) -> None:
        """Move all saves out of the way, to `aside`."""
        shutil.rmtree(self.aside, ignore_errors=True)
        self.aside.mkdir()
        for number in self.numbers():
            os.replace(self._path(number), self.aside / self._path(number).name)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}{SUFFIX}"


def remove(path: Path) -> None:
    """Remove a save, or nothing."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _random_states() -> dict[str, Any]:
    import numpy as np
    import torch

    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [name, list(map(int, keys)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def _restore_random_states(states: Mapping[str, Any]) -> None:
    import numpy as np
    import torch

    random.setstate(states["python"])
    np.random.set_state(tuple(states["numpy"]))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
