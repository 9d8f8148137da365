"""Texts that DVC would take for something else."""

from collections.abc import Iterator, Mapping
from typing import Any

from chainforge.errors import ChainForgeError


def check_texts(params: Mapping[str, Any]) -> None:
    """Raise ChainForgeError for a text with `${`: `dvc exp run -S` reads params.yaml through OmegaConf."""
    for place, text in _texts(params):
        if "${" in text:
            raise ChainForgeError(
                f"params.yaml: {place} has ${{ in {text!r:.80}",
                "write it without: dvc exp run -S takes ${…} for a reference to another setting, and fails",
            )


def _texts(node: Any, at: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, str):
        yield at, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield f"a key below {at or 'the top level'}", key
            yield from _texts(value, f"{at}.{key}" if at else key)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, at)
