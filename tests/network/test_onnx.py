"""Every operator the ONNX reader knows, alone in a model, against ONNX Runtime; and whole files, good and bad.

`load_onnx` compares what it read with ONNX Runtime itself; `agrees` does so again, at inputs of its own, so that a
hole in that check would show.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.marks import at_night_after
from tests.network.affine import AFFINE
from tests.network.cases import CUBE, LINE, SQUARE, Case, X, agrees, case, integers, positive, weights
from tests.network.functions import FUNCTIONS, POSITIVE
from tests.network.quantised import QUANTISED
from tests.network.recognised import FORMS as RECOGNISED
from tests.network.several import SEVERAL
from tests.run.files import Shape, dense, model, node, random_dense, save, tensor

from krelax.errors import InputError, UnsupportedError
from krelax.network.linear import Scale
from krelax.network.onnx import load_onnx
from krelax.network.onnx_operators import READERS

BENCHMARKS = Path(os.environ.get("KRELAX_BENCHMARKS", Path(__file__).parents[3] / "shared" / "benchmarks"))
VERSIONS = range(8, 22)

OPERATORS = [
    *FUNCTIONS,
    *POSITIVE,
    *(case(op) for op in ("Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Identity", "Dropout", "LeakyRelu", "Transpose")),
    case("LeakyRelu", alpha=0.25),
    case("Relu", shape=(1, 1, 1, 5)),
    case("Relu", shape=()),
    case("Cast", to=TensorProto.FLOAT),
    case("Gemm", X, weights(4, 3)),
    case("Gemm", X, weights(4, 3), weights(3)),
    case("Gemm", X, weights(3, 4), weights(1, 3), transB=1),
    case("Gemm", X, weights(4, 3), weights(3), alpha=0.5, beta=-2.0),
    case("Gemm", X, weights(4, 3), np.float32(0.75)),
    case("Gemm", X, weights(4, 3), weights(2, 3), shape=(2, 4)),
    case("Gemm", X, weights(4, 3), weights(2, 1), shape=(2, 4)),
    case("Gemm", X, weights(4, 3), shape=(4, 1), transA=1),
    case("Gemm", weights(3, 5), X, weights(3, 1), shape=(5, 2), alpha=-0.5, beta=3.0),
    case("Gemm", weights(5, 3), X, shape=(2, 5), transA=1, transB=1),
    case("Gemm", X, weights(4, 4), X, beta=0.5),
    case("MatMul", X, weights(4, 3)),
    case("MatMul", X, weights(4)),
    case("MatMul", X, weights(4, 3), shape=(1, 2, 5, 4)),
    case("MatMul", X, weights(1, 4, 3), shape=(1, 2, 4)),
    case("MatMul", weights(3, 5), X, shape=(5, 2)),
    case("MatMul", weights(3, 5), X, shape=(1, 2, 5, 2)),
    case("MatMul", weights(5), X, shape=(5, 2)),
    case("MatMul", weights(3, 4), X, shape=(4,)),
    case("Add", X, weights(1, 4)),
    case("Add", weights(3, 1), X),
    case("Add", X, X),
    case("Sub", X, weights(4)),
    case("Sub", weights(4), X),
    case("Sub", X, X),
    case("Mul", X, weights(2, 3, 1), shape=(3, 4)),
    case("Mul", np.float32(-3), X),
    case("Mul", X, X, shape=(2, 3)),
    case("MatMul", X, X, shape=(4,)),
    case("MatMul", X, X, shape=(2, 3, 3)),
    case("Gemm", X, X, shape=(2, 3), transA=1),
    case("Gemm", X, X, weights(2), shape=(2, 3), transB=1, alpha=-0.5),
    case("Div", X, positive(4)),
    case("Div", weights(4), X),
    case("Softmax", shape=(2, 3)),
    case("Softmax", shape=(2, 3, 2), axis=1),
    case("Softmax", shape=(2, 3, 2), axis=1, opset=11),
    case("LogSoftmax", shape=(2, 3), axis=0),
    case("LayerNormalization", X, weights(3), weights(3), shape=(2, 3)),
    case("LayerNormalization", X, weights(2, 3), shape=(4, 2, 3), axis=1, epsilon=0.1),
    case("InstanceNormalization", X, weights(2), weights(2), shape=LINE),
    case("GroupNormalization", X, weights(4), weights(4), shape=(1, 4, 3), num_groups=2, opset=21),
    case("ReduceSumSquare", shape=(2, 3), axes=[1]),
    case("ReduceL2", shape=(2, 3), keepdims=0),
    case("ReduceLogSumExp", shape=(2, 3), axes=[-1]),
    case("LSTM", X, weights(1, 8, 3), weights(1, 8, 2), weights(1, 16), shape=(3, 2, 3), hidden_size=2),
    case("GRU", X, weights(2, 6, 3), weights(2, 6, 2), shape=(3, 2, 3), hidden_size=2, direction="bidirectional"),
    case("RNN", X, weights(1, 2, 3), weights(1, 2, 2), shape=(3, 2, 3), hidden_size=2, direction="reverse"),
    case("Max", X, weights(4)),
    case("Max", weights(4), X),
    case("Max", X, weights(4), np.float32(0.5)),
    case("Max", X),
    case("Min", X, weights(4)),
    case("Min", weights(1, 4), X, np.float32(1)),
    case("Clip", X, np.float32(-1), np.float32(0.5)),
    case("Clip", X, None, np.float32(0.5)),
    case("Clip", X, np.float32(-0.5)),
    case("Clip", X, np.float32(1), np.float32(-1)),
    case("Clip"),
    case("Conv", X, weights(3, 2, 3, 3), shape=SQUARE),
    case("Conv", X, weights(3, 2, 3, 3), weights(3), shape=SQUARE, kernel_shape=[3, 3], strides=[2, 1]),
    case("Conv", X, weights(3, 2, 3, 2), weights(3), shape=SQUARE, pads=[0, 1, 2, 0]),
    case("Conv", X, weights(3, 2, 2, 2), shape=SQUARE, dilations=[2, 3], pads=[1, 1, 1, 1]),
    case("Conv", X, weights(4, 1, 3, 3), weights(4), shape=SQUARE, group=2),
    case("Conv", X, weights(3, 2, 3, 3), shape=SQUARE, auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", X, weights(3, 2, 2, 2), shape=SQUARE, auto_pad="SAME_LOWER"),
    case("Conv", X, weights(3, 2, 3, 3), shape=SQUARE, auto_pad="VALID"),
    case("Conv", X, weights(3, 2, 4), weights(3), shape=LINE, strides=[2], pads=[1, 2]),
    case("Conv", X, weights(3, 2, 2, 3, 2), weights(3), shape=CUBE, pads=[1, 0, 1, 1, 0, 1]),
    case("ConvTranspose", X, weights(2, 3, 3, 3), weights(3), shape=SQUARE),
    case("ConvTranspose", X, weights(2, 3, 3, 3), shape=SQUARE, strides=[2, 2], pads=[1] * 4, output_padding=[1, 1]),
    case("ConvTranspose", X, weights(2, 3, 3, 3), shape=SQUARE, pads=[0, 1, 2, 1]),
    case("ConvTranspose", X, weights(2, 2, 2, 2), weights(4), shape=SQUARE, group=2, dilations=[2, 1]),
    case("ConvTranspose", X, weights(2, 3, 4), shape=LINE, strides=[3]),
    case("BatchNormalization", X, *(weights(2, seed=s) for s in range(3)), positive(2), shape=SQUARE),
    case("BatchNormalization", X, *(weights(4, seed=s) for s in range(3)), positive(4), epsilon=0.25),
    case("AveragePool", shape=SQUARE, kernel_shape=[2, 2]),
    case("AveragePool", shape=SQUARE, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
    case("AveragePool", shape=SQUARE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", shape=SQUARE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("AveragePool", shape=SQUARE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("AveragePool", shape=LINE, kernel_shape=[4], strides=[3], pads=[2, 2]),
    case("MaxPool", shape=SQUARE, kernel_shape=[2, 2]),
    case("MaxPool", shape=SQUARE, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
    case("MaxPool", shape=SQUARE, kernel_shape=[2, 2], dilations=[2, 3]),
    case("MaxPool", shape=SQUARE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("MaxPool", shape=SQUARE, kernel_shape=[2, 2], auto_pad="SAME_LOWER"),
    case("MaxPool", shape=LINE, kernel_shape=[4], strides=[3], pads=[2, 2]),
    case("MaxPool", shape=SQUARE, kernel_shape=[1, 1], strides=[2, 2]),
    case("GlobalAveragePool", shape=SQUARE),
    case("GlobalMaxPool", shape=SQUARE),
    case("GlobalMaxPool", shape=CUBE),
    case("Flatten", shape=SQUARE),
    case("Flatten", shape=SQUARE, axis=0),
    case("Flatten", shape=SQUARE, axis=-1),
    case("Flatten", shape=SQUARE, axis=4),
    case("Reshape", X, integers(0, -1), shape=SQUARE),
    case("Reshape", X, integers(3, 1, 0, 1), shape=(1, 3, 4)),
    case("Reshape", X, integers(3, -1), shape=(1, 3, 4), allowzero=1),
    case("Squeeze", X, integers(0, -1), shape=(1, 4, 1)),
    case("Squeeze", shape=(1, 4, 1)),
    case("Unsqueeze", X, integers(-1, 0)),
    case("Unsqueeze", X, integers(2, 0, 3), shape=(3, 4)),
    case("Transpose", shape=(1, 3, 4, 5), perm=[0, 2, 3, 1]),
    case("Transpose", shape=(1, 3, 4, 5)),
    case("Concat", X, weights(1, 2), axis=1),
    case("Concat", weights(1, 2), X, X, weights(1, 1), axis=-1),
    case("Concat", X, X, axis=-2, shape=(1, 3, 4)),
    case("Concat", X, axis=0),
    case("Slice", X, integers(1), integers(3), integers(1)),
    case("Slice", X, integers(-1, 0), integers(-(2**62), 2**62), integers(2, 1), integers(-2, 2), shape=(1, 3, 5)),
    case("Slice", X, integers(0, 1), integers(1, -1)),
    case("Gather", X, integers(2, -1, 0, 2), axis=1),
    case("Gather", X, np.int64(1), axis=-1),
    case("Gather", X, np.array([[0, 1], [2, -1]]), shape=(3, 4)),
    case("Pad", X, integers(0, 1, 0, 2)),
    case("Pad", X, integers(0, -1, 0, 2), np.float32(1.5)),
    case("Pad", X, integers(0, 0, 1, 1, 0, 0, 2, 0), None, shape=SQUARE, mode="constant"),
    case("Pad", X, integers(1, 2), np.float32(-1), integers(-1), opset=18),
    case("Expand", X, integers(3, 1, 4)),
    case("Expand", X, integers(1, 1), shape=(3, 4)),
    case("ReduceSum", X, integers(1, -1), shape=SQUARE, keepdims=0),
    case("ReduceSum", shape=(1, 3, 4)),
    case("ReduceSum", X, integers(), shape=(1, 3, 4)),
    case("ReduceSum", X, integers(), shape=(1, 3, 4), noop_with_empty_axes=1),
    case("ReduceSum", shape=(1, 3, 4), noop_with_empty_axes=1),
    case("ReduceMean", shape=SQUARE, axes=[2, 3]),
    case("ReduceMean", shape=SQUARE, axes=[-1], keepdims=0),
    case("ReduceMean", X, integers(2, 3), shape=SQUARE, opset=18, keepdims=0),
]  # fmt: skip


@pytest.mark.parametrize("given", [*OPERATORS, *AFFINE], ids=str)
def test_an_operator_computes_what_onnx_runtime_computes(given: Case, tmp_path: Path) -> None:
    agrees(given.model(), tmp_path)


def split(version: int, axis: int, parts: Sequence[int], equal: bool) -> onnx.ModelProto:
    """The parts of a `Split`, every other one negated and all joined again."""
    names = [f"p{i}" for i in range(len(parts))]
    attributes: dict[str, Any] = {"axis": axis}
    inputs, constants = ["x"], {}
    if not equal and version < 13:
        attributes["split"] = parts
    elif not equal:
        inputs, constants = ["x", "sizes"], {"sizes": integers(*parts)}
    elif version >= 18:
        attributes["num_outputs"] = len(parts)
    nodes = [helper.make_node("Split", inputs, names, **attributes)]
    nodes += [node("Neg", name, f"n{name}") for name in names[::2]]
    joined = [f"n{name}" if i % 2 == 0 else name for i, name in enumerate(names)]
    return model([*nodes, node("Concat", *joined, "y", axis=axis)], constants, [tensor("x", (1, 7, 4))], opset=version)


@pytest.mark.parametrize("version", VERSIONS)
def test_split_in_every_version(version: int, tmp_path: Path) -> None:
    agrees(split(version, 1, [2, 4, 1], equal=False), tmp_path)
    agrees(split(version, -1, [2, 2], equal=True), tmp_path)


def test_split_with_a_smaller_last_part(tmp_path: Path) -> None:
    agrees(split(18, 1, [3, 3, 1], equal=True), tmp_path)


def in_version(op: str, version: int) -> Case:
    """An operator whose attributes became operands, in the form that a version of the operator set wants."""
    moved = {  # op: version of the change, older attributes, newer operands
        "Slice": (10, {"starts": [1], "ends": [3], "axes": [1]}, (integers(1), integers(3), integers(1))),
        "Squeeze": (13, {"axes": [0]}, (integers(0),)),
        "Unsqueeze": (13, {"axes": [0, 3]}, (integers(0, 3),)),
        "ReduceSum": (13, {"axes": [1], "keepdims": 0}, (integers(1),)),
        "ReduceMean": (18, {"axes": [1]}, (integers(1),)),
        "Pad": (11, {"pads": [0, 1, 0, 2], "value": 2.0}, (integers(0, 1, 0, 2), np.float32(2))),
        "Clip": (11, {"min": -1.0, "max": 0.5}, (np.float32(-1), np.float32(0.5))),
        "Dropout": (12, {"ratio": 0.5}, (np.float32(0.5), np.bool_(False))),
    }  # fmt: skip
    if op not in moved:
        statistics = (weights(4), weights(4, seed=1), weights(4, seed=2), positive(4))
        others = {
            "Gemm": (weights(4, 3), weights(1, 3)),
            "Reshape": (integers(2, -1),),
            "BatchNormalization": statistics,
            "Max": (weights(1, 4),),
            "Expand": (integers(2, 1, 4),),
        }
        return case(op, X, *others.get(op, ()), opset=version)
    change, attributes, operands = moved[op]
    return case(op, opset=version, **attributes) if version < change else case(op, X, *operands, opset=version)


FORMS = ("Slice", "Squeeze", "Unsqueeze", "ReduceSum", "ReduceMean", "Pad", "Clip", "Dropout", "BatchNormalization")
STABLE = ("Gemm", "Relu", "Flatten", "Reshape", "Max", "Expand", "Sigmoid")
ENDS, CHANGES = (VERSIONS[0], VERSIONS[-1]), (10, 11, 12, 13, 17, 18)
ALWAYS = [*product(FORMS, (*ENDS, *CHANGES)), *product(STABLE, ENDS)]


@pytest.mark.parametrize(
    ("op", "version"), at_night_after(len(ALWAYS), dict.fromkeys([*ALWAYS, *product(FORMS + STABLE, VERSIONS)]))
)
def test_every_version_of_the_operator_set(op: str, version: int, tmp_path: Path) -> None:
    agrees(in_version(op, version).model(), tmp_path)


def test_no_operator_is_left_untested() -> None:
    """A new reader needs a line in `OPERATORS`. Those of scikit-learn have a file of their own, and no runtime here has
    Swish."""
    read = {op for op in READERS if not op.startswith("ai.onnx.ml.")}
    nodes = [n for made in QUANTISED.values() for n in made.graph.node] + [
        n for ns, _ in RECOGNISED.values() for n in ns
    ]
    nodes += [n for _, ns, _, _ in SEVERAL.values() for n in ns]
    assert read <= {given.op for given in (*OPERATORS, *AFFINE)} | {n.op_type for n in nodes} | {"Split", "Swish"}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_operators_compute_what_onnx_runtime_computes(name: str, tmp_path: Path) -> None:
    shape, nodes, constants, opset = SEVERAL[name]
    agrees(model(nodes, constants, [tensor("x", shape)], opset=opset), tmp_path)


REFUSED = [
    (case("LayerNormalization", X, weights(4), weights(3)), "do not broadcast"),
    (case("Div", X, np.zeros(4, np.float32)), "division by zero"),
    (case("MatMul", X, X, shape=(200, 200)), "8000000 products .* at most 4194304"),
    (case("LeakyRelu", alpha=float("nan")), "slope of nan"),
    (case("Pad", X, integers(0, 4, 0, 1), mode="reflect"), "smaller steps"),
    (case("Cast", to=TensorProto.BFLOAT16), "cast that rounds"),
    (case("ConvTranspose", X, weights(2, 3, 3, 3), shape=SQUARE, output_shape=[9, 9]), "more than the kernel reaches"),
    (case("Conv", X, weights(3, 2, 3, 3), shape=SQUARE, kernel_shape=[2, 3]), "kernel_shape"),
    (case("GridSample", X, 1e9 * weights(1, 3, 2, 2), shape=(1, 2, 4, 5), opset=16), "places beyond"),
]


@pytest.mark.parametrize(("given", "reason"), REFUSED, ids=str)
def test_what_is_not_affine_or_known_is_refused_with_its_reason(given: Case, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        load_onnx(save(given.model(), tmp_path / "model.onnx"))
    assert str(caught.value).startswith(f"{tmp_path / 'model.onnx'}: node 'y' ({given.op}): ")


def test_dynamic_axes_count_as_one(tmp_path: Path) -> None:
    for batch in ("N", None):
        proto = model([node("Gemm", "x", "w", "y")], {"w": weights(4, 3)}, [tensor("x", [batch, 4])])
        assert agrees(proto, tmp_path).input_shape == (1, 4)


def test_constants_may_be_listed_as_inputs(tmp_path: Path) -> None:
    """As in files of operator sets before IR version 4."""
    inputs = [tensor("w", [4, 3]), tensor("x", [1, 4])]
    assert agrees(model([node("Gemm", "x", "w", "y")], {"w": weights(4, 3)}, inputs), tmp_path).input_shape == (1, 4)


def test_double_precision_inputs(tmp_path: Path) -> None:
    constants = {"w": weights(4, 3).astype(float)}
    ends = [tensor("x", [1, 4], TensorProto.DOUBLE)], [tensor("y", None, TensorProto.DOUBLE)]
    agrees(model([node("MatMul", "x", "w", "y")], constants, *ends), tmp_path)


def test_axes_of_size_one_in_front(tmp_path: Path) -> None:
    """The layout of the ACAS Xu networks."""
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f", "w", "y", transB=1)]
    network = agrees(model(nodes, {"w": weights(3, 5)}, [tensor("x", (1, 1, 1, 5))]), tmp_path)
    assert (network.input_shape, network.output_shape) == ((1, 1, 1, 5), (1, 3))


def test_channels_last(tmp_path: Path) -> None:
    """What exporters from TensorFlow write: transpose, convolve, transpose back, flatten."""
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t", "k", "b", "c", strides=[2, 2]),
        node("Relu", "c", "r"),
        node("Transpose", "r", "n", perm=[0, 2, 3, 1]),
        node("Reshape", "n", "s", "f"),
        node("MatMul", "f", "w", "y"),
    ]
    constants = {"k": weights(3, 2, 2, 2), "b": weights(3), "s": integers(-1, 27), "w": weights(27, 4)}
    agrees(model(nodes, constants, [tensor("x", [None, 6, 6, 2])]), tmp_path)


def test_shape_arithmetic_disappears(tmp_path: Path) -> None:
    """`x.view(x.shape[0], -1)` as PyTorch used to export it; nothing of it is left in the network."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape", "zero", "n"),
        node("Unsqueeze", "n", "axes", "n1"),
        node("Concat", "n1", "rest", "target", axis=0),
        node("Reshape", "x", "target", "f"),
        node("ConstantOfShape", "two", "filled", value=numpy_helper.from_array(np.array([2.5], np.float32))),
        node("Constant", "scale", value_float=-0.5),
        node("Mul", "filled", "scale", "shift"),
        node("Add", "f", "shift", "y"),
    ]
    constants = {"zero": np.int64(0), "axes": integers(0), "rest": integers(-1), "two": integers(1, 36)}
    network = agrees(model(nodes, constants, [tensor("x", ["N", 4, 3, 3])]), tmp_path)
    assert [type(n.op).__name__ for n in network.nodes] == ["Source", "Reshape", "Scale"]


