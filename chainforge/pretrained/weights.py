"""Which files hold weights, and whether a model got all of them."""

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainforge.errors import ChainForgeError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAFE = ("model.safetensors", "model.safetensors.index.json")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
FEW = 3


def check_files(source: Path) -> None:
    """Raise where a folder's weights are no safetensors: reading a pickle may run what is written in it."""
    names = sorted(path.name for path in source.iterdir())
    if any(name in names for name in SAFE):
        return
    if pickles := [name for name in names if name.endswith(PICKLES)]:
        raise ChainForgeError(
            f"{source} has its weights in {pickles[0]}, which can run code when it is read",
            "choose a model with model.safetensors, or make one on a machine where that is safe",
        )
    raise FileNotFoundError("there is no model.safetensors")


def faults(model: "PreTrainedModel", info: Mapping[str, Any]) -> str | None:
    """What is wrong with the weights that were read, in words; None where all is well.

    transformers would fill with random numbers what is missing, and leave out what has no place.
    """
    missing = sorted(info["missing_keys"])
    if missing == ["lm_head.weight"]:
        return (
            "lm_head.weight is missing in its weights (if it is the same as the input embedding, "
            "config.json must say tie_word_embeddings: true)"
        )
    broken = (name for name, weight in model.named_parameters() if not weight.isfinite().all())
    return next(
        filter(
            None,
            (
                _said("missing in its weights", missing),
                _said(
                    "of another shape in its weights",
                    (k if isinstance(k, str) else str(k[0]) for k in info["mismatched_keys"]),
                ),
                _said("in its weights, without a place in the model", sorted(info["unexpected_keys"])),
                _said("unreadable", map(str, info["error_msgs"])),
                _said("not finite", broken),
            ),
        ),
        None,
    )


def settle_tying(model: "PreTrainedModel") -> None:
    """Make the config say whether input and output embedding are one tensor. The file follows from it."""
    tables = model.get_input_embeddings(), model.get_output_embeddings()
    if all(tables):
        model.config.get_text_config().tie_word_embeddings = tables[0].weight is tables[1].weight


def _said(what: str, names: Iterable[str]) -> str | None:
    """The first few of them, and how many more there are."""
    rest = iter(names)
    first = list(islice(rest, FEW))
    more = sum(1 for _ in rest)
    if not first:
        return None
    also = f" and {more:,} more" if more else ""
    return f"{', '.join(first)}{also} {'are' if len(first) > 1 else 'is'} {what}"
