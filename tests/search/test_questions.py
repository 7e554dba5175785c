"""What a specification asks is what the queries built from it ask, and the answers are combined as it says."""

from __future__ import annotations

import csv
import os
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.run.files import dense, random_dense, save, specification

from krelax.errors import InputError
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.network.onnx import load_onnx
from krelax.problem.queries import Queries, classification
from krelax.problem.query import Case, Halfspace, Specification
from krelax.problem.vnnlib import read_vnnlib
from krelax.run.verify import VerifyOptions, verify
from krelax.search.questions import about_specification
from krelax.search.verdict import Counterexample, Outcome, Verdict, combine

BENCHMARKS = Path(os.environ.get("KRELAX_BENCHMARKS", Path(__file__).parents[3] / "shared" / "benchmarks"))
ACASXU = BENCHMARKS / "vnncomp" / "acasxu"

OUTPUTS = 3


def halfspace(coefficients: tuple[int, ...], constant: int) -> Halfspace:
    return Halfspace({i: Fraction(c) for i, c in enumerate(coefficients) if c}, Fraction(constant, 2))


def box(number: int) -> tuple[np.ndarray, np.ndarray]:
    lower = np.array([number, -1.0])
    return lower, lower + 1


@st.composite
def specifications(draw: st.DrawFn) -> Specification:
    """A few boxes, a few cases on each, each with its own number of small integer half-spaces."""
    numbers = st.integers(-2, 2)
    halfspaces = st.builds(halfspace, st.tuples(numbers, numbers, numbers), st.integers(-3, 3))
    case = st.tuples(st.integers(0, 2), st.lists(halfspaces, min_size=1, max_size=3))
    cases = draw(st.lists(case, min_size=1, max_size=5))
    return Specification(2, OUTPUTS, tuple(Case(*box(number), tuple(parts)) for number, parts in cases))


def affine(inputs: int, outputs: int) -> Network:
    """Any network of this many inputs and outputs."""
    builder = Builder((inputs,))
    return builder.build(builder.add(Dense(torch.zeros(outputs, inputs, dtype=torch.float64)), 0))


GRID = torch.tensor(list(product([-2.0, -0.5, 0.0, 1.0], repeat=OUTPUTS)), dtype=torch.float64)


@settings(deadline=None)
@given(specifications())
def test_a_specification_and_its_queries_agree_on_every_output(specification: Specification) -> None:
    """On a grid where sums are exact and ties are common: unsafe in some case of the box, or a positive margin."""
    questions = about_specification(affine(2, OUTPUTS), specification)
    assert len(questions) == len({case.lower.tobytes() for case in specification.cases})
    values = questions.queries.values(GRID.expand(len(questions), *GRID.shape))
    margins = questions.queries.margin(values)
    for i in range(len(questions)):
        lower, upper = questions.region.lower[i].numpy(), questions.region.upper[i].numpy()
        cases = [c for c in specification.cases if (c.lower == lower).all()]
        middle = ((lower + upper) / 2).astype(np.float32)
        for y, margin in zip(GRID.numpy(), margins[i].tolist(), strict=True):
            unsafe = any(all(h.holds(y) for h in case.halfspaces) for case in cases)
            assert unsafe is (margin <= 0)
            assert questions.violated(i, middle, y.astype(np.float32)) is unsafe
            assert not questions.violated(i, middle + np.float32(10), y.astype(np.float32))


