"""What is certified of float32 executions holds for any order of summation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from tests.certificate.corpus import i4
from tests.certificate.proofs import as_file, certificate, model, network_of, plain, random_layers, rough
from tests.certificate.values import value_of
from tests.exact import Layer as Dense

from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.schema import Layer, Question, Region
from krelax.certificate.kernel.arithmetic import Exact, Float64
from krelax.certificate.kernel.question import check_question
from krelax.certificate.onnx.reader import read_network
from krelax.errors import UnsupportedError


def execute(rng: Any, layers: Any, x: Any) -> list[Any]:
    """Pre-activations of a float32 execution, every sum in an order of its own, the bias anywhere in it."""
    result = []
    for layer in layers:
        weight, bias = np.array(layer.weight, np.float32), np.array(layer.bias, np.float32)
        z = np.empty(len(bias), np.float32)
        for i, row in enumerate(weight):
            terms = rng.permutation(np.append(row * x, bias[i]))
            z[i] = np.add.accumulate(terms, dtype=np.float32)[-1]
        result.append(z)
        x = z if layer.slope is None else np.where(z > 0, z, np.float32(layer.slope) * z)
    return result


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
@pytest.mark.parametrize("slope", [0.0, float(np.float32(0.1))])
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_executions_stay_inside(ar: Any, slope: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = random_layers(rng, [*rng.integers(2, 9, rng.integers(1, 4)).tolist(), 2], slope, rough)
    network = network_of(layers)[1]
    x = rng.normal(0, 1, 2).astype(np.float32)
    rows = np.concatenate([np.eye(2), -np.eye(2)])
    point = x.astype(np.float64)
    question = Question(Region("box", point, point), rows, np.zeros(4), np.arange(4, dtype=np.int32))
    question.layers = [Layer(rng.choice(["interval", "adaptive"])) for _ in network.activations]
    question.margins = plain(4)
    with np.errstate(all="ignore"):
        proof = check_question(network.over(ar), question, ar, float32=True)
    for _ in range(5):
        values = execute(rng, layers, x)
        for j, z in enumerate(values[:-1]):
            lower, upper = (end[0] for end in proof.context.ends(j))
            assert (lower <= z).all()
            assert (z <= upper).all()
        assert proof.margin <= (rows @ values[-1].astype(np.float64)).min()


def weighed(weight: float, x: float, offset: float) -> tuple[bytes, Any]:
    """Is `weight * x + offset` positive?"""
    question = Question(Region("box", np.full(1, x), np.full(1, x)), np.ones((1, 1)), np.array([offset]), i4(0))
    question.margins = plain(1)
    data = model([Dense([[weight]], [0], None)])
    return data, certificate(data, question, semantics="float32")


@pytest.mark.parametrize("exact", [False, True], ids=["float64", "exact"])
@pytest.mark.parametrize(("weight", "x"), [(2.0**-127, 2.0**120), (2.0**120, 2.0**-127)])
def test_subnormal_factors_may_be_taken_for_zero(weight: float, x: float, exact: bool) -> None:
    """The product is 2**-7, or 0."""
    data, made = weighed(weight, x, -(2.0**-8))
    with pytest.raises(Rejected):
        check(made, data, exact)
    made.semantics = "real"
    assert check(made, data, exact) == [pytest.approx(2.0**-8)]


def test_inputs_that_are_subnormal_may_be_taken_for_zero() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    data = as_file(nodes, [], (1, 1), "y")
    question = Question(Region("box", np.full(1, 2.0**-130), np.ones(1)), np.ones((1, 1)), np.zeros(1), i4(0))
    question.layers, question.margins = [Layer("interval")], plain(1)
    assert check(certificate(data, question), data, exact=True)[0] > 0
    with pytest.raises(Rejected):
        check(certificate(data, question, semantics="float32"), data, exact=True)


@pytest.mark.parametrize(("operator", "constant"), [("Mul", 2.0**126), ("Div", 2.0**-127)])
def test_coefficients_that_float32_cannot_hold_are_rejected(operator: str, constant: float) -> None:
    constants = [numpy_helper.from_array(np.array([constant], np.float32), "c")]
    data = as_file([helper.make_node(operator, ["x", "c"], ["y"])], constants, (1, 1), "y")
    question = Question(Region("box", np.zeros(1), np.zeros(1)), np.ones((1, 1)), np.ones(1), i4(0))
    question.margins = plain(1)
    assert check(certificate(data, question), data) == [pytest.approx(1)]
    with pytest.raises(Rejected, match="float32"):
        check(certificate(data, question, semantics="float32"), data, exact=True)


def asked(x: float, offset: float, shape: Any, *nodes: Any, **constants: Any) -> tuple[bytes, Any]:
    """Is the output of a network of one number, at a point, above minus the offset?"""
    stored = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    data = as_file(list(nodes), stored, shape, "y")
    question = Question(Region("box", np.full(1, x), np.full(1, x)), np.ones((1, 1)), np.array([offset]), i4(0))
    question.margins = plain(1)
    return data, certificate(data, question, semantics="float32")


def refused(data: bytes, made: Any) -> None:
    """It holds of real numbers, but not of every execution."""
    for exact in (False, True):
        with pytest.raises(Rejected, match="float32"):
            check(made, data, exact)
    made.semantics = "real"
    assert check(made, data)[0] > 0


def test_a_normalisation_folded_into_a_convolution_may_be_subnormal() -> None:
    """1e-28 * 1.1e-10 is subnormal: flushed, the output is 0 instead of 1.1e-8."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"]),
             helper.make_node("BatchNormalization", ["z", "s", "o", "o", "v"], ["y"])]  # fmt: skip
    constants = {"w": np.full((1, 1, 1, 1), 1e-28), "s": [1.1e-10], "o": [0], "v": [1]}
    refused(*asked(1e30, -1e-8, (1, 1, 1, 1), *nodes, **constants))


