"""VIOLATED is a fact: the point lies in the region as it is written, the formula holds as it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tests.run.files import dense, model, node, save, tensor

from krelax.bounds.instance import OutOfTime
from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.problem.images import Images
from krelax.problem.vnnlib import read_vnnlib
from krelax.run.verify import EMPTY, VerifyOptions, verify, verify_file
from krelax.search import rational
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import about_images, about_specification
from krelax.search.verdict import Outcome, Verdict

HOLDS, VIOLATED, UNKNOWN = Verdict


def ramp(kind: int = TensorProto.FLOAT, op: str = "Relu", inputs: int = 1) -> onnx.ModelProto:
    """y = relu(x), or another operator of x, in float32 or float64."""
    shape = [1, inputs]
    one = np.ones(1, np.float64 if kind == TensorProto.DOUBLE else np.float32)
    nodes = [node("Mul", "x", "one", "z"), node(op, "z", "y")]
    return model(nodes, {"one": one}, [tensor("x", shape, kind)], [tensor("y", shape, kind)])


def read(path: Path, scores: bool) -> Network:
    return load_onnx(path, scores=scores)


Ask = Callable[..., Outcome]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """The outcome of a property with one input and one output."""

    def put(
        proto: onnx.ModelProto,
        *asserts: str,
        inputs: int = 1,
        method: str = "crown",
        kind: str = "Real",
        timeout: float = 20,
    ) -> Outcome:
        lines = [f"(declare-const {name}_{i} {kind})" for name in "XY" for i in range(inputs)]
        (tmp_path / "spec.vnnlib").write_text("\n".join([*lines, *(f"(assert {a})" for a in asserts)]), "utf-8")
        network = load_onnx(save(proto, tmp_path / "net.onnx"))
        return verify(network, read_vnnlib(tmp_path / "spec.vnnlib"), VerifyOptions(method, timeout=timeout))

    return put


def point(outcome: Outcome) -> tuple[Fraction, Fraction]:
    """The counterexample, exact where it lies between numbers of the model's type."""
    found = outcome.counterexample
    assert found is not None
    x = Fraction(found.exact[0]) if found.exact else Fraction(float(found.x.item()))
    return x, Fraction(float(found.y.item()))


@pytest.mark.parametrize(
    ("asserts", "verdict"),
    [
        # float32(0.1) is above 0.1: no float32 between the box and what is unsafe
        (["(>= X_0 0)", "(<= X_0 0.1)", "(>= Y_0 0.1000000001)"], HOLDS),
        (["(>= X_0 0)", "(<= X_0 0.1)", "(>= Y_0 0.0999999)"], VIOLATED),
        (["(>= X_0 0)", "(< X_0 0.5)", "(>= Y_0 0.4999999)"], VIOLATED),
        (["(>= X_0 16777217)", "(<= X_0 16777219)", "(<= Y_0 16777216.5)"], HOLDS),
        (["(>= X_0 16777217)", "(<= X_0 16777219)", "(<= Y_0 16777218)"], VIOLATED),
        (["(= X_0 0.5)", "(>= Y_0 0.5)"], VIOLATED),
        # no float32 is there, and for the last three no float64
        (["(> X_0 1)", "(< X_0 1.0000001)", "(>= Y_0 0.5)"], VIOLATED),
        (["(= X_0 0.1)", "(>= Y_0 0.05)"], VIOLATED),
        (["(= X_0 1e-45)", "(> Y_0 0)"], VIOLATED),
        (["(> X_0 0.1)", "(< X_0 0.1000000000000000001)", "(<= Y_0 0.2)"], VIOLATED),
        # the nearest float32 is unsafe, which is above 0.1, and 0.1 is not, or nobody can tell
        (["(= X_0 0.1)", "(>= Y_0 0.1000000001)"], HOLDS),
        (["(= X_0 0.1)", "(>= Y_0 0.1)"], UNKNOWN),
        (["(> X_0 1)", "(<= X_0 1.00000011920928955078125)", "(>= Y_0 0.5)"], VIOLATED),
        (["(>= X_0 1e-46)", "(<= X_0 1e-44)", "(> Y_0 0)"], VIOLATED),  # subnormal numbers
        (["(>= X_0 -1)", "(<= X_0 1)", "(>= Y_0 1)"], VIOLATED),
        (["(>= X_0 -1)", "(<= X_0 1)"], VIOLATED),
        (["(> X_0 0.5)", "(< X_0 0.5)", "(>= Y_0 0)"], HOLDS),
        (["(>= X_0 0)", "(<= X_0 1)", "(or (< Y_0 0) (> Y_0 0.75))"], VIOLATED),
        (["(>= X_0 0)", "(<= X_0 1)", "(distinct Y_0 0.5)"], VIOLATED),
    ],
)
def test_boxes_and_formulas_as_they_are_written(ask: Ask, asserts: Sequence[str], verdict: Verdict) -> None:
    outcome = ask(ramp(), *asserts)
    assert outcome.verdict is verdict
    if verdict is VIOLATED:
        x, y = point(outcome)
        assert outcome.counterexample is not None
        assert outcome.counterexample.x.item() == np.float32(float(x))
        assert bool(outcome.counterexample.exact) == (x != Fraction(float(np.float32(float(x)))))
        assert all(satisfied(text, x, y) for text in asserts)


