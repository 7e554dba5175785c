"""A GPU that is not there: tensors of the CPU that claim to be on it, and operations that mind where tensors are.

Within `pretended()`, `device="cuda"` is accepted. What mixes both devices, where CUDA would refuse to, raises
RuntimeError; what reads memory of the GPU as if it were the CPU's, as `numpy()` does, raises TypeError. Only the thread
that entered knows of it: on a GPU krelax works in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
MEMORY = 8 << 30


def there(x: Tensor) -> bool:
    """Whether a tensor is on the pretended GPU."""
    return getattr(x, "_there", False)


def _tensors(x: Any) -> list[Tensor]:
    """All tensors among arguments or results."""
    if isinstance(x, Tensor):
        return [x]
    return [t for part in x for t in _tensors(part)] if isinstance(x, list | tuple) else []


def _is_cuda(device: Any) -> bool:
    return torch.device(device).type == "cuda"


def _on_cpu(x: Any) -> Any:
    """An argument as it is handed on: devices are the CPU."""
    return CPU if isinstance(x, torch.device) or (isinstance(x, str) and x == "cuda") else x


def _no_numpy(x: Tensor) -> None:
    if there(x):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


# What a tensor says of itself.
_ATTRIBUTES: dict[Any, Callable[[Tensor], Any]] = {
    Tensor.device.__get__: lambda x: CUDA if there(x) else CPU,  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__: there,  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: lambda x: not there(x),  # type: ignore[attr-defined]
    Tensor.__iter__: lambda x: iter(x.unbind(0)),
}


class _Pretended(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _ATTRIBUTES:
            return _ATTRIBUTES[func](*args)
        if func in {Tensor.numpy, Tensor.__array__}:
            _no_numpy(args[0])
        given = _tensors([*args, *kwargs.values()])
        place = _place(func, args, kwargs, given)
        result = func(*map(_on_cpu, args), **{name: _on_cpu(x) for name, x in kwargs.items()})
        if isinstance(result, Tensor) and any(result is x and there(x) != place for x in given):
            result = result.clone()  # moved, if only in name
        for x in _tensors(result):
            x._there = place  # type: ignore[attr-defined]
        return result


def _place(func: Any, args: Any, kwargs: dict[str, Any], given: list[Tensor]) -> bool:
    """Whether the result is on the GPU. Raises RuntimeError if the operation cannot be done where its arguments are."""
    if func in _PLACES:
        return _PLACES[func](*args, **kwargs)
    if kwargs.get("device") is not None:
        if kwargs.get("generator") is not None and _is_cuda(kwargs["device"]):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        return _is_cuda(kwargs["device"])
    return _together(func, given)


def _moved(x: Tensor, *how: Any, **more: Any) -> bool:
    """Where `x.to(...)` is."""
    for to in (*how, *more.values()):
        if isinstance(to, Tensor):
            return there(to)
        if isinstance(to, str | torch.device):
            return _is_cuda(to)
    return there(x)


def _indexed(x: Tensor, index: Any) -> bool:
    """Indices may be on the CPU, or where the tensor is."""
    if not there(x) and any(there(i) for i in _tensors(index)):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    return there(x)


def _written(x: Tensor, index: Any, value: Any) -> bool:
    """Slices are copied from anywhere, but values for places given by tensors must be where those are."""
    _indexed(x, index)
    return _together("index_put_", [x, *_tensors(value)]) if _tensors(index) else there(x)


def _together(func: Any, given: list[Tensor]) -> bool:
    """All on the same device, but for numbers of the CPU, which may join tensors of the GPU."""
    here = [x for x in given if not there(x)]
    if len(here) < len(given) and any(x.dim() > 0 for x in here):
        name = getattr(func, "__name__", func)
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, found cuda:0 and cpu")
    return len(here) < len(given)


_PLACES: dict[Any, Callable[..., bool]] = {
    Tensor.to: _moved,
    Tensor.cpu: lambda x: False,
    Tensor.copy_: lambda x, source: there(x),
    Tensor.__getitem__: _indexed,
    Tensor.__setitem__: _written,
}


@contextmanager
def pretended() -> Iterator[None]:
    """A context with a GPU of 8 GiB."""
    with (
        patch.object(torch.cuda, "is_available", lambda: True),
        patch.object(torch.cuda, "mem_get_info", lambda device=None: (MEMORY, MEMORY)),
        _Pretended(),
    ):
        yield


@contextmanager
def gpu() -> Iterator[Callable[[Tensor], bool]]:
    """The GPU, or one that is pretended where there is none; yields whether a tensor is on it."""
    if torch.cuda.is_available():
        yield lambda x: x.is_cuda
    else:
        with pretended():
            yield there
