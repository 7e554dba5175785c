"""Random nodes of operators that sort, put numbers in places, take norms, and sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tests.fuzz.graphs import Maker


def _float(m: Maker) -> int:
    """The number of the graph's own type."""
    return 11 if m.dtype == np.float64 else 1


def _axis(m: Maker) -> int:
    rank = len(m.shape)
    return int(m.rng.integers(-rank, rank)) if rank else 0


def ordered(m: Maker) -> None:
    m.begin()
    op, axis = m.some("TopK", "TopK", "ArgMax", "ArgMin", "Hardmax"), _axis(m)
    if op == "Hardmax":
        m.apply(op, axis=axis)
        return
    if op == "TopK":
        more = {"largest": m.some(None, 0, 1), "sorted": m.some(None, 1)} if m.version >= 11 else {}
        kept = int(m.rng.integers(1, 3))
        operands = [m.last] if m.version < 10 else [m.last, m.whole(kept)]
        more |= {"k": kept} if m.version < 10 else {}
        values, index = m.call(op, *operands, outputs=2, axis=m.some(None, axis), **more)
        m.last = values if m.rng.random() < 0.8 else m.call("Cast", index, to=_float(m))[0]
        return
    tie = {"select_last_index": m.some(None, 0, 1)} if m.version >= 12 else {}
    found = m.call(op, m.last, axis=axis, keepdims=m.some(None, 0, 1), **tie)[0]
    m.last = m.call("Cast", found, to=_float(m))[0]


def scattered(m: Maker) -> None:
    m.begin()
    op = m.some("ScatterND", "ScatterElements", "Scatter", "OneHot")
    if op == "OneHot":
        chosen = m.constant(m.rng.integers(-3, 4, m.shape[-1:] or [1]), np.int64)
        hot = m.call(op, chosen, m.whole(m.some(1, 3)), m.constant(m.floats(2)), axis=m.some(None, 0, -1))[0]
        m.apply("Mul" if len(m.shape) < 2 else "MatMul", hot)
        return
    shape = m.shape or [1]
    if op == "ScatterND":
        depth = int(m.rng.integers(1, len(shape) + 1))
        index = np.stack([m.rng.integers(-n, n, 2) for n in shape[:depth]], 1)
        updates = m.floats(2, *shape[depth:])
        more = {"reduction": m.some(None, None, "add", "mul")} if m.version >= 16 else {}
    else:
        axis = _axis(m)
        some = [min(n, 2) for n in shape]
        index = m.rng.integers(-shape[axis], shape[axis], some)
        updates = m.floats(*some)
        more = {"axis": axis}
        if op == "ScatterElements" and m.version >= 16:
            more["reduction"] = m.some(None, None, "add")
    written = [m.constant(index, np.int64), m.constant(updates)]
    if m.rng.random() < 0.3:
        m.last = m.call(op, m.constant(m.floats(*shape)), written[0], m.call("Mul", written[1], m.last)[0], **more)[0]
    else:
        m.apply(op, *written, **more)


def norms(m: Maker) -> None:
    op = m.some("LRN", "LpPool", "GlobalLpPool", "MeanVarianceNormalization")
    m.image()
    m.begin()
    rank = len(m.shape) - 2
    if op == "LRN":
        m.apply(op, size=int(m.some(1, 2, 3)), alpha=m.some(None, 0.5), beta=m.some(None, 0.5), bias=m.some(None, 2.0))
    elif op == "LpPool":
        window = [int(m.some(1, 2)) for _ in range(rank)]
        m.apply(op, kernel_shape=window, p=m.some(None, 1, 2, 3), strides=m.some(None, [1] * rank))
    elif op == "GlobalLpPool":
        m.apply(op, p=m.some(None, 1, 2, 3))
    else:
        m.apply(op, axes=m.some(None, [0, 2, 3][: rank + 1], [1]))


def numbers(m: Maker) -> None:
    """Functions of numbers, and what constants and shapes are turned into."""
    m.begin()
    op = m.some("Asinh", "Acosh", "IsNaN", "IsInf", "CastLike", "DynamicQuantizeLinear", "EyeLike", "NonZero")
    if op in {"Asinh", "Acosh"}:
        if op == "Acosh":
            m.apply("Add", m.constant(m.some(20.0, 1.0)))
        m.apply(op)
    elif op in {"IsNaN", "IsInf"}:
        found = m.call(op, m.last if m.rng.random() < 0.5 else m.constant(m.floats(2)))[0]
        m.apply("Add", m.call("Cast", found, to=_float(m))[0])
    elif op == "CastLike":
        m.apply(op, m.constant(m.floats(1), m.some(m.dtype, np.float64, np.int64)))
        m.apply("Cast", to=_float(m))
    elif op == "DynamicQuantizeLinear":
        quantised, scale, zero = m.call(op, m.last, outputs=3)
        m.last = m.call("DequantizeLinear", quantised, scale, zero)[0]
    elif op == "EyeLike":
        m.apply("Add", m.call(op, m.constant(m.floats(*m.some((2, 2), (1, 3)))), k=m.some(None, 1), dtype=_float(m))[0])
    else:
        places = m.call(op, m.constant(m.floats(3)))[0]
        m.apply("Add", m.call("Cast", m.call("ReduceMax", places, keepdims=0)[0], to=_float(m))[0])


def sampled(m: Maker) -> None:
    m.image()
    m.begin()
    if m.rng.random() < 0.5:
        places = m.constant(m.rng.uniform(-1.3, 1.3, (m.shape[0], 2, 2, 2)))
        m.apply("GridSample", places, mode=m.some(None, "bilinear", "nearest"),
                padding_mode=m.some(None, "zeros", "border"), align_corners=m.some(None, 0, 1))  # fmt: skip
        return
    m.apply("Reshape", m.whole(1, 4, -1))
    m.apply("Col2Im", m.whole(*m.some((3, 3), (2, 4))), m.whole(2, 2), strides=m.some(None, [1, 1]))


PIECES = [ordered, scattered, norms, numbers, sampled]
