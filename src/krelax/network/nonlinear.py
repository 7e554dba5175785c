"""What activations are called in ONNX files and in PyTorch, and how their attributes are read: a line each.

The importers read every operator of these tables as an activation of their operand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from krelax.activations import Activation, LeakyReLU, ReLU, Sigmoid, Tanh

if TYPE_CHECKING:
    from krelax.network.onnx_reader import Reader
    from krelax.network.torch_reader import Call


@dataclass(frozen=True)
class Onnx:
    """An ONNX operator: the `versions` of its definition that are read, by the operator set that brought them, and the
    activation that it is."""

    versions: frozenset[int]
    read: Callable[[Reader], Activation]


ONNX: dict[str, Onnx] = {
    "Relu": Onnx(frozenset({6, 13, 14}), lambda r: ReLU()),
    "LeakyRelu": Onnx(frozenset({6, 16}), lambda r: LeakyReLU(r.attribute("alpha"))),
    "Sigmoid": Onnx(frozenset({6, 13}), lambda r: Sigmoid()),
    "Tanh": Onnx(frozenset({6, 13}), lambda r: Tanh()),
}

# Operators of aten, by name without overload; what they do not mean as an activation they raise UnsupportedError for.
TORCH: dict[str, Callable[[Call], Activation]] = {
    "relu": lambda c: ReLU(),
    "leaky_relu": lambda c: LeakyReLU(c.number(c["negative_slope"]).value.item()),
    "sigmoid": lambda c: Sigmoid(),
    "tanh": lambda c: Tanh(),
}
