"""VNN-LIB reading: exact small results, round trips, real files and an independent parser."""

from __future__ import annotations

import gzip
import os
import re
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.problem.texts import BOUNDED, DECLARED, NETWORK

from krelax.problem.exact import Limit, enclosure
from krelax.problem.interface import element_name
from krelax.problem.query import Case, Halfspace
from krelax.problem.vnnlib import read_vnnlib

REPOSITORY = Path(__file__).resolve().parents[2]
BENCHMARKS = Path(os.environ.get("KRELAX_BENCHMARKS", REPOSITORY.parent / "shared" / "benchmarks")) / "vnncomp"


def halfspaces(case: Case) -> list[tuple[dict[int, Fraction], Fraction]]:
    return [(dict(h.coefficients), h.constant) for h in case.halfspaces]


def test_conjunction_of_bounds_and_one_output(read):
    spec = read(BOUNDED + "(assert (<= Y_0 Y_1))")
    assert (spec.inputs, spec.outputs, spec.input_shape, spec.network) == (2, 2, None, None)
    (case,) = spec.cases
    assert case.lower.tolist() == [-0.5, 0.0]
    assert case.upper.tolist() == [0.5, 1.0]
    assert halfspaces(case) == [({0: 1, 1: -1}, 0)]


def test_or_of_outputs_gives_one_case_each_on_a_shared_box(read):
    first, second = read(BOUNDED + "(assert (or (and (>= Y_0 2.5)) (<= Y_1 1e-1)))").cases
    assert halfspaces(first) == [({0: -1}, Fraction(5, 2))]
    assert halfspaces(second) == [({1: 1}, Fraction(-1, 10))]
    assert np.shares_memory(first.lower, second.lower)


def test_input_bounds_in_branches_tighten_the_common_ones(read):
    branches = "(and (<= X_0 0.25) (>= X_0 -2) (>= Y_0 0)) (and (>= X_1 0.5) (<= Y_0 0))"
    first, second = read(BOUNDED + f"(assert (or {branches}))").cases
    assert (first.lower.tolist(), first.upper.tolist()) == ([-0.5, 0.0], [0.25, 1.0])
    assert (second.lower.tolist(), second.upper.tolist()) == ([-0.5, 0.5], [0.5, 1.0])


def test_nested_formulas_multiply_out_in_order(read):
    pair = "(or (<= Y_{0} 1) (<= Y_{0} 2))"
    spec = read(BOUNDED + f"(assert (and {pair.format(0)} {pair.format(1)}))(assert {pair.format(0)})")
    constants = [[-h.constant for h in case.halfspaces] for case in spec.cases]
    assert constants == [[a, b, c] for a in (1, 2) for b in (1, 2) for c in (1, 2)]


def test_common_output_constraints_belong_to_every_case(read):
    spec = read(BOUNDED + "(assert (<= Y_0 0))(assert (or (<= Y_1 1) (and (<= X_0 0) (>= X_0 -1))))")
    assert [len(case.halfspaces) for case in spec.cases] == [2, 1]


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        ("(<= (+ Y_0 (* 2 Y_1) 3) 1)", [({0: 1, 1: 2}, 2)]),
        ("(>= (- Y_0 Y_1 .5) (- 1))", [({0: -1, 1: 1}, Fraction(-1, 2))]),
        ("(<= (* 2. (- Y_0 Y_1) 3) +6E0)", [({0: 6, 1: -6}, -6)]),
        ("(< (- Y_0) -1e-3)", [({0: -1}, Fraction(1, 1000))]),
        ("(> 0.1 Y_1)", [({1: 1}, Fraction(-1, 10))]),
        ("(= Y_0 2)", [({0: 1}, -2), ({0: -1}, 2)]),
        ("(<= (+ Y_0 Y_1 (- Y_1)) 0)", [({0: 1}, 0)]),
    ],
)
def test_linear_terms_are_exact(read, comparison, expected):
    (case,) = read(BOUNDED + f"(assert {comparison})").cases
    assert halfspaces(case) == expected


