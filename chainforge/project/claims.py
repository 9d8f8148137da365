"""Where a step may write: nothing that no step has made is ever deleted or replaced.

DVC deletes the outputs of a step before it runs it, so the step `lock` checks all of them before; and a step
checks its own again, because it may be run by hand. What steps have made is what dvc.lock says, and what is
noted in `logs/outputs.txt` before a step writes: a killed run has results that DVC has not recorded.
"""

import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path

from chainforge.errors import ChainForgeError
from chainforge.project.graph import VARIABLE, GraphStep, Output, fill, read_graph
from chainforge.project.recorded import outputs_of, read_recorded

PLACES = ("data", "checkpoints", "metrics", "plots", "reports")
NOTED = Path("logs/outputs.txt")


def claim(step: GraphStep) -> None:
    """Check where this step writes, and note that what lies there from now on is its own."""
    check_outputs([step], read_graph().values())
    note(fill(out.path) for out in step.outs)


def check_outputs(steps: Collection[GraphStep], graph: Collection[GraphStep]) -> None:
    """Raise ChainForgeError for an output in no place for outputs, or that would replace something else."""
    for step in steps:
        for out in step.outs:
            check_place(step, out)
    written = [(step.name, out.path, fill(out.path)) for step in graph for out in step.outs]
    for step in steps:
        check_apart(step, written)
    lying = [(step, out) for step in steps for out in step.outs if _lies(fill(out.path))]
    made = made_paths() if lying else set()
    for step, out in lying:
        _check_made(step, out, made)
    _check_untracked(steps)


def check_place(step: GraphStep, out: Output) -> None:
    """Raise ChainForgeError unless the output lies inside the project, in a place for outputs."""
    path, where = fill(out.path), setting(out.path)
    if path.is_absolute() or ".." in path.parts or path.parts[:1] not in {(place,) for place in PLACES}:
        problem = f"{step.name} is to write {path}{where}, which is in no place for outputs"
    elif len(path.parts) == 1:
        problem = f"{step.name} is to write all of {path}/{where}, where other steps write too"
    elif link := next((p for p in path.parents if p.is_symlink()), None):
        problem = f"{step.name} is to write {path}{where}, but {link} is a link"
    else:
        return
    raise ChainForgeError(problem, f"name a path below one of the project's own folders: {', '.join(PLACES)}")


def check_apart(step: GraphStep, written: Collection[tuple[str, str, Path]]) -> None:
    """Raise ChainForgeError where an output is what the step itself reads, or what another one writes.

    `written` has the outputs of all steps: the step's name, the path as dvc.yaml has it, and filled in.
    """
    read = [(dep, fill(dep)) for dep in step.deps]
    for out in step.outs:
        path, where = fill(out.path), setting(out.path)
        for dep, its in read:
            if overlap(path, its):
                raise ChainForgeError(
                    f"{step.name} is to write {path}{where}, and reads {its}{setting(dep)}",
                    "set another output: a step never replaces what it reads",
                )
        for other, template, its in written:
            if (other, template) != (step.name, out.path) and overlap(path, its):
                raise ChainForgeError(
                    f"{step.name} is to write {path}{where}, and {other} {its}{setting(template)}",
                    "set another output: each lies in a place of its own",
                )


def overlap(one: Path, other: Path) -> bool:
    """Whether they are the same, or one lies inside the other."""
    return all(a == b for a, b in zip(one.parts, other.parts, strict=False))


def setting(path: str) -> str:
    """The setting that a path of dvc.yaml is taken from, in brackets; nothing where there is none."""
    variable = VARIABLE.fullmatch(path)
    return f" ({variable[1]})" if variable else ""


def made_paths() -> set[Path]:
    """Everything that a step has made here, as far as it is known."""
    return {Path(path) for path in outputs_of(read_recorded())} | noted_paths()


def noted_paths() -> set[Path]:
    """What steps have noted before they wrote."""
    try:
        return {Path(line) for line in NOTED.read_text(encoding="utf-8").splitlines() if line}
    except (OSError, UnicodeDecodeError):
        return set()


def note(paths: Iterable[Path]) -> None:
    """Add to what steps have made."""
    known = noted_paths()
    if new := [path for path in paths if path not in known]:
        NOTED.parent.mkdir(parents=True, exist_ok=True)
        with NOTED.open("a", encoding="utf-8") as file:
            file.write("".join(f"{path.as_posix()}\n" for path in new))


def _lies(path: Path) -> bool:
    """Whether there is something; an empty folder is nothing."""
    return path.is_symlink() or (any(path.iterdir()) if path.is_dir() else path.exists())


def _check_made(step: GraphStep, out: Output, made: set[Path]) -> None:
    path = fill(out.path)
    if path in made or (not out.cached and _tracked([path])):
        return
    raise ChainForgeError(
        f"{step.name} is to write {path}{setting(out.path)}, but what lies there was made by no step",
        "move it away if it is yours (delete it if it is left over), or set another output",
    )


def _check_untracked(steps: Iterable[GraphStep]) -> None:
    paths = {fill(out.path): step for step in steps for out in step.outs if out.cached}
    for tracked in _tracked(paths):
        path = next(path for path in paths if path == tracked or path in tracked.parents)
        raise ChainForgeError(
            f"{paths[path].name} is to write {path}, but git tracks {tracked}",
            f"set another output, or: git rm -r --cached {path}",
        )


def _tracked(paths: Collection[Path]) -> list[Path]:
    """Which files below these paths git tracks; none without git."""
    if not paths:
        return []
    command = ("git", "-c", "core.quotepath=off", "ls-files", "-z", "--", *map(str, paths))
    try:
        listed = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [Path(name) for name in listed.stdout.split("\0") if name] if listed.returncode == 0 else []
