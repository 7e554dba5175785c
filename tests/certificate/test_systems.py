"""Certificates about several tensors or networks: what is proven of them is checked, what is forged is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from tests.certificate.values import evaluate
from tests.run.conformance import VERSION, files
from tests.run.files import model, node, tensor
from tests.run.proven import EACH, PROVEN

from krelax.certificate.check import check, network_of
from krelax.certificate.errors import Rejected
from krelax.certificate.format.archive import read, write
from krelax.certificate.format.schema import Certificate, Given, Part, Question, System
from krelax.certificate.format.specification import match
from krelax.certificate.format.statement import parts
from krelax.certificate.format.systems import factors_of, places_of, terms_of
from krelax.certificate.onnx.graph import parse_values
from krelax.certificate.onnx.model import Model, model_hash, read_model
from krelax.cli import cli
from krelax.errors import InputError, UnsupportedError
from krelax.problem.query import Specification
from krelax.problem.vnnlib import read_vnnlib

Nets = dict[str, Path]


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Nets:
    return files(tmp_path_factory.mktemp("nets"))


def options(name: str, nets: Nets) -> list[str]:
    return [text for network, file in PROVEN[name][1].items() for text in ("--network", f"{network}={nets[file]}")]


def made(folder: Path, name: str, nets: Nets) -> tuple[Path, Certificate]:
    """The query in a file, and the certificate that `krelax verify` writes of it."""
    query, path = folder / "query.vnnlib", folder / "proof.zip"
    query.write_text(VERSION + PROVEN[name][0], "utf-8")
    given = [str(query), *options(name, nets), "--timeout", "60", "--certificate", str(path)]
    result = CliRunner().invoke(cli, ["verify", *given], catch_exceptions=False, standalone_mode=False)
    assert result.stdout == "unsat\n", result.output
    return query, read(path)


def answer(folder: Path, certificate: Certificate, *arguments: Any) -> tuple[int, str]:
    """The exit code of `krelax check`, and what it says in the end."""
    path = folder / "forged.zip"
    write(path, certificate)
    given = [str(path), *map(str, arguments)]
    try:
        result = CliRunner().invoke(cli, ["check", *given], catch_exceptions=False, standalone_mode=False)
    except InputError as error:  # which the program says in one line
        return 2, f"krelax: {error}"
    return result.return_value, result.output


@pytest.mark.parametrize("name", PROVEN)
def test_what_holds_has_a_certificate(tmp_path: Path, nets: Nets, name: str) -> None:
    """It is accepted, as an answer to the query; by exact numbers, too; and what it says is true."""
    query, certificate = made(tmp_path, name, nets)
    for more in ([], ["--exact"]):
        code, said = answer(tmp_path, certificate, *options(name, nets), "--spec", query, *more)
        assert code == 0, said
        assert "the specification, semantics real" in said
    outputs = outputs_of(certificate, [read_model(nets[file]) for file in PROVEN[name][1].values()])
    assert all(smallest(question, outputs) > 0 for question in certificate.questions)


Outputs = Callable[[Any], Any]


def outputs_of(certificate: Certificate, models: Sequence[Model]) -> Outputs:
    """The outputs of a system for an input of the region, by ONNX Runtime; hidden nodes are made outputs."""
    system = certificate.system
    assert system is not None
    sessions, by_hash = [], {m.hash: m for m in models}
    for part in system.parts:
        proto = onnx.load_from_string(by_hash[part.network].data)
        del proto.graph.output[:]
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in part.values)
        sessions.append(onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]))

    def outputs(x: Any) -> Any:
        values = list[Any]()
        for part, session in zip(system.parts, sessions, strict=True):
            shapes = {given.name: given.shape for given in session.get_inputs()}
            feeds = {g.name: x[g.places].reshape(shapes[g.name]) for g in part.inputs}
            values += [np.asarray(v, np.float64).reshape(-1) for v in session.run(None, feeds)]
        given, value = x.astype(np.float64)[places_of(system)], np.concatenate(values)
        return np.array([np.prod([(value if c % 2 else given)[c // 2] for c in term]) for term in terms_of(system)])

    return outputs


def smallest(question: Question, outputs: Outputs) -> float:
    """The margin at the worst of many points of a question."""
    rng, region, worst = np.random.default_rng(0), question.region, np.inf
    for t in np.concatenate([rng.random((20, len(region.lower))), rng.integers(0, 2, (20, len(region.lower)))]):
        y = outputs((region.lower + t * (region.upper - region.lower)).astype(np.float32))
        margins = question.rows @ y + question.offsets
        worst = min(worst, *(margins[question.clause == n].max() for n in np.unique(question.clause)))
    return float(worst)


@pytest.mark.parametrize("name", ["by name", "hidden and output", "products"])
def test_the_checker_reads_what_onnx_runtime_computes(tmp_path: Path, nets: Nets, name: str) -> None:
    _, certificate = made(tmp_path, name, nets)
    models = [read_model(nets[file]) for file in PROVEN[name][1].values()]
    (network, _), outputs = network_of(certificate, models), outputs_of(certificate, models)
    for x in np.random.default_rng(0).normal(0, 1, (5, network.input_size)).astype(np.float32):
        mine = evaluate(network, x[None].astype(np.float64))[-1][0]
        np.testing.assert_allclose(mine, outputs(x), rtol=1e-5, atol=1e-5)


def swapped(c: Certificate, nets: Nets) -> None:
    c.system.parts[0].network, c.system.parts[1].network = (p.network for p in c.system.parts[::-1])


def one_twice(c: Certificate, nets: Nets) -> None:
    c.system.parts[1].network = c.system.parts[0].network


def another(c: Certificate, nets: Nets) -> None:
    c.system.parts[1].network = model_hash(nets["two"])


def missing(c: Certificate, nets: Nets) -> None:
    c.system.parts.pop()


def turned(c: Certificate, nets: Nets) -> None:
    c.system.parts.reverse()


def renamed(c: Certificate, nets: Nets) -> None:
    c.system.parts[0].name, c.system.parts[1].name = "g", "f"


def nameless(c: Certificate, nets: Nets) -> None:
    c.system.parts[0].name = None


def one_input(c: Certificate, nets: Nets) -> None:
    """The second network at the inputs of the first one."""
    c.system.parts[1].inputs[0].places = c.system.parts[0].inputs[0].places
    for q in c.questions:
        q.region.lower, q.region.upper = q.region.lower[:2], q.region.upper[:2]


def gap(c: Certificate, nets: Nets) -> None:
    given = c.system.parts[1].inputs[0]
    given.places = given.places + np.int32(1)


def negative(c: Certificate, nets: Nets) -> None:
    given = c.system.parts[1].inputs[0]
    given.places = given.places - np.int32(3)


def too_few(c: Certificate, nets: Nets) -> None:
    given = c.system.parts[1].inputs[0]
    given.places = given.places[:1]


def not_given(c: Certificate, nets: Nets) -> None:
    c.system.parts[0].inputs.clear()


def given_twice(c: Certificate, nets: Nets) -> None:
    c.system.parts[0].inputs *= 2


def no_input(c: Certificate, nets: Nets) -> None:
    c.system.parts[0].inputs[0].name = "w"


def hidden(c: Certificate, nets: Nets) -> None:
    c.system.parts[0].values[0] = "a"


def no_value(c: Certificate, nets: Nets) -> None:
    c.system.parts[0].values[0] = "nothing"


def other_terms(c: Certificate, nets: Nets) -> None:
    c.system.variable = c.system.variable[::-1].copy()


def squared(c: Certificate, nets: Nets) -> None:
    terms = terms_of(c.system)
    c.system.output, c.system.variable = factors_of([terms[0] * 2, *terms[1:]])


def no_variable(c: Certificate, nets: Nets) -> None:
    c.system.variable = c.system.variable + np.int32(100)


def below_zero(c: Certificate, nets: Nets) -> None:
    c.system.variable = -c.system.variable


def unnumbered(c: Certificate, nets: Nets) -> None:
    c.system.output = c.system.output + np.int32(1)


def no_terms(c: Certificate, nets: Nets) -> None:
    c.system.output, c.system.variable = c.system.output[:0], c.system.variable[:0]


def two_kinds(c: Certificate, nets: Nets) -> None:
    c.network = c.system.parts[0].network


def plain(c: Certificate, nets: Nets) -> None:
    c.network, c.system = c.system.parts[0].network, None


def neither(c: Certificate, nets: Nets) -> None:
    c.system = None


def executed(c: Certificate, nets: Nets) -> None:
    c.semantics = "float32"


def an_output(c: Certificate, nets: Nets) -> None:
    c.output = "y"


def nothing_apart(c: Certificate, nets: Nets) -> None:
    c.system.apart = True
    c.system.parts[0].values.clear()


FORGED: list[Callable[[Any, Nets], None]] = [
    swapped, one_twice, another, missing, turned, renamed, nameless, one_input, gap, negative, too_few,
    not_given, given_twice, no_input, hidden, no_value, other_terms, squared, no_variable, below_zero, unnumbered,
    no_terms, two_kinds, plain, neither, executed, an_output, nothing_apart,
]  # fmt: skip


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory, nets: Nets) -> tuple[Path, Certificate]:
    return made(tmp_path_factory.mktemp("genuine"), "two networks", nets)


@pytest.mark.parametrize("forge", FORGED, ids=lambda f: f.__name__)
def test_forgeries_are_refused(
    tmp_path: Path, nets: Nets, genuine: tuple[Path, Certificate], forge: Callable[[Any, Nets], None]
) -> None:
    """With the query, and with the networks that it is about. Without the query, what is accepted is true."""
    query, certificate = genuine[0], deepcopy(genuine[1])
    forge(certificate, nets)
    code, said = answer(tmp_path, certificate, *options("two networks", nets), "--spec", query)
    assert code in {1, 2}, said
    assert said.startswith(("rejected: ", "malformed: ", "krelax: "))
    models = [read_model(nets[name]) for name in ("net", "near")]
    try:
        margins = check(certificate, models)
    except (InputError, Rejected):
        return
    outputs = outputs_of(certificate, models)
    assert all(m <= smallest(q, outputs) + 1e-5 for m, q in zip(margins, certificate.questions, strict=True))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"f": "near", "g": "net"}, "of f about the network"),
        ({"f": "net", "g": "net"}, "of g about the network"),
        ({"f": "net", "g": "two"}, "of g about the network"),
        ({"f": "net"}, "is about the network g, too; add --network g=FILE"),
        ({"f": "net", "g": "near", "h": "two"}, "is about the network f, g, not h"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, nets: Nets, genuine: tuple[Path, Certificate], given: dict[str, str], text: str
) -> None:
    files = [o for name, file in given.items() for o in ("--network", f"{name}={nets[file]}")]
    code, said = answer(tmp_path, genuine[1], *files, "--spec", genuine[0])
    assert code in {1, 2}
    assert text in said
    code, said = answer(tmp_path, genuine[1], *files)
    assert code == 1
    assert "rejected: " in said


def test_files_need_no_names_without_a_query(tmp_path: Path, nets: Nets, genuine: tuple[Path, Certificate]) -> None:
    """Networks are found by their hashes; what they are is said in full."""
    code, said = answer(tmp_path, genuine[1], "--network", nets["near"], "--network", nets["net"])
    assert code == 0
    assert said.splitlines()[:7] == [
        f"network f {model_hash(nets['net'])}",
        "  of its input 'x' the entries are x[0] to x[1]",
        "  v[0] are the entries of its 'y'",
        f"network g {model_hash(nets['near'])}",
        "  of its input 'x' the entries are x[2] to x[3]",
        "  v[1] are the entries of its 'y'",
        "  y[0] = v[0]",
    ]
    models = [read_model(nets[name]) for name in ("near", "net")]
    assert check(genuine[1], models)[0] > 0
    with pytest.raises(Rejected, match=r"about the network .*, too; give its file with --network"):
        check(genuine[1], models[:1])
    with pytest.raises(Rejected, match="not about the network"):
        check(genuine[1], [*models, read_model(nets["two"])])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(== X[0,0] U[0,0])", "(<= X[0,0] U[0,0])"),
        ("(== U[0,1] X[0,1])", "(and (<= U[0,1] X[0,1]) (>= U[0,1] -1.0))"),
        ("(== X[0,0] U[0,0])", "(== X[0,0] (* 2 U[0,0]))"),
        ("(== X[0,0] U[0,0])", "(== (- X[0,0] U[0,0]) 0.125)"),
        ("(== X[0,0] U[0,0])", "(== X[0,0] U[0,1])"),
        ("(== X[0,0] U[0,0])", "(or (== X[0,0] U[0,0]) (== X[0,0] 0.5))"),
    ],
)
def test_inputs_are_one_only_where_they_are_equal(tmp_path: Path, nets: Nets, old: str, new: str) -> None:
    """A proof about networks at the same inputs is none about others."""
    query, certificate = made(tmp_path, "isomorphic", nets)
    query.write_text(query.read_text().replace(old, new) + EACH)
    code, said = answer(tmp_path, certificate, *options("isomorphic", nets), "--spec", query)
    assert code == 1, said
    assert "are one, but need not be equal" in said or "other products" in said


def test_inputs_of_the_region_have_any_order(tmp_path: Path, nets: Nets, genuine: tuple[Path, Certificate]) -> None:
    """The map says which is which: where boxes are the same, another one says the same."""
    certificate: Any = deepcopy(genuine[1])
    given = certificate.system.parts[1].inputs[0]
    given.places = given.places[::-1].copy()
    query = tmp_path / "query.vnnlib"
    for more, expected in (("", 0), ("(assert (<= U[0,1] 0.5))", 1)):
        query.write_text(genuine[0].read_text() + more)
        assert answer(tmp_path, certificate, *options("two networks", nets), "--spec", query)[0] == expected


def test_equal_networks_are_one_file(tmp_path: Path, nets: Nets) -> None:
    """A query about a network and itself is not answered by a proof about two."""
    query, certificate = made(tmp_path, "monotone", nets)
    assert certificate.system is not None
    certificate.system.parts[1].network = model_hash(nets["near"])
    networks = ["--network", f"f={nets['net']}", "--network", f"g={nets['near']}"]
    code, said = answer(tmp_path, certificate, *networks, "--spec", query)
    assert code in {1, 2}
    assert "equal" in said


@pytest.mark.parametrize(
    ("name", "old", "new", "text"),
    [
        ("two inputs", "(declare-input S float32 [2])", "(declare-input S float64 [2])", "is declared as float64"),
        ("by name", '"s"', '"s s"', "tensors of f that are others"),
        ("by name", 'T float32 [2] "t") (declare-input S', 'S float32 [2] "t") (declare-input T', "unsafe case 0"),
        ("by name", 'D float32 [2] "d") (declare-output A', 'A float32 [2] "d") (declare-output D', "other products"),
        ("two inputs", "D float32 [2]", "D float32 [3]", "of another shape"),
        ("hidden", '"first"', '"a"', "tensors of f that are others"),
        ("hidden", "3.25", "3.125", "unsafe case 0"),
        ("products", "X[0,0] X[0,0]", "X[0,0] X[0,1]", "other products"),
    ],
)
def test_other_declarations_are_refused(tmp_path: Path, nets: Nets, name: str, old: str, new: str, text: str) -> None:
    query, certificate = made(tmp_path, name, nets)
    query.write_text(query.read_text().replace(old, new))
    code, said = answer(tmp_path, certificate, *options(name, nets), "--spec", query)
    assert code == (1 if text else 0), said
    assert text in said


def test_random_changes_are_refused_or_true(nets: Nets, genuine: tuple[Path, Certificate]) -> None:
    """Of the system and of the question: whatever is accepted is no more than what ONNX Runtime finds."""
    rng, models = np.random.default_rng(0), [read_model(nets[name]) for name in ("net", "near")]
    kept = 0
    for _ in range(25):
        c: Any = deepcopy(genuine[1])
        given = c.system.parts[rng.integers(2)].inputs[0]
        field, owner = [("places", given), ("variable", c.system), ("rows", c.questions[0])][rng.integers(3)]
        array = getattr(owner, field).copy()
        array.reshape(-1)[rng.integers(array.size)] = rng.integers(-1, 5)
        setattr(owner, field, array)
        try:
            margins = check(c, models)
        except (InputError, Rejected):
            continue
        kept += 1
        assert margins[0] <= smallest(c.questions[0], outputs_of(c, models)) + 1e-5
    assert kept


def test_a_system_answers_no_query_about_one_network(genuine: tuple[Path, Certificate]) -> None:
    query, certificate = genuine
    with pytest.raises(Rejected, match="the specification is not"):
        match(certificate, Specification(2, 1, ()))
    asked = read_vnnlib(query)
    short = [replace(case, lower=case.lower[:3], upper=case.upper[:3]) for case in asked.cases]
    with pytest.raises(Rejected, match="the system has 4 inputs, the specification 3"):
        match(certificate, replace(asked, cases=tuple(short)))


def test_many_outputs_are_said_in_full_where_that_is_asked(genuine: tuple[Path, Certificate]) -> None:
    system: Any = deepcopy(genuine[1].system)
    system.output, system.variable = factors_of([(1,)] * 2000)
    said, full = (list(parts(system, [[(1,)], [(1,)]], whole)) for whole in (False, True))
    assert said[-1].endswith("more outputs; --full shows them")
    assert full[-1] == "  y[1999] = v[0]"


def test_constants_are_values(nets: Nets, genuine: tuple[Path, Certificate]) -> None:
    """A tensor that depends on no input is what the file says; one of whole numbers is refused."""
    made = model([node("Relu", "x", "y")], {"c": np.array([0.5, 2.0], np.float32), "n": np.array([3])},
                 [tensor("x", [1, 2])], [tensor("y", [1, 2])])  # fmt: skip
    file = Model(made.SerializeToString())
    numbers: Any = np.arange(2, dtype=np.int32)

    def joint(value: str) -> Any:
        system = System([Part(file.hash, [Given("x", numbers)], ["y", value])], numbers, 2 * numbers + 5, None)
        question: Any = None
        return network_of(Certificate(None, "real", "test", [question], system=system), [file])[0]

    assert evaluate(joint("c"), np.zeros((1, 2)))[-1].tolist() == [[0.5, 2.0]]
    with pytest.raises(UnsupportedError, match="depends on no input and is no plain constant"):
        joint("n")


@pytest.mark.parametrize(("given", "text"), [(["x", "x"], "given twice"), ([], "'x' that is read and not given")])
def test_inputs_are_given_once(nets: Nets, given: list[str], text: str) -> None:
    with pytest.raises(InputError, match=text):
        parse_values(read_model(nets["net"]), given, ["y"])