@pytest.mark.parametrize(
    ("comparison", "side", "value"),
    [
        ("(<= (* 4 X_0) 1)", "upper", 0.25),
        ("(<= (- X_0) 0.25)", "lower", -0.25),
        ("(> 0.125 X_0)", "upper", 0.125),
    ],
)
def test_input_bounds_may_be_scaled(read, comparison, side, value):
    (case,) = read(BOUNDED + f"(assert {comparison})(assert (<= Y_0 0))").cases
    assert getattr(case, side)[0] == value


def test_a_long_constant_term_is_no_long_word(read):
    (case,) = read(BOUNDED + f"(assert (<= X_0 (+ {'0.0 ' * 400}0.25)))(assert (<= Y_0 0))").cases
    assert case.upper[0] == 0.25


def test_equality_fixes_an_input(read):
    (case,) = read(BOUNDED + "(assert (= X_0 0.25))(assert (<= Y_0 0))").cases
    assert case.lower[0] == case.upper[0] == 0.25


def test_boxes_round_outwards_to_the_next_float64(read):
    text = BOUNDED + "(assert (>= X_0 0.1))(assert (<= X_0 0.3))(assert (<= X_1 0.7))(assert (<= Y_0 0))"
    (case,) = read(text).cases
    for side, other, exact in ((case.lower[0], 1, "0.1"), (-case.upper[0], 1, "-0.3"), (-case.upper[1], 1, "-0.7")):
        assert Fraction(side) <= Fraction(exact) <= Fraction(np.nextafter(side, other))


def test_empty_branches_are_dropped_by_exact_comparison(read):
    same_float = "(and (>= X_0 0.1000000000000000000001) (<= X_0 0.1) (<= Y_0 0))"
    touching = "(and (>= X_0 0.10) (<= X_0 0.1) (<= Y_0 1))"
    open_ = "(and (>= X_0 0.1) (< X_0 0.1) (<= Y_0 2))"
    (case,) = read(BOUNDED + f"(assert (or {same_float} {touching} {open_}))").cases
    assert halfspaces(case) == [({0: 1}, -1)]


def test_gzip_is_recognised_by_content_and_a_byte_order_mark_is_ignored(read):
    text = BOUNDED + "(assert (<= Y_0 0))"
    assert read(gzip.compress(text.encode())).inputs == 2
    assert read("\ufeff" + text).inputs == 2


def test_version_2_declares_shapes_and_subscripts_count_row_major(read):
    spec = read(
        '(vnnlib-version <2.0>)(declare-network f ; a "comment"\n'
        '(declare-input In Real [2,3] "data;(0")(declare-output Out float32 []))'
        + "".join(
            f"(assert (and (<= In[{i},{j}] {3 * i + j}.0) (>= In[{i},{j}] 0.0)))" for i in (0, 1) for j in (0, 1, 2)
        )
        + "(assert (== Out 1.0))"
    )
    assert (spec.input_name, spec.output_name, spec.network) == ("In", "Out", "f")
    assert (spec.input_shape, spec.output_shape) == ((2, 3), ())
    assert spec.cases[0].upper.tolist() == [0, 1, 2, 3, 4, 5]
    assert halfspaces(spec.cases[0]) == [({0: 1}, -1), ({0: -1}, 1)]


def test_a_network_needs_no_version_and_operators_no_blanks(read):
    spaced = "(declare-network f (declare-input X Real [2]) (declare-output Y Real []))(assert (and (<= X[0] 1.5)"
    spaced += "(>= X[0] -1.0) (<= X[1] +2) (== X[1] 0.5) (< (+ (- Y[]) (* 2 Y[]) (- 3 1) -1) X[0]) (!= Y[] 1e-1)))"
    dense = "(declare-network f(declare-input X Real[2])(declare-output Y Real[]))(assert(and(<=X[0]1.5)"
    dense += "(>=X[0]-1.0)(<=X[1]+2)(==X[1]0.5)(<(+(-Y[])(*2 Y[])(- 3 1)-1)X[0])(!=Y[]1e-1)))"
    one, other = (read(text) for text in ("(vnnlib-version <2.0>)" + spaced, dense))
    assert len(one.cases) == len(other.cases) == 2
    for a, b in zip(one.cases, other.cases, strict=True):
        assert (a.lower.tolist(), a.upper.tolist(), a.halfspaces) == (b.lower.tolist(), b.upper.tolist(), b.halfspaces)


