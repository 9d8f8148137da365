"""The one loader and the one saver: a checkpoint is always a plain Hugging Face folder."""

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.errors import ChainForgeError

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
logging.disable_progress_bar()  # one bar per step, and that one shows the step


@dataclass(frozen=True)
class Policy:
    """A model on its device with the tokenizer that belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def num_parameters(self) -> int:
        """Distinct weights; tied ones count once."""
        return int(self.model.num_parameters())


def choose_device(wanted: Literal["auto", "cpu", "cuda", "mps"]) -> torch.device:
    """The device asked for; auto takes CUDA, then MPS, then the CPU."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, here in present.items() if here))
    if not present[wanted]:
        raise ChainForgeError(
            f"there is no {wanted} device on this machine", "set runtime.device to auto or cpu"
        )
    return torch.device(wanted)


def start_torch(settings: RunSettings, runtime: RuntimeSettings) -> torch.device:
    """Fix what the result depends on, threads, algorithms and global generators, and return the device.

    Nothing of ChainForge draws from a global generator; a plugin might.
    """
    torch.set_num_threads(settings.threads)
    random.seed(settings.seed)
    np.random.seed(settings.seed % 2**32)
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # else every new tensor is written twice; nothing reads one before it is written
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return choose_device(runtime.device)


def load_policy(folder: Path, device: torch.device) -> Policy:
    """A checkpoint folder, in float32: master weights."""
    # without its own tokenizer.json, transformers makes one that knows no word
    if missing := [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]:
        raise ChainForgeError(
            f"{folder} is not a model folder: it has no {missing[0]}",
            "run the step that writes it (dvc repro), or correct the path in params.yaml",
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map={"": device})
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ChainForgeError(
            f"{folder} cannot be loaded: {reason}", "rebuild it with dvc repro --force"
        ) from error
    return Policy(place(model, device), tokenizer)


def place(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """The model on the device, in evaluation mode: there is no dropout anywhere."""
    torch.nn.Module.to(model, device)
    model.eval()
    return model


def save_policy(policy: Policy, folder: Path) -> None:
    """Weights, config and tokenizer, nothing else. Raises OSError when the disk is full."""
    broken = [name for name, weight in policy.model.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise ChainForgeError(f"{broken[0]} has a weight that is not finite", "lower the learning rate")
    try:
        policy.model.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
    except SafetensorError as error:
        raise OSError(str(error)) from error
