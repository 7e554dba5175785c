"""`krelax check`, from the outside."""

from __future__ import annotations

import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.certificate.corpus import NETWORKS, ask, boxed, i4
from tests.certificate.proofs import as_file, certificate, plain

from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.archive import write
from krelax.certificate.format.schema import Certificate, Layer, Question, Region
from krelax.certificate.format.specification import match
from krelax.certificate.onnx.model import model_hash
from krelax.cli import main
from krelax.problem.query import Case, Halfspace, Specification

HERE = Path(__file__).parent
DIAMOND = HERE / "networks" / "diamond.onnx"

SPEC = """
(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(assert (<= X_0 1)) (assert (>= X_0 -1)) (assert (<= X_1 1)) (assert (>= X_1 -1))
(assert (<= Y_0 {bound}))
"""


V2 = (
    "(vnnlib-version <2.0>)(declare-network N (declare-input X {element} [{shape}] {label})"
    "(declare-output Y {element} [1,1]))"
)


def run(capfd: Any, *arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["check", *map(str, arguments)])
    assert isinstance(stop.value.code, int)
    return (stop.value.code, *capfd.readouterr())


def test_accepted(capfd: Any) -> None:
    code, out, err = run(capfd, HERE / "accepted" / "diamond--pair.zip", "--network", DIAMOND)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("network ")
    assert len(lines[0]) == 72
    assert lines[1] == "semantics real: the function of real numbers that the file's operators define"
    assert lines[2:-1] == [
        "question 0: box of 2 inputs, half-widths 1 to 1; clauses 1; margin 0.125",
        "  every input x with lower <= x <= upper:",
        "    lower 2*-1.0",
        "    upper 2*1.0",
        "  has outputs y, 1 of them, with",
        "    y[0] + 2.125 > 0",
    ]
    assert lines[-1].startswith("accepted: questions 1, semantics real, arithmetic float64, smallest margin 0.125, ")


@pytest.mark.parametrize("error", [ValueError, TypeError, IndexError, KeyError, OverflowError, ZeroDivisionError])
@pytest.mark.parametrize(
    "place",
    [
        "format.archive._decode_object",
        "format.lemmas._check_tables",
        "format.questions._check_region",
        "kernel.question.check_lemma",
        "kernel.choices.relax",
        "kernel.region.Region.minimise",
        "onnx.reader._read",
        "onnx.protobuf._message",
    ],
)
def test_a_bug_is_not_the_fault_of_the_file(
    capfd: Any, monkeypatch: pytest.MonkeyPatch, place: str, error: type[Exception]
) -> None:
    """An error of our own ends as an internal error, wherever it is: neither as a refusal nor as an acceptance."""

    def broken(*args: object, **more: object) -> None:
        raise error("a bug")

    monkeypatch.setenv("KRELAX_TRACEBACK", "0")
    monkeypatch.setattr(f"krelax.certificate.{place}", broken)
    code, out, err = run(capfd, HERE / "accepted" / "diamond--pair.zip", "--network", DIAMOND)
    assert (code, out) == (70, "")
    assert err.startswith("krelax: internal error")


def test_neither_torch_nor_onnx_is_imported(tmp_path: Path) -> None:
    """The checker needs NumPy, and `--help` not even that."""
    (tmp_path / "spec.vnnlib").write_text(SPEC.format(bound="-2.1"))
    checking = [str(HERE / "accepted" / "diamond--pair.zip"), "--network", str(DIAMOND)]
    for arguments, allowed in (
        (["--help"], set()),
        (checking, {"numpy"}),
        ([*checking, "--spec", str(tmp_path / "spec.vnnlib")], {"numpy"}),
    ):
        heavy = {"torch", "onnx", "onnxruntime", "numba", "highspy", "scipy", "numpy"}
        program = f"""
import sys
from krelax.cli import main
try:
    main(["check", *{arguments!r}])
except SystemExit:
    print("imported", sorted({heavy!r} & sys.modules.keys()))
"""
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert ran.stdout.splitlines()[-1] == f"imported {sorted(allowed)}"


