"""Pieces of random graphs that converters write: moves, sums, interpolation, constants, scikit-learn's operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tests.fuzz.graphs import Maker

ML = "ai.onnx.ml"


def _known(m: Maker, **since: int) -> str:
    """One of some operators that the graph's version has."""
    return str(m.some(*[op for op, version in since.items() if version <= m.version]))


def moves(m: Maker) -> None:
    op = _known(
        m, Tile=7, DepthToSpace=7, SpaceToDepth=7, GatherND=11, GatherElements=11, Compress=9, Trilu=14, Where=9
    )
    if op in {"DepthToSpace", "SpaceToDepth"}:
        m.shape = [1, int(m.some(4, 8, 3)), 2, 4]
    m.begin()
    rank, size = len(m.shape), m.shape[0] if m.shape else 1
    if op == "Tile":
        m.apply(op, m.whole(*[int(n) for n in m.rng.integers(1, 3, rank)]))
    elif op in {"DepthToSpace", "SpaceToDepth"}:
        mode = m.some(None, "DCR", "CRD") if op == "DepthToSpace" and m.version >= 11 else None
        m.apply(op, blocksize=2, mode=mode)
    elif op == "GatherND":
        m.apply(op, m.constant(m.rng.integers(-size, size, (2, 1)), np.int64))
    elif op == "GatherElements":
        m.apply(op, m.constant(m.rng.integers(-size, size, [2, *m.shape[1:]]), np.int64), axis=m.some(None, 0))
    elif op == "Compress":
        m.apply(op, m.constant(m.rng.random(size) < 0.6, np.bool_), axis=m.some(0, None))
    elif op == "Trilu":
        m.apply(op, *m.some([], [m.constant(m.some(-1, 0, 1), np.int64)]), upper=m.some(None, 0, 1))
    else:
        mask, other = m.constant(m.rng.random(m.shape) < 0.5, np.bool_), m.constant(m.floats(*m.shape))
        m.last = m.call(op, mask, *m.some([m.last, other], [other, m.last], [m.last, m.last]))[0]


def sums(m: Maker) -> None:
    op = _known(m, Sum=7, Mean=7, PRelu=7, HardSigmoid=7, ReduceMax=7, ReduceMin=7, ReduceL1=7, CumSum=11, Einsum=12)
    if op == "Einsum":
        m.shape = [2, 3]
    m.begin()
    if op in {"Sum", "Mean"}:
        m.apply(op, *[m.constant(m.floats(*m.shape)) for _ in range(m.rng.integers(0, 2))], m.last)
    elif op == "PRelu":
        m.apply(op, m.constant(m.floats(*m.shape[-1:])))
    elif op == "HardSigmoid":
        m.apply(op, alpha=m.some(None, 0.5), beta=m.some(None, 0.25))
    elif op == "CumSum":
        m.apply(op, m.constant(0, np.int64), exclusive=m.some(None, 0, 1), reverse=m.some(None, 0, 1))
    elif op == "Einsum":
        equation, shape = m.some(("ij,jk->ik", (3, 2)), ("ij,j->ij", (3,)), ("ij,ik->jk", (2, 2)), ("...j,j", (3,)))
        m.apply(op, m.constant(m.floats(*shape)), equation=equation)
    else:
        axes = [-1] if m.shape else None
        m.apply(op, keepdims=m.some(None, 0, 1), **({"axes": axes} if m.version < 18 else {}))


def resize(m: Maker) -> None:
    m.image()
    m.begin()
    rank = len(m.shape) - 2
    scales = np.array([1, 1, *m.rng.choice([0.5, 1, 1.5, 2, 3], rank)], np.float32)
    if m.version < 9:
        m.apply("Upsample", scales=[float(max(s, 1)) for s in scales], mode=m.some(None, "nearest", "linear"))
    elif m.version < 11:
        op = "Upsample" if m.version == 9 else "Resize"
        m.apply(op, m.constant(np.maximum(scales, 1), np.float32), mode=m.some(None, "nearest", "linear"))
    else:
        places = m.some(None, "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel")
        m.apply("Resize", "", m.constant(scales, np.float32), mode=m.some(None, "linear", "nearest", "cubic"),
                coordinate_transformation_mode=places,
                nearest_mode=m.some(None, "floor", "ceil", "round_prefer_ceil"))  # fmt: skip


def masks(m: Maker) -> None:
    """Constants that are computed: whole numbers and truths, and weights that are stored as integers."""
    m.begin()
    compared = _known(m, Equal=7, Greater=9, Less=9, GreaterOrEqual=12, LessOrEqual=12)
    kind = m.some(np.int64, np.float32) if m.version >= 11 else np.int64 if compared == "Equal" else np.float32
    truths = [m.call(compared, m.constant([1, 2], kind), m.constant([2, m.some(1, 2)], kind))[0] for _ in range(2)]
    truth = m.call(m.some("And", "Or", "Xor"), *truths)[0] if m.rng.random() < 0.5 else m.call("Not", truths[0])[0]
    name = m.call("Cast", truth, to=7)[0]
    name = m.call("ReduceProd", name, keepdims=0)[0] if m.rng.random() < 0.3 else m.call("Size", name)[0]
    if m.rng.random() < 0.5:
        name = m.call("Add", name, m.call("Size", m.last)[0])[0]
    if m.version >= 11 and m.rng.random() < 0.5:
        name = m.call("Range", m.constant(0, np.int64), name, m.constant(7, np.int64))[0]
    if m.version >= 10 and m.rng.random() < 0.5:
        name = m.call("Mod", name, m.constant(3, np.int64))[0]
    name = m.call("Cast", name, to=1)[0]
    if m.rng.random() < 0.5:
        name = m.call(m.some("Floor", "Ceil"), m.call("Mul", name, m.constant(0.5, np.float32))[0])[0]
    if m.version >= 10 and m.rng.random() < 0.4:
        stored = m.constant(m.rng.integers(-9, 9, (1,)), np.int8)
        name = m.call("DequantizeLinear", stored, m.constant(0.125, np.float32))[0]
    if m.version >= 9 and m.rng.random() < 0.4:
        name = m.call("ConstantOfShape", m.whole(1))[0]
    m.apply(m.some("Mul", "Add"), name)


def learned(m: Maker) -> None:
    m.shape = [1, 3]
    m.begin()
    op = m.some("Scaler", "LinearRegressor", "LinearClassifier")
    linear: dict[str, Any] = {"coefficients": [float(v) for v in m.floats(6)], "intercepts": [0.5, -0.25]}
    if op == "Scaler":
        values = [float(v) for v in m.floats(3)]
        m.last = m.call(op, m.last, domain=ML, offset=values, scale=m.some([2.0], values))[0]
    elif op == "LinearRegressor":
        m.last = m.call(op, m.last, domain=ML, targets=2, **linear)[0]
    else:
        transform = m.some("NONE", "LOGISTIC")
        m.last = m.call(op, m.last, domain=ML, outputs=2, classlabels_ints=[0, 1], post_transform=transform, **linear)[
            1
        ]


PIECES: list[Callable[[Maker], None]] = [moves, moves, sums, sums, resize, masks, learned]
