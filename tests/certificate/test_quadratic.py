"""Forms to second order in the checker: never above exact values, in both arithmetics."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from tests.marks import at_night_after
from tests.run.files import model, node, tensor

from krelax.certificate.kernel import boxes as checked
from krelax.certificate.kernel.arithmetic import Arithmetic, Exact, Float64
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.context import Context
from krelax.certificate.kernel.region import Region
from krelax.certificate.onnx.reader import read_network


def quadratic(matrix: Any, square: bool) -> bytes:
    """`x^T P x`, or the same of `tanh`-free squares: the sum of `(P x)_i^2`."""
    nodes = [node("MatMul", "x", "p", "z"), node("Mul", "z" if square else "x", "z", "m")]
    nodes.append(node("ReduceSum", "m", "y", keepdims=1))
    return bytes(model(nodes, {"p": matrix}, [tensor("x", [1, len(matrix)])]).SerializeToString())


def lowest(data: bytes, boxes: Region, ar: Arithmetic) -> Any:
    network = read_network(data).over(ar)
    root = Region(boxes.lower.min(0, keepdims=True), boxes.upper.max(0, keepdims=True))
    context = Context(LayerBounds.of(network, root, ar, False), np.ones((1, 1)), np.zeros(1))
    here, pushed = checked._derived(context, boxes)
    count = len(boxes.lower)
    return pushed.to_second_order(ar, np.ones((count, 1)), np.zeros(count), np.arange(count)), here.bounds.lower[-1][
        :, 0
    ]


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("seed", at_night_after(1, range(3)))
def test_bounds_are_never_above_exact_values(seed: int, square: bool, ar: Arithmetic) -> None:
    rng = np.random.default_rng(seed)
    count = 2 + seed
    matrix = (rng.integers(-16, 17, (count, count)) / 8).astype(np.float32)
    centre, radius = rng.integers(-16, 17, (3, count)) / 8, rng.integers(0, 17, (3, count)) / 2.0 ** (3 + 6 * seed)
    found, _ = lowest(quadratic(matrix, square), Region(centre - radius, centre + radius), ar)
    p = [[Fraction(float(v)) for v in row] for row in matrix]
    for box in range(3):
        share = rng.integers(0, 9, (40, count)) / 4 - 1
        share[:20] = np.sign(share[:20])
        for x in centre[box] + share * radius[box]:
            at = [Fraction(float(v)) for v in x]
            z = [sum((at[i] * p[i][j] for i in range(count)), Fraction(0)) for j in range(count)]
            whole = sum((a * b for a, b in zip(z if square else at, z, strict=True)), Fraction(0))
            assert Fraction(float(found[box])) <= whole


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_a_convex_form_is_bounded_by_its_minimum(ar: Arithmetic) -> None:
    """It is zero in the middle of the box; intervals and lines leave much below."""
    matrix = np.array([[2, -1.75, 0.5], [-1.75, 2, 0], [0.5, 0, 1]], np.float32)
    boxes = Region(-np.ones((1, 3)), np.ones((1, 3)))
    found, interval = lowest(quadratic(matrix, False), boxes, ar)
    assert -1e-9 < found[0] <= 0
    assert interval[0] < -5
