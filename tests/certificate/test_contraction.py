"""Products of matrices in the checker, crossed at once: as good as laid out, and never more than is true."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from tests.certificate.values import evaluate
from tests.marks import at_night_after
from tests.run.files import model, node, tensor

from krelax.certificate.format.schema import Choices, GroupSet, Layer, Lemma, Question, Shares
from krelax.certificate.format.schema import Region as StoredRegion
from krelax.certificate.kernel.activations import Product
from krelax.certificate.kernel.arithmetic import Arithmetic, Exact, Float64
from krelax.certificate.kernel.backward import over_inputs
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.closed_form import _ByRule
from krelax.certificate.kernel.context import Context
from krelax.certificate.kernel.contraction import contractions
from krelax.certificate.kernel.linear import Dense, Pick
from krelax.certificate.kernel.network import Activation, Affine, Network
from krelax.certificate.kernel.question import check_question
from krelax.certificate.kernel.region import Region
from krelax.certificate.kernel.relaxation import Choice, Table, shared_lines
from krelax.certificate.onnx.reader import read_network

ARITHMETICS = pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
ROWS, INNER, COLUMNS = 2, 3, 4


class LaidOut(_ByRule):
    """Shares nothing, so that all products are laid out."""

    def shared(self, j: int) -> None:
        return None


def matrices(rng: np.random.Generator) -> dict[str, Any]:
    shapes = {"p": (3, INNER), "q": (COLUMNS, ROWS)}
    return {name: (rng.integers(-16, 17, shape) / 8).astype(np.float32) for name, shape in shapes.items()}


def product(weights: dict[str, Any]) -> bytes:
    """`(x p) (q x)`, for an input x of two rows."""
    nodes = [node("MatMul", "x", "p", "a"), node("MatMul", "q", "x", "b"), node("Transpose", "b", "t", perm=[1, 0])]
    nodes.append(node("MatMul", "t", "c", "s"))
    nodes.append(node("MatMul", "a", "s", "y"))
    constants = weights | {"c": np.eye(COLUMNS, dtype=np.float32)}
    return bytes(model(nodes, constants, [tensor("x", [ROWS, 3])]).SerializeToString())


def forms(rng: np.random.Generator) -> tuple[Any, Any]:
    """Some forms of the outputs, with coefficients that are zero, too."""
    return rng.integers(-2, 3, (7, ROWS * COLUMNS)) / 4, rng.integers(-4, 5, 7) / 8


def context_of(data: bytes, region: Region, ar: Arithmetic) -> Context:
    bounds = LayerBounds.of(read_network(data).over(ar), region, ar, False)
    while len(bounds.lower) < len(bounds.network.nodes):
        bounds = bounds.advanced()
    return Context(bounds, np.ones((1, 1)), np.zeros(1))


@ARITHMETICS
@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("seed", at_night_after(1, range(3)))
def test_products_at_once_are_bounded_as_they_are_laid_out(seed: int, parallel: bool, ar: Arithmetic) -> None:
    rng = np.random.default_rng(seed)
    weights = matrices(rng)
    centre, radius = rng.integers(-16, 17, (1, ROWS * 3)) / 8, rng.integers(0, 17, (1, ROWS * 3)) / 2.0 ** (4 + seed)
    context = context_of(product(weights), Region(centre - radius, centre + radius), ar)
    (total,) = contractions(context.network, ar)
    rows, constants = forms(rng)
    choice, every = Choice(parallel), slice(None)
    crossed, laid_out = (
        over_inputs(context.bounds, total, ar.number(rows), ar.number(constants), way(context, choice, every)).minimum(
            context.bounds
        )
        for way in (_ByRule, LaidOut)
    )
    np.testing.assert_allclose(crossed, laid_out, rtol=0, atol=1e-9)
    p, q = ([[Fraction(float(v)) for v in row] for row in weights[name]] for name in "pq")
    for share in rng.integers(-1, 2, (40, ROWS * 3)):
        x = [[Fraction(float(v)) for v in row] for row in (centre[0] + share * radius[0]).reshape(ROWS, 3)]
        a, b = times(x, p), times(q, x)
        y = [v for row in times(a, [list(column) for column in zip(*b, strict=True)]) for v in row]
        for bound, row, constant in zip(crossed, rows, constants, strict=True):
            truth = sum((Fraction(c) * v for c, v in zip(row.tolist(), y, strict=True)), Fraction(float(constant)))
            assert Fraction(float(bound)) <= truth


def times(a: list[list[Fraction]], b: list[list[Fraction]]) -> list[list[Fraction]]:
    columns = list(zip(*b, strict=True))
    return [[sum((u * v for u, v in zip(row, c, strict=True)), Fraction(0)) for c in columns] for row in a]


def test_groups_have_the_sums_that_take_the_same_entries() -> None:
    data = product(matrices(np.random.default_rng(0)))
    network = read_network(data)
    (found,) = contractions(network, Float64()).values()
    sizes = [(operand.sums.shape, len(operand.picks.index)) for operand in found.operands]
    assert sizes == [((ROWS, COLUMNS), ROWS * INNER), ((COLUMNS, ROWS), COLUMNS * INNER)]


def test_more_rows_fit_where_products_are_not_laid_out() -> None:
    data = product(matrices(np.random.default_rng(0)))
    context = context_of(data, Region(-np.ones((1, ROWS * 3)), np.ones((1, ROWS * 3))), Float64())
    network = context.network
    largest = max(network.size(i) for i in range(len(network.nodes)))
    assert largest == 2 * ROWS * COLUMNS * INNER
    assert context.portion > Float64.entries // largest


def asked(region: Region, *layers: Layer, crossings: Any = ()) -> Question:
    """The sum of all products, with an offset that makes any bound fit."""
    count, zeros = ROWS * COLUMNS, np.zeros(1, np.int32)
    margins = Lemma(zeros - 1, np.zeros(0, np.float32), list(crossings))
    box = StoredRegion("box", region.lower[0], region.upper[0])
    return Question(box, np.ones((1, count)), np.zeros(1), zeros, list(layers), margins)


@ARITHMETICS
def test_what_is_chosen_at_products_decides_whether_they_are_laid_out(ar: Arithmetic) -> None:
    """With groups that know no more than the intervals nothing changes; what slopes that are chosen prove is true."""
    data = product(matrices(np.random.default_rng(3)))
    network, region = read_network(data).over(ar), Region(-np.ones((1, ROWS * 3)) / 4, np.ones((1, ROWS * 3)) / 2)
    groups = GroupSet(np.array([[0, 1]], np.int32), np.array([[1, 1], [1, -1]], np.int8), np.zeros(1, np.int32))
    zero = np.zeros(1, np.int32)
    absolute = np.zeros((1, network.size(network.before(0))), np.float32)
    plain, grouped, sloped = (
        check_question(network, asked(region, Layer("adaptive", [], sets), crossings=crossings), ar).margin
        for sets, crossings in (
            ([], []),
            ([groups], [Choices(0, groups=[Shares(0)])]),
            ([], [Choices(0, zero, absolute=absolute)]),
        )
    )
    assert grouped == pytest.approx(plain, abs=1e-9)
    truth = min(
        evaluate(read_network(data), x[None])[-1].sum()
        for x in np.random.default_rng(0).uniform(region.lower, region.upper, (200, ROWS * 3))
    )
    assert sloped != plain
    assert max(sloped, plain) <= truth


@pytest.mark.parametrize("nodes", [["MatMul"], ["LogSoftmax"]], ids=["product", "logarithm"])
def test_bounds_of_operands_are_no_worse_backward(nodes: list[str]) -> None:
    """Of a product's operands and of what exponentials are summed of."""
    w = np.array([[1, -1], [0.5, 1]], np.float32)
    steps = [node("Gemm", "x", "w", "h"), node("Relu", "h", "r"), node("Gemm", "r", "w", "a")]
    last = node("Mul", "a", "r", "y") if nodes == ["MatMul"] else node("LogSoftmax", "a", "y")
    data = bytes(model([*steps, last], {"w": w}, [tensor("x", [1, 2])]).SerializeToString())
    network, found, corner = read_network(data), list[float](), np.array([-1.0, -0.5])
    box, zero = StoredRegion("box", corner, -corner), np.zeros(1, np.int32)
    for base in ("interval", "adaptive"):
        layers = [Layer(base) for _ in network.activations]
        margins = Lemma(zero - 1, np.zeros(0, np.float32))
        question = Question(box, np.array([[1.0, -0.5]]), np.zeros(1), zero, layers, margins)
        found.append(check_question(network, question, Float64()).margin)
    x = np.random.default_rng(0).uniform(box.lower, box.upper, (500, 2))
    assert found[0] < found[1] <= (evaluate(network, x)[-1] @ [1.0, -0.5]).min()


