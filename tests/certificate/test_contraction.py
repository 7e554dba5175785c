"""Products of matrices in the checker, crossed at once: as good as laid out, and never more than is true."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from tests.marks import at_night_after
from tests.run.files import model, node, tensor

from krelax.certificate.kernel.arithmetic import Arithmetic, Exact, Float64
from krelax.certificate.kernel.backward import over_inputs
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.closed_form import _ByRule
from krelax.certificate.kernel.context import Context
from krelax.certificate.kernel.contraction import contractions
from krelax.certificate.kernel.region import Region
from krelax.certificate.kernel.relaxation import Choice
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
