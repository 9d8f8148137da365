"""config.json, before anything believes it."""

import json
from pathlib import Path
from typing import Any

from chainforge.errors import ChainForgeError

ATTENTION = (None, "sdpa", "eager")  # the rest does not take the masks that ChainForge makes
MOST_LAYERS = 10_000  # building one after the other, even without weights, would not end


def find_config(source: str | Path, revision: str | None) -> Path:
    """Its place in the folder, or in the hub's cache."""
    if Path(source).is_dir():
        return Path(source) / "config.json"
    from transformers.utils.hub import cached_file

    return Path(str(cached_file(source, "config.json", revision=revision)))


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file holds. Raises ValueError where it is none, OSError where there is no file."""
    try:
        content = json.loads(path.read_bytes())
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds a {type(content).__name__}, not an object")  # noqa: TRY004
    return content


def check_config(source: str | Path, content: dict[str, Any]) -> None:
    """Raise where it wants what ChainForge does not do, or has more layers than any model."""
    refuse_code(source, "config.json", content)
    if content.get("quantization_config") is not None:
        raise ChainForgeError(
            f"{source} has quantized weights, which cannot be trained (quantization_config in config.json)",
            "choose the variant in bfloat16, float16 or float32, from which it was quantized",
        )
    for name in ("attn_implementation", "_attn_implementation"):
        if content.get(name) not in ATTENTION:
            raise ChainForgeError(
                f"{source} wants {content[name]!r} ({name} in config.json), which ChainForge does not use",
                f"download the model, and remove {name} there",
            )
    layers = content.get("num_hidden_layers")
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise ValueError(f"num_hidden_layers is {layers}")


def refuse_code(source: str | Path, name: str, content: dict[str, Any]) -> None:
    """Raise where loading would run Python code that came with the model."""
    if "auto_map" in content:
        raise ChainForgeError(
            f"{source} brings code of its own (auto_map in {name}), which ChainForge never runs",
            "choose a model that transformers knows by itself; if it knows this one, download it, and remove "
            "auto_map there",
        )


def check_memory(source: str | Path, parameters: int, free: int) -> None:
    """Raise where float32 weights alone would not fit."""
    if 4 * parameters > free:
        raise ChainForgeError(
            f"{source} would have {parameters:,} weights, {4 * parameters / 2**30:,.1f} GB in float32, and "
            f"{free / 2**30:,.1f} GB of memory are free",
            "correct the sizes in its config.json, choose a smaller model, or use a machine with more memory",
        )