def test_a_product_may_overflow_before_it_is_scaled() -> None:
    """Gemm: alpha comes after 1e30 * 2e10, which float32 cannot hold. Mul: the same where a runtime folds it."""
    gemm = helper.make_node("Gemm", ["x", "w"], ["y"], alpha=1e-30)
    refused(*asked(2e10, -1e10, (1, 1), gemm, w=[[1e30]]))
    scaled = [helper.make_node("Mul", ["x", "s"], ["z"]), helper.make_node("MatMul", ["z", "w"], ["y"])]
    refused(*asked(2e10, -1e10, (1, 1), *scaled, s=[1e-30], w=[[1e30]]))


def test_scalings_of_both_operands_of_a_product_may_be_one_factor() -> None:
    """ONNX Runtime multiplies 2**-80 by 2**-80 first, which is 0 in float32; the output is 2**-80."""
    nodes = [helper.make_node("Mul", ["x", "s"], ["a"]), helper.make_node("Mul", ["x", "s"], ["b"]),
             helper.make_node("MatMul", ["a", "b"], ["y"])]  # fmt: skip
    data, made = asked(2.0**40, -(2.0**-81), (1, 1), *nodes, s=2.0**-80)
    made.questions[0].layers = [Layer("interval")]
    refused(data, made)


@pytest.mark.parametrize("operator", ["ReduceSum", "ReduceMean", "MatMul", "Sum"])
def test_constants_may_round_on_the_way_to_what_float32_holds(operator: str) -> None:
    """1e8 + 1 is 1e8 in float32, whatever is added then."""
    several = {"MatMul": ["c", "d"], "Sum": ["e", "f", "g"]}.get(operator, ["c"])
    nodes = [helper.make_node(operator, several, ["s"]), helper.make_node("Add", ["x", "s"], ["y"])]
    refused(*asked(1.0, -1.25, (1,), *nodes, c=[1e8, 1, 1, -1e8], d=np.ones(4), e=[1e8], f=[1], g=[-1e8]))


def test_constants_that_are_added_to_a_value_are_added_one_by_one() -> None:
    node = helper.make_node("Sum", ["x", "c", "d"], ["y"])
    refused(*asked(1.0, -0.5, (1,), node, c=[1e8], d=[-1e8]))


def test_a_constant_factor_that_is_subnormal_may_be_taken_for_zero() -> None:
    nodes = [helper.make_node("Mul", ["c", "d"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])]
    refused(*asked(1.0, -(2.0**-60), (1,), *nodes, c=[2.0**-140], d=[2.0**100]))


