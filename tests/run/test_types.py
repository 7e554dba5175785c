"""Queries about tensors of all element types, compared with what the models answer at all inputs that there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto as T
from tests.run.conformance import VERSION
from tests.run.files import model, node, save, tensor

from krelax.api.certifying import certify
from krelax.cli import cli
from krelax.errors import InputError, UnsupportedError
from krelax.network.onnx import load_onnx
from krelax.network.onnx_inputs import ELEMENTS, array_type
from krelax.network.onnx_replay import runner_of
from krelax.problem.vnnlib import read_vnnlib
from krelax.run.assignment import Assigned, assigned
from krelax.run.verify import VerifyOptions, verify_file
from krelax.search.verdict import Verdict

KINDS = {name: kind for kind, name in ELEMENTS.items()}
WHOLE = [name for name in KINDS if "int" in name]
ANSWERS = {Verdict.HOLDS: "unsat", Verdict.VIOLATED: "sat", Verdict.UNKNOWN: "unknown"}


def declared(inputs: str, outputs: str) -> str:
    """A network `f`, whose tensors are given as in `X int8 [2], U float32 [1]`."""
    words = [f"(declare-{k} {t})" for k, ts in (("input", inputs), ("output", outputs)) for t in ts.split(", ")]
    return f"(declare-network f {' '.join(words)})"


def asked(folder: Path, text: str, file: Path, timeout: float = 30) -> tuple[str, dict[str, Assigned]]:
    """The answer to a query, and the values of all variables."""
    query = folder / "query.vnnlib"
    query.write_text(VERSION + text, "utf-8")
    found, outcome = verify_file(
        query, {"f": file}, lambda p, s: load_onnx(p, scores=s), VerifyOptions(timeout=timeout)
    )
    assert found is not None
    values = {} if outcome.counterexample is None else {t.name: t for t in assigned(found, outcome.counterexample)}
    return ANSWERS[outcome.verdict], values


def graph(folder: Path, nodes: list[onnx.NodeProto], inputs: str, outputs: str, **constants: np.ndarray) -> Path:
    """A model whose inputs and outputs are given as `x int8 2`."""
    ends = [
        [tensor(name, [int(n) for n in shape], KINDS[kind]) for name, kind, *shape in map(str.split, text.split(", "))]
        for text in (inputs, outputs)
    ]
    return save(model(nodes, constants, ends[0], ends[1], 18), folder / "model.onnx")


@pytest.mark.parametrize("kind", KINDS)
def test_all_types_are_decided(tmp_path: Path, kind: str) -> None:
    """A scalar that is what it is. Between zero and one are whole numbers of one kind, and others of another."""
    file = graph(tmp_path, [node("Identity", "x", "y")], f"x {kind}", f"y {kind}")
    text = declared(f"X {kind} []", f"Y {kind} []") + "(assert (>= X 0))(assert (<= X 1))"
    answer, values = asked(tmp_path, text + "(assert (> Y 0))(assert (!= X 0.3))", file)
    assert answer == "sat"
    assert values["X"].array.dtype == values["Y"].array.dtype == array_type(KINDS[kind])
    assert values["X"].numbers == values["Y"].numbers
    proto = onnx.TensorProto()
    proto.ParseFromString(values["X"].proto())
    assert (proto.data_type, list(proto.dims)) == (KINDS[kind], [])
    assert asked(tmp_path, text + "(assert (> Y 1))", file)[0] == "unsat"
    whole = kind in WHOLE or kind == "bool"
    assert asked(tmp_path, text + "(assert (> Y 0))(assert (< X 1))", file)[0] == ("unsat" if whole else "sat")
    assert asked(tmp_path, text.replace(kind, "real") + "(assert (> Y 1))", file)[0] == "unsat"
    other = "float32" if whole else "int32"
    with pytest.raises(InputError, match=f"declares X as {other}, the network takes {kind}"):
        asked(tmp_path, text.replace(f"X {kind}", f"X {other}"), file)
    with pytest.raises(InputError, match=f"declares Y as {other}, the network gives {kind}"):
        asked(tmp_path, text.replace(f"Y {kind}", f"Y {other}"), file)


@pytest.mark.parametrize("kind", [*WHOLE, "bool"])
def test_inputs_without_bounds_have_those_of_their_type(tmp_path: Path, kind: str) -> None:
    file = graph(tmp_path, [node("Cast", "x", "y", to=T.DOUBLE)], f"x {kind} 1", "y float64 1")
    low, high = (0, 1) if kind == "bool" else (int(np.iinfo(kind).min), int(np.iinfo(kind).max))
    text, beyond = declared(f"X {kind} [1]", "Y float64 [1]"), 2**13 if "64" in kind else 0
    words = f"(assert (or (< X[0] {low - beyond}) (> X[0] {high + beyond})))"
    assert asked(tmp_path, text + words, file)[0] == "unsat"
    assert asked(tmp_path, text + f"(assert (< Y[0] {2 * low - 1}))", file)[0] == "unsat"
    assert asked(tmp_path, text + f"(assert (> Y[0] {2 * high + 1}))", file)[0] == "unsat"
    answer, values = asked(tmp_path, text + f"(assert (>= X[0] {high - 1 - beyond}))(assert (> Y[0] 0))", file)
    assert (answer, int(values["X"].array[0]) > high - 2**14) == ("sat", True)


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        ("(> X[0] 2)", "(< X[0] 3)", "unsat"),
        ("(> X[0] 2)", "(<= X[0] 3)", "sat"),
        ("(>= X[0] 2.00000000000000000001)", "(< X[0] 3)", "unsat"),
        ("(>= X[0] 1.99999999999999999999)", "(< X[0] 2.00000000000000000001)", "sat"),
        ("(>= X[0] -3)", "(< X[0] -2.5)", "sat"),
        ("(> X[0] -3)", "(< X[0] -2.5)", "unsat"),
        ("(>= X[0] 9007199254740993)", "(<= X[0] 9007199254740993)", "unknown"),
    ],
)
def test_bounds_of_whole_numbers_are_rounded_inwards(tmp_path: Path, low: str, high: str, answer: str) -> None:
    """The last one is between two numbers of float64."""
    file = graph(tmp_path, [node("Identity", "x", "y")], "x int64 1", "y int64 1")
    text = declared("X int64 [1]", "Y int64 [1]") + f"(assert {low})(assert {high})"
    assert asked(tmp_path, text, file, timeout=1)[0] == answer


MIXED = "i int64 1, x float32 1, h float16 1"


def test_inputs_of_several_types_stand_beside_each_other(tmp_path: Path) -> None:
    """A row of a table by an index, times a number, and a number of half precision."""
    nodes = [node("Gather", "t", "i", "e"), node("Mul", "e", "x", "p"), node("Cast", "h", "g", to=T.FLOAT)]
    nodes.append(node("Add", "p", "g", "y"))
    file = graph(tmp_path, nodes, MIXED, "y float32 1", t=np.asarray([1, -2, 0.5], np.float32))
    text = declared("I int64 [1], X float32 [1], H float16 [1]", "Y float32 [1]")
    for name, low, high in (("I", -3, 2), ("X", -1, 1), ("H", 0, 0.1)):
        text += f"(assert (>= {name}[0] {low}))(assert (<= {name}[0] {high}))"
    assert asked(tmp_path, text + "(assert (> Y[0] 2.11))", file)[0] == "unsat"
    answer, values = asked(tmp_path, text + "(assert (> Y[0] 2.09))", file)
    assert answer == "sat"
    assert values["I"].array.item() in {1, -2}
    assert values["H"].array.dtype == np.float16
    expected = np.asarray([1, -2, 0.5], np.float32)[values["I"].array] * values["X"].array + values["H"].array.astype(
        np.float32
    )
    np.testing.assert_array_equal(values["Y"].array, expected)
    both = "(assert (== I[0] X[0]))(assert (== Y[0] 0.5))(assert (== H[0] 0))"
    assert asked(tmp_path, text.replace("<= I[0] 2", "<= I[0] 0") + both, file)[0] == "unsat"


def test_what_a_type_does_not_hold_is_not_proven(tmp_path: Path) -> None:
    """200 + 100 is 44 in eight bits; what overflows is only known where the model has been run."""
    file = graph(tmp_path, [node("Add", "x", "c", "y")], "x uint8 2", "y uint8 2", c=np.uint8([100, 100]))
    text = declared("X uint8 [2]", "Y uint8 [2]") + "(assert (>= X[0] 150))(assert (== X[1] 0))"
    assert asked(tmp_path, text + "(assert (> Y[0] 249))", file)[0] == "sat"
    assert asked(tmp_path, text + "(assert (< Y[0] 44))(assert (>= X[0] 200))", file)[0] == "unsat"
    cast = [node("Cast", "x", "z", to=T.FLOAT), node("Mul", "z", "c", "v"), node("Cast", "v", "y", to=T.UINT8)]
    file = graph(tmp_path, cast, "x uint8 2", "y uint8 2", c=np.float32([2, 2]))
    assert asked(tmp_path, text + "(assert (> Y[0] 255))(assert (<= X[0] 150))", file, timeout=1)[0] == "unknown"


def test_models_of_half_precision_are_functions_of_real_numbers(tmp_path: Path) -> None:
    for kind in ("float16", "bfloat16"):
        own: Any = np.float16 if kind == "float16" else ml_dtypes.bfloat16
        constants = {"w": np.asarray([[1, 2], [3, -1]], own), "b": np.asarray([0.5, -1], own)}
        nodes = [node("Gemm", "x", "w", "b", "z", transB=1), node("Relu", "z", "y")]
        file = graph(tmp_path, nodes, f"x {kind} 1 2", f"y {kind} 1 2", **constants)
        text = declared(f"X {kind} [1,2]", f"Y {kind} [1,2]")
        for i, low in enumerate((0, -1)):
            text += f"(assert (>= X[0,{i}] {low}))(assert (<= X[0,{i}] 1))"
        assert asked(tmp_path, text + "(assert (> Y[0,0] 3.5))", file)[0] == "unsat"
        answer, values = asked(tmp_path, text + "(assert (> Y[0,1] 2.9))", file)
        assert (answer, values["X"].array.dtype) == ("sat", np.dtype(own))
        x, w, b = (t.astype(np.float64) for t in (values["X"].array, constants["w"], constants["b"]))
        np.testing.assert_allclose(values["Y"].array.astype(float), np.maximum(x @ w.T + b, 0), rtol=2e-2)


def test_half_precision_ends_where_it_has_infinities(tmp_path: Path) -> None:
    """300 squared is none of its numbers, whatever it is of real ones."""
    nodes = [node("Mul", "x", "x", "z"), node("Mul", "z", "c", "y")]
    file = graph(tmp_path, nodes, "x float16 1", "y float16 1", c=np.float16([0.5]))
    text = declared("X float16 [1]", "Y float16 [1]") + "(assert (>= X[0] 0))(assert (> Y[0] 50000))"
    assert asked(tmp_path, text + "(assert (<= X[0] 300))", file, timeout=1)[0] == "unknown"
    assert asked(tmp_path, text + "(assert (<= X[0] 200))", file)[0] == "unsat"


def test_casts_to_half_precision_round(tmp_path: Path) -> None:
    """By half a unit of the last place at most: 2 to the power of -12 below one."""
    nodes = [node("Cast", "x", "h", to=T.FLOAT16), node("Cast", "h", "g", to=T.FLOAT), node("Sub", "g", "x", "y")]
    file = graph(tmp_path, nodes, "x float32 1", "y float32 1")
    text = declared("X float32 [1]", "Y float32 [1]") + "(assert (>= X[0] 0.25))(assert (<= X[0] 1.0))"
    assert asked(tmp_path, text + "(assert (> Y[0] 0.0002))", file)[0] == "sat"
    assert asked(tmp_path, text + "(assert (> Y[0] 0.0002442))", file)[0] == "unsat"


def random_model(rng: np.random.Generator, folder: Path) -> tuple[Path, str, str]:
    """A model of whole numbers, and perhaps floats made of them: the file, and the types of its input and output."""
    kind = str(rng.choice(["int8", "uint8", "int32", "int64", "bool"]))
    at, own, nodes, constants = "x", kind, list[onnx.NodeProto](), dict[str, Any]()

    def constant(*values: float) -> str:
        name = f"c{len(constants)}"
        constants[name] = np.asarray(values, array_type(KINDS[own]))
        return name

    def two(low: int, high: int) -> str:
        return constant(*rng.integers(0 if own == "uint8" else low, high, 2))

    steps: dict[str, Callable[[], tuple[list[str], dict[str, Any], str]]] = {
        "Add": lambda: ([at, two(-4, 5)], {}, own),
        "Sub": lambda: ([two(3, 6), at], {}, own),
        "Mul": lambda: ([at, two(-3, 4)], {}, own),
        "Div": lambda: ([at, constant(*rng.choice([1, 2, 3, 7], 2))], {}, own),
        "Mod": lambda: ([at, constant(*rng.choice([1, 2, 3, 7], 2))], {"fmod": int(rng.integers(2))}, own),
        "Abs": lambda: ([at], {}, own),
        "Min": lambda: ([at, two(-2, 4)], {}, own),
        "Max": lambda: ([at, two(-2, 4)], {}, own),
        "Sign": lambda: ([at], {}, own),
        "Equal": lambda: ([at, two(-1, 3)], {}, "bool"),
        "GreaterOrEqual": lambda: ([at, two(-1, 3)], {}, "bool"),
        "Cast": lambda: ([at], {"to": T.FLOAT}, "float32"),
    }
    truths = ["Not", "Cast"]
    for number in range(int(rng.integers(1, 5))):
        more: dict[str, Any] = {}
        if own == "float32":
            chosen = str(rng.choice(["Relu", "MatMul"]))
            if chosen == "MatMul":
                constants[f"c{number}m"] = rng.choice([-1, 0.5, 2, 0.1], (2, 2)).astype(np.float32)
            given, made = [at] if chosen == "Relu" else [at, f"c{number}m"], own
        else:
            chosen = str(rng.choice(truths if own == "bool" else list(steps)))
            given, more, made = ([at], {}, "bool") if chosen == "Not" else steps[chosen]()
        at, own = f"t{number}", made
        nodes.append(node(chosen, *given, at, **more))
    return graph(folder, [*nodes, node("Identity", at, "y")], f"x {kind} 2", f"y {own} 2", **constants), kind, own


def outputs(file: Path, kind: str, points: Sequence[tuple[int, ...]]) -> list[list[float]]:
    """What the model says at some points."""
    run = runner_of(onnx.load(file), file, file, ["y"])
    return [run({"x": np.asarray(p, array_type(KINDS[kind]))})[0].astype(np.float64).tolist() for p in points]


@pytest.mark.parametrize("seed", range(24))
def test_random_models_are_decided_as_all_whole_points_say(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    file, kind, own = random_model(rng, tmp_path)
    low = 0 if kind in {"bool", "uint8"} else -2
    points = list(product(range(low, low + (2 if kind == "bool" else int(rng.integers(3, 25)))), repeat=2))
    values = outputs(file, kind, points)
    text = declared(f"X {kind} [2]", f"Y {own} [2]")
    for i in range(2):
        text += f"(assert (> X[{i}] {low - 1}))(assert (<= X[{i}] {points[-1][0]}.4))"
    for _ in range(3):
        place, sum_ = rng.integers(2), points[0][0] + points[-1][0] + int(rng.integers(-1, 2))
        limit = values[rng.integers(len(values))][place] + float(rng.choice([-1, 0, 0, 1]))
        sign, holds = [("<", np.less), (">", np.greater), ("==", np.equal)][rng.integers(3)]
        unsafe = any(holds(y[place], limit) and sum(x) <= sum_ for x, y in zip(points, values, strict=True))
        words = f"(assert ({sign} Y[{place}] {Decimal(limit)}))(assert (<= (+ X[0] X[1]) {sum_}))"
        answer, _ = asked(tmp_path, text + words, file, timeout=20)
        assert answer == ("sat" if unsafe else "unsat"), words


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (1, 1, "(== Y[0] {1})"),
        (0, 2, "(== Y[0] {1})"),
        (0, 2, "(and (> Y[0] {0}) (< Y[0] {2}))"),
        (-4, 4, "(== Y[0] {1})"),
    ],
)
def test_whole_inputs_that_float64_does_not_have_count(tmp_path: Path, low: int, high: int, wanted: str) -> None:
    """The one next to two to the power of 53 is between those that it has."""
    file, near = graph(tmp_path, [node("Identity", "x", "y")], "x int64 1", "y int64 1"), 2**53
    text = declared("X int64 [1]", "Y int64 [1]") + f"(assert (>= X[0] {near + low}))(assert (<= X[0] {near + high}))"
    numbers = [near, near + 1, near + 2]
    assert asked(tmp_path, text + f"(assert {wanted.format(*numbers)})", file, 0.1)[0] in {"sat", "unknown"}
    assert asked(tmp_path, text + f"(assert (> Y[0] {near + 1024}))", file)[0] == "unsat"


@pytest.mark.parametrize("condition", ["(>= Y[0] {})", "(< Y[0] {})"])
def test_whole_outputs_that_float64_does_not_have_say_nothing(tmp_path: Path, condition: str) -> None:
    """The output is two to the power of 53, and one: what is at least that, and what is not."""
    nodes = [node("Mul", "x", "c", "p"), node("Add", "p", "d", "y")]
    c, d = (np.array([n], np.int64) for n in (2**52, 1))
    file = graph(tmp_path, nodes, "x int64 1", "y int64 1", c=c, d=d)
    text = declared("X int64 [1]", "Y int64 [1]") + "(assert (== X[0] 2))"
    about = condition.format(2**53 + 1)
    expected = "sat" if ">" in condition else "unsat"
    assert asked(tmp_path, text + f"(assert {about})", file, 0.1)[0] in {expected, "unknown"}


def test_certificates_and_images_of_other_types_are_refused_in_one_line(tmp_path: Path) -> None:
    nodes = [node("Cast", "x", "z", to=T.FLOAT), node("MatMul", "z", "w", "y")]
    file = graph(tmp_path, nodes, "x uint8 1 2", "y float32 1 2", w=np.eye(2, dtype=np.float32))
    query = tmp_path / "query.vnnlib"
    query.write_text(VERSION + declared("X uint8 [1,2]", "Y float32 [1,2]") + "(assert (> Y[0,0] 255))", "utf-8")
    given = [str(query), "--network", str(file), "--certificate", str(tmp_path / "proof.zip")]
    found = CliRunner().invoke(cli, ["verify", *given], standalone_mode=False)
    assert isinstance(found.exception, UnsupportedError)
    assert "certificates are about inputs in float32 or float64, not uint8" in str(found.exception)
    with pytest.raises(UnsupportedError, match="takes uint8 numbers, and images are floating-point ones"):
        certify(str(file), np.zeros((1, 2), np.float32), np.zeros(1, int), eps=0.1)
    assert len(read_vnnlib(query).cases) == 1


@pytest.mark.parametrize("command", [["certify", "--eps", "0.1"], ["radius"]])
def test_half_precision_has_no_certificate(tmp_path: Path, command: list[str]) -> None:
    """The checker does not know it, which is said before anything is searched."""
    file = graph(tmp_path, [node("Identity", "x", "y")], "x float16 1 2", "y float16 1 2")
    np.savez(tmp_path / "data.npz", images=np.full((1, 2), 0.5, np.float32), labels=np.zeros(1, np.int64))
    name, *more = command
    given = [name, str(file), str(tmp_path / "data.npz"), *more, "--certificates", str(tmp_path / "proofs")]
    found = CliRunner().invoke(cli, given, standalone_mode=False)
    assert isinstance(found.exception, UnsupportedError)
    assert "certificates are about inputs in float32 or float64, not float16" in str(found.exception)