def test_exactly(capfd: Any) -> None:
    code, out, _ = run(
        capfd, HERE / "accepted" / "deep--several.zip", "--exact", "--network", HERE / "networks/deep.onnx"
    )
    assert code == 0
    assert "accepted: questions 2, semantics real, arithmetic exact, smallest margin 0.153125, " in out


def test_what_says_nothing_is_called_vacuous(capfd: Any, tmp_path: Path) -> None:
    """Rows of zeros: a margin that is positive whatever the network computes."""
    asked, made = boxed(2.75), tmp_path / "made.zip"
    asked.rows, asked.offsets = np.zeros((1, 1)), np.ones(1)
    write(made, certificate(NETWORKS["diamond"], asked))
    code, out, _ = run(capfd, made, "--network", DIAMOND)
    assert code == 0
    assert "    1.0 > 0, whatever y is\n  VACUOUS: this holds whatever the network computes" in out
    assert out.splitlines()[-1].startswith("accepted: questions 1, of which 1 VACUOUS, ")


@pytest.mark.parametrize(
    ("unsafe", "reason"),
    [
        ("(assert (>= X_0 3))", "X_0 >= 3 contradicts X_0 <= "),
        ("(assert (or (and (<= X_0 -9) (>= Y_0 0)) (>= X_1 9)))", "X_0 >= "),
        ("(assert (<= 1 0))", "they contradict each other whatever the network is"),
    ],
)
def test_a_specification_that_asks_nothing_is_called_vacuous(
    capfd: Any, tmp_path: Path, unsafe: str, reason: str
) -> None:
    """Every certificate of the network answers it, as nothing would."""
    (tmp_path / "spec.vnnlib").write_text(SPEC.format(bound="-2.1") + unsafe)
    proof = HERE / "accepted" / "diamond--pair.zip"
    code, out, err = run(capfd, proof, "--network", DIAMOND, "--spec", tmp_path / "spec.vnnlib")
    assert (code, err) == (0, "")
    *_, said, why, last = out.splitlines()
    assert said.startswith(f"specification {tmp_path / 'spec.vnnlib'}: every input x and output y")
    assert why.startswith("  VACUOUS: no input")
    assert reason in why
    assert last.startswith("accepted: questions ")
    assert ", the specification, which is VACUOUS, semantics" in last