def test_a_statistic_may_be_larger_than_what_it_makes() -> None:
    """A mean of 1e30 times a scale of 1e-30: x - mean and scale are multiplied in any order."""
    node = helper.make_node("BatchNormalization", ["x", "s", "o", "m", "v"], ["y"])
    refused(*asked(1.0, 1.5, (1, 1), node, s=[1e-30], o=[0], m=[1e30], v=[1]))


def test_a_cast_to_a_narrower_type_is_refused() -> None:
    nodes = [helper.make_node("Cast", ["x"], ["d"], to=11), helper.make_node("Cast", ["d"], ["y"], to=1)]
    data, made = asked(1.0, 0.0, (1, 1), *nodes)
    for made.semantics in ("float32", "real"):
        with pytest.raises(UnsupportedError, match="rounds"):
            check(made, data)


def test_a_slope_may_be_taken_for_zero() -> None:
    node = helper.make_node("LeakyRelu", ["x"], ["y"], alpha=1e-39)
    data, made = asked(-1e15, 2e-24, (1, 1), node)
    made.questions[0].layers = [Layer("interval")]
    with pytest.raises(Rejected, match="slope"):
        check(made, data, exact=True)
    made.semantics = "real"
    assert check(made, data, exact=True)[0] > 0


FUNCTIONS = ["Sigmoid", "Tanh", "Exp", "Sin", "Cos", "Softplus", "Erf", "Elu", "HardSwish", "Atan", "Gelu", "Mish"]


