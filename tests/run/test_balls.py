"""Balls in VNN-LIB: sums of squares of inputs are regions, which bounds know as such."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.run.files import random_dense, save

from krelax.network.onnx import load_onnx
from krelax.problem.files import matched
from krelax.problem.region import Ball, Box, Region
from krelax.problem.vnnlib import read_vnnlib
from krelax.run.coupling import coupled
from krelax.run.verify import VerifyOptions, verify_file
from krelax.search.questions import about_specification
from krelax.search.verdict import Outcome, Verdict

N = 12
CENTRE = [round(0.3 + 0.03 * i, 2) for i in range(N)]
DECLARED = f"""(vnnlib-version <2.0>)
(declare-network f (declare-input X real [1,{N}]) (declare-output Y real [1,3]))
"""


def ball(radius: float, op: str = "<=", factor: str = "1") -> str:
    squares = " ".join(f"(* {factor if i else 1} (- X[0,{i}] {c}) (- X[0,{i}] {c}))" for i, c in enumerate(CENTRE))
    return f"({op} (+ {squares}) {radius**2})"


def boxed(low: float, high: float) -> str:
    return "".join(f"(assert (and (<= {low} X[0,{i}]) (<= X[0,{i}] {high})))" for i in range(N))


@pytest.fixture
def files(tmp_path: Path) -> dict[str | None, Path]:
    save(random_dense([N, 16, 3], seed=5), tmp_path / "net.onnx")
    return {None: tmp_path / "net.onnx"}


def asked(text: str, files: dict[str | None, Path], method: str = "auto", timeout: float = 20.0) -> Outcome:
    query = files[None].with_name("query.vnnlib")
    query.write_text(DECLARED + text, encoding="utf-8")
    return verify_file(query, files, lambda path, _: load_onnx(path), VerifyOptions(method, timeout))[1]


def test_a_ball_is_the_region(files: dict[str | None, Path]) -> None:
    """With a box or without one; an ellipsoid is the box around it."""
    query = files[None].with_name("query.vnnlib")
    open_ball = f"(assert {ball(0.2, '<')})"
    kinds: dict[str, type[Region]] = {
        f"(assert {ball(0.2)})": Ball,
        open_ball + boxed(0, 1): Ball,
        f"(assert {ball(0.2, factor='2')})": Box,
    }
    for text, kind in kinds.items():
        query.write_text(f"{DECLARED}{text}(assert (>= Y[0,0] 1))", encoding="utf-8")
        specification = read_vnnlib(query)
        (pair,) = coupled(specification, matched(specification, files), lambda: None)
        region = about_specification(pair.networks[0], pair.specification).region
        assert type(region) is kind
        np.testing.assert_allclose(region.upper[0, 0], CENTRE[0] + 0.2, rtol=0, atol=1e-12)
        if isinstance(region, Ball):
            assert 0.2 <= region.eps < 0.2 + 1e-12


def test_what_holds_in_a_ball_but_not_in_its_box(files: dict[str | None, Path]) -> None:
    """The largest output, by far over points of the box that are not in the ball."""
    network = load_onnx(files[None])
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(20000, N))
    inside = np.array(CENTRE) + 0.2 * steps / np.linalg.norm(steps, axis=1, keepdims=True)
    corners = np.array(CENTRE) + 0.2 * np.sign(steps)

    def most(points: NDArray[np.float64]) -> float:
        return float(network(torch.from_numpy(points)[:, None])[..., 0].max())

    threshold = (3 * most(inside) + most(corners)) / 4
    found = asked(f"(assert {ball(0.2)})(assert (>= Y[0,0] {threshold}))", files)
    assert found.verdict is Verdict.HOLDS
    assert asked(f"(assert {ball(0.9)})(assert (>= Y[0,0] {threshold}))", files).verdict is Verdict.VIOLATED


def test_counterexamples_lie_in_the_ball_exactly(files: dict[str | None, Path]) -> None:
    found = asked(f"(assert {ball(0.25)})(assert (<= Y[0,0] 1000))", files).counterexample
    assert found is not None
    distance = sum((Fraction(float(x)) - Fraction(str(c))) ** 2 for x, c in zip(found.x.flatten(), CENTRE, strict=True))
    assert distance <= Fraction(str(0.25**2))


def test_a_ball_around_one_point_that_no_float_has(files: dict[str | None, Path]) -> None:
    """Nothing but 0.3, 0.33, ...: no number of the model, and nothing at all if it is strict."""
    assert asked(f"(assert {ball(0.0, '<')})(assert (<= Y[0,0] 1000))", files).verdict is Verdict.HOLDS
    assert asked(f"(assert {ball(0.0)})(assert (<= Y[0,0] 1000))", files, timeout=0.5).verdict is not Verdict.HOLDS


def test_a_ball_far_away_is_empty_in_the_box(files: dict[str | None, Path]) -> None:
    far = "(<= (* (- X[0,0] 1e120) (- X[0,0] 1e120)) 1e10)"
    assert asked(f"(assert {far})(assert (<= Y[0,0] 1000)){boxed(0, 1)}", files).verdict is Verdict.HOLDS


def test_numbers_between_floats_stay_in_their_box(files: dict[str | None, Path]) -> None:
    """A point that stands for such inputs is enclosed by the box: what squares say of it does not cut it off."""
    low, high = "0.25000000000000000001", "0.25000000000000000002"
    between = f"(assert (and (< {low} X[0,0]) (< X[0,0] {high})))"
    query = files[None].with_name("query.vnnlib")
    square = "(assert (<= (* X[0,0] X[0,0]) 0.0624999999999999999999))"
    query.write_text(f"{DECLARED}{square}{between}{boxed(0, 1)}", encoding="utf-8")
    (case,) = read_vnnlib(query).cases
    assert case.least[0] > case.most[0]
    assert Fraction(float(case.lower[0])) <= Fraction(low)
    assert Fraction(float(case.upper[0])) >= Fraction(high)
