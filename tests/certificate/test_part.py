"""The checker's part of a network that varies: proves what the whole network proves, and never more than the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.certificate.files import call, file, i8
from tests.certificate.values import evaluate
from tests.rows import COLUMNS, ROWS, rows_model

from krelax.certificate.format.schema import Boxes, Question, Region
from krelax.certificate.kernel import families
from krelax.certificate.kernel.activations import Product as ProductRule
from krelax.certificate.kernel.activations import ReLU
from krelax.certificate.kernel.arithmetic import Exact, Float64
from krelax.certificate.kernel.families import check_family
from krelax.certificate.kernel.linear import Dense, Pick, Scale
from krelax.certificate.kernel.network import Activation, Affine, Network
from krelax.certificate.kernel.part import part_of
from krelax.certificate.onnx.reader import read_network

COUNT, FREE = 40, 4
CLAIMS = np.array([[1.0, -0.5], [-2.0, 1.0]])


@pytest.fixture(scope="module")
def network() -> Network:
    return read_network(rows_model())


def questions(width: float, other: float = 0.0) -> list[Question]:
    """Each about one number of another table, cut in halves; another input lies between two numbers, too."""
    rng, found = np.random.default_rng(7), []
    for at in rng.uniform(-1, 1, (COUNT, ROWS * COLUMNS)):
        upper = at.copy()
        upper[FREE] += width
        upper[0] += other
        boxes = Boxes(np.array([FREE, -1, -1], np.int32), np.array([(at[FREE] + upper[FREE]) / 2, 0.0, 0.0]))
        clause = np.arange(2, dtype=np.int32)
        found.append(Question(Region("box", at, upper), CLAIMS, np.full(2, 9.0), clause, boxes=boxes))
    return found


def test_the_part_proves_what_the_whole_network_does(network: Network, monkeypatch: Any) -> None:
    asked, ar = questions(0.2), Float64()
    assert part_of(network, ar, np.array([FREE]), COUNT) is not None
    found = check_family(network, asked, ar, False, None)
    monkeypatch.setattr(families, "part_of", lambda *_: None)
    whole = check_family(network, asked, ar, False, None)
    assert (found > 0).any()
    np.testing.assert_allclose(found, whole, rtol=1e-9)


@pytest.mark.parametrize("other", [0.0, 0.1])
def test_no_margin_is_above_a_value(network: Network, other: float) -> None:
    asked, rng = questions(0.3, other), np.random.default_rng(8)
    found = check_family(network, asked, Float64(), False, None)
    for q, margin in zip(asked, found.tolist(), strict=True):
        for share in rng.random((5, ROWS * COLUMNS)):
            x = q.region.lower + share * (q.region.upper - q.region.lower)
            values = q.rows @ evaluate(network, x[None])[-1][0] + q.offsets
            assert margin <= values.min() + 1e-12


def test_there_is_no_part_where_much_varies_and_of_exact_numbers(network: Network) -> None:
    assert part_of(network, Float64(), np.arange(0, ROWS * COLUMNS, COLUMNS), COUNT) is None
    assert part_of(network.over(Exact()), Exact(), np.array([FREE]), COUNT) is None


def test_a_bias_of_zero_may_have_an_error() -> None:
    """It is a part of what does not vary: bounds of it are as wide as the error."""
    index, factor = np.arange(6), Scale(np.ones(1))
    bias, size = np.zeros(6), np.full(6, 1e3)
    nodes = (
        None,
        Affine((0,), (factor,), 6, bias, size, fuzz=2.0**-48, sizes=(factor,)),
        Activation((1,), ReLU(), 6),
        Affine((2,), (Dense(np.ones((1, 1, 1, 6))),), 1),
    )
    network, free = Network(nodes, 6), index[:1]
    part = part_of(network, Float64(), free, COUNT)
    assert part is not None
    lower, upper = part.given(Float64(), np.zeros((1, 6)), np.zeros((1, 6)))
    assert (lower < -1e3 * 2.0**-49).any()
    assert (upper > 1e3 * 2.0**-49).any()
    assert 0 in part.slots[1]


def f32(*shape: int) -> Any:
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


LAST = call("MatMul", "r v")
CONV = [call("Conv", "x k", "c", strides=[2, 2]), call("Relu", "c", "a"), call("Reshape", "a s", "r"), LAST]
CONSTANTS = {"k": f32(3, 1, 2, 2), "s": i8(1, 12), "v": f32(12, 2)}
# The network in a file, and the inputs that are free.
PARTS: dict[str, tuple[bytes, list[int]]] = {
    "a convolution": (file(CONV, CONSTANTS, (1, 1, 4, 4)), [5]),
    "one of weights that are computed": (
        file([call("Mul", "g h", "k"), *CONV],
             {"g": f32(3, 1, 2, 2), "h": f32(1), "s": i8(1, 12), "v": f32(12, 2)}, (1, 1, 4, 4)), [5]),
    "a pre-activation that is read by others, too": (
        file([call("Reshape", "x f", "t"), call("MatMul", "t m", "h"), call("Mul", "h c", "p"),
              call("Slice", "p b e o", "q"), call("Relu", "h", "a"), call("Slice", "a g n o", "u"),
              call("Slice", "h b g o", "w"), call("Concat", "q u w", "l", axis=1),
              call("ReduceSum", "l z", "r", keepdims=1), LAST],
             {"f": i8(4, 3), "m": f32(3, 3), "c": f32(3), "b": i8(0), "e": i8(2), "o": i8(1), "g": i8(1), "n": i8(3),
              "z": i8(0), "v": f32(5, 2)}, (1, 12)), [0]),
    "functions of other inputs": (
        file([call("Slice", "x b e o", "s"), call("Slice", "x e n o", "t"), call("MatMul", "s m", "g"),
              call("Relu", "g", "p"), call("MatMul", "t w", "h"), call("Relu", "h", "q"),
              call("Concat", "p q", "r", axis=1), LAST],
             {"b": i8(0), "e": i8(4), "n": i8(12), "o": i8(1), "m": f32(4, 3), "w": f32(8, 20), "v": f32(23, 2)},
             (1, 12)), [1]),
}  # fmt: skip


def at_points(size: int, free: list[int], count: int = 6) -> list[Question]:
    """Each about some numbers of another point."""
    rng, found = np.random.default_rng(9), []
    for at in rng.uniform(-1, 1, (count, size)):
        upper = at.copy()
        upper[free] += 0.25
        boxes = Boxes(np.array([free[0], -1, -1], np.int32), np.array([at[free[0]] + 0.125, 0.0, 0.0]))
        clause = np.arange(2, dtype=np.int32)
        found.append(Question(Region("box", at, upper), CLAIMS, np.full(2, 50.0), clause, boxes=boxes))
    return found


@pytest.mark.parametrize(("data", "free"), PARTS.values(), ids=PARTS)
def test_parts_of_other_networks_prove_what_these_do(data: bytes, free: list[int], monkeypatch: Any) -> None:
    network = read_network(data)
    asked = at_points(network.size(0), free)
    part = part_of(network, Float64(), np.array(free), len(asked))
    assert part is not None
    assert sum(part.network.size(i) for i in range(len(part.network.nodes))) < sum(
        network.size(i) for i in range(len(network.nodes))
    )
    found = check_family(network, asked, Float64(), False, None)
    for q, margin in zip(asked, found.tolist(), strict=True):
        x = np.random.default_rng(1).uniform(q.region.lower, q.region.upper, (50, len(q.region.lower)))
        assert margin <= (evaluate(network, x)[-1] @ q.rows.T + q.offsets).min() + 1e-12
    monkeypatch.setattr(families, "part_of", lambda *_: None)
    np.testing.assert_allclose(found, check_family(network, asked, Float64(), False, None), rtol=1e-9)


def test_there_is_no_part_where_inputs_are_bent_or_maps_cost_much() -> None:
    bent = read_network(file([call("Relu", "x", "r"), LAST], CONSTANTS, (1, 12)))
    assert part_of(bent, Float64(), np.array([0]), COUNT) is None
    convolved = read_network(PARTS["a convolution"][0])
    assert part_of(convolved, Float64(), np.array([5]), 1) is not None
    assert part_of(convolved, Float64(), np.array([5]), 0) is None


def test_there_is_no_part_of_maps_that_add_up_coefficients() -> None:
    """Their sums would round before they are bounded."""
    place = ((slice(0, 1),),)
    weight = np.full((2, 1, 1, 1), 0.5)
    for taps in (1, 2):
        dense = Dense(weight[:taps], 8, (1,), (1,), place * taps, place * taps)
        nodes = (
            None,
            Affine((0,), (dense,), 8),
            Activation((1,), ReLU(), 8),
            Affine((2,), (Dense(f32(1, 1, 1, 8)),), 1),
        )
        assert (part_of(Network(nodes, 8), Float64(), np.array([0]), COUNT) is None) == (taps == 2)
        assert (dense.forward(Float64(), np.ones((1, 8))) == 0.5 * taps).all()


def test_there_is_no_part_of_rules_whose_entries_are_elsewhere() -> None:
    """Of a product one of whose operands lies at the other end."""

    class Turned(ProductRule):
        def behind(self, coeff: Any) -> Any:
            return np.roll(np.repeat(coeff, 2, 1), 1, 1)

    pick = np.arange(8)
    for rule in (ProductRule(), Turned()):
        nodes = (
            None,
            Affine((0,), (Pick(pick, 8),), 8),
            Activation((1,), rule, 4),
            Affine((2,), (Dense(np.ones((1, 1, 1, 4))),), 1),
        )
        found = part_of(Network(nodes, 8), Float64(), np.array([1, 3]), COUNT)
        assert (found is None) == isinstance(rule, Turned)
