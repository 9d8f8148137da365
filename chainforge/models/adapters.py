"""Adapters: small matrices inside of a model that are trained in place of its own weights. peft makes them.

The model stays the same object, so whatever computes with it computes with the adapter.
Source: LoRA, arXiv 2106.09685; QLoRA, arXiv 2305.14314.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from chainforge.config.adapter import AdapterSettings
from chainforge.errors import unknown
from chainforge.models.four_bits import four_bit_names, in_full, round_to_four_bits

NAME = "default"  # peft's, where there is one adapter
FOLDER = "adapter"  # in a checkpoint


def attach_adapter(model: PreTrainedModel, settings: AdapterSettings, seed: int) -> None:
    """Put a new adapter into the model in place, and freeze all else. It changes no output yet: B is 0.

    It is in float32, and A is drawn from the seed alone, the same on every device. `qlora` rounds linear
    layers to 4 bits first. Raises ChainForgeError where a package or a target is missing, or the device is
    none for this kind.
    """
    settings.check_installed()
    settings.check_device(model.device.type)
    import peft

    targets = _targets(model, settings.targets)
    if settings.kind == "qlora":
        round_to_four_bits(model, _linear_layers(model))
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=targets,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs as well
        peft.inject_adapter_in_model(config, model)
    for layer in _layers(model).values():
        for part in (*layer.lora_A.values(), *layer.lora_B.values()):
            part.weight = nn.Parameter(part.weight.detach().float())  # peft gives it the type of W
        # Over float32 weights only autocast rounds inputs, and it does without a copy of each in float32.
        layer.cast_input_dtype_enabled = model.dtype != torch.float32
    model.eval()


def has_adapter(model: nn.Module) -> bool:
    """Whether there is one in it."""
    return bool(adapter_weights(model))


def adapter_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Its weights by their names in the model: what is trained."""
    return {name: weight for name, weight in model.named_parameters() if _is_adapter(name)}


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Inside, the model computes as it did before it got the adapter."""
    layers, weights = list(_layers(model).values()), adapter_weights(model).values()
    for layer in layers:
        layer.enable_adapters(False)
    for weight in weights:  # peft freezes them meanwhile; FSDP2 would keep that
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@contextmanager
def adapter_set_to(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the adapter has these weights, those that `adapter_weights` gave earlier."""
    own = {name: weight.detach().clone() for name, weight in adapter_weights(model).items()}
    _copy_into(model, weights)
    try:
        yield
    finally:
        _copy_into(model, own)


def plain_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All weights under the names of the plain model. Where there is an adapter, it is merged in float32, and
    weights of 4 bits or bfloat16 are given in full.

    One at a time, made beside the model: its own weights stay as they are.
    """
    layers = _layers(model) if has_adapter(model) else {}
    rounded = four_bit_names(model)
    for name, weight in model.state_dict().items():
        if _is_adapter(name) or f"{name.partition('.weight.')[0]}.weight" in rounded - {name}:
            continue  # of the adapter, or what a weight of 4 bits needs to be read
        if layers and weight.is_floating_point():
            weight = weight.float()
        elif name in rounded:
            weight = in_full(model.get_parameter(name))
        owner, _, rest = name.partition(".base_layer.")
        if rest == "weight":
            with torch.no_grad():
                weight = weight + layers[owner].get_delta_weight(NAME)
        yield f"{owner}.{rest}" if rest else name, weight


def save_adapter(model: PreTrainedModel, folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write `adapter_weights` as peft reads them: PeftModel.from_pretrained(its base, folder)."""
    from safetensors.torch import save_file

    config = copy(cast(Any, model).peft_config[NAME])
    config.inference_mode = True
    config.base_model_name_or_path = _base(model)
    config.target_modules = sorted(config.target_modules)  # as a set, in the order of the hour
    config.save_pretrained(folder)
    named = {f"base_model.model.{name.replace(f'.{NAME}.', '.')}": weight for name, weight in weights.items()}
    whole = {name: weight.detach().float().contiguous() for name, weight in named.items()}
    save_file(whole, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _base(model: PreTrainedModel) -> str | None:
    """The folder or hub name that the model was read from; no path that only this machine has."""
    source = str(model.name_or_path)
    return None if not source or Path(source).is_absolute() else source


def _is_adapter(name: str) -> bool:
    return name.endswith((f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"))


def _layers(model: nn.Module) -> dict[str, Any]:
    """The linear layers that have an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


@torch.no_grad()
def _copy_into(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, weight in adapter_weights(model).items():
        weight.copy_(weights[name])


def _linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """All but the output layer, whose weights are read in pieces and not called."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def _targets(model: PreTrainedModel, wanted: str | list[str]) -> list[str]:
    """The linear layers that get an adapter, in full: of "all-linear", peft would understand experts as well,
    which are none."""
    names = _linear_layers(model)
    if isinstance(wanted, str):
        return list(names)
    for target in wanted:
        if not any(_is_called(name, target) for name in names):
            raise unknown("linear layer", target, {name.rpartition(".")[2] for name in names})
    return [name for name in names if any(_is_called(name, target) for target in wanted)]


def _is_called(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")