@pytest.mark.parametrize(
    ("given", "op", "shape"),
    [
        ({"value_float": -0.5}, "Mul", (1, 2)),
        ({"value_floats": [0.1, -3.0]}, "Mul", (1, 2)),
        ({"value_int": 0}, "Squeeze", (1, 2)),
        ({"value_ints": [2, -1]}, "Reshape", (1, 2)),
    ],
)
def test_constants_by_value(given: dict[str, Any], op: str, shape: Shape, tmp_path: Path) -> None:
    proto = model([node("Constant", "c", **given), node(op, "x", "c", "y")], inputs=[tensor("x", shape)])
    if op == "Squeeze":  # a scalar is no list of axes in ONNX Runtime
        proto.graph.node.insert(1, node("Unsqueeze", "c", "zero", "d"))
        proto.graph.node[2].input[1] = "d"
        proto.graph.initializer.append(numpy_helper.from_array(integers(0), "zero"))
    agrees(proto, tmp_path)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_inputs_and_outputs_without_axes(shape: Shape, tmp_path: Path) -> None:
    total = [node("Relu", "x", "a"), node("ReduceSum", "a", "y", keepdims=0)]
    assert agrees(model(total, inputs=[tensor("x", shape)]), tmp_path).output_shape == ()


def test_an_input_that_nothing_reads(tmp_path: Path) -> None:
    """Models keep inputs for masks or states that they do not use."""
    inputs = [tensor("mask", ["N", 3], TensorProto.INT64), tensor("x", [1, 2])]
    path = save(model([node("Relu", "x", "y")], inputs=inputs), tmp_path / "m.onnx")
    network = load_onnx(path)
    assert network.input_shape == (1, 2)
    assert network.replay is not None
    np.testing.assert_array_equal(network.replay(np.array([[-1.0, 2.0]], np.float32)), [[0, 2]])


