"""What activations are called in ONNX files and in PyTorch, and how their attributes are read: a line each.

The importers read every operator of these tables as an activation of their operand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from krelax.activations import (
    ELU,
    GELU,
    Acosh,
    Activation,
    Asin,
    Atan,
    Atanh,
    Ceil,
    Cos,
    Cosh,
    Erf,
    Exp,
    Floor,
    HardSwish,
    LeakyReLU,
    Log,
    Mish,
    Reciprocal,
    ReciprocalSqrt,
    ReLU,
    Round,
    Shrink,
    Sigmoid,
    Sign,
    SiLU,
    Sin,
    Sinh,
    Softplus,
    Softsign,
    Sqrt,
    Square,
    Tan,
    Tanh,
    TanhGELU,
    Threshold,
)
from krelax.errors import UnsupportedError

if TYPE_CHECKING:
    from krelax.network.onnx_reader import Reader
    from krelax.network.torch_reader import Call


def _swish(r: Reader) -> Activation:
    if r.attribute("alpha") != 1:
        raise UnsupportedError("a swish with an alpha other than 1; export it as a product with a sigmoid")
    return SiLU()


def gelu(approximate: str) -> Activation:
    """GELU, exactly or as `tanh` approximates it."""
    forms: dict[str, Activation] = {"none": GELU(), "tanh": TanhGELU()}
    if approximate not in forms:
        raise UnsupportedError(f"GELU as {approximate!r} approximates it; krelax reads 'none' and 'tanh'")
    return forms[approximate]


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
    "Softplus": Onnx(frozenset({1, 22}), lambda r: Softplus()),
    "Elu": Onnx(frozenset({6, 22}), lambda r: ELU(r.attribute("alpha"))),
    "Selu": Onnx(frozenset({6, 22}), lambda r: ELU(r.attribute("alpha"), r.attribute("gamma"))),
    "Celu": Onnx(frozenset({12}), lambda r: ELU(r.attribute("alpha"), 1.0, r.attribute("alpha"))),
    "Erf": Onnx(frozenset({9, 13}), lambda r: Erf()),
    "Atan": Onnx(frozenset({7, 22}), lambda r: Atan()),
    "Softsign": Onnx(frozenset({1, 22}), lambda r: Softsign()),
    "Gelu": Onnx(frozenset({20}), lambda r: gelu(r.attribute("approximate"))),
    "Swish": Onnx(frozenset({24}), _swish),
    "HardSwish": Onnx(frozenset({14, 22}), lambda r: HardSwish()),
    "Mish": Onnx(frozenset({18, 22}), lambda r: Mish()),
    "Sinh": Onnx(frozenset({9, 22}), lambda r: Sinh()),
    "Cosh": Onnx(frozenset({9, 22}), lambda r: Cosh()),
    "Tan": Onnx(frozenset({7, 22}), lambda r: Tan()),
    "Asin": Onnx(frozenset({7, 22}), lambda r: Asin()),
    "Acosh": Onnx(frozenset({9, 22}), lambda r: Acosh()),
    "Atanh": Onnx(frozenset({9, 22}), lambda r: Atanh()),
    "Sin": Onnx(frozenset({7, 22}), lambda r: Sin()),
    "Cos": Onnx(frozenset({7, 22}), lambda r: Cos()),
    "Floor": Onnx(frozenset({6, 13}), lambda r: Floor()),
    "Ceil": Onnx(frozenset({6, 13}), lambda r: Ceil()),
    "Round": Onnx(frozenset({11, 22}), lambda r: Round()),
    "Sign": Onnx(frozenset({9, 13}), lambda r: Sign()),
    "ThresholdedRelu": Onnx(frozenset({10, 22}), lambda r: Threshold(r.attribute("alpha"))),
    "Shrink": Onnx(frozenset({9}), lambda r: Shrink(r.attribute("lambd"), r.attribute("bias"))),
}


def _given(c: Call, name: str) -> float:
    """A number in the type of the result."""
    return float(c.number(c[name]).value.item())


def _elu(c: Call) -> Activation:
    if c["input_scale"] != 1:
        raise UnsupportedError("an ELU that scales its operand")
    return ELU(_given(c, "alpha"), _given(c, "scale"))


# Operators of aten, by name without overload; what they do not mean as an activation they raise UnsupportedError for.
TORCH: dict[str, Callable[[Call], Activation]] = {
    "relu": lambda c: ReLU(),
    **dict.fromkeys(("sigmoid", "special_expit"), lambda c: Sigmoid()),
    "tanh": lambda c: Tanh(),
    "exp": lambda c: Exp(),
    "log": lambda c: Log(),
    "sqrt": lambda c: Sqrt(),
    "reciprocal": lambda c: Reciprocal(),
    "rsqrt": lambda c: ReciprocalSqrt(),
    "square": lambda c: Square(),
    "elu": _elu,
    "selu": lambda c: ELU(*(float(c.number(x).value.item()) for x in (1.6732632423543772, 1.0507009873554805))),
    "celu": lambda c: ELU(_given(c, "alpha"), 1.0, _given(c, "alpha")),
    **dict.fromkeys(("erf", "special_erf"), lambda c: Erf()),
    "atan": lambda c: Atan(),
    "arctan": lambda c: Atan(),
    "gelu": lambda c: gelu(c["approximate"]),
    "silu": lambda c: SiLU(),
    "hardswish": lambda c: HardSwish(),
    "mish": lambda c: Mish(),
    "sinh": lambda c: Sinh(),
    "cosh": lambda c: Cosh(),
    "tan": lambda c: Tan(),
    **dict.fromkeys(("asin", "arcsin"), lambda c: Asin()),
    **dict.fromkeys(("acosh", "arccosh"), lambda c: Acosh()),
    **dict.fromkeys(("atanh", "arctanh"), lambda c: Atanh()),
    "sin": lambda c: Sin(),
    "cos": lambda c: Cos(),
    "floor": lambda c: Floor(),
    "ceil": lambda c: Ceil(),
    "sign": lambda c: Sign(),
    "sgn": lambda c: Sign(),
    "threshold": lambda c: Threshold(_given(c, "threshold"), _given(c, "value")),
    "hardshrink": lambda c: Shrink(_given(c, "lambd")),
    "softshrink": lambda c: Shrink(_given(c, "lambd"), _given(c, "lambd")),
}
