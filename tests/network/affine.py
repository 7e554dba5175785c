"""Affine operators that converters write, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.network.cases import CUBE, LINE, SQUARE, Case, X, case, integers, weights

_DEEP, _UP = (1, 8, 2, 3), np.array([1, 1, 2, 3], np.float32)
_MASK = np.array([True, False, True, False])


def _resized(mode: str, scales: Any = None, sizes: Any = None, **attributes: Any) -> Case:
    given = [None if scales is None else np.array(scales, np.float32), *([] if sizes is None else [integers(*sizes)])]
    return case("Resize", X, None, *given, shape=SQUARE, mode=mode, **attributes)


AFFINE = [
    case("Sum", X, weights(4), X),
    case("Sum", weights(4), weights(3, 1), X),
    case("Sum", X),
    case("Mean", X, weights(3, 1), X, shape=(3, 4)),
    case("Tile", X, integers(2, 3)),
    case("GatherND", X, np.array([[0, 2], [1, -1]]), shape=(3, 4)),
    case("GatherND", X, np.array([[2], [0]]), shape=(3, 4)),
    case("GatherND", X, np.array([[1], [0], [-1]]), shape=(3, 4, 2), batch_dims=1),
    case("GatherElements", X, np.array([[0, 2, -1], [1, 1, 0]]), shape=(3, 4), axis=0),
    case("GatherElements", X, np.array([[0, 3, -1, 2, 2]]), axis=1),
    case("DepthToSpace", shape=_DEEP, blocksize=2),
    case("DepthToSpace", shape=_DEEP, blocksize=2, mode="CRD"),
    case("SpaceToDepth", shape=SQUARE, blocksize=3),
    case("Compress", X, _MASK, shape=(1, 4), axis=1),
    case("Compress", X, np.array([True, False, True, True]), shape=(2, 3)),
    case("PRelu", X, weights(4)),
    case("PRelu", X, np.float32(0.25)),
    case("PRelu", X, weights(2, 1, 1), shape=SQUARE),
    case("LeakyRelu", alpha=1.5),
    case("LeakyRelu", alpha=-0.5),
    case("HardSigmoid"),
    case("HardSigmoid", alpha=0.5, beta=0.25),
    case("Pad", X, integers(0, 0, 2, 1, 0, 0, 3, 0), shape=SQUARE, mode="reflect"),
    case("Pad", X, integers(0, 0, 2, 1, 0, 0, 3, 9), shape=SQUARE, mode="edge"),
    case("Pad", X, integers(2, 3), None, integers(-1), shape=(2, 4), mode="wrap", opset=19),
    case("Pad", pads=[0, 1, 0, 2], mode="reflect", opset=8),
    case("ConvTranspose", X, weights(2, 3, 3, 3), shape=SQUARE, strides=[2, 2], auto_pad="SAME_UPPER"),
    case("ConvTranspose", X, weights(2, 3, 3, 3), weights(3), shape=SQUARE, strides=[2, 2], auto_pad="SAME_LOWER"),
    case("ConvTranspose", X, weights(2, 3, 4), shape=LINE, strides=[3], output_shape=[26]),
    case("ConvTranspose", X, weights(2, 3, 4), shape=LINE, strides=[3], output_shape=[25], auto_pad="SAME_UPPER"),
    case("MatMul", X, weights(3, 4, 2), shape=(3, 2, 4)),
    case("MatMul", X, weights(3, 4, 2), shape=(4,)),
    case("MatMul", weights(2, 1, 3, 5), X, shape=(4, 5, 2)),
    _resized("nearest", [1, 1, 2, 3]),
    _resized("nearest", [1, 1, 2, 0.5], coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    _resized("nearest", [1, 1, 1.5, 2], nearest_mode="ceil"),
    _resized("nearest", sizes=[1, 2, 12, 3], nearest_mode="round_prefer_ceil"),
    _resized("linear", [1, 1, 2, 2.5]),
    _resized("linear", [1, 1, 0.75, 2], coordinate_transformation_mode="pytorch_half_pixel"),
    _resized("linear", sizes=[1, 2, 11, 4], coordinate_transformation_mode="align_corners"),
    _resized("linear", sizes=[1, 2, 12, 3], coordinate_transformation_mode="asymmetric"),
    _resized("cubic", [1, 1, 2, 2]),
    _resized("cubic", [1, 1, 2, 1.5], cubic_coeff_a=-0.5, exclude_outside=1),
    case("Resize", X, None, None, integers(12, 5), shape=SQUARE, opset=18, mode="linear", axes=[2, 3]),
    case("Resize", X, None, np.array([2.6, 1.7], np.float32), shape=SQUARE, opset=19, mode="linear", axes=[-1, 2],
         coordinate_transformation_mode="half_pixel_symmetric"),
    case("Resize", X, np.array([1, 1, 2, 2], np.float32), shape=SQUARE, opset=10, mode="linear"),
    case("Upsample", X, _UP, shape=SQUARE, opset=9),
    case("Upsample", X, _UP, shape=SQUARE, opset=9, mode="linear"),
    case("Upsample", shape=SQUARE, opset=8, scales=[1.0, 1.0, 2.0, 2.0]),
    case("Einsum", X, weights(4, 3), equation="ij,jk->ik"),
    case("Einsum", weights(3, 4), X, equation="kj,ij->ik"),
    case("Einsum", X, weights(2, 5, 3), shape=(2, 4, 5), equation="bij,bjk->bik"),
    case("Einsum", X, weights(5, 3, 2), shape=(2, 4, 5), equation="hqd, dkh -> hkq"),
    case("Einsum", X, weights(5, 3), shape=(2, 4, 5), equation="...d,de"),
    case("Einsum", X, weights(4), equation="ij,j->j"),
    case("Einsum", X, shape=(2, 3, 4), equation="ijk->kj"),
    case("CumSum", X, np.int64(1), shape=(3, 4)),
    case("CumSum", X, np.int64(-2), shape=(3, 4), exclusive=1, reverse=1),
    case("Where", _MASK, X, weights(3, 1)),
    case("Where", np.array([[True], [False]]), X, X, shape=(1, 4)),
    case("Where", _MASK, weights(4), X),
    case("Trilu", shape=(2, 3, 4)),
    case("Trilu", X, np.int64(-1), shape=(4, 4), upper=0),
    case("ReduceMax", shape=CUBE, axes=[1, 3]),
    case("ReduceMax", shape=SQUARE, axes=[-1], keepdims=0),
    case("ReduceMax", X, integers(1), shape=(2, 3, 4), opset=18, keepdims=0),
    case("ReduceMin", shape=(2, 3, 4)),
    case("ReduceL1", shape=(2, 3, 4), axes=[1]),
]  # fmt: skip
