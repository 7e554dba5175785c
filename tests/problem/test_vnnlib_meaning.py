"""What is written is what is asked: strictness, constants, negation, declarations, encodings, ends of lines."""

from __future__ import annotations

import codecs
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.problem.test_vnnlib import halfspaces
from tests.problem.texts import BOUNDED, BOUNDED_2

from krelax.errors import InputError
from krelax.problem.interface import fits
from krelax.problem.query import Case, Halfspace
from krelax.problem.vnnlib import read_vnnlib

SAFE = "(assert (<= Y_0 0))"


def strict(case: Case) -> list[bool]:
    return [halfspace.strict for halfspace in case.halfspaces]


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("(< Y_0 1)", [[("Y0", -1, True)]]),
        ("(> Y_0 1)", [[("-Y0", 1, True)]]),
        ("(not (<= Y_0 1))", [[("-Y0", 1, True)]]),
        ("(not (> Y_0 1))", [[("Y0", -1, False)]]),
        ("(not (not (< Y_0 1)))", [[("Y0", -1, True)]]),
        ("(distinct Y_0 1)", [[("Y0", -1, True)], [("-Y0", 1, True)]]),
        ("(!= Y_0 1)", [[("Y0", -1, True)], [("-Y0", 1, True)]]),
        ("(not (= Y_0 1))", [[("Y0", -1, True)], [("-Y0", 1, True)]]),
        ("(not (distinct Y_0 1))", [[("Y0", -1, False), ("-Y0", 1, False)]]),
        ("(not (and (< Y_0 1) (>= Y_0 2)))", [[("-Y0", 1, False)], [("Y0", -2, True)]]),
        ("(not (or (< Y_0 1) (>= Y_0 2)))", [[("-Y0", 1, False), ("Y0", -2, True)]]),
        ("(and)", [[]]),
        ("(or)", []),
        ("(not (or))", [[]]),
        ("true", [[]]),
        ("(not true)", []),
        ("(and true (< Y_0 1))", [[("Y0", -1, True)]]),
        ("(or false (< Y_0 1))", [[("Y0", -1, True)]]),
        ("(or true (< Y_0 1))", [[]]),
        ("(and false (< Y_0 1))", []),
        ("(<= 0 1)", [[]]),
        ("(< 1 1)", []),
        ("(<= Y_0 Y_0)", [[]]),
        ("(< (+ X_0 Y_0) (+ Y_0 X_0))", []),
        ("(= 0.1 1e-1)", [[]]),
        ("(distinct 0.1 0.10)", []),
        ("(>= (* 0 Y_0) -1)", [[]]),
        ("(<= 1e-400 0)", []),
        ("(<= -0 0)", [[]]),
    ],
)
def test_formulas(read, formula, expected):
    written = [
        [({0: 1 if name == "Y0" else -1}, Fraction(constant)) for name, constant, _ in conjunction]
        for conjunction in expected
    ]
    spec = read(BOUNDED + f"(assert {formula})")
    assert [halfspaces(case) for case in spec.cases] == written
    assert [strict(case) for case in spec.cases] == [[s for *_, s in conjunction] for conjunction in expected]
    assert bool(spec.warnings) is (not expected)


def test_halfspaces_know_whether_they_are_open():
    closed, open_ = Halfspace({0: Fraction(1)}, Fraction(-1)), Halfspace({0: Fraction(1)}, Fraction(-1), strict=True)
    assert closed.holds([1.0])
    assert not open_.holds([1.0])
    assert open_.holds([np.nextafter(1, 0)])


atoms = st.sampled_from(["<", "<=", ">", ">=", "=", "distinct"]).flatmap(
    lambda op: st.tuples(st.just(op), st.integers(0, 1), st.integers(-1, 1))
)
formulas = st.recursive(
    st.one_of(atoms, st.booleans()),
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, max_size=3)),
    ),
    max_leaves=8,
)


def written(formula) -> str:
    if isinstance(formula, bool):
        return str(formula).lower()
    if formula[0] == "not":
        return f"(not {written(formula[1])})"
    if formula[0] in ("and", "or"):
        return f"({formula[0]} {' '.join(map(written, formula[1]))})"
    return f"({formula[0]} Y_{formula[1]} {formula[2]})"


def truth(formula, y) -> bool:
    if isinstance(formula, bool):
        return formula
    if formula[0] == "not":
        return not truth(formula[1], y)
    if formula[0] in ("and", "or"):
        return (all if formula[0] == "and" else any)(truth(part, y) for part in formula[1])
    left, right = y[formula[1]], formula[2]
    return {
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
        "=": left == right,
        "distinct": left != right,
    }[formula[0]]


