"""One node of an ONNX file, with its operands resolved: what the readers of operators are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from krelax.errors import InputError, UnsupportedError
from krelax.network import compose
from krelax.network.graph import Builder
from krelax.network.ops import Op

_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
_LARGEST_CONSTANT = 10**7


@dataclass
class Reader:
    """One node of the file and what is known so far: nodes built (`values`) and constants, by tensor name."""

    builder: Builder
    node: onnx.NodeProto
    values: dict[str, int]
    constants: dict[str, NDArray[Any]]
    version: int

    def depends(self, name: str) -> bool:
        """Whether a tensor depends on the network's input (unknown names do: reading them fails with their name)."""
        return bool(name) and name not in self.constants

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute as a Python value."""
        for item in self.node.attribute:
            if item.name == name:
                value = onnx.helper.get_attribute_value(item)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def value(self, position: int = 0) -> int:
        """Index of the node that computes an operand; a constant operand is refused."""
        name = self.node.input[position]
        if name in self.constants:
            raise UnsupportedError(f"operand {position} is constant where an activation is expected")
        if name not in self.values:
            raise InputError(f"operand {name!r} is not computed by any earlier node")
        return self.values[name]

    def shape(self, position: int = 0) -> tuple[int, ...]:
        """Shape of an operand that is not constant."""
        return self.builder.shape(self.value(position))

    def array(self, position: int) -> NDArray[Any] | None:
        """A constant operand, None if it is absent."""
        if position >= len(self.node.input) or not self.node.input[position]:
            return None
        name = self.node.input[position]
        if name not in self.constants:
            raise UnsupportedError(f"operand {position} ({name!r}) is not constant")
        return self.constants[name]

    def tensor(self, position: int) -> Tensor | None:
        """A constant operand as a float64 tensor."""
        array = self.array(position)
        return None if array is None else torch.tensor(array, dtype=torch.float64)

    def weight(self, position: int) -> Tensor:
        """A constant operand that must be there."""
        tensor = self.tensor(position)
        if tensor is None:
            raise InputError(f"operand {position} is missing")
        return tensor

    def operand(self, position: int) -> compose.Operand:
        """A node, or a constant as a float64 tensor."""
        return self.weight(position) if self.is_constant(position) else self.value(position)

    def is_constant(self, position: int) -> bool:
        """Whether an operand is constant."""
        return self.node.input[position] in self.constants

    def integers(self, attribute: str, position: int) -> list[int] | None:
        """Integers given as an attribute (older operator sets) or as a constant operand."""
        given = self.attribute(attribute)
        if given is None:
            array = self.array(position)
            return None if array is None else [int(i) for i in np.atleast_1d(array)]
        return list(given) if isinstance(given, Sequence) else [int(given)]

    def add(self, op: Op, *inputs: int) -> int:
        return self.builder.add(op, *inputs, name=self.node.name or self.node.output[0])

    def fold(self) -> None:
        """Evaluate a node that does not depend on the input."""
        if self.node.op_type == "Shape":
            results: list[Any] = [self._shape()]
        elif self.node.op_type == "Constant":
            results = [self._constant()]
        else:
            results = self._reference()
        for name, result in zip(self.node.output, results, strict=False):
            array = np.asarray(result)
            if np.issubdtype(array.dtype, np.floating):
                if not np.isfinite(array).all():
                    raise InputError("the constant holds NaN or infinity")
                array = array.astype(np.float64)
            self.constants[name] = array

    def _reference(self) -> list[Any]:
        """What ONNX's reference implementation makes of the node, in the file's operator set."""
        from onnx.reference import ReferenceEvaluator

        if self.node.op_type in _RANDOM or any(a.HasField("g") or a.graphs for a in self.node.attribute):
            raise UnsupportedError("random constants and control flow")
        self._check_size()
        feeds = {name: self.constants[name] for name in self.node.input if name}
        inputs, outputs = (
            [onnx.ValueInfoProto(name=name) for name in names if name] for names in (feeds, self.node.output)
        )
        graph = onnx.helper.make_graph([self.node], "constant", inputs, outputs)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", self.version)])
        with np.errstate(all="ignore"):
            return list(ReferenceEvaluator(model).run(None, feeds))

    def _check_size(self) -> None:
        """A damaged shape should not take all memory."""
        if self.node.op_type in {"ConstantOfShape", "Expand"}:
            shape = self.constants[self.node.input[-1]]
            if np.abs(shape).prod(dtype=float) > _LARGEST_CONSTANT:
                raise InputError(f"a constant of shape {shape.tolist()}")

    def _shape(self) -> NDArray[np.int64]:
        name = self.node.input[0]
        shape = self.constants[name].shape if name in self.constants else self.shape()
        stop = self.attribute("end")
        return np.array(shape[self.attribute("start", 0) : stop], dtype=np.int64)

    def _constant(self) -> NDArray[Any]:
        item = self.node.attribute[0]
        if item.name == "value":
            return numpy_helper.to_array(item.t)
        return np.array(onnx.helper.get_attribute_value(item))