def test_weights_in_narrower_types_are_cast_exactly(tmp_path: Path) -> None:
    weight = weights(4, 3).astype(np.float16)
    network = agrees(
        model([node("Cast", "h", "w", to=1), node("MatMul", "x", "w", "y")], {"h": weight}, [tensor("x", (1, 4))]),
        tmp_path,
    )
    op = network.nodes[1].op
    assert op.parameters()[0].T.tolist() == weight.astype(float).tolist()


def test_integers_are_divided_toward_zero(tmp_path: Path) -> None:
    constants = {"a": integers(-7, 7), "b": integers(2, -2)}
    nodes = [node("Div", "a", "b", "q"), node("Cast", "q", "f", to=1), node("Add", "x", "f", "y")]
    assert agrees(model(nodes, constants), tmp_path).nodes[1].op.parameters()[0].tolist() == [-3, -3]


@pytest.mark.parametrize(("op", "name", "number"), [("LeakyRelu", "negative_slope", 0.01)])
def test_attributes_left_out_are_the_float32_numbers_of_onnx(op: str, name: str, number: float, tmp_path: Path) -> None:
    network = agrees(case(op).model(), tmp_path)
    assert getattr(network.nodes[1].op, name) == float(np.float32(number))


def test_constant_arithmetic_is_that_of_real_numbers(tmp_path: Path) -> None:
    """Nine times a ninth is one, up to the error that the constant has."""
    nodes = [node("Reciprocal", "a", "r"), node("Mul", "r", "a", "p"), node("Mul", "x", "p", "y")]
    op = agrees(model(nodes, {"a": np.float32(9)}), tmp_path).nodes[1].op
    assert isinstance(op, Scale)
    assert op.factor is not None
    assert op.factor_error is not None
    assert abs(op.factor.item() - 1) <= op.factor_error.item() <= 2.0**-51