def test_a_case_is_judged_by_its_own_exact_numbers(ask: Ask) -> None:
    """Both boxes come to the same float64 numbers, and only one of them has the number that is shown."""
    tiny = "0.1000000000000000000001"
    outcome = ask(ramp(), f"(or (and (= X_0 0.1) (>= Y_0 0.2)) (and (= X_0 {tiny}) (>= Y_0 0.05)))")
    assert outcome.verdict is VIOLATED
    assert point(outcome)[0] == Fraction(tiny)


def test_all_digits_of_a_float64_number_are_shown(ask: Ask) -> None:
    """One float64 number lies in the box, and the shortest decimal next to it does not."""
    number = Fraction(0.3)  # which is below the decimal 0.3
    low, high = "0.2999999999999999888977697537", "0.2999999999999999888977697538"
    outcome = ask(ramp(), f"(>= X_0 {low})", f"(<= X_0 {high})", "(>= Y_0 0.2)")
    assert outcome.verdict is VIOLATED
    assert point(outcome)[0] == number != Fraction("0.3")


def satisfied(text: str, x: Fraction, y: Fraction) -> bool:
    """The truth of a comparison, or of an `or` of two, in rational numbers."""
    if text.startswith("(or"):
        return any(satisfied(f"({part.strip('() ')})", x, y) for part in text[3:-1].split(") ("))
    operator, name, number = text.strip("()").split()
    left, right = (x if name == "X_0" else y), Fraction(Decimal(number))
    return {
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
        "=": left == right,
        "distinct": left != right,
    }[operator]


@pytest.mark.parametrize(
    "asserts",
    [
        ["(>= X_0 -1)", "(<= X_0 1)", "(< Y_0 0)"],
        ["(>= X_0 -1)", "(<= X_0 1)", "(> Y_0 1)"],
        ["(>= X_0 -1)", "(<= X_0 -0.5)", "(> Y_0 0)"],
        ["(>= X_0 -1)", "(< X_0 1)", "(>= Y_0 1)"],
        ["(> X_0 0)", "(<= X_0 1)", "(<= Y_0 0)"],
        ["(>= X_0 0)", "(<= X_0 1)", "(= Y_0 0.1)"],
    ],
)
def test_what_only_the_closure_allows_is_never_violated(ask: Ask, asserts: Sequence[str]) -> None:
    """Strict inequalities at ties, in outputs and in inputs, and an output that no float32 is."""
    assert ask(ramp(), *asserts, method="alpha").verdict is not VIOLATED