def test_a_case_without_outputs_makes_its_whole_box_unsafe() -> None:
    empty, full = Case(*box(0), ()), Case(*box(0), (halfspace((1, 0, 0), -100),))
    questions = about_specification(affine(2, OUTPUTS), Specification(2, OUTPUTS, (empty, full)))
    assert bool((questions.queries.margin(questions.queries.values(GRID[None])) <= 0).all())


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 8))
def test_clauses_and_margin_against_loops(seed: int, clauses: int, queries: int) -> None:
    """The margin is the smallest over clauses of the largest member."""
    rng = np.random.default_rng(seed)
    clause = np.concatenate([np.arange(clauses), rng.integers(0, clauses, size=queries)])
    rng.shuffle(clause)
    batch, points, count = 3, 4, len(clause)
    rows, offsets = rng.integers(-2, 3, (batch, count, OUTPUTS)), rng.integers(-2, 3, (batch, count))
    asked = Queries(
        torch.from_numpy(rows).double(),
        torch.from_numpy(offsets).double(),
        torch.from_numpy(clause).expand(batch, -1),
        clauses,
    )
    y = rng.integers(-2, 3, (batch, points, OUTPUTS))
    values = asked.values(torch.from_numpy(y).double())
    best = asked.clause_values(values)
    for i, p in product(range(batch), range(points)):
        members = [int(rows[i, q] @ y[i, p] + offsets[i, q]) for q in range(count)]
        assert values[i, p].tolist() == members
        expected = [max(m for m, c in zip(members, clause, strict=True) if c == number) for number in range(clauses)]
        assert best[i, p].tolist() == expected
        assert asked.margin(values)[i, p].item() == min(expected)
    # bounds come without an axis of points
    assert torch.equal(asked.margin(values[:, 0]), asked.margin(values)[:, 0])
    part = asked.select(torch.tensor([2, 0]))
    assert torch.equal(part.margin(values[[2, 0]]), asked.margin(values)[[2, 0]])


def test_classification_asks_for_the_only_largest_output() -> None:
    labels = torch.tensor([0, 1, 2])
    asked = classification(labels, 3)
    scores = GRID.expand(3, *GRID.shape)
    margins = asked.margin(asked.values(scores))
    for i, label in enumerate(labels.tolist()):
        others = np.delete(GRID.numpy(), label, axis=1).max(1)
        np.testing.assert_array_equal(margins[i].numpy(), GRID.numpy()[:, label] - others)


def test_a_specification_must_fit() -> None:
    case = Case(*box(0), (halfspace((1, 0, 0), 0),))
    for inputs, outputs in ((3, OUTPUTS), (2, 2)):
        with pytest.raises(InputError, match=f"2 inputs and 3 outputs, the network has {inputs} and {outputs}"):
            about_specification(affine(inputs, outputs), Specification(2, OUTPUTS, (case,)))


def outcome(verdict: Verdict, margin: float | None = None, reason: str = "crown") -> Outcome:
    point = np.zeros(1, np.float32)
    return Outcome(verdict, reason, margin, 1.0, Counterexample(point, point) if verdict is Verdict.VIOLATED else None)


def test_outcomes_are_combined_with_the_worst_first() -> None:
    holds, other = outcome(Verdict.HOLDS, 2.0), outcome(Verdict.HOLDS, 1.0, "alpha")
    unknown, violated = outcome(Verdict.UNKNOWN, -1.0, "timeout"), outcome(Verdict.VIOLATED, None, "attack")
    both = combine([holds, other], 3.0)
    assert (both.verdict, both.reason, both.margin, both.seconds) == (Verdict.HOLDS, "alpha + crown", 1.0, 3.0)
    open_ = combine([holds, unknown, other], 3.0)
    assert (open_.verdict, open_.reason, open_.margin) == (Verdict.UNKNOWN, "timeout", -1.0)
    for outcomes in ([unknown, violated, holds], [violated], [holds, violated]):
        worst = combine(outcomes, 3.0)
        assert (worst.verdict, worst.reason) == (Verdict.VIOLATED, "attack")
        assert worst.counterexample is not None


