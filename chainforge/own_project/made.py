"""`.chainforge/made.json`: what ChainForge wrote into a project, so that a user's edit is known as one."""

import json
from dataclasses import dataclass
from pathlib import Path

from chainforge import __version__
from chainforge.config.loading import PARAMS
from chainforge.errors import ChainForgeError
from chainforge.own_project.texts import Texts

MADE = Path(".chainforge/made.json")


@dataclass(frozen=True, slots=True)
class Made:
    """The name of a project, the version whose files it has, and their texts as ChainForge wrote them."""

    name: str
    version: str
    files: Texts

    def as_text(self) -> str:
        """As it is kept."""
        kept = {"name": self.name, "version": self.version, "files": dict(self.files)}
        return json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def made_now(name: str, files: Texts) -> Made:
    """By this version. The settings follow from the profiles, of which any may be active."""
    return Made(name, __version__, {path: text for path, text in files.items() if path != str(PARAMS)})


def read_made() -> Made:
    """Of the project in this folder. Raises ChainForgeError where there is none to be read."""
    try:
        kept = json.loads(MADE.read_bytes())
        files = {str(path): str(text) for path, text in kept["files"].items()}
        return Made(str(kept["name"]), str(kept["version"]), files)
    except FileNotFoundError:
        raise ChainForgeError(
            f"there is no {MADE}: chainforge init did not make this project",
            "in a clone of ChainForge, use git pull; for a project of your own: chainforge init FOLDER",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ChainForgeError(
            f"{MADE} cannot be read: {error}", f"take it back from git: git checkout HEAD -- {MADE}"
        ) from error
