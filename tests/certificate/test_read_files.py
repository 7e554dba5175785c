"""What few files hold is read by the checker as ONNX Runtime computes it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.certificate.files import (
    F32,
    HALVES,
    INF,
    ML,
    TRUE,
    branch,
    call,
    computed,
    edited,
    file,
    i8,
    one,
    quantised,
)  # fmt: skip
from tests.certificate.test_operators import agree
from tests.certificate.values import evaluate
from tests.network.recognised import nodes
from tests.run.files import tensor

from krelax.certificate.kernel.activations import Product, ReLU, Step
from krelax.certificate.kernel.linear import Scale
from krelax.certificate.kernel.network import Activation, Affine
from krelax.certificate.onnx import builder, convolution, decisions
from krelax.certificate.onnx import model as files
from krelax.certificate.onnx.graph import Call
from krelax.certificate.onnx.model import read_model
from krelax.certificate.onnx.operator import OPERATORS, Context, Value
from krelax.certificate.onnx.reader import read_file, read_network
from krelax.errors import InputError, UnsupportedError

W: Any = F32([[0.5, -1.25], [2, 0.75]])
IMAGE = (1, 1, 2, 3)


def computed_matrix(*nodes: Any, shape: Any = (1, 2), opset: int = 17, **constants: Any) -> bytes:
    """A file with a constant `k` of two rows that is a product of two others, which rounds."""
    given: dict[str, Any] = {"a": F32([[0.1, 0.3], [0.7, -0.2]]), "b": F32([[0.7, 1.1], [0.3, 0.9]])}
    given |= {name: np.asarray(c) for name, c in constants.items()}
    return file([call("Mul", "a b", "k"), *nodes], given, shape, opset)


def like_gelu(*steps: str, gain: float = 0.8, cube: float = 0.05) -> bytes:
    """`x (1 + tanh(w))`, where w is nearly what it is in a GELU."""
    given = {"gain": F32(gain), "cube": F32(cube), "1": F32(1), "3": F32(3), "2": F32(2)}
    return file(nodes(*steps, "s = Tanh(w)", "p = Add(s, 1)", "y = Mul(x, p)"), given)


LINEAR = "ai.onnx.ml.LinearClassifier"
SCORES: dict[str, Any] = {
    "coefficients": [0.5, -1.0, 2.0, 0.25], "intercepts": [0.125, -0.5], "classlabels_ints": [0, 1], "domain": ML,
}  # fmt: skip
CUBIC = ("t = Pow(x, 3)", "u = Mul(t, cube)")
READ: dict[str, tuple[bytes, tuple[int, ...]]] = {
    # --- computed constants
    "a division by one": (computed(call("Div", "x k")), (1, 2)),
    "a bias": (computed(call("Gemm", "x w k"), w=W), (1, 2)),
    "a matrix, transposed": (computed_matrix(call("Gemm", "x k", transB=1)), (1, 2)),
    "a matrix": (computed_matrix(call("MatMul", "x k")), (1, 2)),
    "a vector": (computed(call("MatMul", "x k")), (1, 2)),
    "one that is moved": (computed_matrix(call("Transpose", "k", "t", perm=[1, 0]), call("MatMul", "x t")), (1, 2)),
    "one that is cut": (
        computed_matrix(call("Split", "k", "f g", axis=0), call("Mul", "x f", "t"), call("Add", "t g")), (1, 2)),
    "one beside others": (
        computed_matrix(call("Concat", "k w", "t", axis=0), call("MatMul", "t x"), shape=(2, 1), w=W), (2, 1)),
    "dequantised ones beside others": (
        file([call("DequantizeLinear", "q s", "d"), call("Concat", "d w", "t", axis=0), call("MatMul", "t x")],
             {"q": np.int8([[3, -7]]), "s": F32(0.1), "w": W}, (2, 1)), (2, 1)),
    "dequantised ones that are moved": (
        file([call("DequantizeLinear", "q s", "d"), call("Split", "d", "f g", axis=0), call("Mul", "x f", "t"),
              call("Add", "t g")], {"q": np.int8([[3, -7], [2, 1]]), "s": F32(0.1)}), (1, 2)),
    "one beside what depends on the input": (
        computed_matrix(call("Concat", "x k w", "t", axis=0), call("Relu", "t"), w=W), (1, 2)),
    "absolute values": (computed(call("Neg", "k", "m"), call("Abs", "m", "n"), call("Add", "x n")), (1, 2)),
    "largest values": (
        computed(call("Neg", "k", "m"), call("Max", "k m", "n"), call("Relu", "m", "o"), call("Add", "n o", "p"),
                 call("Mul", "x p")), (1, 2)),
    "a limit": (
        file([call("Mul", "a b", "k"), call("Clip", "x k -", "t"), call("Clip", "t - l")],
             {"a": F32([-0.1]), "b": F32([0.7]), "l": F32(0.5)}), (1, 2)),
    "the largest of constants": (
        file([call("TopK", "c n", "v w"), call("Add", "x v")], {"c": F32([3, 1, 2]), "n": i8(2)}), (1, 2)),
    # --- choices
    "a choice by one number of several": (
        file([call("Greater", "x c", "t"), call("Where", "t x d")], {"c": F32([0]), "d": F32([[1], [2]])}), (1, 2)),
    "a choice between lines that are shifted": (
        file([call("Greater", "x c", "t"), call("Add", "x d", "a"), call("Where", "t a x")],
             {"c": F32([0]), "d": HALVES}), (1, 2)),
    "a choice between a line and several numbers": (
        file([call("Greater", "x c", "t"), call("Where", "t x d")], {"c": F32([0.25]), "d": F32([-1, 1])}), (1, 2)),
    "a choice between a line and a curve": (
        file([call("Greater", "x c", "t"), call("Tanh", "x", "b"), call("Where", "t x b")], {"c": F32([0])}), (1, 2)),
    "a choice between a line and another exponential": (
        file([call("Greater", "x c", "t"), call("Mul", "x d", "u"), call("Exp", "u", "e"), call("Sub", "e o", "b"),
              call("Where", "t x b")], {"c": F32([0]), "d": F32([2]), "o": F32([1])}), (1, 2)),
    "a choice between twice a line and an exponential": (
        file([call("Greater", "x c", "t"), call("Mul", "x d", "a"), call("Exp", "x", "e"), call("Sub", "e o", "b"),
              call("Where", "t a b")], {"c": F32([0]), "d": F32([2]), "o": F32([1])}), (1, 2)),
    "a product with a step of the opposite": (
        file([call("Neg", "x", "n"), call("Greater", "n c", "t"), call("Cast", "t", "f", to=1), call("Mul", "x f")],
             {"c": F32([0])}), (1, 2)),
    # --- nearly known functions
    "a clip that falls": (
        file([call("Sub", "b x", "t"), call("Clip", "t z s", "u"), call("Mul", "x u")],
             {"b": F32(0.5), "z": F32(0), "s": F32(1)}), (1, 2)),
    "a quotient by one sum": (
        file([call("Exp", "x", "e"), call("ReduceSum", "e a", "t"), call("Div", "x t")], {"a": i8(1)}), (1, 2)),
    "a quotient by a sum of exponentials": (
        file([call("Exp", "x", "e"), call("Neg", "x", "n"), call("Exp", "n", "f"), call("Add", "e f", "t"),
              call("Div", "x t")]), (1, 2)),
    "a product of a number and its shift": (
        file([call("Add", "x c", "t"), call("Mul", "x t")], {"c": F32([0.5, 0.5])}), (1, 2)),
    "a line of many steps": (
        file([*(call("Mul", f"{a} c", b) for a, b in zip("xpqrs", "pqrst", strict=True)), call("Mul", "x t")],
             {"c": F32([2, 2])}), (1, 2)),
    "a quotient by a difference": (
        file([call("Relu", "x", "a"), call("Neg", "x", "m"), call("Relu", "m", "b"), call("Sub", "a b", "t"),
              call("Add", "t c", "u"), call("Div", "x u")], {"c": F32([3, 3])}), (1, 2)),
    "tanh of a shifted sum": (like_gelu(*CUBIC, "v = Add(x, u)", "o = Mul(v, gain)", "w = Add(o, 1)"), (1, 2)),
    "tanh of a difference": (like_gelu(*CUBIC, "v = Sub(x, u)", "w = Mul(v, gain)"), (1, 2)),
    "tanh of a sum with another function": (like_gelu("u = Sigmoid(x)", "v = Add(x, u)", "w = Mul(v, gain)"), (1, 2)),
    "tanh of a sum with a shift": (
        like_gelu(*CUBIC, "i = Add(u, 1)", "v = Add(x, i)", "w = Mul(v, gain)"), (1, 2)),
    "tanh of a sum with a square": (
        like_gelu("t = Pow(x, 2)", "u = Mul(t, cube)", "v = Add(x, u)", "w = Mul(v, gain)"), (1, 2)),
    "tanh of a sum of another multiple": (
        like_gelu(*CUBIC, "i = Mul(x, 2)", "v = Add(i, u)", "w = Mul(v, gain)"), (1, 2)),
    # --- sums of products
    "sums over axes that nothing else has": (
        file([call("Relu", "x", "t"), call("Einsum", "x t", equation="ij,kj->j")], shape=(2, 3)), (2, 3)),
    # --- others
    "places from before version 13": (
        one("Resize", F32([]), F32([1, 1, 2, 1]), shape=IMAGE, opset=11, mode="nearest", nearest_mode="floor",
            coordinate_transformation_mode="tf_half_pixel_for_nn"), IMAGE),
    "an image of one row": (
        one("Resize", None, None, i8(1, 1, 1, 2), shape=IMAGE, mode="linear",
            coordinate_transformation_mode="pytorch_half_pixel"), IMAGE),
    "a softmax of one number": (one("Softmax", shape=(3, 1)), (3, 1)),
    "the largest of one number": (one("Hardmax", shape=(3, 1)), (3, 1)),
    "a softmax along the first axis": (one("Softmax", shape=(2, 3), axis=0), (2, 3)),
    "scores that are softmaxed": (one("LinearClassifier", outputs="l y", post_transform="SOFTMAX", **SCORES), (1, 2)),
    "constants at places": (
        file([call("ScatterElements", "a i b", "c"), call("Add", "x c")],
             {"a": F32([1, 2]), "i": i8(1), "b": F32([5])}), (1, 2)),
    "a shape with nothing added": (
        file([call("ConstantOfShape", "n", "e", value=onnx.helper.make_tensor("v", 7, [1], [3])),
              call("Concat", "e s", "t", axis=0), call("Reshape", "x t")], {"n": i8(0), "s": i8(2, 1)}), (1, 2)),
    "casts of whole numbers": (
        file([call("Cast", "x", "i", to=6), call("Cast", "i", "j", to=7), call("Cast", "j", "k", to=6),
              call("Cast", "k", "y", to=1)]), (1, 2)),
    "a mask in double": (
        edited(lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", 11), call("Add", "x m", "t"),
               call("Cast", "t", "u", to=11), call("Softmax", "u"), constants={"m": F32([0, -INF])}), (1, 2)),
    "whole numbers times whole numbers": (
        quantised(call("Relu", "x", "t"), call("QuantizeLinear", "t s z", "p"), call("MatMulInteger", "q p", "n"),
                  call("Cast", "n", "y", to=1), shape=(2, 2)), (2, 2)),
    "a state that depends on the input": (
        file([call("Slice", "x b e a", "h"), call("RNN", "x w r - - h", "y", hidden_size=2)],
             {"w": W[None], "r": W[None], "b": i8(0), "e": i8(1), "a": i8(0)}, (2, 1, 2)), (2, 1, 2)),
    "an output of no type": (edited(lambda m: m.graph.output[0].ClearField("type"), call("Relu", "x", "y")), (1, 2)),
}  # fmt: skip


@pytest.mark.parametrize(("data", "shape"), READ.values(), ids=READ.keys())
def test_it_computes_what_onnx_runtime_does(data: bytes, shape: Any) -> None:
    agree(data, shape, 2)


def values(data: bytes, x: Any) -> Any:
    return evaluate(read_network(data), np.asarray(x, np.float64).reshape(1, -1))[-1][0]


def test_a_swish_is_a_number_times_its_sigmoid() -> None:
    x = np.array([-3.0, 0.5])
    np.testing.assert_allclose(values(one("Swish", opset=24), x), x / (1 + np.exp(-x)), rtol=1e-12)


def test_results_of_a_branch_may_be_left_alone() -> None:
    results = [tensor("z", None), tensor("w", None)]
    both = onnx.helper.make_graph([call("Relu", "x", "z"), call("Neg", "x", "w")], "then", [], results)
    node = call("If", "c", then_branch=both, else_branch=branch(call("Neg", "x", "z")))
    node.output.append("")
    assert values(file([node], {"c": TRUE}), [-1.0, 2.0]).tolist() == [0.0, 2.0]


def test_networks_of_too_many_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_MOST_NUMBERS", 3)
    assert values(one("Relu"), [-1.0, 2.0]).tolist() == [0.0, 2.0]
    with pytest.raises(UnsupportedError, match="more than 3 numbers in one evaluation"):
        read_network(file([call("Relu", "x", "t"), call("Neg", "t")]))


def test_packed_files_have_a_size_when_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, path = one("Add", np.zeros((1000, 2), F32)), tmp_path / "model.onnx.gz"
    path.write_bytes(gzip.compress(data))
    monkeypatch.setattr(files, "_MOST_BYTES", len(data))
    assert read_model(path).data == data
    monkeypatch.setattr(files, "_MOST_BYTES", len(data) - 1)
    with pytest.raises(InputError, match=f"more than {len(data) - 1} bytes when unpacked"):
        read_model(path)


@pytest.mark.parametrize("places", [[0, 2, 3], [3, 2], [1, 1]])
def test_windows_are_slices_only_where_their_steps_are_equal(places: list[int]) -> None:
    with pytest.raises(ValueError, match="equal steps"):
        convolution._steps(np.array(places))
    assert convolution._steps(np.array([1, 4, 7])) == slice(1, 8, 3)


@pytest.mark.parametrize(("factor", "known"), [(1.0, True), (2.0, False)])
def test_only_a_step_as_it_is_chooses_between_lines(factor: float, known: bool) -> None:
    """Of x and 0 by a truth that is a step of x: relu. By twice the step it would be none."""
    made = builder.Builder(1)
    x = Value(0, (1,), np.dtype(np.float64))
    step = made.add(Activation((0,), Step(0.0), 1))
    truth = Value(made.add(Affine((step,), (Scale(np.array([factor])),), 1)), (1,), x.dtype)
    c = Context(made, Call("Where", [], [], {}), [truth, x], 17, OPERATORS["Where"].forms[0])
    found = decisions._known(c, truth, x, np.zeros(1), (1,))
    assert (found is not None) == known
    assert found is None or isinstance(made.node(found.node).rule, ReLU)


def test_a_head_of_the_input_alone_leaves_the_input() -> None:
    network, interface = read_file(one("Softmax"), scores=True)
    assert interface.head == ("Softmax",)
    assert len(network.nodes) == 1


def test_a_head_of_parts_of_the_scores_is_read_as_it_is() -> None:
    """Which of two outputs of different rows is larger is not what the scores say."""
    data = file([call("Relu", "x", "t"), call("Softmax", "t", axis=1)], shape=(2, 2))
    network, interface = read_file(data, scores=True)
    assert interface.head == ()
    assert evaluate(network, np.array([[0.0, 0.0, 3.0, 4.0]]))[-1][0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize(("transform", "single"), [("NONE", True), ("SOFTMAX", False)])
def test_scores_of_a_classifier_are_executed_as_they_are_without_a_transform(transform: str, single: bool) -> None:
    data = one("LinearClassifier", outputs="l y", post_transform=transform, **SCORES)
    network, interface = read_file(data, "y", scores=True)
    assert interface.head == ("ai.onnx.ml.LinearClassifier",)
    assert evaluate(network, np.array([[1.0, 1.0]]))[-1][0].tolist() == [-0.375, 1.75]
    assert network.single == single


def test_a_shift_beyond_all_numbers_is_none() -> None:
    given = {"a": np.array([1e308]), "b": np.array([4.0])}
    data = file([call("Add", "x a", "t"), call("Mul", "t b", "u"), call("Mul", "u x")], given, (1,), kind=11)
    assert [type(n.rule) for n in read_network(data).nodes if isinstance(n, Activation)] == [Product]
