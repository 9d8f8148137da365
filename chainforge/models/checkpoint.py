"""The one loader and the one saver: a checkpoint is always a plain Hugging Face folder."""

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from chainforge.config.run import RunSettings, RuntimeSettings, check_precision
from chainforge.errors import ChainForgeError
from chainforge.memory import enough_memory
from chainforge.models.adapters import FOLDER, save_adapter
from chainforge.models.attention import choose_attention
from chainforge.models.chat import eos_ids
from chainforge.models.fitting import check_parts
from chainforge.models.precision import FIX, slowness
from chainforge.pretrained import load_model, load_tokenizer
from chainforge.pretrained.weights import settle_tying
from chainforge.run.progress import say

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tensors from 2 MB on lie on huge pages, where the system has them. PyTorch asks at its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
logging.disable_progress_bar()  # one bar per step, and that one shows the step


# of generation_config.json
NOT_SAMPLING = {f"{token}_token_id" for token in ("bos", "eos", "pad")} | {
    "use_cache",
    "transformers_version",
    "_from_model_config",
}
# transformers' own defaults are greedy, or else the 50 likeliest tokens
PLAIN = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}


SAVING = "run the same command again with more memory: it goes on from its last save"


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
    Says so where its processor only emulates `run.precision`.

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
    device = choose_device(runtime.device)
    check_precision(settings.precision, device.type)
    if (times := slowness(settings.precision, device.type)) > 1:
        say(
            f"run.precision {settings.precision}: this processor has no instructions for it, and takes "
            f"{times:.0f} times as long as in float32 for a product of matrices\n  -> {FIX}"
        )
    return device


def load_policy(folder: Path, device: torch.device) -> Policy:
    """A checkpoint folder, in float32: master weights. Raises ChainForgeError where it is not whole, or where
    ChainForge would compute its architecture wrongly."""
    # without its own tokenizer.json, transformers makes one that knows no word
    if missing := [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]:
        raise ChainForgeError(
            f"{folder} is not a model folder: it has no {missing[0]}",
            "run the step that writes it (dvc repro), or correct the path in params.yaml",
        )
    fix = "rebuild it with dvc repro --force, or name another model"
    model = load_model(folder, device=device, fix=fix)
    return make_policy(model, load_tokenizer(folder, fix=fix), device)


def make_policy(model: object, tokenizer: object, device: torch.device) -> Policy:
    """A policy on its device, once its parts are known to fit, and to be computed rightly."""
    policy = Policy(*check_parts(model, tokenizer))
    place(policy.model, device)
    # By name: it changes no result, so a step does not have to run again when the sampler's code changes.
    import_module("chainforge.rollout.check_engine").check_engine(policy.model)
    return policy


def place(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """The model on the device, in evaluation mode: there is no dropout anywhere."""
    torch.nn.Module.to(model, device)
    model.eval()
    choose_attention(model)
    return model


@enough_memory("the checkpoint", SAVING)
def save_policy(
    policy: Policy,
    folder: Path,
    weights: Mapping[str, torch.Tensor] | None = None,
    adapter: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Weights, config and tokenizer, and in `adapter/` those of an adapter, which is merged in the others.

    `weights` are those to write where the model's are others. Raises OSError when the disk is full.
    """
    written = weights or dict(policy.model.named_parameters())
    if broken := [name for name, weight in written.items() if not weight.isfinite().all()]:
        raise ChainForgeError(f"{broken[0]} has a weight that is not finite", "lower the learning rate")
    settle_tying(policy.model)
    settle_generation(policy)
    try:
        policy.model.save_pretrained(folder, state_dict=dict(weights) if weights else None)
        policy.tokenizer.save_pretrained(folder)
        if adapter:
            save_adapter(policy.model, folder / FOLDER, adapter)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def settle_generation(policy: Policy) -> None:
    """Make the defaults of samplers, which are in generation_config.json, those that ChainForge itself has.

    Of what a base model asks (repetition_penalty, top_k, temperature, …) training and evaluation do nothing.
    They stop at each of `eos_ids`, and draw from the whole distribution at temperature 1 unless a setting
    says otherwise. `evaluate` may have other settings; a model is not trained anew when these change.
    """
    config = policy.model.generation_config
    if config is None:
        return
    for name, value in (GenerationConfig().to_dict() | PLAIN).items():
        if name not in NOT_SAMPLING:
            setattr(config, name, value)
    named = config.eos_token_id
    ends = eos_ids(policy.model, policy.tokenizer)
    if set(ends) - set(named if isinstance(named, list) else [named]):
        config.eos_token_id = ends if len(ends) > 1 else ends[0]