@given(formulas)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
def test_the_cases_of_a_formula_are_where_it_is_true(read, formula):
    """On a grid with every tie."""
    cases = read(BOUNDED + f"(assert {written(formula)})").cases
    for y in product([-1.5, -1, -0.5, 0, 0.5, 1, 1.5], repeat=2):
        assert any(case.contains([0, 0.5], y) for case in cases) is truth(formula, y)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ("(> X_0 0.25)(<= X_0 0.5)", [np.nextafter(0.25, 1), 0.5], [0.25, np.nextafter(0.5, 1)]),
        ("(>= X_0 0.25)(< X_0 0.5)", [0.25, np.nextafter(0.5, 0)], [np.nextafter(0.25, 0), 0.5]),
        ("(= X_0 0.25)", [0.25], [np.nextafter(0.25, 0), np.nextafter(0.25, 1)]),
        ("(>= X_0 0.1)(<= X_0 0.3)", [0.1, 0.3 - 2**-54], [np.nextafter(0.1, 0), np.nextafter(0.3, 1)]),
        ("(> X_0 0.1)(< X_0 0.3)", [0.1], [np.nextafter(0.1, 0)]),  # the float 0.1 is more than a tenth
        ("(>= X_0 0)(> X_0 -0.0)(<= X_0 1e-320)", [5e-324, 1e-320], [0.0, -0.0, np.nextafter(1e-320, 1)]),
        ("(>= X_0 -1e-400)(<= X_0 1e-400)", [0.0, -0.0], [5e-324, -5e-324]),
        ("(not (>= X_0 0.25))(>= X_0 0)", [0, np.nextafter(0.25, 0)], [0.25]),
        ("(distinct X_0 0.25)", [0.2, 0.3], [0.25]),
    ],
)
def test_membership_in_the_box_as_written(read, bounds, inside, outside):
    """Half-open boxes, decimals between floats, and numbers below the smallest one."""
    asserts = "".join(f"(assert {part})" for part in bounds.replace(")(", ")\n(").split("\n"))
    cases = read(BOUNDED + asserts + SAFE).cases
    for x, expected in ((inside, True), (outside, False)):
        for value in x:
            assert any(case.contains([value, 0.5], [0, 0]) for case in cases) is expected
            if expected:  # and whatever bounds are computed with is no smaller
                assert any(case.lower[0] <= value <= case.upper[0] for case in cases)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ("(assert (<= X_0 -0.75))", "X_0 >= -0.5 contradicts X_0 <= -0.75"),
        ("(assert (< X_0 -0.5))", "X_0 >= -0.5 contradicts X_0 < -0.5"),
        ("(assert (> X_0 0.25))(assert (< X_0 0.25))", "X_0 > 0.25 contradicts X_0 < 0.25"),
        ("(assert (> X_0 0.1))(assert (<= X_0 0.100))", "X_0 > 0.1"),
        ("(assert (or (>= X_1 2) (<= X_1 -1)))", "X_1 >= 2 contradicts X_1 <= 1"),
        ("(assert (and (= X_0 0) (distinct X_0 0)))", "X_0 >= 0 contradicts X_0 < 0"),
        ("(assert false)", "contradict each other"),
        ("(assert (or))", "contradict each other"),
        ("(assert (< 1 0))", "contradict each other"),
    ],
)
def test_what_no_input_satisfies_has_no_cases_and_a_warning(read, bounds, words):
    spec = read(BOUNDED + bounds + SAFE)
    assert spec.cases == ()
    (warning,) = spec.warnings
    assert words in warning


def test_a_box_between_two_floats_is_not_empty(read):
    """It has real numbers in it, but none that a computer could feed to a network."""
    (case,) = read(BOUNDED + "(assert (> X_0 0.1))(assert (< X_0 0.100000000000000001))" + SAFE).cases
    assert case.lower[0] < case.upper[0]
    assert case.least[0] > case.most[0]


def test_no_output_constraint_makes_every_input_unsafe(read):
    (case,) = read(BOUNDED).cases
    assert case.halfspaces == ()
    assert case.contains([0, 0.5], [7, 7])
    assert not case.contains([0, 1.5], [7, 7])


@pytest.mark.parametrize("letters", ["XY", "xy", "xY", "Xy"])
@pytest.mark.parametrize("declaration", ["(declare-const {} {})", "(declare-fun {} () {})", "(declare-fun {} ( ) {})"])
@pytest.mark.parametrize("kind", ["Real", "Float", "Float32", "Float64"])
def test_declarations_of_scalars(read, letters, declaration, kind):
    text = "".join(declaration.format(f"{letter}_0", kind) for letter in letters)
    spec = read(text + f"(assert (= {letters[0]}_0 0.5))(assert (<= {letters[1]}_0 0))")
    assert (spec.inputs, spec.outputs, spec.input_name, spec.output_name) == (1, 1, *letters)
    assert spec.element == {"Float32": "float32", "Float64": "float64"}.get(kind)


def test_version_2_declares_types_and_names_of_the_file(read):
    text = BOUNDED_2.replace("float32 [1,2]", 'double [1,2] "in"') + "(assert (<= Y[0] 0.0))"
    spec = read(text)
    assert (spec.element, spec.labels) == ("float64", ("in", None))


