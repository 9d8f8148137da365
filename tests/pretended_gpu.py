"""A GPU that is not there: its tensors say that they are on another device, and are computed on the CPU.

What a real one forbids raises here: to mix its tensors with those of the CPU, float64 where it has none, to
look at a value while a graph is captured. A capture keeps the operations and the tensors, and a replay runs
the former on the latter, as a CUDA graph does. The device's name is "meta", as PyTorch has to know it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU, CPU = torch.device("meta"), torch.device("cpu")
WAITING = ("item", "_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique")
MOVING = ("copy_", "_to_copy", "to", "set_", "result_type")


class GpuTensor(Tensor):
    inner: Tensor  # on the CPU

    @staticmethod
    def __new__(cls, inner: Tensor) -> "GpuTensor":
        with torch.inference_mode(False):  # before 2.13, others cannot be made in it
            made = Tensor._make_wrapper_subclass(
                cls,
                inner.size(),
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device=GPU,
            )
        made.inner = inner
        return made

    def __init__(self, inner: Tensor) -> None: ...

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return PretendedGpu.computed(func, args, kwargs or {})


class PretendedGpu(TorchDispatchMode):
    """Inside, tensors on the device "meta" are those of the GPU."""

    current: "PretendedGpu | None" = None

    def __init__(self, *, float64: bool = True) -> None:
        super().__init__()
        self.float64, self.operations, self.waits = float64, 0, 0
        self._captured: list[tuple[Any, Any, Any, Any]] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        PretendedGpu.current = self
        return PretendedGpu.computed(func, args, kwargs or {})

    @staticmethod
    def computed(func: Any, args: Any, kwargs: Any) -> Any:
        gpu, name = PretendedGpu.current, func._schema.name.removeprefix("aten::")
        assert gpu is not None
        leaves = tree_leaves((args, kwargs))
        ours = {id(x.inner): x for x in leaves if isinstance(x, GpuTensor)}
        theirs = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, GpuTensor)]
        to = next((x for x in leaves if isinstance(x, torch.device)), None)
        here = bool(ours) if to is None else to == GPU
        if ours:
            gpu._check(name, theirs, leaves, here)
        inner_args, inner_kwargs = tree_map(_on_the_cpu, (args, kwargs))
        found = func(*inner_args, **inner_kwargs)
        if gpu._captured is not None:
            gpu._captured.append((func, inner_args, inner_kwargs, found))
        if name == "copy_":
            return args[0]
        return tree_map(lambda x: gpu._wrapped(x, ours, name), found) if here else found

    def _check(self, name: str, theirs: list[Tensor], leaves: list[Any], here: bool) -> None:
        self.operations += 1
        mixed = name not in MOVING and any(x.dim() for x in theirs)
        assert not mixed, f"{name}: tensors of the GPU and of the CPU"
        masks = [x for x in leaves if isinstance(x, Tensor) and x.dtype == torch.bool]
        waits = (
            name in WAITING
            or not here
            or (name.startswith("index") and bool(masks))
            or "masked_scatter" in name
        )
        waits |= name == "repeat_interleave" and not any(isinstance(x, int) for x in leaves)
        self.waits += waits
        if self._captured is not None:
            assert not waits, f"{name} waits for the device"
            assert not theirs, f"{name} reads a tensor of the CPU"

    def _wrapped(self, found: Any, ours: dict[int, Tensor], name: str) -> Any:
        if not isinstance(found, Tensor):
            return found
        if found.dtype == torch.float64 and not self.float64:
            raise TypeError(f"{name}: this device has no float64")
        return ours[id(found)] if id(found) in ours else GpuTensor(found)

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """What replays the operations of the step on the tensors that it had."""
        self._captured = kept = []
        step()
        self._captured = None

        def replay() -> None:
            for func, args, kwargs, found in kept:
                again = tree_leaves(func(*args, **kwargs))
                for old, new in zip(tree_leaves(found), again, strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)

        return replay


class _Readable(TorchFunctionMode):
    """What PyTorch does not hand to a dispatch mode."""

    def __torch_function__(self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.tolist and isinstance(args[0], GpuTensor):
            return args[0].cpu().tolist()
        if func is torch.tensor and kwargs.get("device") == GPU:
            return func(*args, **{**kwargs, "device": None}).to(GPU)
        return func(*args, **kwargs)


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch, *, float64: bool = True) -> Iterator[PretendedGpu]:
    """Inside, `.to("meta")` moves to it."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13):
        pytest.skip("an older PyTorch cannot make such tensors in inference mode")
    enabled, autocast = torch.is_autocast_enabled, torch.autocast
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda kind, *how, **more: nullcontext() if kind == "meta" else autocast(kind, *how, **more),
    )
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *kind: kind != ("meta",) and enabled(*kind))
    adam = import_module("torch.optim.adam")
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda *_: None)
    with _Readable(), PretendedGpu(float64=float64) as gpu:
        yield gpu


def _on_the_cpu(x: Any) -> Any:
    if isinstance(x, GpuTensor):
        return x.inner
    return CPU if isinstance(x, torch.device) else x
