"""Every construct of VNN-LIB 2.0 is decided, rightly, and counterexamples are what they say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto
from tests.run.conformance import COPY, HIDDEN, ONE, OTHER, QUERIES, SAME, TWO, VERSION, F, G, files
from tests.run.files import model, node, save, tensor

from krelax.cli import cli
from krelax.errors import InputError, UnsupportedError
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.problem.vnnlib import read_vnnlib
from krelax.run.assignment import assigned
from krelax.run.certificates import Certificates
from krelax.run.coupling import coupled
from krelax.run.verify import VerifyOptions, verify_file
from krelax.search.verdict import Outcome, Verdict


def read(path: Path, scores: bool) -> Network:
    return load_onnx(path, scores=scores)


ANSWERS = {Verdict.HOLDS: "unsat", Verdict.VIOLATED: "sat", Verdict.UNKNOWN: "unknown"}


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return files(tmp_path_factory.mktemp("nets"))


def put(folder: Path, text: str, given: Mapping[str | None, Path]) -> tuple[dict[str, np.ndarray], Outcome]:
    """The answer to a query, and the values of all variables."""
    path = folder / "query.vnnlib"
    path.write_text(VERSION + text, "utf-8")
    specification, outcome = verify_file(path, given, read, VerifyOptions(timeout=60))
    assert specification is not None
    if outcome.counterexample is None:
        return {}, outcome
    return {t.name: t.array for t in assigned(specification, outcome.counterexample)}, outcome


@pytest.mark.parametrize("name", QUERIES)
def test_constructs_are_decided(tmp_path: Path, nets: dict[str, Path], name: str) -> None:
    text, given, answer = QUERIES[name]
    _, outcome = put(tmp_path, text, {network: nets[file] for network, file in given.items()})
    assert ANSWERS[outcome.verdict] == answer, outcome.reason


def test_counterexamples_of_two_networks_replay(tmp_path: Path, nets: dict[str, Path]) -> None:
    """Judged by ONNX Runtime and fractions from the values alone: inputs that are equal, outputs of each network."""
    text, given, _ = QUERIES["isomorphic, different"]
    paths = {network: nets[file] for network, file in given.items()}
    values, _ = put(tmp_path, text, paths)
    assert list(values) == ["X", "Y", "U", "V"]
    np.testing.assert_array_equal(values["X"], values["U"])
    for x, y, network in (("X", "Y", "f"), ("U", "V", "g")):
        session = onnxruntime.InferenceSession(str(paths[network]), providers=["CPUExecutionProvider"])
        np.testing.assert_array_equal(session.run(None, {"x": values[x]})[0], values[y])
    assert Fraction(values["Y"].item()) - Fraction(values["V"].item()) < Fraction(-9, 1000)


def test_counterexamples_have_hidden_nodes(tmp_path: Path, nets: dict[str, Path]) -> None:
    values, _ = put(tmp_path, QUERIES["hidden"][0], {"f": nets["net"]})
    a, b = values["X"].flatten().tolist()
    expected = [max(0.0, v) for v in (a + 2 * b, 3 * a - b + 0.5, (a + b) / 2 - 1)]
    np.testing.assert_allclose(values["Z"].flatten(), expected, rtol=1e-6)
    assert values["Z"].shape == (1, 3)


WRONG: dict[str, tuple[str, dict[str | None, str], str]] = {
    "a network without a file": (F + G + ONE, {"f": "net"}, "is about the network g, too; add --network g=FILE"),
    "a file without a network": (F + ONE, {"f": "net", "g": "net"}, "is about the network f, not g"),
    "files without names": (F + G + ONE, {None: "net"}, "is about the network f, g, not a network without a name"),
    "equal to another file": (
        F + G.replace("isomorphic-to", "equal-to") + ONE,
        {"f": "net", "g": "near"},
        "declared equal to f and is not; leave it out",
    ),
    "a node that is not there": (HIDDEN + ONE + "(assert (> Z[0,0] 0))", {"f": "net"}, "'NODE' is no node"),
    "a hidden node of another shape": (
        HIDDEN.replace("NODE", "a").replace("[1,3]", "[3,3]") + ONE,
        {"f": "net"},
        r"declares Z of shape \[3, 3\], the network has \[1, 3\]",
    ),
    "one of two inputs": (
        TWO.replace(" (declare-input T float32 [2])", ""),
        {"f": "two"},
        r"has 2 inputs \(s, t\), but f declares 1",
    ),
    "another type": (
        TWO.replace("D float32", "D float64"),
        {"f": "two"},
        "declares D as float64, the network has float32",
    ),
    "a name that is not there": (
        TWO.replace("[2])", '[2] "s")', 1).replace("T float32 [2]", 'T float32 [2] "q"').replace(
            "A float32 [2]", 'A float32 [2] "a"').replace("D float32 [2]", 'D float32 [2] "d"'),
        {"f": "two"},
        "has no input 'q', only 's', 't'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_networks_that_are_not_as_declared_are_refused(tmp_path: Path, nets: dict[str, Path], name: str) -> None:
    text, given, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        put(tmp_path, text, {network: nets[file] for network, file in given.items()})


def test_certificates_of_executions_are_about_one_network(tmp_path: Path, nets: dict[str, Path]) -> None:
    path = tmp_path / "query.vnnlib"
    path.write_text(VERSION + QUERIES["monotone"][0], "utf-8")
    keeper = Certificates(tmp_path, nets["net"], semantics="float32")
    with pytest.raises(UnsupportedError, match="float32 are about one network with one input and one output; leave"):
        verify_file(path, {"f": nets["net"]}, read, VerifyOptions(), keeper)


def test_damaged_queries_are_refused_or_read(tmp_path: Path) -> None:
    """Whatever is cut out, doubled or exchanged: a specification, or one clear line, and nothing else."""
    rng, path, whole, refusals = np.random.default_rng(0), tmp_path / "query.vnnlib", 0, list[str]()
    texts = [VERSION + text for text, _, _ in QUERIES.values()]
    for number in range(400):
        words = re.split(r"(\W)", texts[number % len(texts)])
        place, other = rng.integers(len(words), size=2)
        change = number % 4
        words[place : place + 1] = [[], [words[place]] * 2, [words[other]], ["(" * 2000]][change]
        path.write_text("".join(words), "utf-8")
        try:
            whole += bool(read_vnnlib(path).networks)
        except InputError as error:
            refusals.append(str(error))
    assert min(whole, len(refusals)) > 50
    assert all(text.startswith(str(path)) and "\n" not in text for text in refusals)


def test_a_property_of_two_networks_is_proven_by_no_certificate(tmp_path: Path, nets: dict[str, Path]) -> None:
    """Whatever a certificate says of one network, `krelax check --spec` does not take it for that."""
    proof, simple, both = (tmp_path / name for name in ("proof.zip", "simple.vnnlib", "both.vnnlib"))
    simple.write_text(VERSION + F + ONE + "(assert (<= Y[0,0] 0.0))", "utf-8")
    both.write_text(VERSION + F + ONE + "(assert (<= (+ Y[0,0] X[0,0]) -5.0))", "utf-8")
    run, model = CliRunner(), ["--network", str(nets["net"])]
    held = run.invoke(cli, ["verify", str(simple), *model, "--certificate", str(proof)], standalone_mode=False)
    assert held.return_value == 0
    taken = run.invoke(cli, ["check", str(proof), *model, "--spec", str(simple)], standalone_mode=False)
    assert (taken.exception, taken.return_value) == (None, 0)
    refused = run.invoke(cli, ["check", str(proof), *model, "--spec", str(both)], standalone_mode=False)
    assert (refused.exception, refused.return_value) == (None, 1)
    assert refused.output.startswith("rejected: the specification is about several tensors or networks")


def test_equal_inputs_leave_no_conditions(tmp_path: Path, nets: dict[str, Path]) -> None:
    """What says that they are equal is known once they are one input; and no input is less than itself."""
    path = tmp_path / "query.vnnlib"
    for less, cases in (("", 1), ("(assert (< X[0,0] U[0,0]))", 0)):
        path.write_text(VERSION + F + G + ONE + SAME + less + "(assert (> Y[0,0] V[0,0]))", "utf-8")
        given: dict[str | None, Path] = {"f": nets["net"], "g": nets["near"]}
        found = [case for pair in coupled(read_vnnlib(path), given, lambda: None) for case in pair.specification.cases]
        assert [len(case.halfspaces) for case in found] == [1] * cases


@pytest.mark.parametrize("named", [True, False])
def test_a_function_has_one_value_whatever_it_is(tmp_path: Path, named: bool) -> None:
    """Curves are not decided in exact numbers, nor are bounds of their differences exactly zero."""
    nodes = [node("MatMul", "x", "w", "z"), node("Sigmoid", "z", "y")]
    weights = {"w": np.asarray([[1.0, -2.0], [0.5, 3.0]], np.float32)}
    path = save(model(nodes, weights, [tensor("x", [1, 2])], [tensor("y", [1, 2])]), tmp_path / "curve.onnx")
    text = (F + (COPY if named else OTHER) + ONE + SAME).replace("[1,1]", "[1,2]")
    given = {"f": path} if named else {"f": path, "g": path}
    ask = "(assert (or (!= Y[0,1] V[0,1]) (> (* X[0,1] V[0,0]) (* Y[0,0] U[0,1]))))"
    for words, answer in ((ask, Verdict.HOLDS), (ask.replace("!=", "=="), Verdict.VIOLATED)):
        assert put(tmp_path, text + words, given)[1].verdict is answer


@pytest.mark.parametrize(("off", "answer"), [(0.0, Verdict.HOLDS), (2.0**-20, Verdict.VIOLATED)])
def test_files_that_differ_in_names_are_one_function(tmp_path: Path, off: float, answer: Verdict) -> None:
    """As exports of one model do. Another constant makes it another function."""
    given: dict[str | None, Path] = {}
    for name, x, weight in (("f", "x", 0.5), ("g", "input", 0.5 + off)):
        nodes = [node("MatMul", x, "w", "z"), node("Sigmoid", "z", "y" + x)]
        weights = {"w": np.asarray([[1.0, -2.0], [weight, 3.0]], np.float32)}
        made = model(nodes, weights, [tensor(x, [1, 2])], [tensor("y" + x, [1, 2])])
        given[name] = save(made, tmp_path / f"{name}.onnx")
    text = (F + OTHER + ONE + SAME).replace("[1,1]", "[1,2]") + "(assert (!= Y[0,0] V[0,0]))"
    assert put(tmp_path, text, given)[1].verdict is answer


@pytest.mark.parametrize("cast", [True, False])
@pytest.mark.parametrize(
    ("most", "asked", "answer"),
    [
        (0.5, "(!= Y[0] 0)", Verdict.HOLDS),
        (0.5, "(> (* 3 Y[0]) 0)", Verdict.HOLDS),
        (0.5, "(>= Y[0] 0.001)", Verdict.HOLDS),
        (0.5, "(<= Y[0] 0)", Verdict.VIOLATED),
        (1.5, "(!= Y[0] 0)", Verdict.VIOLATED),
        (1.5, "(== Y[0] 0.5)", Verdict.HOLDS),
    ],
)
def test_the_number_of_the_largest_score(tmp_path: Path, most: float, asked: str, answer: Verdict, cast: bool) -> None:
    """Which is a whole number: what differs from it does so by one."""
    nodes = [node("MatMul", "x", "w", "s"), node("ArgMax", "s", "n" if cast else "y", axis=1, keepdims=0)]
    nodes += [node("Cast", "n", "y", to=TensorProto.FLOAT)] if cast else []
    weights = {"w": np.asarray([[1.0, 0.0, -1.0], [0.0, 1.0, -1.0]], np.float32)}
    kind = TensorProto.FLOAT if cast else TensorProto.INT64
    path = save(model(nodes, weights, [tensor("x", [1, 2])], [tensor("y", [1], kind)]), tmp_path / "net.onnx")
    text = "(declare-network f (declare-input X real [1,2]) (declare-output Y real [1]))" + ONE.replace("-1.0", "0.0")
    text += f"(assert (>= X[0,0] 0.75))(assert (<= X[0,1] {most}))(assert {asked})"
    found, outcome = put(tmp_path, text, {"f": path})
    assert outcome.verdict is answer
    if found:
        assert found["Y"].tolist() == [int(found["X"][0].argmax())]