def test_part_of_a_shape(tmp_path: Path) -> None:
    nodes = [node("Shape", "x", "s", start=1), node("Reshape", "x", "s", "y")]
    agrees(model(nodes, {}, [tensor("x", (1, 3, 4))]), tmp_path)


def test_residual_branches(tmp_path: Path) -> None:
    nodes = [
        node("Gemm", "x", "w", "z"),
        node("Relu", "z", "a"),
        node("Gemm", "a", "w", "v"),
        node("Add", "v", "x", "s"),
        node("Sub", "s", "a", "y"),
    ]
    assert len(agrees(model(nodes, {"w": weights(4, 4)}, [tensor("x", (1, 4))]), tmp_path).activations()) == 1


def test_nodes_of_no_influence_are_dropped(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "unused"), node("Gemm", "x", "w", "y")]
    network = agrees(model(nodes, {"w": weights(2, 2)}), tmp_path)
    assert not network.activations()


def test_the_output_may_be_the_input(tmp_path: Path) -> None:
    agrees(model([node("Identity", "x", "y")]), tmp_path)


def test_normalisation_after_an_affine_operator_is_folded_into_it(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x", "k", "c"),
        node("BatchNormalization", "c", "s", "b", "m", "v", "n"),
        node("Relu", "n", "y"),
    ]
    constants = {"k": weights(3, 2, 3, 3), "s": weights(3), "b": weights(3), "m": weights(3), "v": positive(3)}
    network = agrees(model(nodes, constants, [tensor("x", SQUARE)]), tmp_path)
    assert [type(n.op).__name__ for n in network.nodes] == ["Source", "Conv", "ReLU"]


