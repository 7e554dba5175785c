"""VNN-LIB files that cannot be read: one InputError each, with the place, the reason and the remedy."""

from __future__ import annotations

import contextlib
import gzip
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.problem.texts import BOUNDED, BOUNDED_2, DECLARED, NETWORK

from krelax.errors import InputError, UnsupportedError
from krelax.problem.vnnlib import read_vnnlib

SAFE = "(assert (<= Y_0 0))"
MALFORMED = {
    "empty": (b"", "contains no commands"),
    "only comments": (b"; nothing\n", "contains no commands"),
    "binary junk": (bytes(range(256)) * 8, "UTF-8"),
    "control characters": (b"\0\1\2 junk", ":1: found"),
    "truncated gzip": (gzip.compress(BOUNDED.encode())[:-20], "damaged gzip"),
    "gzip magic only": (b"\x1f\x8b", "damaged gzip"),
    "corrupt gzip": (gzip.compress(BOUNDED.encode())[:12] + b"\xff" * 60, "damaged gzip"),
    "latin-1": ("; é\n(assert (<= Y_é 0))".encode("latin-1"), ":2: is not text in UTF-8"),
    "damaged UTF-16": (BOUNDED.encode("utf-16")[:-1], "UTF-16"),
    "UTF-16 without a mark": (BOUNDED.encode("utf-16-le"), ":2: found"),
    "UTF-32": (BOUNDED.encode("utf-32"), ":1: found"),
    "line separator in a comment": ("; a\u2028" + BOUNDED, ":1: holds the character U\\+2028"),
    "next line in a comment": ("\n; a\x85" + BOUNDED, ":2: holds the character U\\+0085"),
    "form feed": (BOUNDED + "\f" + SAFE, ":10: holds the character U\\+000C"),
    "other white space": (BOUNDED.replace("(assert (>= X_1", "(assert (>=\u00a0X_1"), "is neither a declared variable"),
    "text after the end": (BOUNDED + SAFE + "end", ":10: found 'end'"),
    "open string": (BOUNDED + SAFE + '"', ":10: found"),
    "string over two lines": (NETWORK.replace("[2])", '[2] "a\nb")'), "must be declared as"),
    "quoted symbol": ("(declare-const |X_0| Real)", "call inputs X_0"),
    "prose": (b"hello world", ":1: found 'hello'"),
    "onnx file": (b"\x08\x07\x12\x07pytorch", ":1: found"),
    "unclosed": (BOUNDED + "(assert (<= Y_0 0)", ":10: this '\\(' is never closed"),
    "forgotten parenthesis": (BOUNDED + "(assert (<= Y_0 0)\n" + SAFE, ":10: this '\\(' is never closed"),
    "surplus parenthesis": (BOUNDED + SAFE + ")", ":10: unmatched"),
    "undeclared input": (BOUNDED + "(assert (<= X_2 0))", ":10: 'X_2' is neither"),
    "undeclared in a branch": (
        BOUNDED + "(assert (or (and (<= Y_0 0))\n(and (<= Y_7 0))))",
        ":11: 'Y_7' is neither",
    ),
    "declared twice": (DECLARED + "(declare-const X_1 Real)", ":6: X_1 is declared twice"),
    "two spellings": (BOUNDED + "(declare-const x_2 Real)", ":10: x_2 among variables called X_"),
    "function with arguments": ("(declare-fun X_0 (Real) Real)", "must be declared as \\(declare-fun"),
    "function without list": ("(declare-fun X_0 Real)", "must be declared as"),
    "another spelling in use": (BOUNDED + "(assert (<= y_0 0))", "'y_0' is neither"),
    "gap in the inputs": (BOUNDED + "(declare-const X_3 Real)" + SAFE, "X_2 is not declared"),
    "gap in the outputs": (BOUNDED + "(declare-const Y_9 Real)" + SAFE, "Y_2 is not declared"),
    "other type": (BOUNDED + "(declare-const X_2 Int)", "must be declared as"),
    "no type": ("(declare-const X_0)", "must be declared as"),
    "other variable name": ("(declare-const Z_0 Real)", "call inputs X_0"),
    "no outputs": ("(declare-const X_0 Real)(assert (<= X_0 0))(assert (>= X_0 0))", "declares no output"),
    "no inputs": ("(declare-const Y_0 Real)" + SAFE, "declares no input"),
    "no declarations": (SAFE, ":1: 'Y_0' is neither"),
    "word for a number": (BOUNDED + "(assert (<= Y_0 zero))", "'zero' is neither"),
    "nan": (BOUNDED + "(assert (<= Y_0 nan))", "'nan' is neither"),
    "infinity": (BOUNDED + "(assert (<= X_0 inf))", "'inf' is neither"),
    "malformed number": (BOUNDED + "(assert (<= Y_0 1.2.3))", "'1.2.3' is neither"),
    "hexadecimal": (BOUNDED + "(assert (<= Y_0 0x10))", "'0x10' is neither"),
    "foreign digits": (BOUNDED + "(assert (<= Y_0 ٣))", "is neither"),
    "huge exponent": (BOUNDED + "(assert (<= Y_0 1e999999999))", "exponent beyond 400"),
    "tiny exponent": (BOUNDED + "(assert (<= X_0 1e-999999999))", "exponent beyond 400"),
    "beyond float64": (BOUNDED + "(assert (<= X_0 1e309))", "beyond the float64 range"),
    "product beyond float64": (BOUNDED + "(assert (<= (* 1e200 1e200 Y_0) 0))", "beyond the float64 range"),
    "quotient beyond float64": (BOUNDED + "(assert (<= (* 1e-300 X_0) 1e300))", "beyond the float64 range"),
    "long number": (BOUNDED + f"(assert (<= Y_0 0.{'1' * 5000}))", "5002 characters"),
    "one operand": (BOUNDED + "(assert (<= Y_0))", "is not a comparison"),
    "three operands": (BOUNDED + "(assert (<= 0 Y_0 1))", "is not a comparison"),
    "empty list": (BOUNDED + "(assert ())", "is not a comparison"),
    "word as formula": (BOUNDED + "(assert True)", "where a comparison"),
    "word in a conjunction": (BOUNDED + "(assert (and (<= Y_0 0) maybe))", "where a comparison"),
    "nothing to negate": (BOUNDED + "(assert (not))", "not takes one formula, not 0"),
    "too much to negate": (BOUNDED + "(assert (not (<= Y_0 0) (<= Y_1 0)))", "not takes one formula, not 2"),
    "three distinct ones": (BOUNDED + "(assert (distinct Y_0 Y_1 3))", "is not a comparison of two"),
    "empty assert": (BOUNDED + "(assert)", "one formula, not 0"),
    "two formulas": (BOUNDED + "(assert (<= Y_0 0) (<= Y_1 0))", "one formula, not 2"),
    "list as operator": (BOUNDED + "(assert ((<= Y_0 0)))", "is not a comparison"),
    "division": (BOUNDED + "(assert (<= (/ Y_0 2) 0))", "is not a term"),
    "empty sum": (BOUNDED + "(assert (<= (+) 0))", "is not a term"),
    "unknown command": (BOUNDED + SAFE + "(check-sat)", "not a supported command"),
    "network after scalars": (BOUNDED + NETWORK.split("\n", 1)[1], "start the file with"),
    "scalars after a network": (NETWORK.split("\n", 1)[1] + DECLARED, "belongs to VNN-LIB 1.0"),
    "scalars in version 2": ("(vnnlib-version <2.0>)" + DECLARED, "belongs to VNN-LIB 1.0"),
    "late version": (BOUNDED + "(vnnlib-version <2.0>)", "first command"),
    "no network": ("(vnnlib-version <2.0>)(assert (<= Y[0] 0))", "is neither"),
    "network without name": ("(vnnlib-version <2.0>)(declare-network)", "has no name"),
    "subscript out of range": (BOUNDED_2 + "(assert (<= Y[2] 0.0))", "index \\[2\\] is outside Y"),
    "subscript of wrong rank": (BOUNDED_2 + "(assert (<= X[1] 0.0))", "index \\[1\\] is outside X"),
    "missing subscript": (BOUNDED_2 + "(assert (<= Y 0.0))", "index \\[\\] is outside Y"),
    "negative subscript": (BOUNDED_2 + "(assert (<= Y[-1] 0.0))", "natural numbers"),
    "open subscript": (BOUNDED_2 + "(assert (<= Y[1 0.0))", "is not a comparison"),
    "tensor without shape": (
        "(vnnlib-version <2.0>)(declare-network f (declare-input X float32))",
        "must be declared as",
    ),
    "zero dimension": (
        "(vnnlib-version <2.0>)(declare-network f (declare-input X float32 [0]))",
        "0 elements",
    ),
    "gigantic shape": (
        "(vnnlib-version <2.0>)(declare-network f (declare-input X float32 [999999999,999999999]))",
        "elements; use",
    ),
    "same name twice": (
        "(vnnlib-version <2.0>)(declare-network f (declare-input X Real [1])(declare-output X Real [1]))",
        "X is declared twice",
    ),
    "network without output": (
        "(vnnlib-version <2.0>)(declare-network f (declare-input X float32 [1]))(assert (= X[0] 0))",
        "declares no output",
    ),
}
# Terms of a sum, no two of which are alike, and networks like the first one.
WIDE = (
    "(+ "
    + " ".join(f"(* {'Y_0 ' * (i % 16 + 1)} {'X_0 ' * (i // 16 % 16)} {'X_1 ' * (i // 256)} 1)" for i in range(500))
    + ")"
)
TWIN = "(declare-network f{n} (equal-to net) (declare-input A{n} float32 [1,2]) (declare-output B{n} float32 [2]))"
UNSUPPORTED = {
    "product of sums": (BOUNDED + f"(assert (<= (* {WIDE} {WIDE}) 0))", "a product of 500 by 500 terms"),
    "high degree": (BOUNDED + f"(assert (<= (* {'Y_0 ' * 33}) 0))", "a polynomial of degree 33"),
    "implication": (BOUNDED + "(assert (=> (<= Y_0 0) (<= Y_1 0)))", "is not a comparison"),
    "annotation": (BOUNDED + "(assert (! (<= Y_0 0) :named a))", "is not a comparison"),
    "logic": ("(set-logic QF_LRA)" + BOUNDED, "not a supported command"),
    "exit": (BOUNDED + SAFE + "(exit)", "not a supported command"),
    "function of something": ("(declare-fun Z_0 () Real)", "call inputs X_0"),
    "mixed types": (DECLARED + "(declare-const X_2 Float32)", "another type"),
    "version 3": ("(vnnlib-version <3.0>)", "only \\(vnnlib-version <2.0>\\)"),
    "an input from the file": (
        "(vnnlib-version <2.1>)(declare-network f (declare-input A Real [1] initialized)(declare-output B Real [1]))",
        "\\(initialized\\) is not supported",
    ),
    "too many networks": (NETWORK + "".join(TWIN.format(n=n) for n in range(200)), "more than 200 networks"),
    "tensor of eight bits": (
        "(vnnlib-version <2.0>)(declare-network f (declare-input X float8e5m2 [1]))",
        "element type float8e5m2 is not supported; use one of ",
    ),
    "tensor of words": (
        "(vnnlib-version <2.0>)(declare-network f (declare-input X string [1]))",
        "element type string is not supported; use one of .*real, .*float32, .*float16, .*bool, int8",
    ),
    "too many cases": (BOUNDED + "(assert (or (<= Y_0 0) (<= Y_1 0)))" * 40, "disjunctive normal form"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_input_errors_with_a_place_and_a_reason(read, name):
    content, message = MALFORMED[name]
    with pytest.raises(InputError, match=message) as caught:
        read(content)
    assert "property.vnnlib" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_features_are_named(read, name):
    content, message = UNSUPPORTED[name]
    with pytest.raises(UnsupportedError, match=message):
        read(content)


@pytest.mark.parametrize("path", ["missing.vnnlib", ".", "a\0b"])
def test_paths_that_are_no_files(tmp_path, path):
    with pytest.raises(InputError):
        read_vnnlib(tmp_path / path)


@pytest.mark.parametrize("unit", ["a[", "a[0 ", "(", "((a ", '"', "a ", "[", "(- ", "; ", "1"])
def test_repetitive_junk_is_rejected_in_linear_time(read, unit):
    start = time.process_time()
    with pytest.raises(InputError):
        read(BOUNDED + "(assert (<= Y_0 " + unit * 200_000)
    assert time.process_time() - start < 5


@given(st.text(alphabet='()[]<=>"; \nXY_01.e-+*andorst,', max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
def test_arbitrary_text_never_escapes_as_another_error(read, text):
    for start in (BOUNDED, BOUNDED_2, BOUNDED + "(assert (or ", BOUNDED_2 + "(assert (<= "):
        with contextlib.suppress(InputError):
            read(start + text)


def declared(name: str, relation: str = "", ends: str = "") -> str:
    """A declaration of a network with an input and an output of its own, or with these ends."""
    own = f"(declare-input X{name} float32 [2])(declare-output Y{name} float32 [2])"
    return f"(declare-network {name} {relation} {ends or own})"


LABELLED = '(declare-input A float32 [2] "a")(declare-input B float32 [2])(declare-output C float32 [2] "c")'
OTHER = "(declare-input A float32 [2])(declare-output B float32 [3])"
MORE = "(declare-input A float32 [2])(declare-output B float32 [2])(declare-output C float32 [2])"
DECLARATIONS = {
    "a network twice": (declared("f") + declared("f"), "f is declared twice"),
    "a relation behind an input": (
        declared("f") + declared("g", ends=f"(declare-input A float32 [2])(equal-to f){OTHER}"), "must come first"),
    "two relations": (declared("f") + declared("g", "(equal-to f)(isomorphic-to f)"), "and only once"),
    "an output before an input": (
        declared("f", ends="(declare-output B float32 [2])(declare-input A float32 [2])"), "A comes after B"),
    "a relation to two networks": (declared("f") + declared("g", "(equal-to f f)"), "write \\(equal-to NAME\\)"),
    "a relation to none": (declared("f") + declared("g", "(equal-to h)"), "is no network declared before"),
    "a chain": (
        declared("f") + declared("g", "(equal-to f)") + declared("h", "(equal-to g)"), "do not chain; name f instead"),
    "some names of nodes": (declared("f", ends=LABELLED), "name all of them, or none"),
    "another shape than of the other": (
        declared("f") + declared("g", "(equal-to f)", OTHER), "is not declared like Yf"),
    "more ends than the other": (declared("f") + declared("g", "(equal-to f)", MORE), "has 3 inputs and outputs, f"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), DECLARATIONS.values(), ids=DECLARATIONS.keys())
def test_declarations_that_do_not_fit_say_what_to_do(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.vnnlib"
    path.write_text(f"(vnnlib-version <2.0>){text}(assert (<= Xf[0] 1))")
    with pytest.raises(InputError, match=message) as error:
        read_vnnlib(path)
    assert str(error.value).startswith(f"{path}:1: ")
    assert "\n" not in str(error.value)