def test_a_region_without_numbers_says_so(ask: Ask) -> None:
    outcome = ask(ramp(), "(= X_0 0.1)", "(>= Y_0 0.1)")
    assert "holds no float32 point" in outcome.reason
    assert "holds no float64 point" in ask(ramp(TensorProto.DOUBLE), "(= X_0 0.1)", "(>= Y_0 0.1)").reason


@pytest.mark.parametrize(
    ("asserts", "verdict"),
    [
        (["(>= X_0 -1)", "(<= X_0 1)", "(> Y_0 1)"], HOLDS),
        (["(>= X_0 -1)", "(<= X_0 -0.5)", "(> Y_0 0)"], HOLDS),
        (["(>= X_0 -1)", "(< X_0 1)", "(>= Y_0 1)"], HOLDS),
        (["(> X_0 0)", "(<= X_0 1)", "(<= Y_0 0)"], HOLDS),
        (["(= X_0 0.1)", "(>= Y_0 0.1)"], VIOLATED),
        (["(= X_0 0.1)", "(> Y_0 0.1)"], HOLDS),
    ],
)
def test_exact_numbers_decide_what_bounds_leave_open(ask: Ask, asserts: Sequence[str], verdict: Verdict) -> None:
    assert ask(ramp(), *asserts, method="auto").verdict is verdict


def test_many_cases_share_the_work_that_exact_numbers_may_take(tmp_path: Path) -> None:
    """One after the other they would take all of the time of what decides them together."""
    save(ramp(), tmp_path / "net.onnx")
    network = read(tmp_path / "net.onnx", False)
    cases = "".join(f"(and (>= X_0 {i}) (<= X_0 {i}.5) (<= Y_0 -1))" for i in range(50))
    spec = f"(declare-const X_0 Real)(declare-const Y_0 Real)(assert (or {cases}))"
    (tmp_path / "spec.vnnlib").write_text(spec, encoding="utf-8")
    specification = read_vnnlib(tmp_path / "spec.vnnlib")
    left = len(rational.settled(network, specification, 20_000, lambda: None).specification.cases)
    assert 30 <= left < 50
    assert not rational.settled(network, specification, 2_000_000, lambda: None).specification.cases


def test_an_output_that_no_float_is_is_a_question_about_real_numbers(ask: Ask) -> None:
    """Exact numbers find the input where variables are declared real; declared float32, none is known."""
    asserts = ["(>= X_0 0)", "(<= X_0 0.5)", "(= Y_0 0.1)"]
    outcome = ask(ramp(), *asserts, method="auto")
    assert outcome.verdict is VIOLATED
    assert point(outcome)[0] == Fraction("0.1")
    assert ask(ramp(), *asserts, method="auto", kind="Float32", timeout=0.5).verdict is UNKNOWN


def test_inputs_without_bounds_are_decided_exactly_or_refused_by_name(ask: Ask) -> None:
    assert ask(ramp(), "(>= X_0 0)", "(< Y_0 0)", method="auto").verdict is HOLDS
    assert ask(ramp(), "(>= X_0 0)", "(>= Y_0 1e30)", method="auto").verdict is VIOLATED
    with pytest.raises(InputError, match="X_0 has no upper bound; bound every input on both sides"):
        ask(ramp(op="Sigmoid"), "(>= X_0 0)", "(<= Y_0 0.25)")
    with pytest.raises(InputError, match="X_0 has no lower bound"):
        ask(ramp(op="Sigmoid"), "(or (and (= X_0 0) (<= Y_0 0)) (and (<= X_0 0) (>= Y_0 0.75)))")


def test_a_float64_network_is_judged_in_float64(ask: Ask) -> None:
    """Between these ends there are float64 numbers and no float32."""
    box = ["(>= X_0 0.1)", "(<= X_0 0.1000000000000001)", "(>= Y_0 0.05)"]
    between, outcome = ask(ramp(), *box), ask(ramp(TensorProto.DOUBLE), *box)
    assert between.verdict is outcome.verdict is VIOLATED
    assert Fraction("0.1") <= point(between)[0] <= Fraction("0.1000000000000001")
    assert between.counterexample is not None
    assert between.counterexample.exact
    assert outcome.counterexample is not None
    assert not outcome.counterexample.exact
    assert outcome.counterexample.x.dtype == outcome.counterexample.y.dtype == np.float64
    assert Fraction("0.1") <= point(outcome)[0] <= Fraction("0.1000000000000001")


