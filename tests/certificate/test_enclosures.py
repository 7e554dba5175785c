"""Constants that the checker computes: exact, or within their error of what fractions give."""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from tests.marks import at_night_after
from tests.run.files import model, node, tensor

from krelax.certificate.kernel.arithmetic import Float64
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.region import Region
from krelax.certificate.onnx.enclosures import Enclosure
from krelax.certificate.onnx.reader import read_network
from krelax.errors import InputError, UnsupportedError

_exactly = np.vectorize(lambda v: Fraction(float(v)), otypes=[object])
OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "matmul": operator.matmul,
    "sum": lambda a, b: (a + b).sum((0,)),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("seed", at_night_after(1, range(3)))
def test_results_of_all_numbers_in_enclosures_are_enclosed(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    near = [rng.normal(0, 10.0 ** rng.integers(-3, 4), (4, 4)) + 2 for _ in range(2)]
    errors = [abs(n) * 2.0**-12 * rng.random((4, 4)) * (rng.random((4, 4)) < 0.5) for n in near]
    found = OPERATIONS[name](*(Enclosure(n, e) for n, e in zip(near, errors, strict=True)))
    low, high = _exactly(found.near) - _exactly(found.error), _exactly(found.near) + _exactly(found.error)
    for _ in range(8):
        signs = [_exactly(rng.integers(-1, 2, (4, 4))) for _ in range(2)]
        there = [_exactly(n) + s * _exactly(e) for n, s, e in zip(near, signs, errors, strict=True)]
        truth = OPERATIONS[name](*there)
        assert (low <= truth).all()
        assert (truth <= high).all()


def test_roots_are_enclosed() -> None:
    given = Enclosure(np.array([2.0, 3e-9, 1e9]), np.array([0.0, 1e-10, 1.0]))
    root = given.root()
    for sign in (-1, 0, 1):
        number = _exactly(given.near) + sign * _exactly(given.error)
        assert (((_exactly(root.near) - _exactly(root.error)) ** 2) <= number).all()
        assert (number <= (_exactly(root.near) + _exactly(root.error)) ** 2).all()
    with pytest.raises(UnsupportedError):
        Enclosure(np.array([1.0]), np.array([1.0])).root()
    with pytest.raises(InputError):
        Enclosure(np.array([1.0]), np.array([0.0])) / Enclosure(np.array([1.0]), np.array([1.0]))


@pytest.mark.parametrize("name", ["Mul", "MatMul", "Add"])
def test_a_computed_constant_is_charged_for(name: str) -> None:
    """The constant is a third in every entry, which no float is; what comes of it is enclosed, and not much more."""
    constants = {"a": np.full((3, 3), 1, np.float32), "b": np.full((3, 3), 3, np.float32)}
    nodes = [node("Div", "a", "b", "c"), node(name, "x", "c", "y")]
    network = read_network(model(nodes, constants, [tensor("x", [3, 3])]).SerializeToString())
    assert not network.single
    point = np.arange(1.0, 10.0)[None]
    bounds = LayerBounds.of(network, Region(point, point), Float64(), False)
    while len(bounds.lower) < len(network.nodes):
        bounds = bounds.advanced()
    x, third = _exactly(point.reshape(3, 3)), _exactly(np.zeros((3, 3))) + Fraction(1, 3)
    truth = {"Mul": x * third, "Add": x + third, "MatMul": x @ third}[name].reshape(-1)
    assert (_exactly(bounds.lower[-1][0]) <= truth).all()
    assert (truth <= _exactly(bounds.upper[-1][0])).all()
    assert (bounds.upper[-1] - bounds.lower[-1] < 1e-11).all()