@pytest.mark.parametrize(
    ("declared", "own", "expected"),
    [
        ((1, 3, 2), (1, 2, 3), False),
        ((6,), (2, 3), False),
        ((2, 3), (1, 2, 3), True),
        ((1, 1, 2, 3), (1, 2, 3), True),
        ((2, 1, 3), (2, 3), True),
        ((), (1, 1), True),
        ((1,), (), True),
        (None, (7, 7), True),
        ((3, 2, 3), (2, 3), False),
    ],
)
def test_shapes_fit_up_to_axes_of_size_one(declared, own, expected):
    assert fits(declared, own) is expected


LINES = ["; first", *BOUNDED.splitlines(), "(assert (<= Y_0 0)) ; a (comment", "(assert (<= Y_1 1))", "; last"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_ends_of_lines_and_encodings(read, end, encoding):
    content = end.join(LINES).encode(encoding)
    spec = read(codecs.BOM_UTF16_BE + content if encoding == "utf-16-be" else content)
    assert halfspaces(spec.cases[0]) == [({0: 1}, 0), ({1: 1}, -1)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_whatever_ends_them(read, end):
    text = end.join([*LINES, "(assert (<= Y_7 0))"])
    with pytest.raises(InputError, match=f":{len(LINES) + 1}: 'Y_7'"):
        read(text)


@pytest.mark.parametrize("dash", ["–".encode("cp1252"), "é".encode("latin-1"), "é—".encode(), b"\x85", b"\xff"])
def test_comments_in_any_encoding(read, dash):
    content = b"; M" + dash + b"robust\n" + BOUNDED.encode() + b"(assert (<= Y_0 0)) ;" + dash
    assert len(read(content).cases) == 1
    with pytest.raises(InputError, match=r":2: |neither"):
        read(b";\n(declare-const X_" + dash + b" Real)" + content)


def test_deep_formulas_and_terms(read):
    """No recursion, so no limit but memory."""
    depth = 20_000
    formula = "(not (and true " * depth + "(<= Y_0 1)" + "))" * depth
    term = "(- " * depth + "(+ Y_0 1)" + ")" * depth
    (case,) = read(BOUNDED + f"(assert {formula})(assert (<= {term} 0))").cases
    assert halfspaces(case) == [({0: 1}, -1), ({0: 1}, 1)]


def test_formulas_that_alternate_say_once_what_they_repeat(read):
    depth = 20_000
    formula = "(and (<= Y_0 1) (or (<= Y_0 -2) " * depth + "(>= Y_0 0)" + "))" * depth
    first, second = read(BOUNDED + f"(assert {formula})").cases
    assert halfspaces(first) == [({0: 1}, -1), ({0: 1}, 2)]
    assert halfspaces(second) == [({0: 1}, -1), ({0: -1}, 0)]


@pytest.mark.parametrize("formula", ["(and (<= Y_0 1) {})", "(or (> Y_0 1) {})"])
def test_what_is_beside_a_part_is_known_in_it_alone(read, formula):
    """In `{}` the first comparison is true, and false; after it nothing is known any more."""
    inside = formula.format("(or (and (<= Y_0 1) (<= Y_0 2)) (and (> Y_0 1) (<= Y_0 3)))")
    outside = "(or (<= Y_0 1) (> Y_0 4))"
    cases = read(BOUNDED + f"(assert (and {inside} {outside}))").cases

    def unsafe(y: Fraction) -> bool:
        return any(all(h.holds_exactly({0: y}) for h in case.halfspaces) for case in cases)

    for y in (Fraction(k, 2) for k in range(-1, 12)):
        within = (y <= 1 and y <= 2) or (y > 1 and y <= 3)
        assert unsafe(y) == (((y <= 1 and within) if "and (<= Y_0 1) {" in formula else y > 1 or within)
                             and (y <= 1 or y > 4))  # fmt: skip


@pytest.mark.parametrize(("kind", "limit"), [("and", Fraction(-1, 2)), ("or", Fraction(40))])
def test_of_many_comparisons_in_one_direction_one_counts(read, kind, limit):
    many = " ".join(f"(<= Y_0 {k}) (<= (* 2 Y_0) {k - 1}.0)" for k in (*range(40, -1, -1), *range(4)))
    cases = read(BOUNDED + f"(assert ({kind} {many}))").cases
    assert [-Fraction(c) / f[0] for case in cases for f, c in halfspaces(case)] == [limit]


class Late(Exception):
    """The time is up."""


@pytest.mark.parametrize("allowed", [0, 1, 5, 12])
def test_a_limit_of_time_ends_the_reading(tmp_path, allowed):
    """`check` is called again and again, whatever the reader is busy with, and what it raises comes through."""
    many = "".join(f"(and (>= X_0 -0.{i}) (<= Y_0 {i}))\n" for i in range(20_000))
    path = tmp_path / "large.vnnlib"
    path.write_text(BOUNDED + f"(assert (or {many}))", encoding="utf-8")
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > allowed:
            raise Late

    with pytest.raises(Late):
        read_vnnlib(path, check)
    assert calls == allowed + 1
