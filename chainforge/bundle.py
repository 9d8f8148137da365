"""The files of a project that ship with ChainForge: what `chainforge init` copies, and the bundled plugins.

In a checkout they are the project itself. In a wheel, setup.py puts the same files into chainforge/bundled/.
It reads the two lists below without importing the package, so this file needs nothing but Python.
"""

from pathlib import Path

COPIED = (
    *("dvc.yaml", "stages/*.py", "profiles/*.yaml", ".gitignore", ".gitattributes", ".dvcignore"),
    *(".dvc/config", ".dvc/.gitignore", ".dvc/plots/*.json", ".dvc/plots_page.html"),
)
USED = ("plugins/*.py", "requirements.lock", "requirements-dev.lock")
PACKAGE = Path(__file__).parent


def bundle() -> Path:
    """The folder that these files lie in."""
    installed = PACKAGE / "bundled"
    return installed if installed.is_dir() else PACKAGE.parent


def is_checkout(project: Path) -> bool:
    """Whether a project has ChainForge's own code in it: then code and plugins are what lies there."""
    return (project / PACKAGE.name).is_dir()
