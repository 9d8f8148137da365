"""Load plugins: what they print goes to stderr, and what they raise is told of them alone."""

from pathlib import Path

from chainforge.containment import no_input, no_leaving, printing_to_stderr
from chainforge.errors import describe
from chainforge.plugins.entry import Plugins
from chainforge.plugins.find import BUNDLED, FOLDER, Candidate, bundled_plugins, candidates
from chainforge.plugins.registered import Taken, register_plugin
from chainforge.plugins.trial import try_plugins


def load_plugins(folder: Path | None = None) -> Plugins:
    """Bundled and project-local files of a folder, then installed packages (group `chainforge`).

    Without a folder these are the project's own, and each is tried first in another process, where it may
    loop, crash or exit without harm. A folder that is named is trusted, and so is what came with ChainForge.
    """
    plugins = Plugins()
    found = list(candidates(folder or FOLDER, None if folder else bundled_plugins()))
    lost = {} if folder else try_plugins([one for one in found if not one.source.startswith(BUNDLED)])
    with printing_to_stderr(), no_leaving(), no_input():
        for candidate in found:
            if candidate.who in lost:
                plugins.broken[candidate.who] = lost[candidate.who]
            else:
                _load(candidate, plugins)
    return plugins


def _load(candidate: Candidate, plugins: Plugins) -> None:
    try:
        new = register_plugin(candidate.source, candidate.load(), plugins.entries)
    except KeyboardInterrupt:  # the user's own: one that a plugin raises was found in its trial
        raise
    except Taken as error:
        plugins.broken[candidate.who] = f"ValueError: {error}"
        if candidate.source != error.owner and _ranks_alike(candidate, plugins, error):
            plugins.contested[error.key] = (error.owner, candidate.source)
    except BaseException as error:  # whatever a stranger's plugin does, the others must live
        plugins.broken[candidate.who] = describe(error) + _advice(candidate, error)
    else:
        plugins.entries.update(new)


def _ranks_alike(candidate: Candidate, plugins: Plugins, error: Taken) -> bool:
    """A file, the project's or a bundled one, goes before a package. Between two files, or two packages,
    nothing decides."""
    of_a_file = plugins.entries[error.key].source.endswith(".py")
    return isinstance(candidate.place, Path) == of_a_file


def _advice(candidate: Candidate, error: BaseException) -> str:
    """What to do, where a file takes another one beside it for a module."""
    if not isinstance(candidate.place, Path) or not isinstance(error, ImportError):
        return ""
    folder, name = candidate.place.parent, str(error.name or "").partition(".")[0]
    beside = name and ((folder / f"{name}.py").exists() or (folder / name).is_dir())
    if not beside and "relative import" not in str(error):
        return ""
    return (
        f". A plugin is one file or one installed package, and files of {folder.as_posix()}/ cannot import "
        "each other: put the code into this file, or make a package (chainforge plugins new)"
    )
