"""The inputs of an ONNX file: the one that is used, and what the others are given."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from krelax.errors import InputError, UnsupportedError
from krelax.network.graph import MOST_NUMBERS
from krelax.network.onnx_reader import Kind, Known
from krelax.network.onnx_schema import kind_name

# Element types of inputs, by what VNN-LIB and NumPy call them.
ELEMENTS: dict[int, str] = {
    Kind.FLOAT: "float32", Kind.DOUBLE: "float64", Kind.FLOAT16: "float16", Kind.BFLOAT16: "bfloat16",
    Kind.INT8: "int8", Kind.INT16: "int16", Kind.INT32: "int32", Kind.INT64: "int64",
    Kind.UINT8: "uint8", Kind.UINT16: "uint16", Kind.UINT32: "uint32", Kind.UINT64: "uint64", Kind.BOOL: "bool",
}  # fmt: skip


def element_name(kind: int) -> str:
    """What VNN-LIB calls an element type."""
    return ELEMENTS.get(kind, kind_name(kind))


def array_type(kind: int) -> np.dtype[Any]:
    """The type of arrays that a runtime wants for an element type."""
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))


@dataclass(frozen=True)
class Inputs:
    """The input that is used, and the others, which only the runtime wants: zeros by name."""

    name: str
    kind: int
    shape: tuple[int, ...]
    hint: str
    others: dict[str, NDArray[Any]]

    def feeds(self, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """What the runtime is given for an input."""
        return {self.name: x.reshape(self.shape).astype(array_type(self.kind)), **self.others}

    @classmethod
    def of(cls, graph: onnx.GraphProto, read: set[str], known: Known, path: Path) -> Inputs:
        names = [i.name for i in graph.input]
        if len(set(names)) < len(names):
            raise InputError(f"{path}: an input that is listed twice; export the network again")
        inputs = [i for i in graph.input if i.name not in known.constants]
        used = [i for i in inputs if i.name in read] if len(inputs) > 1 else inputs
        if len(used) != 1:
            listed = ", ".join(i.name for i in used) or "none"
            raise UnsupportedError(f"{path}: the network has {len(used)} inputs ({listed}); export it with one")
        kind, shape, dynamic = declared_input(used[0], path)
        check_element(used[0], path)
        if prod(shape) > MOST_NUMBERS:
            raise InputError(f"{path}: input {used[0].name!r} has the impossible shape {list(shape)}")
        hint = f" (dynamic axes of the input, {', '.join(dynamic)}, were taken as 1)" if dynamic else ""
        return cls(used[0].name, kind, shape, hint, {i.name: _zeros(i, path) for i in inputs if i is not used[0]})


def declared_input(value: onnx.ValueInfoProto, path: Path) -> tuple[int, tuple[int, ...], list[str]]:
    """Element type and shape of an input, and which axes of it are dynamic."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise InputError(f"{path}: input {value.name!r} has no shape; export the network with its input shape")
    sizes = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    shape = tuple(1 if n is None else int(n) for n in sizes)
    if any(n < 1 for n in shape):
        reason = "has the impossible shape"
        raise InputError(f"{path}: input {value.name!r} {reason} {list(shape)}; export it with a batch of one")
    names = [d.dim_param or f"axis {i}" for i, d in enumerate(kind.shape.dim)]
    return int(kind.elem_type), shape, [name for name, n in zip(names, sizes, strict=True) if n is None]


def check_element(value: onnx.ValueInfoProto, path: Path) -> None:
    """Raises UnsupportedError for an input of an element type that is not read."""
    kind = value.type.tensor_type.elem_type
    if kind not in ELEMENTS:
        types = ", ".join(ELEMENTS.values())
        raise UnsupportedError(f"{path}: input {value.name!r} is {kind_name(kind)}; export it as one of {types}")


def _zeros(value: onnx.ValueInfoProto, path: Path) -> NDArray[Any]:
    """What an input that nothing reads is given."""
    kind, shape, _ = declared_input(value, path)
    if prod(shape) > MOST_NUMBERS or kind not in onnx.helper.get_all_tensor_dtypes() or kind == Kind.STRING:
        raise UnsupportedError(f"{path}: input {value.name!r}, which nothing reads; export the network without it")
    return np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(kind))
