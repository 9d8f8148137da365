"""The one reader of weights and tokenizers. Nothing is filled in: what is missing is an error.

torch and transformers are imported where they are needed: plugins import this, and import quickly.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from chainforge.errors import ChainForgeError
from chainforge.memory import enough_memory
from chainforge.pretrained.config import check_config, check_memory, find_config, read_json, refuse_code
from chainforge.pretrained.weights import check_files, faults, settle_tying

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MEND = "download it again, write it again with save_pretrained, or name another model"


def load_model(
    source: str | Path,
    *,
    revision: str | None = None,
    device: "torch.device | None" = None,
    fix: str = MEND,
    task: Literal["generate", "classify"] = "generate",
) -> "PreTrainedModel":
    """The causal language model of a folder or hub name, in float32, on the CPU or the device given. With
    `task` "classify" it is a model of transformers that gives a text one or more scores.

    Raises ChainForgeError where its files are no such model: a weight is missing, of another shape or not a
    finite number; only a pickle holds the weights; code of its own or quantized weights are wanted; it
    would not fit into memory. `fix` is what to do about files that are broken.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    kinds: dict[str, Any] = {"generate": AutoModelForCausalLM, "classify": AutoModelForSequenceClassification}
    kind = kinds[task]
    device = device or torch.device("cpu")
    if Path(source).is_dir():
        with _told(source, "its weights", fix):
            check_files(Path(source))
    with _told(source, "its config.json", fix):
        check_config(source, read_json(find_config(source, revision)))
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        with torch.device("meta"):
            size = kind.from_config(deepcopy(config)).num_parameters()
        check_memory(source, size, _free_memory(device))
    with (
        _told(source, "its weights", fix),
        enough_memory(f"the weights of {source}", "choose a smaller model"),
    ):
        read: Any = kind.from_pretrained(
            source,
            config=config,
            revision=revision,
            dtype=torch.float32,
            device_map={"": device},
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are told below, by name
            output_loading_info=True,
        )
    model: PreTrainedModel = read[0]
    if what := faults(model, read[1]):
        raise ChainForgeError(f"{source} cannot be loaded: {what}", fix)
    settle_tying(model)
    return model


def load_tokenizer(
    source: str | Path, *, revision: str | None = None, fix: str = MEND
) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder or hub name. A folder must have a tokenizer.json: without one transformers
    would make up a tokenizer that knows no word."""
    from transformers import AutoTokenizer

    with _told(source, "its tokenizer", fix):
        if Path(source).is_dir():
            for name in ("tokenizer.json", "tokenizer_config.json"):
                path = Path(source) / name
                if name == "tokenizer.json" or path.exists():
                    refuse_code(source, name, read_json(path))
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=False
        )
        if len(tokenizer) == 0:
            raise ValueError("it has no tokens")
    return tokenizer


@contextmanager
def _told(source: str | Path, part: str, fix: str) -> Iterator[None]:
    """Whatever a library makes of broken files, in one line: it may raise anything, and write a lot."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except ChainForgeError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        if not reason or not isinstance(error, OSError | ValueError):
            reason = f"{type(error).__name__}: {reason}".rstrip(": ")
        raise ChainForgeError(f"{source} cannot be loaded: {part}: {reason:.250}", fix) from error
    finally:
        logging.set_verbosity(before)


def _free_memory(device: Any) -> int:
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available + psutil.swap_memory().free)