PAIRS = [[0, 2], [1, 3]]


def laid_out(first: Any, second: Any, *more: Any, terms: int = 2, weight: float = 1.0) -> Network:
    """Sums of so many products of entries of the input each."""
    (one, two), size = (np.array(side).reshape(-1) for side in (first, second)), 4
    index = [np.stack(pair, -1).reshape(-1) for pair in ((one, one * 0 - 1), (two * 0 - 1, two))]
    pairs = Affine((0, 0), tuple(Pick(i, size) for i in index), 2 * len(one))
    sums = len(one) // terms
    total = Affine((2,), (Dense(np.full((1, 1, 1, terms), weight), sums),), sums)
    return Network((None, pairs, Activation((1,), Product(), len(one)), total, *more), size)


ALIKE = laid_out([PAIRS[0], PAIRS[0], PAIRS[1], PAIRS[1]], [PAIRS[0], PAIRS[1], PAIRS[0], PAIRS[1]])


def test_sums_are_crossed_at_once_where_sets_of_them_take_the_same_entries() -> None:
    assert list(contractions(ALIKE, Float64())) == [3]
    apart = Affine((1,), (Pick(np.arange(2), 16),), 2)
    nodes = ALIKE.nodes
    turned = Affine((0, 0), tuple(nodes[1].maps[::-1]), 16)
    for other in (
        Network((*nodes, apart), 4),  # the operands are read by something else
        Network((None, turned, *nodes[2:]), 4),  # the operands are not side by side
        laid_out([PAIRS[0], PAIRS[0], PAIRS[1]], [PAIRS[0], PAIRS[1], PAIRS[0]]),  # sets of two and of one
        laid_out(*[[PAIRS[0], PAIRS[1]]] * 2, weight=2.0),  # more than sums
    ):
        assert not contractions(other, Float64())


def test_lines_are_shared_over_one_interval_and_by_one_row() -> None:
    ends = np.zeros((1, 4)), np.ones((1, 4))
    lines = Table(np.arange(4), np.zeros((1, 4)))
    one = {"below": lines, "above": lines}
    assert shared_lines(Product(), ends, Choice(tables=one)) is not None
    two = Table(np.arange(4), np.zeros((2, 4)))
    both = tuple(np.repeat(end, 2, 0) for end in ends)
    for given, tables in ((both, one), (ends, {"below": two, "above": two}), (ends, {"absolute": lines})):
        assert shared_lines(Product(), (given[0], given[1]), Choice(tables=tables)) is None