def test_element_names():
    assert element_name("X", None, 7) == "X_7"
    assert element_name("X", (2, 3), 5) == "X[1,2]"
    assert element_name("X", (), 0) == "X"


def test_halfspaces_are_decided_without_rounding():
    third = Halfspace({0: Fraction(1), 1: Fraction(-1)}, Fraction(-1, 10**30))
    assert third.holds([1.0, 1.0])
    assert not Halfspace({0: Fraction(1), 1: Fraction(-1)}, Fraction(1, 10**30)).holds(np.ones(2, np.float32))
    assert not third.holds([0.0, np.inf])
    assert not third.holds([np.nan, 0.0])


def test_case_membership_and_matrix():
    case = Case(np.zeros(2), np.ones(2), (Halfspace({1: Fraction(3)}, Fraction(-1, 2)),))
    rows, offsets = case.matrix(3)
    assert rows.tolist() == [[0, 3, 0]]
    assert offsets.tolist() == [-0.5]
    assert case.contains([0, 1], [0, 0.125, 0])
    assert not case.contains([0, 1.5], [0, 0.125, 0])
    assert not case.contains([0, 1], [0, 0.25, 0])
    assert not case.contains([0, np.nan], [0, 0.125, 0])


decimals = st.decimals(-100, 100, allow_nan=False, places=7)
intervals = st.tuples(decimals, decimals).map(sorted)
outputs = st.dictionaries(st.integers(0, 1), decimals.filter(bool), min_size=1)
inequalities = st.tuples(outputs, decimals)
branches = st.lists(
    st.tuples(st.lists(intervals, min_size=2, max_size=2), st.lists(inequalities, min_size=1, max_size=3)),
    min_size=1,
    max_size=4,
)


def formula(branch, spelling: tuple[str, str]) -> str:
    """A branch, two input intervals and output inequalities, as a VNN-LIB conjunction."""
    (intervals, inequalities), (x, y) = branch, spelling
    parts = []
    for i, (low, high) in enumerate(intervals):
        parts += [f"(>= {x.format(i)} {low:f})", f"(<= {x.format(i)} {high:f})"]
    for factors, constant in inequalities:
        terms = " ".join(f"(* {factor:f} {y.format(j)})" for j, factor in factors.items())
        parts.append(f"(<= (+ {terms} {constant:f}) 0.0)")
    return f"(and {' '.join(parts)})"


@given(branches)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@pytest.mark.parametrize(
    ("start", "spelling"), [(DECLARED, ("X_{}", "Y_{}")), (NETWORK, ("X[0,{}]", "Y[{}]"))], ids=["1.0", "2.0"]
)
def test_what_is_written_is_read_back_exactly(read, start, spelling, branches):
    spec = read(start + f"(assert (or {' '.join(formula(branch, spelling) for branch in branches)}))")
    for case, (intervals, inequalities) in zip(spec.cases, branches, strict=True):
        lower, upper = zip(*intervals, strict=True)
        low, high = (enclosure([Limit.of(f"{v:f}") for v in side]) for side in (lower, upper))
        for ours, limit in zip(
            (case.lower, case.upper, case.least, case.most), (low.down, high.up, low.up, high.down), strict=True
        ):
            np.testing.assert_array_equal(ours, limit)
        exact = [({j: Fraction(f) for j, f in factors.items()}, Fraction(c)) for factors, c in inequalities]
        assert halfspaces(case) == exact


near_floats = st.builds(
    lambda x, shift, scale: Decimal(x) + Decimal(shift).scaleb(scale),
    st.floats(-1e300, 1e300),
    st.integers(-3, 3),
    st.integers(-340, 0),
)


@given(st.lists(st.one_of(decimals, st.decimals(-(10**45), 10**45, allow_nan=False), near_floats), min_size=1))
def test_the_float64_numbers_around_a_decimal(values):
    """Outer ones are next to it on its two sides, inner ones the first that a bound, closed or open, lets in."""
    found = enclosure([Limit.of(str(value)) for value in values])
    for decimal, down, up, below, above in zip(values, *found, strict=True):
        value = Fraction(decimal)
        assert Fraction(down) <= value <= Fraction(up)
        assert Fraction(below) < value < Fraction(above)
        after, before = np.nextafter(down, np.inf), np.nextafter(up, -np.inf)
        assert Fraction(after) > value > Fraction(before)
        assert (below, above) == ((before, after) if down == up else (down, up))
        assert Limit.of(value)[:2] == Limit.of(str(decimal))[:2]