def test_constants_in_another_file_belong_to_the_network(capfd: Any, tmp_path: Path) -> None:
    """The hash covers them: other weights, another network."""
    path, made = tmp_path / "net.onnx", tmp_path / "made.zip"
    onnx.save_model(onnx.load(DIAMOND), path, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    proof = certificate(NETWORKS["diamond"], boxed(2.75))
    proof.network = model_hash(path)
    write(made, proof)
    assert run(capfd, made, "--network", path)[0] == 0
    data = bytearray((tmp_path / "net.onnx.data").read_bytes())
    data[3] ^= 1
    (tmp_path / "net.onnx.data").write_bytes(data)
    code, _, err = run(capfd, made, "--network", path)
    assert code == 1
    assert err.startswith("rejected: about the network ")
    (tmp_path / "net.onnx.data").unlink()
    code, _, err = run(capfd, made, "--network", path)
    assert code == 2
    assert "net.onnx.data: cannot be read" in err


def test_rejected(capfd: Any) -> None:
    code, out, err = run(capfd, HERE / "rejected" / "diamond--false.zip", "--network", DIAMOND)
    assert (code, out) == (1, "")
    assert err == "rejected: question 0: what is proven of the smallest margin is -0.1\n"


def test_malformed(capfd: Any, tmp_path: Path) -> None:
    code, out, err = run(capfd, HERE / "malformed" / "diamond--boxes-empty.zip", "--network", DIAMOND)
    assert (code, out) == (2, "")
    assert err.startswith("malformed: question 0: ")
    assert err.count("\n") == 1
    (tmp_path / "text").write_text("no certificate")
    code, _, err = run(capfd, tmp_path / "text", "--network", DIAMOND)
    assert code == 2
    assert err.startswith("malformed: ")


@pytest.mark.parametrize("arguments", [["missing.zip", "--network", DIAMOND], ["x"], []])
def test_other_bad_input(capfd: Any, arguments: list[Any]) -> None:
    code, out, err = run(capfd, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("krelax: ")


def test_networks_that_cannot_be_read(capfd: Any, tmp_path: Path) -> None:
    for name in (tmp_path / "missing.onnx", tmp_path):
        code, _, err = run(capfd, HERE / "accepted" / "diamond--pair.zip", "--network", name)
        assert code == 2
        assert err.startswith("krelax: ")


@pytest.mark.parametrize(("bound", "answered"), [("-2.75", True), ("-2.7500", True), ("-2.76", False), ("-2.7", False)])
def test_specifications_are_matched(capfd: Any, tmp_path: Path, bound: str, answered: bool) -> None:
    spec, made = tmp_path / "spec.vnnlib", tmp_path / "made.zip"
    spec.write_text(SPEC.format(bound=bound))
    write(made, certificate(NETWORKS["diamond"], boxed(2.75)))
    code, out, err = run(capfd, made, "--network", DIAMOND, "--spec", spec)
    if answered:
        assert code == 0
        assert "the specification" in out
    else:
        assert code == 1
        assert "unsafe case 0" in err


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        (
            "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)",
            "2 outputs",
        ),
        (V2.format(element="float32", shape="1,2", label=""), ""),
        (V2.format(element="float32", shape="1,2", label='"x"'), ""),
        (V2.format(element="float64", shape="1,2", label=""), "declares X as float64, the network takes float32"),
        (V2.format(element="float32", shape="2", label='"other"'), "has 'other', which is called 'x'"),
    ],
)
def test_specifications_of_other_networks_are_refused(capfd: Any, tmp_path: Path, declared: str, text: str) -> None:
    """Also where each of their cases is answered."""
    spec, made = tmp_path / "spec.vnnlib", tmp_path / "made.zip"
    body = SPEC[SPEC.index("(assert") :].format(bound="-2.75")
    if "version" in declared:
        body = re.sub(r"([XY])_(\d)", lambda m: "Y[0,0]" if m[1] == "Y" else f"X[{m[2]}]", body)
        body = body.replace("X[", "X[0,") if "[1,2]" in declared else body
    spec.write_text(declared + body)
    write(made, certificate(NETWORKS["diamond"], boxed(2.75)))
    code, _, err = run(capfd, made, "--network", DIAMOND, "--spec", spec)
    assert code == (2 if text else 0), err
    assert text in err


def case(*rows: tuple[list[Any], Any], radius: float = 1.0) -> Case:
    halfspaces = tuple(
        Halfspace({i: Fraction(a) for i, a in enumerate(row)}, Fraction(constant)) for row, constant in rows
    )
    return Case(np.full(2, -radius), np.full(2, radius), halfspaces)


def answers(made: Certificate, *cases: Case) -> list[float]:
    return check(made, NETWORKS["diamond"], errors=match(made, Specification(2, 1, cases)))


def test_all_cases_must_be_answered() -> None:
    made = certificate(NETWORKS["diamond"], boxed(2.75))
    assert answers(made, case(([1], 2.75)))
    assert answers(made, case(([1], 2.75), ([1], 99)))  # one half-space that is missed is enough
    for cases in (
        [case(([1], 2.75)), case(([1], 2.5))],
        [case(([2], 5.5))],
        [case()],
        [case(([1], 2.75), radius=0.5)],
        [case(([1], 2.75), radius=2.0)],
        [case(([1, 1], 2.75))],
    ):
        with pytest.raises(Rejected):
            answers(made, *cases)


def test_numbers_beyond_floats_are_no_answer() -> None:
    huge = Fraction(10**400)
    made = certificate(NETWORKS["diamond"], boxed(2.75))
    assert answers(made, case(([1], 2.75), ([huge], huge)))
    for halfspace in (([1], huge), ([huge], 2.75)):
        with pytest.raises(Rejected):
            answers(made, case(halfspace))