def test_a_file_that_means_something_else_than_what_was_read_is_refused(tmp_path: Path) -> None:
    """ONNX Runtime overflows where real numbers do not."""
    nodes = [node("Mul", "x", "big", "a"), node("Mul", "a", "big", "b"), node("Div", "b", "big", "y")]
    with pytest.raises(InputError, match="import check failed"):
        load_onnx(save(model(nodes, {"big": np.float32(1e38)}), tmp_path / "m.onnx"))


def test_random_constants_are_refused(tmp_path: Path) -> None:
    """Too small for the import check to notice, but not one function."""
    nodes = [node("RandomNormal", "r", shape=[1, 2], scale=1e-6), node("Add", "x", "r", "y")]
    with pytest.raises(InputError, match="random"):
        load_onnx(save(model(nodes), tmp_path / "m.onnx"))


def test_replay_is_the_file_itself(tmp_path: Path) -> None:
    """In float32, for an input with or without the model's batch axis."""
    proto = random_dense([3, 5, 2])
    network = load_onnx(save(proto, tmp_path / "m.onnx"))
    x = weights(1, 3)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    assert network.replay is not None
    for given in (x, x[0]):
        result = network.replay(given)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, expected)


def test_a_float64_model_is_replayed_in_float64(tmp_path: Path) -> None:
    ends = [tensor("x", [1, 1], TensorProto.DOUBLE)], [tensor("y", None, TensorProto.DOUBLE)]
    network = load_onnx(save(model([node("Mul", "x", "w", "y")], {"w": np.float64(3)}, *ends), tmp_path / "m.onnx"))
    assert network.elements.holder is np.float64
    assert network.replay is not None
    result = network.replay(np.array([[0.1]]))
    assert (result.dtype, result.item()) == (np.float64, 0.1 * 3)


