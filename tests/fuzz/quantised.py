"""Random pieces of graphs that round to grids, and that decide by what depends on the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tests.fuzz.graphs import Maker


def quantised(m: Maker) -> None:
    """Rounded to integers, perhaps multiplied by others, and back. Scales are powers of two: quotients are exact."""
    m.shape = [int(n) for n in m.rng.integers(1, 4, 2)]
    m.begin()
    if m.version < 10:
        m.apply("Relu")
        return
    kind = m.some(np.uint8, np.int8)
    zero = int(m.rng.integers(0, 9))
    scale = m.constant(np.float32(m.some(0.25, 0.125)), np.float32)
    rounded = m.call("QuantizeLinear", m.last, scale, m.constant(zero, kind))[0]
    weight = m.rng.integers(-9 if kind is np.int8 else 0, 9, (m.shape[1], 2))
    how = m.some("back", "whole", "linear")
    if how == "whole":
        total = m.call("MatMulInteger", rounded, m.constant(weight, kind), m.constant(zero, kind))[0]
        m.last = m.call("Cast", total, to=1)[0]
        return
    if how == "linear":
        own, other = m.constant(np.float32(0.125), np.float32), m.constant(1, kind)
        out = m.constant(np.float32(0.5), np.float32)
        rounded = m.call(
            "QLinearMatMul", rounded, scale, m.constant(zero, kind), m.constant(weight, kind), own, other, out, other
        )[0]
        scale, zero = out, 1
    m.last = m.call("DequantizeLinear", rounded, scale, m.constant(zero, kind))[0]


def quantised_image(m: Maker) -> None:
    """The same of convolutions."""
    m.shape = [1, 1, 3, 3]
    m.begin()
    if m.version < 10:
        m.apply("Relu")
        return
    scale, zero = m.constant(np.float32(0.25), np.float32), m.constant(3, np.uint8)
    rounded = m.call("QuantizeLinear", m.last, scale, zero)[0]
    weight = m.constant(m.rng.integers(0, 9, (2, 1, 2, 2)), np.uint8)
    if m.rng.random() < 0.5:
        total = m.call("ConvInteger", rounded, weight, zero, kernel_shape=[2, 2])[0]
        m.last = m.call("Cast", total, to=1)[0]
        return
    none, out = m.constant(0, np.uint8), m.constant(np.float32(1), np.float32)
    rounded = m.call("QLinearConv", rounded, scale, zero, weight, scale, none, out, zero, kernel_shape=[2, 2])[0]
    m.last = m.call("DequantizeLinear", rounded, out, zero)[0]


def decisions(m: Maker) -> None:
    """One of two values, by a comparison; norms and logarithms, of what is in their domain."""
    m.shape = [int(n) for n in m.rng.integers(1, 4, 2)]
    m.begin()
    how = m.some("choice", "norm", "log", "arc")
    if how == "choice" and m.version >= 9:
        truth = m.call(m.some("Greater", "Less"), m.last, m.constant(0.25))[0]
        m.last = m.call("Where", truth, m.last, m.some(m.constant(0.5), m.call("Neg", m.last)[0]))[0]
    elif how == "norm":
        m.apply("Sigmoid")
        m.apply("LpNormalization", axis=m.some(0, 1, -1), p=m.some(1, 2))
    elif how == "log":
        m.apply("Abs")
        axes = [m.whole(1)] if m.version >= 18 else []
        m.apply("ReduceLogSum", *axes, axes=None if axes else [1], keepdims=m.some(0, 1))
    else:
        m.apply("Sigmoid")
        m.apply("Acos" if m.rng.random() < 0.7 else "Asin")


PIECES: list[Callable[[Maker], None]] = [quantised, quantised_image, decisions, decisions]