def test_a_clause_must_lie_within_one_case() -> None:
    """Two margins of one clause are one case with two half-spaces, not two cases."""
    region = Region("box", -np.ones(2), np.ones(2))
    together = Question(region, np.ones((2, 1)), np.array([2.75, 2.5]), i4(0, 0), [], None, boxed(2.75).boxes)
    made = certificate(NETWORKS["diamond"], together)
    assert answers(made, case(([1], 2.75), ([1], 2.5)))
    with pytest.raises(Rejected):
        answers(made, case(([1], 2.75)), case(([1], 2.5)))


def test_decimals_that_are_no_floats_are_paid_for() -> None:
    """The margin is positive by less than the rounding of a coefficient: y >= -2.5 and a y + b with a = 1 + tiny."""
    tiny = Fraction(1, 2**54)
    made = certificate(NETWORKS["diamond"], ask(2.5 + 2**-30, region=Region("box", -np.zeros(2), np.zeros(2))))
    made.questions[0].margins, made.questions[0].boxes = None, boxed(1).boxes
    made.questions[0].region = Region("box", -np.ones(2), np.ones(2))
    plain = answers(made, case(([1], 2.5 + 2**-30)))
    off = answers(made, case(([1 + tiny], Fraction(2.5 + 2**-30) + tiny)))
    assert 0 < plain[0] - off[0] < 1e-14
    assert plain[0] - off[0] >= 3 * tiny


def softmax(score: float) -> tuple[bytes, Certificate]:
    """Of two scores at one point the first one is larger; a proof without the softmax behind them."""
    nodes = [helper.make_node("Relu", ["x"], ["t"]), helper.make_node("Softmax", ["t"], ["y"])]
    data, point = as_file(nodes, [], (1, 2), "y"), np.array([score, 0.0])
    asked = Question(Region("box", point, point), np.array([[0.1, -0.1]]), np.zeros(1), i4(0))
    asked.layers, asked.margins = [Layer("interval")], plain(1)
    return data, certificate(data, asked)


def test_the_output_is_named_if_the_certificate_names_it(capfd: Any, tmp_path: Path) -> None:
    data, made = softmax(1.0)
    made.output = "y"
    write(tmp_path / "made.zip", made)
    (tmp_path / "made.onnx").write_bytes(data)
    code, out, _ = run(capfd, tmp_path / "made.zip", "--network", tmp_path / "made.onnx")
    assert (code, out.splitlines()[1]) == (0, "output 'y'")


def test_a_head_is_left_out_where_outputs_are_compared(capfd: Any, tmp_path: Path) -> None:
    data, made = softmax(1.0)
    write(tmp_path / "made.zip", made)
    (tmp_path / "made.onnx").write_bytes(data)
    code, out, err = run(capfd, tmp_path / "made.zip", "--network", tmp_path / "made.onnx")
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == (
        "proven of the scores before Softmax: y[i] > y[j] if and only if that is so of the scores"
    )


@pytest.mark.parametrize("off", [0, Fraction(5, 10**18)])
def test_what_is_nearly_a_comparison_needs_the_head(off: Fraction) -> None:
    """Of scores 2**-60 and 0 the first one is larger, and not so of a little more than it and a little less."""
    data, made = softmax(2.0**-60)
    x = made.questions[0].region.lower
    meant = [Fraction(0.1) - off, -Fraction(0.1) - off]
    asked = Specification(len(x), len(meant), (Case(x, x, (Halfspace(dict(enumerate(meant)), Fraction(0)),)),))
    if not off:
        assert min(check(made, data, errors=match(made, asked))) > 0
        return
    first, second = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
    assert meant[0] * Fraction(first) + meant[1] * Fraction(second) < 0
    with pytest.raises((Malformed, Rejected)):
        check(made, data, errors=match(made, asked))


def test_checking_does_not_import_the_rest() -> None:
    program = (
        "import sys\nfrom krelax.cli import main\n"
        f"try: main(['check', {str(HERE / 'accepted' / 'diamond--pair.zip')!r}, '--network', {str(DIAMOND)!r}])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numba', 'highspy', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "ours = [m for m in sys.modules if m.startswith('krelax.')]\n"
        "known = {'certificate', 'cli', 'elements', 'errors', 'problem', '_version'}\n"
        "assert {m.split('.')[1] for m in ours} == known\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