@given(branches)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
def test_version_2_agrees_with_the_reference_parser(read, branches):
    vnnlib = pytest.importorskip("vnnlib")
    compat = pytest.importorskip("vnnlib.compat")
    text = NETWORK + f"(assert (or {' '.join(formula(b, ('X[0,{}]', 'Y[{}]')) for b in branches)}))"
    expected = [
        (reference.input_box, polytope)
        for reference in compat.transform(vnnlib.parse_query_string(text))
        for polytope in reference.output_constraints
    ]
    ours = [(case.lower, case.upper, *case.matrix(2)) for case in read(text).cases]
    assert len(ours) == len(expected)
    unmatched = list(expected)
    for case in ours:
        unmatched.remove(next(reference for reference in unmatched if agrees(case, *reference)))


def agrees(case, box, polytope) -> bool:
    lower, upper, rows, offsets = case
    numbers = (rows, -offsets, lower, upper)
    reference = (polytope.coeff_matrix, polytope.rhs, [low for low, _ in box], [high for _, high in box])
    same_shape = all(np.shape(a) == np.shape(b) for a, b in zip(numbers, reference, strict=True))
    return same_shape and all(np.allclose(a, b, 1e-6, 1e-12) for a, b in zip(numbers, reference, strict=True))


def real_files(folder: str) -> list[Path]:
    return sorted((BENCHMARKS / folder / "vnnlib").glob("*.vnnlib*"))


FOLDERS = sorted(path.parent.name for path in BENCHMARKS.glob("*/vnnlib")) or ["none"]
needs_benchmarks = pytest.mark.skipif(
    FOLDERS == ["none"], reason=f"no VNN-COMP benchmarks in {BENCHMARKS}; set KRELAX_BENCHMARKS"
)


# Compressed files that are larger take seconds each.
SMALL = 100_000


@needs_benchmarks
@pytest.mark.parametrize("most", [SMALL, pytest.param(sys.maxsize, marks=pytest.mark.slow)], ids=["small", "all"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_real_files_parse(folder, most):
    sizes = {path: path.stat().st_size for path in real_files(folder)}
    few = [path for path, size in sizes.items() if size <= max(most, min(sizes.values()))]
    for path in few[: 12 if most > SMALL else 2]:
        spec = read_vnnlib(path)
        assert spec.cases
        for case in (spec.cases[0], spec.cases[-1]):
            assert case.lower.shape == case.upper.shape == (spec.inputs,)
            assert np.all(case.lower <= case.upper)
            assert case.halfspaces


@needs_benchmarks
@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder in ("acasxu", "oval21", "vit")])
def test_top_level_bounds_of_real_files_are_the_decimals_in_the_text(folder):
    path = real_files(folder)[0]
    text = gzip.decompress(path.read_bytes()).decode()
    case = read_vnnlib(path).cases[0]
    bounds = re.findall(r"\(assert \(([<>])= X_(\d+) (\S+?)\)\)", text)
    assert bounds
    for operator, index, decimal in bounds:
        side = case.upper if operator == "<" else case.lower
        exact = Decimal(decimal)
        gap = Decimal(float(side[int(index)])) - exact
        assert (gap >= 0) == (operator == "<") or gap == 0
        assert abs(gap) <= abs(exact) * Decimal(2) ** -23


def test_bounds_of_inputs_count_once_however_many_cases_there_are(read, monkeypatch):
    monkeypatch.setattr("krelax.problem._normal._MAX_LITERALS", 16)
    either = "(or (<= Y_0 0) (and (<= Y_1 0) (<= Y_0 1)) (and (<= Y_1 1) (<= Y_0 2)) (and (<= Y_1 2) (<= Y_0 3)))"
    assert len(read(BOUNDED + f"(assert {either})").cases) == 4