def test_a_replay_never_rounds_its_input(tmp_path: Path) -> None:
    network = load_onnx(save(random_dense([1, 1]), tmp_path / "m.onnx"))
    assert network.elements.holder is np.float32
    assert network.replay is not None
    np.testing.assert_array_equal(network.replay(np.array([[0.5]])), network.replay(np.array([[0.5]], np.float32)))
    with pytest.raises(ValueError, match="float32 does not hold"):
        network.replay(np.array([[0.1]]))


def test_weights_are_read_exactly(tmp_path: Path) -> None:
    weight, bias = weights(2, 3), weights(2)
    network = load_onnx(save(dense((weight, bias), shape=(1, 3)), tmp_path / "m.onnx"))
    op = network.nodes[1].op
    assert [t.dtype for t in op.parameters()] == [torch.float64, torch.float64]
    for found, given in zip(op.parameters(), (weight, bias), strict=True):
        np.testing.assert_array_equal(found.numpy(), given.astype(float))


def networks() -> list[Path]:
    return sorted([*BENCHMARKS.glob("*/*.onnx"), *BENCHMARKS.glob("vnncomp/*/onnx/*.onnx")])


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason=f"no benchmarks in {BENCHMARKS}; set KRELAX_BENCHMARKS")
def test_benchmark_networks_are_read_or_refused_in_one_line() -> None:
    """Whatever lists are there: what is read agrees with ONNX Runtime (reading compares), and what is refused is
    refused for an operator, in one line that names it."""
    read = 0
    for path in networks():
        try:
            read += bool(load_onnx(path).activations())
        except UnsupportedError as error:
            assert re.fullmatch(rf"{re.escape(str(path))}: node '[^\n]*' \(\w+\): [^\n]+", str(error))  # noqa: PT017
    assert read
