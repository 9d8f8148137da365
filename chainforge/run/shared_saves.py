"""A state that several processes write together, each its part of it; any number of processes can read it.

Source: https://docs.pytorch.org/docs/stable/distributed.checkpoint.html
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

REST = "rest.pt"  # what is no tensor
TENSOR = "the tensor of that path"  # in its place


def write_shared(folder: Path, state: Mapping[str, Any], *, is_first: bool) -> None:
    """Called by every process of torch.distributed's group. Raises OSError when the disk is full."""
    import torch
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    tensors = dict(_tensors(state))
    try:
        save(tensors, storage_writer=FileSystemWriter(folder))
    except CheckpointException as error:
        for failure, _ in error.failures.values():
            if isinstance(failure, OSError):
                raise failure from error
        raise
    if is_first:
        with (folder / REST).open("wb") as file:
            torch.save(_without_tensors(state), file)
            file.flush()
            os.fsync(file.fileno())


def read_shared(folder: Path, like: Mapping[str, Any]) -> dict[str, Any]:
    """The state, of which this process reads its part only: that of the tensors of `like`, a state as it is
    now. Tensors that `like` has not are read whole."""
    import torch
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    reader, own = FileSystemReader(folder), dict(_tensors(like))
    tensors = {
        name: _room_for(own[name]) if name in own else torch.empty(kept.size, dtype=kept.properties.dtype)
        for name, kept in reader.read_metadata().state_dict_metadata.items()
        if isinstance(kept, TensorStorageMetadata)
    }
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that it reads for itself alone
        load(tensors, storage_reader=reader, no_dist=True)
    rest = torch.load(folder / REST, map_location="cpu", weights_only=True)
    state: dict[str, Any] = _put_back(rest, tensors)
    return state


def place_like(state: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """A whole state, with each tensor split as that of `like` is."""
    import torch
    from torch.distributed.tensor import DTensor, distribute_tensor
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    tensors, own = dict(_tensors(state)), dict(_tensors(like))
    for name, tensor in tensors.items():
        target = own.get(name)
        if isinstance(target, DTensor) and not isinstance(tensor, DTensor):
            in_blocks = is_traceable_wrapper_subclass(tensor)  # of 8 bits: split, they may be other ones
            numbers = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor) if in_blocks else tensor
            split = distribute_tensor(numbers.to(target.device), target.device_mesh, target.placements)
            tensors[name] = _another(target).copy_(split) if in_blocks else split
    placed: dict[str, Any] = _put_back(_without_tensors(state), tensors)
    return placed


def _room_for(tensor: "Tensor") -> Any:
    """Where a tensor is read to: a plain one, to the machine's memory. A GPU has no room for a second."""
    import torch

    tensor = tensor.detach()  # of a parameter
    return torch.empty_like(tensor, device="cpu") if type(tensor) is torch.Tensor else _another(tensor)


def _another(tensor: "Tensor") -> Any:
    """One of the same kind and size, with memory of its own. A kind that is made of plain tensors, as that of
    moments in 8 bits, may not know how to copy itself."""
    from torch.distributed.tensor import DTensor
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    tensor = tensor.detach()
    if isinstance(tensor, DTensor):
        size: dict[str, Any] = {"shape": tensor.shape, "stride": tensor.stride()}
        own = _another(tensor.to_local())
        return DTensor.from_local(own, tensor.device_mesh, tensor.placements, run_check=False, **size)
    if is_traceable_wrapper_subclass(tensor):
        names, how = tensor.__tensor_flatten__()
        parts = {name: getattr(tensor, name).clone() for name in names}
        return type(tensor).__tensor_unflatten__(parts, how, tensor.shape, tensor.stride())
    return tensor.clone()


def _tensors(state: Any, path: str = "") -> Iterator[tuple[str, "Tensor"]]:
    import torch

    if isinstance(state, torch.Tensor):
        yield path, state
    for key, value in _items(state):
        yield from _tensors(value, f"{path}/{key}")


def _without_tensors(state: Any) -> Any:
    import torch

    if isinstance(state, torch.Tensor):
        return TENSOR
    return _rebuilt(state, {key: _without_tensors(value) for key, value in _items(state)})


def _put_back(state: Any, tensors: Mapping[str, "Tensor"], path: str = "") -> Any:
    if path in tensors:
        return tensors[path]
    return _rebuilt(state, {key: _put_back(value, tensors, f"{path}/{key}") for key, value in _items(state)})


def _items(state: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(state, Mapping):
        yield from state.items()
    elif isinstance(state, list | tuple):
        yield from enumerate(state)


def _rebuilt(state: Any, values: Mapping[Any, Any]) -> Any:
    if isinstance(state, Mapping):
        return dict(values)
    return type(state)(values.values()) if isinstance(state, list | tuple) else state