def test_a_float64_network_with_a_sharp_step(ask: Ask) -> None:
    """y = 1e6 (x - 0.1): a float32 near 0.1 would be far above the threshold."""
    nodes = [node("Sub", "x", "c", "d"), node("Mul", "d", "k", "y")]
    ends = [tensor("x", [1, 1], TensorProto.DOUBLE)], [tensor("y", [1, 1], TensorProto.DOUBLE)]
    proto = model(nodes, {"c": np.full((1, 1), 0.1), "k": np.full((1, 1), 1e6)}, *ends)
    assert ask(proto, "(= X_0 0.1)", "(>= Y_0 0.001)").verdict is HOLDS


def test_open_and_closed_boxes_in_one_property_are_judged_apart(ask: Ask) -> None:
    """The same ends: the open box excludes the only unsafe point, the closed one has it."""
    closed, open_ = "(and (>= X_0 0) (<= X_0 1) (>= Y_0 {}))", "(and (> X_0 0) (< X_0 1) (>= Y_0 1))"
    found = ask(ramp(), f"(or {open_} {closed.format(1)})")
    assert found.verdict is VIOLATED
    assert point(found) == (1, 1)
    assert ask(ramp(), f"(or {open_} {closed.format(2)})").verdict is not VIOLATED


def test_a_property_that_no_input_can_break_still_has_to_fit(ask: Ask, tmp_path: Path) -> None:
    assert ask(ramp(), "(>= X_0 1)", "(<= X_0 0)", "(>= Y_0 0)").reason == EMPTY
    with pytest.raises(InputError, match="the network has 2 and 2"):
        ask(ramp(inputs=2), "(>= X_0 1)", "(<= X_0 0)", "(>= Y_0 0)")
    specification = read_vnnlib(tmp_path / "spec.vnnlib")
    with pytest.raises(InputError, match="nothing to ask"):
        about_specification(load_onnx(save(ramp(), tmp_path / "net.onnx")), specification)


