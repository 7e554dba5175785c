"""Functions that the checker recognises in products and quotients hold what these compute, whatever the constants."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from tests.network.recognised import nodes
from tests.run.files import model, tensor

from krelax.certificate.kernel.arithmetic import Arithmetic, Exact, Float64
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.network import Affine
from krelax.certificate.kernel.region import Region
from krelax.certificate.onnx.reader import read_network

# `a b` is no float64 number: n is the nearest one, m the next one below.
A, B = 0.1, 0.7
N, GREAT = A * B, 2.0**57
M = float(np.nextafter(N, 0))


def rest(n: float) -> Fraction:
    """What is left of `a b` beside n, made large."""
    return (Fraction(A) * Fraction(B) - Fraction(n)) * Fraction(GREAT)


def made(steps: list[str], constants: dict[str, float]) -> bytes:
    """A network of one number in float64."""
    arrays = {name: np.array([value]) for name, value in constants.items()}
    ends = [tensor("x", [1], TensorProto.DOUBLE)], [tensor("y", None, TensorProto.DOUBLE)]
    data: bytes = model(nodes(*steps), arrays, *ends).SerializeToString()
    return data


def bounded(data: bytes, x: float, ar: Arithmetic) -> tuple[Fraction, Fraction]:
    """Bounds of the output at a point."""
    network, point = read_network(data).over(ar), np.array([[x]])
    bounds = LayerBounds.of(network, Region(point, point), ar, False)
    while len(bounds.lower) < len(network.nodes):
        bounds = bounds.advanced()
    return Fraction(float(bounds.lower[-1].item())), Fraction(float(bounds.upper[-1].item()))


ROUNDED = ["k = Mul(a, b)", "r = Sub(k, n)", "s = Mul(r, g)"]
KNOWN = {"a": A, "b": B, "g": GREAT}
CASES: dict[str, tuple[list[str], dict[str, float], Callable[[Fraction], Fraction]]] = {
    "a shift that is only nearly zero": (
        [*ROUNDED, "t = Add(x, s)", "u = Add(x, s)", "y = Mul(t, u)"], {**KNOWN, "n": N},
        lambda x: (x + rest(N)) ** 2),
    "a factor that is known roughly": (
        [*ROUNDED, "t = Mul(x, s)", "u = Mul(x, s)", "y = Mul(t, u)"], {**KNOWN, "n": M},
        lambda x: (x * rest(M)) ** 2),
    "a product that is subnormal on the way": (
        ["p = Mul(x, a)", "q = Mul(p, b)", "t = Mul(q, c)", "u = Mul(x, d)", "y = Mul(t, u)"],
        {"a": 1e200, "b": 3e-121, "c": 1e-200, "d": 1e121},
        lambda x: x * x * (Fraction(1e200) * Fraction(3e-121) * Fraction(1e-200) * Fraction(1e121))),
}  # fmt: skip


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
@pytest.mark.parametrize("name", CASES)
def test_what_constants_are_not_exactly_is_charged(name: str, ar: Any) -> None:
    steps, constants, truth = CASES[name]
    for x in (0.0, 1.0, 1e8):
        low, high = bounded(made(steps, constants), x, ar)
        assert low <= truth(Fraction(x)) <= high


@pytest.mark.parametrize(("second", "exact"), [(1 / 3, False), (0.25, True)])
def test_factors_that_are_one_only_in_floats_are_charged(second: float, exact: bool) -> None:
    """Three thirds as floats are one, rounded."""
    first = 3.0 if not exact else 4.0
    assert first * second == 1
    network = read_network(made(["t = Mul(x, a)", "u = Mul(t, b)", "y = Mul(u, x)"], {"a": first, "b": second}))
    fuzz = [node.fuzz for node in network.nodes if isinstance(node, Affine)]
    assert (max(fuzz, default=0.0) == 0) == exact