def layered(operator: str, rng: Any) -> tuple[bytes, Any]:
    """Two inputs, three functions of affine ones, two outputs; and the weights."""
    shapes = {"v": (2, 3), "a": (3,), "w": (3, 2), "b": (2,)}
    stored = {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [helper.make_node("Gemm", ["x", "v", "a"], ["z"]), helper.make_node(operator, ["z"], ["f"]),
             helper.make_node("Gemm", ["f", "w", "b"], ["y"])]  # fmt: skip
    constants = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    return as_file(nodes, constants, (1, 2), "y", 20), stored


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
@pytest.mark.parametrize("operator", FUNCTIONS)
def test_executions_stay_inside_whose_functions_somebody_vouches_for(operator: str, ar: Any) -> None:
    """Functions are off by three units and what rounds; sums are added up in any order."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        data, stored = layered(operator, rng)
        network = read_network(data).executing(4)
        x = rng.normal(0, 1, 2).astype(np.float32)
        rows, point = np.concatenate([np.eye(2), -np.eye(2)]), x.astype(np.float64)
        question = Question(Region("box", point, point), rows, np.zeros(4), np.arange(4, dtype=np.int32))
        question.layers, question.margins = [Layer("interval")], plain(4)
        with np.errstate(all="ignore"):
            proof = check_question(network.over(ar), question, ar, float32=True)
        rule = network.activation(0).rule
        lower, upper = (
            side[network.activations[0]][0] for side in (proof.context.bounds.lower, proof.context.bounds.upper)
        )
        for _ in range(5):
            z = execute(rng, [Dense(stored["v"].T, stored["a"], None)], x)[0]
            exact = value_of(rule, z.astype(np.float64)[None])[0]
            off = rng.choice([-3, 3], 3) * 2.0**-23 * np.maximum(1, abs(exact))
            f = (exact + off).astype(np.float32)
            assert ((lower <= f) & (f <= upper)).all()
            y = execute(rng, [Dense(stored["w"].T, stored["b"], None)], f)[0]
            assert proof.margin <= (rows @ y.astype(np.float64)).min()


def test_nothing_is_known_of_functions_that_nobody_vouches_for() -> None:
    data, _ = layered("Sigmoid", np.random.default_rng(0))
    question = Question(Region("box", np.zeros(2), np.zeros(2)), np.eye(2)[:1], np.array([3.0]), i4(0))
    question.layers, question.margins = [Layer("interval")], plain(1)
    made = certificate(data, question, semantics="float32")
    with pytest.raises(Rejected, match=r"float32 semantics of a sigmoid.*float32:N"):
        check(made, data)
    made.units = 4
    question.offsets = question.offsets - check(made, data)[0] + 2.0**-6
    assert check(made, data) == [pytest.approx(2.0**-6)]
    made.units = 2**18
    with pytest.raises(Rejected):
        check(made, data)


@pytest.mark.parametrize(("semantics", "units"), [("real", 1), ("float32", 0), ("float32", -1), ("float32", 2**20 + 1)])
def test_units_that_mean_nothing_are_malformed(semantics: Any, units: int) -> None:
    data, _ = layered("Sigmoid", np.random.default_rng(0))
    question = Question(Region("box", np.zeros(2), np.zeros(2)), np.eye(2)[:1], np.array([9.0]), i4(0))
    question.layers, question.margins = [Layer("interval")], plain(1)
    made = certificate(data, question, semantics=semantics)
    made.units = units
    with pytest.raises(Malformed, match="units"):
        check(made, data)


@pytest.mark.parametrize(
    "operator", ["Softmax", "ReduceL2", "ReduceLogSum", "LayerNormalization", "Acos", "Asinh", "Div"]
)
def test_operators_that_are_no_function_of_one_number_have_no_known_executions(operator: str) -> None:
    """Whoever vouches for functions says nothing of the way that is taken to these."""
    others = {"LayerNormalization": ["c"], "Div": ["s"]}.get(operator, [])
    nodes = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node(operator, ["s", *others], ["t"]),
             helper.make_node("ReduceSum", ["t"], ["y"])]  # fmt: skip
    data, made = asked(0.25, -1e-9, (1, 2), *nodes, c=np.ones(2))
    made.units = 4
    with pytest.raises(Rejected, match=r"log-sum-exp|composed functions"):
        check(made, data)


def test_a_reciprocal_of_a_root_is_right_to_the_units_of_both() -> None:
    """The root of 1e-8 may be off by one part in a thousand, which the reciprocal magnifies."""
    nodes = [helper.make_node("Sqrt", ["x"], ["s"]), helper.make_node("Reciprocal", ["s"], ["y"])]
    data, made = asked(1e-8, -9999.0, (1, 1), *nodes)
    made.questions[0].layers, made.units = [Layer("interval")], 1
    with pytest.raises(Rejected, match="composed functions"):
        check(made, data)


@pytest.mark.parametrize("one", [1.0, 1.000005])
def test_a_product_of_a_number_and_a_function_of_it_may_be_taken_for_one_function(one: float) -> None:
    """ONNX Runtime makes a GELU of this, with one for what is nearly one."""
    nodes = [helper.make_node("Erf", ["x"], ["e"]), helper.make_node("Add", ["e", "c"], ["a"]),
             helper.make_node("Mul", ["x", "a"], ["y"])]  # fmt: skip
    data, made = asked(2.0, 0.0, (1, 1), *nodes, c=one)
    made.units = 1
    with pytest.raises(Rejected, match="composed functions"):
        check(made, data)


def test_gates_are_functions_and_products() -> None:
    """Two functions of different numbers, and their product."""
    nodes = [helper.make_node("Split", ["x", "n"], ["a", "b"], axis=1), helper.make_node("Sigmoid", ["a"], ["s"]),
             helper.make_node("Tanh", ["b"], ["t"]), helper.make_node("Mul", ["s", "t"], ["y"])]  # fmt: skip
    data = as_file(nodes, [numpy_helper.from_array(np.ones(2, np.int64), "n")], (1, 2), "y", 20)
    point = np.array([0.5, 1.0])
    question = Question(Region("box", point, point), np.ones((1, 1)), np.zeros(1), i4(0))
    question.layers, question.margins = [Layer("interval") for _ in range(3)], plain(1)
    made = certificate(data, question, semantics="float32")
    made.units = 4
    assert check(made, data) == [pytest.approx(0.4740, abs=1e-4)]


@pytest.mark.parametrize(("operator", "x"), [("Exp", 89.0), ("Pow", 1e13)])
def test_functions_may_overflow(operator: str, x: float) -> None:
    others = ["c"] if operator == "Pow" else []
    data, made = asked(x, 0.0, (1, 1), helper.make_node(operator, ["x", *others], ["y"]), c=3.0)
    made.questions[0].layers, made.units = [Layer("interval")], 1
    with pytest.raises(Rejected, match="overflow"):
        check(made, data)


def test_functions_written_with_several_operators_have_no_known_executions() -> None:
    nodes = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])]
    data, made = asked(0.25, 0.0, (1, 1), *nodes)
    made.units = 4
    with pytest.raises(Rejected, match="composed functions"):
        check(made, data)
