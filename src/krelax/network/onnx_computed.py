"""Functions and decisions of constants: they join `FOLDS` of `krelax.network.onnx_constants`.

Floating-point constants are enclosures: what decides by them (a sign, a rounding, a comparison) is refused where their
errors leave it open.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
import torch

from krelax.errors import InputError, UnsupportedError
from krelax.network import onnx_geometry as geometry
from krelax.network.constants import Constant
from krelax.network.onnx_constants import folds, joint, require_full
from krelax.network.onnx_reader import Kind, Literal, Reader
from krelax.network.quantised import rounded

_FUNCTIONS: dict[str, Callable[[Constant], Constant]] = {
    "Sign": Constant.sign,
    "Round": rounded,
    **{n: (lambda x, n=n: x.function(n.lower())) for n in ("Exp", "Log", "Sin", "Cos", "Tanh", "Sigmoid")},  # type: ignore[misc]
}


@folds(*_FUNCTIONS)
def _function(r: Reader) -> Literal:
    require_full(r)
    return Literal(r.given(0).kind, _FUNCTIONS[r.node.op_type](r.weight(0)).checked())


@folds("Pow")
def _power(r: Reader) -> Literal:
    """Whole exponents, and halves; other powers have to be folded when exporting."""
    require_full(r)
    base, exponent = r.weight(0), r.given(1)
    number = exponent.data.value if isinstance(exponent.data, Constant) else torch.from_numpy(exponent.integers * 1.0)
    power = float(number.reshape(-1)[0]) if number.numel() == 1 else inf
    if not (2 * power).is_integer() or not 0 < abs(power) <= 8:
        raise UnsupportedError("a power of a constant other than by a small half; fold it when exporting")
    result = Constant.of(1.0)
    for _ in range(int(abs(power))):
        result = result * base
    result = result * base.sqrt() if power % 1 else result
    return Literal(r.given(0).kind, (result.reciprocal() if power < 0 else result).checked())


@folds("Clip")
def _clip(r: Reader) -> Literal:
    require_full(r)
    x = r.weight(0)
    if r.version < 11:
        low, high = (None if b is None else Constant.of(b) for b in (r.attribute("min"), r.attribute("max")))
    else:
        low, high = r.constant(1), r.constant(2)
    x = x if low is None else x.maximum(low.reshape())
    return Literal(r.given(0).kind, x if high is None else x.minimum(high.reshape()))


@folds("Gemm")
def _gemm(r: Reader) -> Literal:
    require_full(r)
    a, b = (r.weight(i).mT if r.attribute(name) else r.weight(i) for i, name in enumerate(("transA", "transB")))
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
        raise InputError(f"product of shapes {list(a.shape)} and {list(b.shape)}")
    r.require((a.shape[0], b.shape[1]))
    result = a.matmul(b) * Constant.of(r.attribute("alpha"))
    bias = r.constant(2)
    if bias is not None:
        result = result + bias * Constant.of(r.attribute("beta"))
    return Literal(r.given(0).kind, result.checked())


@folds("ReduceL2", "ReduceL1", "ReduceSumSquare")
def _norm(r: Reader) -> Literal:
    require_full(r)
    axes, keep = geometry.reduced(r)
    x = r.weight(0)
    total = (abs(x) if r.node.op_type == "ReduceL1" else x * x).sum(tuple(axes))
    total = total.sqrt() if r.node.op_type == "ReduceL2" else total
    shape = tuple(n for i, n in enumerate(total.shape) if keep or i not in axes)
    return Literal(r.given(0).kind, total.reshape(*shape).checked())


_COMPARED: dict[str, Callable[..., Any]] = {
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
}


@folds(*_COMPARED)
def _compare(r: Reader) -> Literal:
    a, b = r.given(0), r.given(1)
    r.require(joint(a.shape, b.shape))
    compare = _COMPARED[r.node.op_type]
    if not isinstance(a.data, Constant) or not isinstance(b.data, Constant):
        return Literal(Kind.BOOL, np.asarray(compare(a.integers, b.integers), np.bool_))
    apart = a.data - b.data
    if not bool(((apart.value.abs() > apart.errors()) | (apart.errors() == 0)).all()):
        raise UnsupportedError("a comparison of a computed constant that rounding leaves open; fold it when exporting")
    return Literal(Kind.BOOL, np.asarray(compare(apart.value.numpy(), 0.0), np.bool_))
