"""Every file of a new project, as this version of ChainForge writes it."""

import json
import re
from collections.abc import Mapping
from contextlib import chdir
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from chainforge import __version__
from chainforge.bundle import COPIED, bundle
from chainforge.outputs import write_text
from chainforge.project.graph import GRAPH
from chainforge.project.profiles import PROFILES, compose

Texts = Mapping[str, str]  # by path in the project
RENDERED = {
    "Makefile": "Makefile",
    "README.md": "README.md",
    "plugins/reward_short.py": "reward_short.py",
    "requirements.txt": "requirements.txt",
    "tests/test_reward_short.py": "test_reward_short.py",
}
DISTRIBUTION = "chainforge-r1"
LOCKS = ("requirements.lock", "requirements-dev.lock")
PIN = re.compile(r"^[A-Za-z0-9._-]+==[^\s;]+", re.MULTILINE)


def project_texts(name: str, profile: str) -> dict[str, str]:
    """The text of each file by its path. Raises ChainForgeError for an unknown profile."""
    root = bundle()
    paths = sorted({path for pattern in COPIED for path in root.glob(pattern)})
    texts = {path.relative_to(root).as_posix(): read_text(path) for path in paths}
    texts["constraints.txt"] = constraints(root)
    texts["params.yaml"] = compose_from(texts, profile)
    return texts | render(name)


def read_text(path: Path) -> str:
    """With the line ends that it has."""
    return path.read_bytes().decode("utf-8")


def constraints(root: Path) -> str:
    """The releases that ChainForge was tested with, and itself, one a line."""
    pins = [pin for lock in LOCKS for pin in PIN.findall(read_text(root / lock))]
    head = "# The releases that ChainForge was tested with. `chainforge upgrade` keeps them up to date.\n"
    return head + "".join(f"{pin}\n" for pin in sorted([f"{DISTRIBUTION}=={__version__}", *pins]))


def render(name: str) -> dict[str, str]:
    """What is written for a project of its own."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("chainforge"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return {
        path: templates.get_template(f"project/{template}.j2").render(name=name, requirement=requirement())
        for path, template in RENDERED.items()
    }


def requirement() -> str:
    """What pip takes to install this ChainForge again: its name; or where it came from, if that was no index.

    Source: https://packaging.python.org/en/latest/specifications/direct-url/
    """
    try:
        text = distribution(DISTRIBUTION).read_text("direct_url.json")
    except PackageNotFoundError:
        text = None
    origin: dict[str, Any] = json.loads(text) if text else {"url": ""}
    url = origin["url"]
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        return f"{DISTRIBUTION} @ {vcs['vcs']}+{url}@{vcs['commit_id']}"
    is_there = url.startswith("file:") and Path(url2pathname(urlparse(url).path)).exists()
    return f"{DISTRIBUTION} @ {url}" if is_there else DISTRIBUTION


def compose_from(texts: Texts, profile: str) -> str:
    """The params.yaml of a profile, from these texts alone. Raises ChainForgeError."""
    with TemporaryDirectory() as folder, chdir(folder):
        for path, text in texts.items():
            if Path(path).parent == PROFILES or Path(path) == GRAPH:
                write_text(Path(path), text)
        return compose(profile)