TENSORS = """(vnnlib-version <2.0>)(declare-network {name}
 (declare-input X {element} {inputs} {label}) (declare-output Y float32 {outputs}))
(assert (= X{first} 0.0))(assert (= X{second} 0.0))(assert (>= Y{first} 0.5))"""
DECLARED = {"name": "N", "element": "float32", "inputs": "[1,2]", "outputs": "[1,2]", "label": ""}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ""),
        ({"inputs": "[2]", "outputs": "[2]"}, "index"),
        ({"label": '"x"'}, ""),
        ({"label": '"z"'}, "declares 'z', but the network calls it 'x'"),
        ({"element": "float64"}, "declares X as float64, the network takes float32"),
        ({"element": "Real"}, ""),
        ({"name": "M"}, "is about the network M, not N"),
    ],
)
def test_declarations_are_those_of_the_network(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    path, net = tmp_path / "spec.vnnlib", save(ramp(inputs=2), tmp_path / "net.onnx")
    path.write_text(TENSORS.format(**DECLARED | changes, first="[0,0]", second="[0,1]"), "utf-8")
    arguments = (path, {"N": net}, read, VerifyOptions("crown"))
    if message:
        with pytest.raises(InputError, match=message):
            verify_file(*arguments)
    else:
        assert verify_file(*arguments)[1].verdict is HOLDS


def test_shapes_of_another_order_are_refused(tmp_path: Path) -> None:
    """[1, 3, 2] and [1, 2, 3] have as many elements, and mean others."""
    nodes = [node("Flatten", "x", "f"), node("MatMul", "f", "w", "y")]
    weight = np.arange(6, dtype=np.float32)[:, None]
    net = save(model(nodes, {"w": weight}, [tensor("x", [1, 2, 3])], [tensor("y", [1, 1])]), tmp_path / "net.onnx")
    for shape, fits in (([1, 3, 2], False), ([6], False), ([1, 2, 3], True), ([2, 3], True), ([1, 2, 3, 1], True)):
        zeros = "".join(f"(assert (= X[{','.join(map(str, np.unravel_index(i, shape)))}] 0))" for i in range(6))
        text = f"(vnnlib-version <2.0>)(declare-network N (declare-input X float32 {shape})"
        text += f" (declare-output Y float32 [1])){zeros}(assert (>= Y[0] 1))"
        (tmp_path / "spec.vnnlib").write_text(text.replace(", ", ","), "utf-8")
        specification = read_vnnlib(tmp_path / "spec.vnnlib")
        if fits:
            assert verify(load_onnx(net), specification, VerifyOptions("crown")).verdict is HOLDS
        else:
            with pytest.raises(InputError, match="declares X of shape"):
                verify(load_onnx(net), specification, VerifyOptions("crown"))


def test_reading_counts_against_the_limit(tmp_path: Path) -> None:
    """Where it takes all of the time, the answer is a timeout, and the network is not even read."""
    cases = "\n".join(f"(and (>= X_0 0.{i}) (<= X_0 1) (>= Y_0 {i}))" for i in range(30_000))
    path = tmp_path / "spec.vnnlib"
    path.write_text(f"(declare-const X_0 Real)(declare-const Y_0 Real)(assert (or {cases}))", "utf-8")

    def load(file: Path, scores: bool) -> Network:
        raise AssertionError(file, scores)

    specification, outcome = verify_file(path, {None: tmp_path / "net.onnx"}, load, VerifyOptions(timeout=1e-3))
    assert specification is None
    assert (outcome.verdict, outcome.reason) == (UNKNOWN, "timeout")


def test_putting_a_question_can_be_interrupted(tmp_path: Path) -> None:
    cases = " ".join(f"(and (>= X_0 0.{i}) (<= X_0 1) (>= Y_0 {i}))" for i in range(100))
    path = tmp_path / "spec.vnnlib"
    path.write_text(f"(declare-const X_0 Real)(declare-const Y_0 Real)(assert (or {cases}))", "utf-8")
    network = load_onnx(save(ramp(), tmp_path / "net.onnx"))

    def check() -> None:
        raise OutOfTime

    with pytest.raises(OutOfTime):
        about_specification(network, read_vnnlib(path), check)


# y = (x0, 0): class 0 wins where x0 is positive, and loses the tie at 0
TIE = dense((np.array([[1.0, 0.0], [0.0, 0.0]]), [0.0, 0.0]))


def settled(network: Network, images: Images, eps: Any, norm: str, clip: Any = None) -> Outcome:
    found: list[Outcome] = []
    questions = about_images(network, images, eps, norm, clip)
    decide(network, questions, Plan.of("crown"), lambda _, outcome: found.append(outcome), 20)
    (outcome,) = found
    return outcome


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize(
    ("pixel", "eps", "reaches"),
    [
        (0.25, Fraction(1, 4), True),
        (0.25, Fraction("0.24999999999999999999"), False),
        (0.25, Fraction("0.25000000000000000001"), True),
        (0.25, 0.25, True),
        (0.1, Fraction("0.1"), False),  # float32(0.1) is more than a tenth away from zero
        (0.3, Fraction("0.3"), False),  # so is float32(0.3)
        (0.7, Fraction("0.7"), True),  # float32(0.7) is less
        (1e-44, Fraction("1e-44"), True),
        (2e-45, Fraction("1e-45"), False),
    ],
)
def test_balls_are_exact(tmp_path: Path, norm: str, pixel: float, eps: Any, reaches: bool) -> None:
    """A counterexample is on the edge or nowhere: whether the tie is in the ball is decided in rational numbers."""
    network = load_onnx(save(TIE, tmp_path / "net.onnx"))
    images = Images(np.array([[[pixel, 0.0]]], np.float32), np.zeros(1, np.int64))
    inside = Fraction(float(np.float32(pixel))) <= Fraction(eps)
    assert inside is reaches
    outcome = settled(network, images, eps, norm)
    if not reaches:
        assert outcome.verdict is not VIOLATED
    else:
        assert outcome.verdict is not HOLDS
    if outcome.counterexample is not None:
        x = [Fraction(float(v)) for v in outcome.counterexample.x.flatten()]
        step = abs(x[0] - Fraction(float(np.float32(pixel))))
        assert {"linf": max(step, abs(x[1])), "l1": step + abs(x[1])}.get(norm, step) <= eps
        assert norm != "l2" or step**2 + x[1] ** 2 <= Fraction(eps) ** 2


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_range_of_pixels_is_exact(tmp_path: Path, norm: str) -> None:
    """Zero is outside of it, by less than float64 can say."""
    network = load_onnx(save(TIE, tmp_path / "net.onnx"))
    images = Images(np.array([[[0.25, 0.25]]], np.float32), np.zeros(1, np.int64))
    assert settled(network, images, 0.5, norm, (Fraction(1, 10**350), Fraction(1))).verdict is not VIOLATED
    assert settled(network, images, 0.5, norm, (Fraction(0), Fraction(1))).verdict is VIOLATED
    with pytest.raises(InputError, match="outside the range"):
        about_images(network, images, 0.5, norm, (Fraction(1, 4) + Fraction(1, 10**350), Fraction(1)))


def test_a_float64_network_sees_float32_pixels_and_float64_counterexamples(tmp_path: Path) -> None:
    """The tie is at 0.1 in float64, which no float32 is."""
    nodes = [node("Sub", "x", "c", "y")]
    ends = [tensor("x", [1, 2], TensorProto.DOUBLE)], [tensor("y", [1, 2], TensorProto.DOUBLE)]
    network = load_onnx(save(model(nodes, {"c": np.array([[0.1, 0.0]])}, *ends), tmp_path / "net.onnx"))
    images = Images(np.array([[[0.125, 0.0]]], np.float32), np.zeros(1, np.int64))
    radius = Fraction(0.125) - Fraction(0.1)
    outcome = settled(network, images, radius, "linf", (Fraction(0), Fraction(1)))
    assert outcome.verdict is VIOLATED
    assert outcome.counterexample is not None
    assert outcome.counterexample.x.dtype == np.float64
    assert abs(Fraction(float(outcome.counterexample.x[0, 0])) - Fraction(0.125)) <= radius


def test_candidates_are_moved_into_the_region(tmp_path: Path) -> None:
    """Whatever a search proposes."""
    network = load_onnx(save(TIE, tmp_path / "net.onnx"))
    rng = np.random.default_rng(0)
    images = Images(rng.random((1, 1, 2), dtype=np.float32), np.zeros(1, np.int64))
    for norm in ("linf", "l2", "l1"):
        questions = about_images(network, images, Fraction("0.1"), norm, (Fraction(0), Fraction(1)))
        assert questions.nearest is not None
        unsafe = np.array([[0.0, 1.0]], np.float32)
        for scale in (1e-9, 1e-3, 0.1, 0.1000001, 1, 1e30):
            x = questions.nearest(0, images.images[0] + scale * rng.normal(size=(1, 2)))
            assert x is not None
            assert x.dtype == np.float32
            assert questions.violated(0, x, unsafe)
        far = images.images[0] + np.float32(0.2)
        assert not questions.violated(0, far, unsafe)


def test_models_that_answer_otherwise_have_the_last_word(tmp_path: Path) -> None:
    network = load_onnx(save(TIE, tmp_path / "net.onnx"))
    images = Images(np.array([[[0.25, 0.0]]], np.float32), np.zeros(1, np.int64))
    never = replace(network, replay=lambda x: np.array([[1, 0]], np.float32))
    assert settled(never, images, 0.5, "linf").verdict is UNKNOWN
