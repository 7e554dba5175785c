"""What activations are called in ONNX files and in PyTorch, and how their attributes are read: a line each.

The importers read every operator of these tables as an activation of their operand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, prod
from typing import TYPE_CHECKING

import torch

from krelax.activations import (
    Activation,
    Exp,
    LeakyReLU,
    Log,
    Power,
    Reciprocal,
    ReciprocalSqrt,
    ReLU,
    Sigmoid,
    Softplus,
    Sqrt,
    Square,
    Tanh,
)
from krelax.errors import UnsupportedError
from krelax.network.constants import Constant

if TYPE_CHECKING:
    from krelax.network.onnx_reader import Reader
    from krelax.network.torch_reader import Call


def power(exponent: float) -> Activation:
    """A power of z."""
    return Square() if exponent == 2 else Power(exponent)


def _pow(r: Reader) -> Activation:
    exponent = r.literal(1) if r.is_constant(1) else None
    if exponent is None or prod(exponent.shape) != 1 or len(exponent.shape) > len(r.shape()):
        raise UnsupportedError("a power whose exponent is not one constant")
    number = exponent.data.value if isinstance(exponent.data, Constant) else exponent.data
    if isinstance(exponent.data, Constant) and exponent.data.error is not None:
        raise UnsupportedError("a power whose exponent is no number of the file")
    return power(float(number.item()))


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
    "Exp": Onnx(frozenset({6, 13}), lambda r: Exp()),
    "Log": Onnx(frozenset({6, 13}), lambda r: Log()),
    "Sqrt": Onnx(frozenset({6, 13}), lambda r: Sqrt()),
    "Reciprocal": Onnx(frozenset({6, 13}), lambda r: Reciprocal()),
    "Pow": Onnx(frozenset({7, 12, 13, 15}), _pow),
    "Softplus": Onnx(frozenset({1, 22}), lambda r: Softplus()),
}


def _softplus(c: Call) -> Activation:
    """Above its threshold the module computes z: that must be softplus to the last digit of its type."""
    if c["beta"] != 1:
        raise UnsupportedError("softplus with a beta other than 1")
    if exp(-c["threshold"]) > torch.finfo(c.dtype).eps:
        raise UnsupportedError(f"softplus with a threshold of {c['threshold']:g}, which its type can tell; set 40")
    return Softplus()


# Operators of aten, by name without overload; what they do not mean as an activation they raise UnsupportedError for.
TORCH: dict[str, Callable[[Call], Activation]] = {
    "relu": lambda c: ReLU(),
    "leaky_relu": lambda c: LeakyReLU(c.number(c["negative_slope"]).value.item()),
    "sigmoid": lambda c: Sigmoid(),
    "tanh": lambda c: Tanh(),
    "exp": lambda c: Exp(),
    "log": lambda c: Log(),
    "sqrt": lambda c: Sqrt(),
    "reciprocal": lambda c: Reciprocal(),
    "rsqrt": lambda c: ReciprocalSqrt(),
    "pow": lambda c: power(c.number(c["exponent"]).value.item()),
    "square": lambda c: Square(),
    "softplus": _softplus,
}
