"""Bounds of tiny ONNX networks against their exact value in rational arithmetic, through everything that is folded.

The networks are chains of scalings, shifts, divisions, normalisations, means and matrix products at scales from 1e-300
to 1e300, with constants that cancel. What a file means is the function of real numbers: folding, importing and bounding
must not lose it. Families are also bounded without charging the errors of constants, and must then be wrong somewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from tests.bounds.problems import bounded
from tests.marks import at_night_after
from tests.run.files import model, node, save, tensor

from krelax.bounds.boxed import Bounder
from krelax.bounds.instance import Instance
from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.network.linear import Arithmetic
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries
from krelax.problem.region import Box

Rng = np.random.Generator
Values = list[Fraction]
METHODS = ("interval", "zonotope", "crown", "alpha")
# Bits behind the point of roots that rational numbers do not have.
_BITS = 4000


@dataclass
class Chain:
    """A model on two channels, `(1, 2)`, and its exact value at `x`."""

    rng: Rng
    x: Values
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    last: str = "x"

    def __post_init__(self) -> None:
        self.value = list(self.x)

    def constant(self, values: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(values, np.float64)
        return name

    def apply(self, op: str, *operands: str, **attributes: Any) -> None:
        result = f"t{len(self.nodes)}"
        self.nodes.append(node(op, self.last, *operands, result, **attributes))
        self.last = result

    def number(self, *scales: float) -> Any:
        """Two constants of the given decimal exponents."""
        exponents = self.rng.choice(scales, 2)
        return self.rng.choice([-1, 1], 2) * self.rng.uniform(1, 2, 2) * 10.0**exponents

    def mul(self, c: Any) -> None:
        self.apply("Mul", self.constant(c))
        self.value = [v * Fraction(float(w)) for v, w in zip(self.value, np.broadcast_to(c, 2), strict=True)]

    def add(self, c: Any) -> None:
        self.apply("Add", self.constant(c))
        self.value = [v + Fraction(float(w)) for v, w in zip(self.value, np.broadcast_to(c, 2), strict=True)]

    def div(self, c: Any) -> None:
        self.apply("Div", self.constant(c))
        self.value = [v / Fraction(float(w)) for v, w in zip(self.value, np.broadcast_to(c, 2), strict=True)]

    def gemm(self, weight: Any, bias: Any, alpha: float, beta: float) -> None:
        self.apply("Gemm", self.constant(weight), self.constant(bias), alpha=alpha, beta=beta)
        a, b = Fraction(float(np.float32(alpha))), Fraction(float(np.float32(beta)))
        sums = [sum(v * Fraction(float(w)) for v, w in zip(self.value, weight[:, j], strict=True)) for j in range(2)]
        self.value = [a * s + b * Fraction(float(c)) for s, c in zip(sums, bias, strict=True)]

    def normalise(self, scale: Any, shift: Any, mean: Any, var: Any, eps: float) -> None:
        names = [self.constant(c) for c in (scale, shift, mean, var)]
        self.apply("BatchNormalization", *names, epsilon=eps)
        parts = zip(self.value, scale, shift, mean, var, strict=True)
        self.value = [
            (v - Fraction(m)) * Fraction(s) / root(Fraction(d) + Fraction(float(np.float32(eps)))) + Fraction(b)
            for v, s, b, m, d in parts
        ]

    def proto(self) -> onnx.ModelProto:
        ends = [tensor("x", (1, 2), TensorProto.DOUBLE)], [tensor("y", None, TensorProto.DOUBLE)]
        return model([*self.nodes, node("Identity", self.last, "y")], self.constants, *ends)


def root(value: Fraction) -> Fraction:
    """The square root to thousands of bits."""
    return Fraction(isqrt(value.numerator * value.denominator << 2 * _BITS), value.denominator << _BITS)


def matrix(rng: Rng) -> Any:
    return rng.normal(size=(2, 2))


def cancelling_shifts(c: Chain) -> None:
    """0.3 + 1e10 - 1e10 after a matrix product."""
    large = c.number(8, 10, 12)
    c.gemm(matrix(c.rng), c.number(-1, 0), 1.0, 1.0)
    c.add(large)
    c.add(-large)


def cancelling_normalisation(c: Chain) -> None:
    """A mean that is the shift but for the last bits, as batch normalisation of ordinary images has."""
    c.gemm(matrix(c.rng), np.zeros(2), 1.0, 1.0)
    mean, var, scale = c.number(2, 6), c.rng.uniform(0.1, 2, 2), c.number(-1, 0)
    eps = 1e-5
    shift = [float(Fraction(m) * Fraction(s) / root(Fraction(v) + Fraction(float(np.float32(eps))))) for m, s, v in
             zip(mean, scale, var, strict=True)]  # fmt: skip
    c.value = [Fraction(0), Fraction(0)] if c.x == [0, 0] else c.value
    c.normalise(scale, np.array(shift), mean, var, eps)


def thirds_and_sevenths(c: Chain) -> None:
    """Divisions and multiplications that do not undo each other in floating point."""
    c.gemm(matrix(c.rng), c.number(0), 0.1, -3.3)
    for divisor in (3.0, 7.0, 49.0):
        c.div(divisor)
        c.mul(divisor * (1 + 2.0**-52))
    c.add([-float(v) for v in c.value])


def normalised_twice(c: Chain) -> None:
    c.gemm(matrix(c.rng), c.number(0), 1.0, 1.0)
    for _ in range(2):
        c.normalise(c.number(0), c.number(0), c.number(0), c.rng.uniform(0.1, 2, 2), 1e-3)
    c.add([-float(v) for v in c.value])


def scales_that_underflow(c: Chain) -> None:
    """Seventeen scalings by 1e-20 and back, from either end."""
    c.gemm(matrix(c.rng), c.number(0), 1.0, 1.0)
    factors = [c.number(-20) for _ in range(17)] + [c.number(20) for _ in range(17)]
    for factor in factors if c.rng.random() < 0.5 else factors[::-1]:
        c.mul(factor)


def any_scale(c: Chain) -> None:
    """Anything, at any scale."""
    c.gemm(matrix(c.rng), c.number(-300, 0, 300), 1.0, 1.0)
    for _ in range(int(c.rng.integers(2, 7))):
        step = c.rng.integers(4)
        if step == 0:
            c.mul(c.number(-300, -160, -10, 0, 10, 160, 300))
        elif step == 1:
            c.add(c.number(-300, -10, 0, 10, 300))
        elif step == 2:
            c.div(c.number(-300, -160, -10, 0, 10, 160, 300))
        else:
            c.normalise(c.number(0, 100), c.number(-5, 100), c.number(0, 100), c.rng.uniform(0, 1, 2), 1e-5)


EXACT = (cancelling_shifts, cancelling_normalisation, thirds_and_sevenths, normalised_twice)
FAMILIES = (*EXACT, scales_that_underflow, any_scale)


def found(network: Network, x: list[float], radius: float) -> dict[str, torch.Tensor]:
    """Lower bounds of both outputs and of their negatives, around a point, by every kind of pass."""
    point = torch.tensor([[x]], dtype=torch.float64)
    region = Box(point - radius, point + radius)
    rows = torch.cat([torch.eye(2), -torch.eye(2)]).double()[None]
    offsets = torch.zeros(1, 4, dtype=torch.float64)
    result = {name: bounded(network, region, rows, offsets, name).value[0] for name in METHODS}
    if radius:
        queries = Queries(rows, offsets, torch.arange(4)[None], 4)
        inner = Bounder(Instance.of(network, region), queries)
        lower, upper = (t.flatten()[inner.varied][None] for t in (region.lower, region.upper))
        result["boxes"] = inner.bound(lower, upper).value[0]
    return result


def gaps(family: Callable[[Chain], None], seed: int, folder: Path) -> list[Fraction | None]:
    """By how much bounds exceed the exact values, which they must not; None for no bound."""
    rng = np.random.default_rng(seed)
    x = [0.0, 0.0] if rng.random() < 0.5 else rng.normal(size=2).tolist()
    chain = Chain(rng, [Fraction(v) for v in x])
    family(chain)
    try:
        network = load_onnx(save(chain.proto(), folder / "net.onnx"), check=False)
    except InputError as error:
        if "overflows" not in str(error):
            raise
        return []
    exact = [*chain.value, *(-v for v in chain.value)]
    radius = 0.0 if rng.random() < 0.5 else 1e-9
    return [
        Fraction(b) - e if np.isfinite(b) else None
        for bounds in found(network, x, radius).values()
        for b, e in zip(bounds.tolist(), exact, strict=True)
    ]


@pytest.mark.parametrize("seeds", at_night_after(1, [range(8), range(8, 40)]))
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_bounds_never_exceed_the_exact_value(family: Callable[[Chain], None], tmp_path: Path, seeds: range) -> None:
    for seed in seeds:
        for gap in gaps(family, seed, tmp_path):
            assert gap is None or gap <= 0


@pytest.mark.parametrize("family", EXACT, ids=lambda f: f.__name__)
def test_families_are_hard_and_bounds_are_there(
    family: Callable[[Chain], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every bound is finite; without the errors of constants and the room for them some would be wrong."""
    found = [gap for seed in range(10) for gap in gaps(family, seed, tmp_path)]
    assert None not in found
    monkeypatch.setattr(Arithmetic, "is_exact", True)
    monkeypatch.setattr("krelax.bounds.rounding._OVERHEAD", 0)
    uncharged = [gap for seed in range(10) for gap in gaps(family, seed, tmp_path)]
    assert any(gap is not None and gap > 0 for gap in uncharged)