@pytest.mark.parametrize("places", list(product([0, 1], repeat=3)))
def test_a_counterexample_in_any_of_the_boxes(tmp_path: Path, places: tuple[int, ...]) -> None:
    """y = relu(x) over three intervals, each with its own threshold that is reached or not."""
    network = load_onnx(save(dense((np.eye(1), [0]), (np.eye(1), [0]), shape=(1, 1)), tmp_path / "m.onnx"))
    parts = [f"(and (>= X_0 {i}.25) (<= X_0 {i}.5) (>= Y_0 {i}.{4 if hit else 6}))" for i, hit in enumerate(places)]
    text = f"(declare-const X_0 Real)(declare-const Y_0 Real)(assert (or {' '.join(parts)}))"
    (tmp_path / "s.vnnlib").write_text(text, encoding="utf-8")
    found = verify(network, read_vnnlib(tmp_path / "s.vnnlib"), VerifyOptions())
    assert found.verdict is (Verdict.VIOLATED if any(places) else Verdict.HOLDS)
    if found.counterexample is not None:
        x, y = float(found.counterexample.x.item()), float(found.counterexample.y.item())
        assert any(hit and i + 0.25 <= x <= i + 0.5 and y >= i + 0.4 for i, hit in enumerate(places))


def test_all_parts_of_a_conjunction_are_needed(tmp_path: Path) -> None:
    """y = (x0, x1) over a square: each threshold can be passed, both only where the square allows it."""
    network = load_onnx(save(dense((np.eye(2), [0, 0])), tmp_path / "m.onnx"))
    for sum_, verdict in ((1.99, Verdict.VIOLATED), (2.01, Verdict.HOLDS)):
        unsafe = f"(assert (>= Y_0 0.5))(assert (>= (+ Y_0 Y_1) {sum_}))"
        (tmp_path / "s.vnnlib").write_text(specification([0, 0], [1, 1], unsafe), encoding="utf-8")
        assert verify(network, read_vnnlib(tmp_path / "s.vnnlib"), VerifyOptions()).verdict is verdict


def test_a_timeout_leaves_a_specification_unknown(tmp_path: Path) -> None:
    network = load_onnx(save(random_dense([2, 8, 2]), tmp_path / "m.onnx"))
    text = specification([0, 0], [1, 1], "(assert (<= Y_0 Y_1))")
    (tmp_path / "s.vnnlib").write_text(text, encoding="utf-8")
    found = verify(network, read_vnnlib(tmp_path / "s.vnnlib"), VerifyOptions(timeout=1e-9))
    assert (found.verdict, found.reason, found.margin) == (Verdict.UNKNOWN, "timeout", None)


def instances(expected: str, count: int) -> list[tuple[str, str]]:
    """Evenly spaced instances of the collision avoidance benchmark with a known answer."""
    if not ACASXU.is_dir():
        return []
    with (ACASXU / "instances.csv").open(encoding="utf-8") as file:
        known = [(row["onnx"], row["vnnlib"]) for row in csv.DictReader(file) if row["expected"] == expected]
    return known[:: max(1, len(known) // count)][:count]


@pytest.mark.skipif(not ACASXU.is_dir(), reason=f"no benchmarks in {BENCHMARKS}; set KRELAX_BENCHMARKS")
@pytest.mark.parametrize("expected", ["sat", "unsat"])
def test_collision_avoidance_networks(expected: str) -> None:
    """No answer contradicts the known one; most counterexamples are found, in the box and beyond doubt."""
    words = {Verdict.HOLDS: "unsat", Verdict.VIOLATED: "sat"}
    solved = 0
    for onnx, vnnlib in instances(expected, 10 if expected == "sat" else 5):
        asked = read_vnnlib(ACASXU / vnnlib)
        found = verify(load_onnx(ACASXU / onnx), asked, VerifyOptions(timeout=1.0 if expected == "sat" else 0.4))
        assert words.get(found.verdict, expected) == expected
        solved += found.verdict is not Verdict.UNKNOWN
        if found.counterexample is not None:
            x, y = found.counterexample.x.flatten(), found.counterexample.y.flatten()
            assert any(case.contains(x, y) for case in asked.cases)
    assert solved >= (6 if expected == "sat" else 0)
