"""Polynomials over small networks: what is excluded has no point on a grid, and points satisfy what is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import pytest
from tests.run.files import model, node, save, tensor

from krelax.problem.vnnlib import read_vnnlib
from krelax.run.coupling import coupled
from krelax.search.polynomial import Polynomials
from krelax.search.simplex import Purse

HEAD = (
    "(vnnlib-version <2.0>)(declare-network f (declare-input X real [2])(declare-output Y real [2]))"
    "(assert (and (>= X[0] -1) (<= X[0] 0.5) (>= X[1] -0.5) (<= X[1] 1)))"
)
WEIGHTS = np.array([[1.0, -0.5], [2.0, 1.0]], np.float32)
BIASES = np.array([0.5, -1.0], np.float32)
NAMES = ("X[0]", "X[1]", "Y[0]", "Y[1]")
GRID = [(Fraction(i, 4), Fraction(j, 4)) for i, j in product(range(-4, 3), range(-2, 5))]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ReLUs of two inputs."""
    nodes = [node("MatMul", "x", "w", "h"), node("Add", "h", "b", "a"), node("Relu", "a", "y")]
    graph = model(nodes, {"w": WEIGHTS, "b": BIASES}, [tensor("x", [2])], [tensor("y", [2])])
    return save(graph, tmp_path_factory.mktemp("net") / "net.onnx")


def values(x: tuple[Fraction, ...]) -> dict[str, Fraction]:
    """All variables at an input."""
    sums = (sum(Fraction(float(w)) * v for w, v in zip(c, x, strict=True)) for c in WEIGHTS.T)
    y = [max(Fraction(0), s + Fraction(float(b))) for s, b in zip(sums, BIASES, strict=True)]
    return dict(zip(NAMES, (*x, *y), strict=True))


def decided(folder: Path, net: Path, text: str, work: int = 60_000) -> Iterator[list[list[Fraction]] | None]:
    """Points of every case, none if it is impossible; None where that is not found out."""
    path = folder / "query.vnnlib"
    path.write_text(HEAD + text, "utf-8")
    for pair in coupled(read_vnnlib(path), {"f": net}, lambda: None):
        assert pair.factors is not None
        polynomials = Polynomials(pair.factors, Purse(work), lambda: None)
        for case in pair.specification.cases:
            found = polynomials.decide(pair.specification, case)
            yield None if found is None else found.points


Function = Callable[[dict[str, Fraction]], Fraction]


def random_polynomial(random: Random) -> tuple[str, Function]:
    """As text, and as a function."""
    terms = [(random.choice((-2, -1, 1, 3)), random.choices(NAMES, k=random.choice((2, 2, 3)))) for _ in range(2)]

    def value(v: dict[str, Fraction]) -> Fraction:
        return sum((c * v[a] * v[b] * (v[d[0]] if d else 1) for c, (a, b, *d) in terms), Fraction(0))

    return "(+ " + " ".join(f"(* {c} {' '.join(names)})" for c, names in terms) + ")", value


@pytest.mark.parametrize("seed", range(4))
def test_ends_of_polynomials_on_a_grid(tmp_path: Path, net: Path, seed: int) -> None:
    random = Random(seed)
    settled = 0
    for _ in range(3):
        text, value = random_polynomial(random)
        end = max(value(values(x)) for x in GRID)
        for sign, fits in (("<", lambda v, e=end: v > e), ("<=", lambda v, e=end: v >= e)):
            for points in decided(tmp_path, net, f"(assert ({sign} {float(end):.60f} {text}))"):
                if points is not None:
                    settled += 1
                    assert points or not any(fits(value(values(x))) for x in GRID)
                    for point in points:
                        assert fits(value(values(tuple(point))))
                        assert -1 <= point[0] <= Fraction(1, 2)
                        assert -Fraction(1, 2) <= point[1] <= 1
    assert settled >= 4


def test_little_work_leaves_cases_open_and_some_for_others(tmp_path: Path, net: Path) -> None:
    text = "(assert (or (== (* X[0] X[0] X[0]) 0.1) (> (* X[0] X[0]) 1.0)))"
    assert [*decided(tmp_path, net, text, 4000)] == [None, []]
