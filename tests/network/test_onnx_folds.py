"""Operators on constants compute what ONNX Runtime computes: each alone, its result added to the network's input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.network.affine import AFFINE
from tests.network.cases import SQUARE, Case, X, agrees, case, integers, weights
from tests.run.files import model, node, tensor

from krelax.network.onnx_constants import FOLDS

_INT8, _UINT8 = np.array([[-128, 5, 127], [0, -7, 9]], np.int8), np.array([[0, 5, 255], [3, 128, 9]], np.uint8)
FOLDED = [
    *(given for given in AFFINE if given.op in FOLDS),
    case("Pad", X, integers(0, 1, 2, 1)),
    case("Pad", X, integers(0, 1, 2, 1), np.float32(-1.5)),
    case("Floor"),
    case("Ceil"),
    case("Trilu", X, np.int64(1), shape=(3, 4)),
    case("DequantizeLinear", _INT8, np.float32(0.013), np.int8(-3)),
    case("DequantizeLinear", _UINT8, np.float32(0.7)),
    case("DequantizeLinear", _INT8, np.array([0.1, 2.5, 3e-5], np.float32), np.array([1, 0, -1], np.int8)),
    case("DequantizeLinear", _UINT8, np.array([0.1, 2.5], np.float32), np.array([1, 200], np.uint8), axis=0),
    case("DequantizeLinear", np.array([[1, -70000]], np.int32), np.float32(0.5)),
    case("Softplus", shape=(2, 3)),
    case("Softmax", shape=(2, 3)),
    case("LayerNormalization", X, weights(3), shape=(2, 3)),
    case("Conv", X, weights(3, 2, 2, 2), shape=SQUARE),
    case("Erf"),
    case("Sign"),
    case("Tanh"),
    case("Gemm", X, weights(4, 3), weights(3)),
    case("ReduceL2", shape=(2, 3), axes=[1]),
    case("ReduceMax", shape=(2, 3), axes=[1]),
    case("CumSum", X, np.int64(0)),
    case("Concat", X, weights(1, 4), axis=0),
    case("Clip", X, np.float32(-0.5), np.float32(0.5)),
    case("Pow", X, np.float32(2)),
    case("MaxPool", shape=SQUARE, kernel_shape=[2, 2]),
    case("LSTM", X, weights(1, 8, 3), weights(1, 8, 2), shape=(2, 1, 3), hidden_size=2),
    case("Einsum", X, weights(4, 2), equation="ij,jk->ik"),
    case("Where", np.array([True, False, True, False]), X, weights(4)),
]


def folded(given: Case) -> onnx.ModelProto:
    """The operator of constants, whose result is added to the input."""
    operands = [weights(*given.shape, seed=9) if o is X else o for o in given.operands]
    names = ["" if o is None else f"c{i}" for i, o in enumerate(operands)]
    constants = {name: o for name, o in zip(names, operands, strict=True) if name}
    nodes = [node(given.op, *names, "f", **given.attributes), node("Add", "x", "f", "y")]
    return model(nodes, constants, [tensor("x", (1,))], opset=given.opset)


@pytest.mark.parametrize("given", FOLDED, ids=str)
def test_a_folded_operator_computes_what_onnx_runtime_computes(given: Case, tmp_path: Path) -> None:
    agrees(folded(given), tmp_path)


def whole(op: str, values: list[Any], attributes: dict[str, Any]) -> onnx.ModelProto:
    """The input times a constant of integers or truths that an operator computes."""
    names = [f"c{i}" for i in range(len(values))]
    nodes = [node(op, *names, "f", **attributes), node("Cast", "f", "g", to=TensorProto.FLOAT)]
    constants = dict(zip(names, values, strict=True))
    return model([*nodes, node("Mul", "x", "g", "y")], constants, [tensor("x", (1,))])


WHOLE: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("GreaterOrEqual", [np.array([1.5, 2.0, -3.0]), np.float64(2)], {}),
    ("LessOrEqual", [np.array([1.5, 2.0, -3.0], np.float32), np.float32(2)], {}),
    ("Xor", [np.array([True, False]), np.array([[True], [False]])], {}),
    ("Mod", [integers(7, -7, 5), integers(3, 3, -3)], {}),
    ("ReduceMax", [integers(3, 9, 2)], {}),
    ("NonZero", [np.array([[0.0, 2.0], [1.0, 0.0]], np.float32)], {}),
    ("Equal", [integers(1, 2), np.int64(2)], {}),
    ("And", [np.array([True, False]), np.bool_(True)], {}),
    ("Or", [np.array([True, False]), np.bool_(True)], {}),
    ("Not", [np.array([True, False])], {}),
    ("Greater", [integers(1, 3), integers(2, 2)], {}),
    ("Less", [integers(1, 3), integers(2, 2)], {}),
    ("Min", [integers(1, 3), integers(2, 2)], {}),
    ("Neg", [integers(1, 3)], {}),
    ("ReduceProd", [integers(4, 3)], {}),
    ("ReduceSum", [integers(4, 3)], {}),
    ("ConstantOfShape", [integers(2, 3)], {}),
    ("Size", [weights(2, 3)], {}),
    ("Range", [np.int64(1), np.int64(9), np.int64(3)], {}),
    ("EyeLike", [weights(2, 3)], {"k": 1}),
    ("Compress", [integers(4, 5, 6), np.array([True, False, True])], {"axis": 0}),
    ("Pad", [integers(4, 5), integers(1, 2)], {}),
    ("OneHot", [integers(1, -1, 3), np.int64(3), np.array([0.5, 2.0], np.float32)], {}),
    ("OneHot", [integers(1, 2), np.int64(3), integers(-1, 4)], {"axis": 0}),
    ("CumSum", [integers(1, 2, 4), np.int64(0)], {"reverse": 1}),
    ("ArgMax", [weights(2, 3)], {"axis": 1}),
    ("IsNaN", [weights(3)], {}),
    ("IsInf", [weights(3)], {}),
    ("CastLike", [weights(3), integers(1)], {}),
]


@pytest.mark.parametrize(("op", "values", "attributes"), WHOLE)
def test_whole_numbers(op: str, values: list[Any], attributes: dict[str, Any], tmp_path: Path) -> None:
    agrees(whole(op, values, attributes), tmp_path)


def test_weights_of_half_precision(tmp_path: Path) -> None:
    """A cast of float16 and bfloat16 weights to float32 is exact."""
    half = weights(4, 3).astype(np.float16)
    other = helper.make_tensor("b", TensorProto.BFLOAT16, [3], [0.5, -1.25, 3.140625])
    nodes = [
        node("Cast", "h", "w", to=TensorProto.FLOAT),
        node("Cast", "b", "c", to=TensorProto.FLOAT),
        node("Gemm", "x", "w", "c", "y"),
    ]
    proto = model(nodes, {"h": half}, [tensor("x", (1, 4))])
    proto.graph.initializer.append(other)
    agrees(proto, tmp_path)
