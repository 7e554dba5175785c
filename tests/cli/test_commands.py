"""What every command answers when all is well: exit code, stdout for results, stderr for the rest."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from tests.cli.conftest import Ran
from tests.run.files import dense, images, model, node, random_dense, save, specification, tensor

from krelax import __version__
from krelax.bounds.methods import METHODS
from krelax.certificate.errors import Rejected
from krelax.cli.shared import BUNDLED_EPS, bundled
from krelax.network.onnx_constants import FOLDS
from krelax.network.onnx_operators import READERS
from krelax.run.bench import read_instances

Run = Callable[..., Ran]


def session(path: Path | str) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The network in a file, run by ONNX Runtime."""
    runtime = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: runtime.run(None, {runtime.get_inputs()[0].name: x})[0]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# y = (relu(x0), relu(x0)): the same number twice, which intervals cannot tell
TWICE = dense((np.array([[1, 0]]), [0]), (np.array([[1], [1]]), [0, 0]), (np.eye(2), [0, 0]))
SAME = "(assert (<= (+ Y_0 1) Y_1))"


@pytest.mark.parametrize(
    ("unsafe", "options", "word", "code"),
    [
        (SAME, ["--method", "crown"], "unsat", 0),
        ("(assert (>= Y_0 1))", [], "sat", 10),
        (SAME, ["--method", "interval"], "unknown", 20),
        (SAME, ["--timeout", "1e-9"], "timed-out", 30),
        ("(assert (or (and (<= Y_0 -1)) (and (>= Y_0 2) (<= Y_1 2))))", [], "sat", 10),
        ("(assert (or (and (<= Y_0 -1)) (and (>= Y_0 2.5) (<= Y_1 2))))", [], "unsat", 0),
    ],
)
def test_verify_has_an_exit_code_for_each_answer(
    krelax: Run, good: Path, unsafe: str, options: list[str], word: str, code: int
) -> None:
    save(TWICE, good / "twice.onnx")
    write(good / "spec.vnnlib", specification([-2, -1], [2, 1], unsafe))
    ran = krelax("verify", "spec.vnnlib", "--network", "twice.onnx", *options)
    assert (ran.code, ran.out.splitlines()[0]) == (code, word)
    assert len(ran.out.splitlines()) == (1 if word != "sat" else 1 + 3 + 3)
    (reason,) = ran.err.splitlines()
    assert reason.startswith("krelax: ")


def parse_assignments(lines: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Arrays from `NAME float32 [SHAPE]` and one value a line, each of which must be a float32 exactly."""
    result = {}
    rest = list(lines)
    while rest:
        name, kind, shape = rest.pop(0).split(" ")
        assert kind == "float32"
        sizes = json.loads(shape)
        values = [float(rest.pop(0)) for _ in range(int(np.prod(sizes)))]
        array = np.array(values, dtype=np.float32).reshape(sizes)
        assert array.astype(float).flatten().tolist() == values
        result[name] = array
    return result


LOWER, UPPER = ["-0.1", "0.25", "-0.30000000000000001", "0.7"], ["0.1", "0.25", "0.3", "0.9"]


def boxed(unsafe: str) -> str:
    lines = [f"(declare-const X_{i} Real)" for i in range(4)] + [f"(declare-const Y_{i} Real)" for i in range(3)]
    lines += [f"(assert (>= X_{i} {l}))(assert (<= X_{i} {u}))" for i, (l, u) in enumerate(zip(LOWER, UPPER))]  # noqa: B905
    return "\n".join([*lines, unsafe])


@pytest.mark.parametrize("rival", [1, 2])
def test_a_printed_counterexample_violates_the_specification(krelax: Run, good: Path, rival: int) -> None:
    """Judged with ONNX Runtime and rational numbers, from what is printed alone."""
    save(random_dense([4, 8, 3], seed=3), good / "net.onnx")
    run = session("net.onnx")
    write(good / "spec.vnnlib", boxed(f"(assert (<= Y_0 (+ Y_{rival} 5)))(assert (>= Y_{rival} -7.5))"))
    ran = krelax("verify", "spec.vnnlib", "--network", "net.onnx", "--serialise-assignments", "deep/found")
    assert (ran.code, ran.out.splitlines()[0]) == (10, "sat")
    values = parse_assignments(ran.out.splitlines()[1:])
    assert {name: v.shape for name, v in values.items()} == {"X": (1, 4), "Y": (1, 3)}
    x, y = values["X"], values["Y"]
    np.testing.assert_array_equal(run(x), y)
    for pixel, low, high in zip(x.flatten().tolist(), LOWER, UPPER, strict=True):
        assert Fraction(Decimal(low)) <= Fraction(pixel) <= Fraction(Decimal(high))
    scores = [Fraction(v) for v in y.flatten().tolist()]
    assert scores[0] <= scores[rival] + 5
    assert scores[rival] >= Fraction(-15, 2)
    saved = {path.name: onnx.load_tensor(path) for path in (good / "deep" / "found").iterdir()}
    for name, value in values.items():
        array = onnx.numpy_helper.to_array(saved[f"{name}.pb"])
        assert array.dtype == value.dtype
        np.testing.assert_array_equal(array, value)


def test_a_counterexample_without_float32_numbers_is_shown_as_it_is_written(krelax: Run, good: Path) -> None:
    """0.2 is no float32: the real number is proven unsafe, and the model is unsafe at the nearest number."""
    save(random_dense([4, 8, 3], seed=3), good / "net.onnx")
    write(good / "spec.vnnlib", boxed("(assert (<= Y_0 100))").replace("0.25", "0.2"))
    ran = krelax("verify", "spec.vnnlib", "--network", "net.onnx")
    lines = ran.out.splitlines()
    assert (ran.code, lines[0]) == (10, "sat")
    assert "0.2" in lines[2:6]
    assert "lies between float32 numbers" in ran.err


def test_a_tie_of_real_numbers_is_decided_as_such(krelax: Run, good: Path) -> None:
    """No float32 is 0.1: exact arithmetic proves the tie, and what the model computes nearby is near to it."""
    save(model([node("Relu", "x", "y")], {}, [tensor("x", [1, 1])], [tensor("y", [1, 1])]), good / "net.onnx")
    lines = ["(declare-const X_0 Real)", "(declare-const Y_0 Real)", "(assert (= X_0 0.1))", "(assert (= Y_0 0.1))"]
    write(good / "spec.vnnlib", "\n".join(lines))
    ran = krelax("verify", "spec.vnnlib", "--network", "net.onnx")
    assert (ran.code, ran.out.splitlines()[0]) == (10, "sat")
    assert "lies between float32 numbers" in ran.err


def test_a_float64_network_has_float64_counterexamples(krelax: Run, good: Path) -> None:
    kind = TensorProto.DOUBLE
    proto = model(
        [node("Mul", "x", "c", "y")],
        {"c": np.full((1, 1), 3.0)},
        [tensor("x", [1, 1], kind)],
        [tensor("y", [1, 1], kind)],
    )
    save(proto, good / "double.onnx")
    text = "(declare-const X_0 Real)(declare-const Y_0 Real)"
    write(good / "spec.vnnlib", text + "(assert (>= X_0 0.1))(assert (<= X_0 0.1000000000000001))")
    ran = krelax("verify", "spec.vnnlib", "--network", "double.onnx")
    assert ran.code == 10
    first, x, second, y = ran.out.splitlines()[1:]
    assert (first, second) == ("X float64 [1,1]", "Y float64 [1,1]")
    assert Fraction("0.1") <= Fraction(float(x)) <= Fraction("0.1000000000000001")
    assert float(y) == 3 * float(x)


@pytest.mark.parametrize(("declared", "shape"), [("real", "[2]"), ("float32", "[1,1,2]")])
def test_printed_tensors_are_as_they_are_declared(krelax: Run, good: Path, declared: str, shape: str) -> None:
    """Checkers compare types and shapes with the declarations. Axes of one may differ from the model's."""
    entries = [shape.replace("1", "0").replace("2", str(i)) for i in (0, 1)]
    network = f"(declare-network f (declare-input X {declared} {shape}) (declare-output Y {declared} {shape}))"
    bounds = "".join(f"(assert (and (<= 0 X{entry}) (<= X{entry} 1)))" for entry in entries)
    write(good / "spec.vnnlib", f"(vnnlib-version <2.0>){network}{bounds}")
    ran = krelax("verify", "spec.vnnlib", "--network", "good.onnx", "--serialise-assignments", "found")
    assert ran.code == 10, ran.err
    printed = ran.out.splitlines()
    assert (printed[1], printed[4]) == (f"X {declared} {shape}", f"Y {declared} {shape}")
    assert onnx.numpy_helper.to_array(onnx.load_tensor(good / "found" / "X.pb")).dtype == np.float32


def test_what_no_input_satisfies_holds_with_a_warning(krelax: Run, good: Path) -> None:
    """Nothing is left to prove, so there is no certificate; the network must fit all the same."""
    write(good / "spec.vnnlib", specification([0, 1], [1, 0.5], "(assert (<= Y_0 0))"))
    ran = krelax("verify", "spec.vnnlib", "--network", "good.onnx", "--certificate", "proof.zip")
    assert (ran.code, ran.out) == (0, "unsat\n")
    warning, nothing, reason = ran.err.splitlines()
    assert "spec.vnnlib: warning: no input satisfies the assertions: X_1" in warning
    assert "proof.zip: not written" in nothing
    assert reason.startswith("krelax: holds (no input can be unsafe")
    assert not (good / "proof.zip").exists()
    write(good / "spec.vnnlib", specification([0], [-1], "(assert (<= Y_0 0))"))
    assert krelax("verify", "spec.vnnlib", "--network", "good.onnx").code == 2


def test_the_name_of_a_network_is_that_of_the_specification(krelax: Run, good: Path) -> None:
    text = """(vnnlib-version <2.0>)
    (declare-network f (declare-input X float32 [1,2]) (declare-output Y float32 [1,2]))
    (assert (= X[0,0] 0.0)) (assert (= X[0,1] 0.0)) (assert (>= Y[0,0] 100.0))"""
    write(good / "spec.vnnlib", text)
    assert krelax("verify", "spec.vnnlib", "--network", "f=good.onnx").code == 0
    ran = krelax("verify", "spec.vnnlib", "--network", "g=good.onnx")
    assert (ran.code, ran.out) == (2, "")
    assert "about the network f, not g" in ran.err


def test_verify_reads_version_2_and_compressed_files(krelax: Run, good: Path) -> None:
    """And calls the variables as the file does."""
    save(TWICE, good / "twice.onnx")
    text = """(vnnlib-version <2.0>)
    (declare-network f (declare-input image float32 [1,2]) (declare-output scores float32 [1,2]))
    (assert (>= image[0,0] -1.0)) (assert (<= image[0,0] 1.0)) (assert (= image[0,1] 0.0))
    (assert (>= scores[0,0] 0.5))"""
    (good / "spec.vnnlib.gz").write_bytes(gzip.compress(text.encode()))
    ran = krelax("verify", "spec.vnnlib.gz", "--network", "f=twice.onnx")
    assert (ran.code, ran.out.splitlines()[0]) == (10, "sat")
    assert set(parse_assignments(ran.out.splitlines()[1:])) == {"image", "scores"}


def test_a_network_in_a_folder_with_an_equals_sign(krelax: Run, good: Path) -> None:
    """It is a path, not a name and a path."""
    (good / "lr=0.1").mkdir()
    (good / "good.onnx").rename(good / "lr=0.1" / "net.onnx")
    assert krelax("verify", "good.vnnlib", "--network", "lr=0.1/net.onnx").out == "unsat\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("krelax ce", {"plain,certify"}),
        ("krelax certify --junk x --overw", {"plain,--overwrite"}),
        ("krelax check --ex", {"plain,--exact"}),
        ("krelax certify --norm l", {"plain,linf", "plain,l2", "plain,l1"}),
        ("krelax check ./c", {"file,./c"}),
    ],
)
def test_a_shell_completes(words: str, expected: set[str]) -> None:
    environment = os.environ | {
        "_KRELAX_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")),
    }  # fmt: skip
    ran = subprocess.run([sys.executable, "-m", "krelax"], env=environment, capture_output=True, text=True, check=True)
    assert set(ran.stdout.split()) == expected


def test_a_shell_gets_its_script() -> None:
    environment = os.environ | {"_KRELAX_COMPLETE": "zsh_source"}
    ran = subprocess.run([sys.executable, "-m", "krelax"], env=environment, capture_output=True, text=True, check=True)
    assert "_KRELAX_COMPLETE=zsh_complete" in ran.stdout


def test_what_is_not_installed_is_named(krelax: Run, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the checker's packages are, other commands say what they need."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [m for m in sys.modules if m.startswith("krelax.network.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    ran = krelax("certify", "good.onnx", "good.npz", "--eps", "0.1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("krelax: needs onnx, which is not installed")


def test_bench_writes_junit(krelax: Run, good: Path) -> None:
    """What was found before counts, too; other files are left as they are."""
    lines = ["good.onnx,good.vnnlib,5,unsat", "good.onnx,good.vnnlib,5,sat", "missing.onnx,good.vnnlib,5,sat"]
    (good / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    for more in ([], ["--resume"]):
        assert krelax("bench", "list.csv", "--jsonl", "results.jsonl", "--junit", "junit.xml", *more).code == 1
        suite = ElementTree.parse("junit.xml").getroot()[0]
        assert [suite.get(key) for key in ("tests", "failures", "errors", "skipped")] == ["3", "1", "1", "0"]
    for name, word in (("list.csv", "give another"), ("good.npz", "not JUnit"), ("no/where.xml", "cannot be written")):
        ran = krelax("bench", "list.csv", "--junit", name)
        assert (ran.code, ran.out) == (2, "")
        assert word in ran.err


def test_bench_reports_disagreement(krelax: Run, good: Path) -> None:
    lines = ["good.onnx,good.vnnlib,5,sat", "good.onnx,good.vnnlib,5,unsat", "good.onnx,good.vnnlib,5,", ""]
    write(good / "list.csv", "\n".join(["onnx,vnnlib,timeout_s,expected", *lines]))
    ran = krelax("bench", "list.csv")
    assert (ran.code, ran.err) == (1, "")
    rows = ran.out.splitlines()
    assert [row[0] for row in rows] == ["!", " ", " ", "s"]
    assert rows[-1].startswith("solved 3 of 3: 3 unsat, 0 sat; 0 unknown, 0 timed-out, 0 error; 1 disagree; ")


@pytest.mark.parametrize(
    ("expected", "code"),
    [(" SAT", 1), ("violated", 1), ("Violated", 1), ("unsat", 0), ("HOLDS", 0), ("open", 0), ("unknown", 0), ("", 0)],
)
def test_bench_compares_answers_however_they_are_written(krelax: Run, good: Path, expected: str, code: int) -> None:
    write(good / "list.csv", f"onnx,vnnlib,timeout_s,expected\ngood.onnx,good.vnnlib,5,{expected}\n")
    assert krelax("bench", "list.csv").code == code


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("header", [b"", b"onnx,vnnlib,timeout_s,expected", b"ONNX, vnnlib, timeout_s"])
def test_bench_reads_lists_with_and_without_column_names(
    krelax: Run, good: Path, mark: bytes, end: bytes, header: bytes
) -> None:
    """The competition's lists have none, and other programs put a mark in front and end lines in their own ways."""
    lines = [header, b"good.onnx,good.vnnlib,5", b"./good.onnx, good.vnnlib ,5.5"]
    (good / "list.csv").write_bytes(mark + end.join(lines) + end)
    listed = read_instances(good / "list.csv")
    assert [(i.index, i.onnx.name, i.vnnlib.name, i.timeout) for i in listed] == [
        (0, "good.onnx", "good.vnnlib", 5.0),
        (1, "good.onnx", "good.vnnlib", 5.5),
    ]


def test_bench_lists_name_several_networks(krelax: Run, good: Path) -> None:
    """Each by the name that the question has for it."""
    declared = "".join(
        f"(declare-network {name} (declare-input X{name} float32 [1,2]) (declare-output Y{name} float32 [1,2]))"
        for name in "fg"
    )
    bounds = "".join(
        f"(assert (<= 0 X{name}[0,{i}]))(assert (<= X{name}[0,{i}] 0.01))" for name in "fg" for i in (0, 1)
    )
    same = "(assert (== Xf[0,0] Xg[0,0]))(assert (== Xf[0,1] Xg[0,1]))"
    write(good / "two.vnnlib", f"(vnnlib-version <2.0>){declared}{bounds}{same}(assert (>= Yf[0,0] (+ Yg[0,0] 1.5)))")
    write(good / "list.csv", "f=good.onnx;g=good.onnx,two.vnnlib,5,unsat\n")
    ran = krelax("bench", "list.csv", "--jsonl", "run.jsonl")
    assert (ran.code, ran.err) == (0, "")
    assert "solved 1 of 1: 1 unsat" in ran.out
    assert json.loads((good / "run.jsonl").read_text().splitlines()[1])["onnx"] == "f=good.onnx;g=good.onnx"
    pairs = "[('f', 'good.onnx'), ('g', './good.onnx')]"  # as competitions write it
    write(good / "list.csv", f'"{pairs}",two.vnnlib,5,unsat\n')
    assert read_instances(good / "list.csv")[0].files == {"f": good / "good.onnx", "g": good / "good.onnx"}
    write(good / "list.csv", "f=good.onnx;f=good.onnx,two.vnnlib,5\n")
    ran = krelax("bench", "list.csv")
    assert (ran.code, ran.out) == (2, "")
    assert "line 1 has two networks of one name" in ran.err


@pytest.mark.parametrize("there", ["compressed", "plain"])
@pytest.mark.parametrize("named", ["compressed", "plain"])
def test_bench_reads_compressed_files_whatever_the_list_calls_them(
    krelax: Run, good: Path, there: str, named: str
) -> None:
    if there == "compressed":
        for name in ("good.onnx", "good.vnnlib"):
            (good / f"{name}.gz").write_bytes(gzip.compress((good / name).read_bytes()))
            (good / name).unlink()
    suffix = ".gz" if named == "compressed" else ""
    write(good / "list.csv", f"good.onnx{suffix},good.vnnlib{suffix},5\n" * 2)
    ran = krelax("bench", "list.csv", "--certificates", "proofs", "--check")
    assert ran.code == 0
    assert "solved 2 of 2: 2 unsat" in ran.out
    assert len(list((good / "proofs").iterdir())) == 2


def test_a_damaged_compressed_network_is_an_error_of_its_instance(krelax: Run, good: Path) -> None:
    (good / "bad.onnx.gz").write_bytes(gzip.compress((good / "good.onnx").read_bytes())[:-9])
    (good / "text.onnx.gz").write_bytes(gzip.compress(b"no network"))
    write(good / "list.csv", "bad.onnx.gz,good.vnnlib,5\ntext.onnx.gz,good.vnnlib,5\ngood.onnx,good.vnnlib,5\n")
    rows = krelax("bench", "list.csv").out.splitlines()
    assert [row.split()[1] for row in rows[:3]] == ["error", "error", "unsat"]
    assert "bad.onnx.gz: damaged gzip data" in rows[0]
    assert "text.onnx.gz: " in rows[1]


def test_bench_uses_its_own_timeout_or_the_lists(krelax: Run, good: Path) -> None:
    write(good / "list.csv", "onnx,vnnlib,timeout_s\ngood.onnx,good.vnnlib,1e-9\n")
    assert "timed-out  expected open" in krelax("bench", "list.csv").out
    assert "unsat      expected open" in krelax("bench", "list.csv", "--timeout", "9").out


@pytest.fixture
def few_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first of the bundled images, some of which are misclassified; the bundled networks."""
    with np.load(bundled("digits_test.npz")) as data:
        path = images(tmp_path / "digits_test.npz", data["images"][:24], data["labels"][:24])
    monkeypatch.setattr("krelax.cli.certify.bundled", lambda name: path if name.endswith(".npz") else bundled(name))
    return path


@pytest.mark.parametrize(
    ("command", "model"),
    [(["certify"], "digits_conv"), (["demo"], "digits_conv"), (["demo", "--dense"], "digits_dense")],
)
def test_bundled_network_and_images(krelax: Run, few_digits: Path, command: list[str], model: str) -> None:
    ran = krelax(*command)
    assert (ran.code, ran.err) == (0, "")
    title, *rows, seconds = ran.out.splitlines()
    assert title == f"{model}.onnx on digits_test.npz: 24 images, linf ball of radius {BUNDLED_EPS:g}, method auto"
    assert [row.split()[0] for row in rows] == ["holds", "violated", "unknown"]
    assert sum(int(row.split()[1]) for row in rows) == 24
    assert seconds.endswith("ms an image")


COLOURS = model([node("GlobalAveragePool", "x", "p"), node("Flatten", "p", "y")], None, [tensor("x", [1, 3, 4, 5])])


def test_images_of_another_layout_are_turned_or_refused(krelax: Run, good: Path) -> None:
    """Channels last for a network that takes them first: not reshaped, but turned if the option says so, or if the
    network classifies them as labelled then."""
    save(COLOURS, good / "net.onnx")
    pixels = np.random.default_rng(0).random((3, 3, 4, 5), dtype=np.float32)
    labels = pixels.mean((2, 3)).argmax(1)
    images(good / "first.npz", pixels, labels)
    images(good / "last.npz", pixels.transpose(0, 2, 3, 1), labels)
    command = ("certify", "net.onnx", "last.npz", "--eps", "0.001", "--method", "crown")
    images(good / "wrong.npz", pixels.transpose(0, 2, 3, 1), (labels + 1) % 3)
    for options in ((*command[:3], "--layout", "nchw"), ("certify", "net.onnx", "wrong.npz")):
        ran = krelax(*options, *command[3:])
        assert (ran.code, ran.out) == (2, "")
        assert "[4, 5, 3] do not fit the network's input [1, 3, 4, 5]" in ran.err
    assert "--layout nchw or nhwc" in ran.err
    found = krelax(*command, "--jsonl", "found.jsonl")
    assert found.code == 0
    assert "layout nhwc: the network classifies 3 of 3 items as labelled" in found.err
    right = krelax("certify", "net.onnx", "first.npz", *command[3:], "--jsonl", "first.jsonl")
    turned = krelax(*command, "--layout", "nhwc", "--jsonl", "last.jsonl")
    assert right.code == turned.code == 0
    first, last = (read_records(good / name) for name in ("first.jsonl", "last.jsonl"))
    assert [r["verdict"] for r in first[1:]] == [r["verdict"] for r in last[1:]]
    assert [r["margin"] for r in first[1:]] == [r["margin"] for r in last[1:]]
    assert ("layout" in first[0], last[0]["layout"]) == (False, "nhwc")
    assert read_records(good / "found.jsonl")[0] == last[0]
    # those that fit both ways are not guessed at
    images(good / "cube.npz", np.zeros((1, 3, 3, 3), np.float32), [0])
    save(model(COLOURS.graph.node, None, [tensor("x", [1, 3, 3, 3])]), good / "cube.onnx")
    ran = krelax("certify", "cube.onnx", "cube.npz", "--eps", "0.1", "--layout", "nhwc")
    assert ran.code == 2
    assert "in both layouts" in ran.err


def test_a_radius_is_the_decimal_that_is_written(krelax: Run, good: Path) -> None:
    """Two radii that are one float are two questions."""
    command = ("certify", "good.onnx", "good.npz", "--range", "0", "--method", "crown", "--jsonl", "run.jsonl")
    assert krelax(*command, "--eps", "0.1").code == 0
    assert read_records(good / "run.jsonl")[0].items() >= {"eps": 0.1, "clip": [0.0, 1.0]}.items()
    ran = krelax(*command, "--eps", "0.1000000000000000000001", "--resume")
    assert ran.code == 2
    assert "eps_exact" in ran.err
    assert krelax(*command, "--eps", "1e-1", "--resume").code == 0


def test_certify_range(krelax: Run, good: Path) -> None:
    for selection, count in {"1:": 2, ":2": 2, "0:3": 3, "2": 1, ":": 3, "1:99": 2}.items():
        ran = krelax("certify", "good.onnx", "good.npz", "--eps", "0.1", "--range", selection)
        counted = "1 image," if count == 1 else f"{count} images,"
        assert (ran.code, f": {counted}" in ran.out) == (0, True)


NUMBER, MAYBE = (int, float), (int, float, type(None))
RESULT = {
    "kind": str,
    "run": str,
    "index": int,
    "label": int,
    "predicted": int,
    "verdict": str,
    "reason": str,
    "margin": MAYBE,
    "seconds": NUMBER,
    "stages": list,
}
CERTIFY_HEADER = {
    "kind": str,
    "schema": int,
    "krelax": str,
    "model": str,
    "images": str,
    "eps": NUMBER,
    "norm": str,
    "clip": (list, type(None)),
    "method": str,
    "timeout": MAYBE,
    "device": str,
}
BENCH_HEADER = {
    "kind": str,
    "schema": int,
    "krelax": str,
    "instances": str,
    "timeout": MAYBE,
    "method": str,
    "device": str,
    "files": str,
}
BENCH_RESULT = {
    "kind": str,
    "run": str,
    "index": int,
    "onnx": str,
    "vnnlib": str,
    "expected": str,
    "answer": str,
    "reason": str,
    "seconds": NUMBER,
    "cpu": NUMBER,
}


def check_schema(record: dict[str, Any], schema: dict[str, Any]) -> None:
    assert set(record) == set(schema)
    for key, kind in schema.items():
        assert isinstance(record[key], kind), key
        assert not isinstance(record[key], bool)


def read_records(path: Path) -> list[dict[str, Any]]:
    content = path.read_text(encoding="utf-8")
    assert content.endswith("\n")
    return [json.loads(line, parse_constant=pytest.fail) for line in content.splitlines()]


@pytest.mark.parametrize(("norm", "eps", "clip"), [("linf", 0.1, "0:1"), ("l2", 0.5, "none"), ("l1", 2.0, "-1:2")])
def test_records_of_certify(krelax: Run, few_digits: Path, norm: str, eps: float, clip: str) -> None:
    """Every key has its type, every counterexample its class, as ONNX Runtime sees it."""
    path, model = few_digits.with_name("results.jsonl"), bundled("digits_dense.onnx")
    options = ["--eps", eps, "--norm", norm, "--clip", clip, "--timeout", 2, "--method", "crown"]
    ran = krelax("certify", model, few_digits, *options, "--jsonl", path)
    assert (ran.code, ran.err) == (0, "")
    header, *records = read_records(path)
    check_schema(header, CERTIFY_HEADER)
    assert {key: header[key] for key in ("kind", "eps", "norm", "timeout")} == {
        "kind": "run",
        "eps": eps,
        "norm": norm,
        "timeout": 2.0,
    }
    run = session(model)
    with np.load(few_digits) as data:
        pixels, labels = (data["images"] / np.float32(255)).astype(np.float32), data["labels"]
    for record in records:
        violated = record["verdict"] == "violated"
        check_schema(record, RESULT | ({"counterexample": dict} if violated else {}))
        assert record["verdict"] in {"holds", "violated", "unknown"}
        index = record["index"]
        assert record["label"] == labels[index]
        assert record["predicted"] == run(pixels[index : index + 1]).argmax()
        if violated:
            found = record["counterexample"]
            x = np.array(found["x"], np.float32).reshape(1, 1, 8, 8)
            scores = run(x).flatten()
            assert found["y"] == scores.astype(float).tolist()
            assert np.delete(scores, labels[index]).max() >= scores[labels[index]]
        if record["verdict"] == "holds":
            assert record["margin"] > 0
            assert record["predicted"] == record["label"]
        stages = record["stages"]
        expected = {"holds": ["crown"], "unknown": ["crown", "attack"]}.get(record["verdict"])
        names = [stage["name"] for stage in stages]
        assert names == (expected or ([] if record["reason"] == "misclassified" else ["crown", "attack"]))
        assert [s["margin"] for s in stages if s["name"] == "crown"] == [record["margin"]] * bool(stages)
        assert sum(stage["seconds"] for stage in stages) == pytest.approx(record["seconds"], abs=2e-4)
    counts = {row.split()[0]: int(row.split()[1]) for row in ran.out.splitlines()[1:4]}
    for verdict, count in counts.items():
        assert count == sum(r["verdict"] == verdict for r in records)


def test_records_of_bench(krelax: Run, good: Path) -> None:
    write(good / "sat.vnnlib", specification([0, 0], [1, 1], "(assert (<= Y_0 100))"))
    lines = ["good.onnx,good.vnnlib,5,unsat", "good.onnx,sat.vnnlib,5,sat", "none.onnx,sat.vnnlib,5,", ""]
    write(good / "list.csv", "\n".join(["onnx,vnnlib,timeout_s,expected", *lines]))
    assert krelax("bench", "list.csv", "--jsonl", "results.jsonl").code == 3
    header, *records = read_records(good / "results.jsonl")
    check_schema(header, BENCH_HEADER)
    assert [r["answer"] for r in records] == ["unsat", "sat", "error"]
    assert [r["expected"] for r in records] == ["unsat", "sat", "open"]
    for record in records:
        check_schema(record, BENCH_RESULT | ({"counterexample": dict} if record["answer"] == "sat" else {}))


def test_bounds_and_compare(krelax: Run, few_digits: Path, tmp_path: Path) -> None:
    arguments = [bundled("digits_dense.onnx"), few_digits, "--index", "1", "--eps", "0.03"]
    ran = krelax("bounds", *arguments, "--method", "crown")
    assert (ran.code, ran.err) == (0, "")
    margins = [float(line.split()[-1]) for line in ran.out.splitlines() if line.startswith("y[")]
    assert len(margins) == 9
    assert f"crown: worst margin {min(margins):.6g}, holds" in ran.out
    save(random_dense([64, 8, 10]), tmp_path / "small.onnx")
    arguments = [tmp_path / "small.onnx", *arguments[1:]]
    ran = krelax("bounds", *arguments, "--method", "crown")
    margins = [float(line.split()[-1]) for line in ran.out.splitlines() if line.startswith("y[")]
    ran = krelax("compare", *arguments)
    assert (ran.code, ran.err) == (0, "")
    rows = [line.split() for line in ran.out.splitlines()[2:]]
    assert [row[0] for row in rows] == list(METHODS)
    assert all((row[2] == "holds") == (float(row[1]) > 0) for row in rows)
    assert next(float(row[1]) for row in rows if row[0] == "crown") == min(margins)


def test_supports(krelax: Run) -> None:
    operators = krelax("supports", "--onnx-operators").out.split()
    assert set(operators) == {*READERS, *FOLDS, "If"}
    assert operators == sorted(operators)
    assert krelax("supports", "--onnx-opset-versions").out.split() == ["8", "21"]
    assert krelax("supports", "--vnnlib-versions").out.split() == ["1.0", "2.0"]
    assert krelax("supports", "--methods").out.split() == ["auto", *METHODS]
    assert krelax("supports", "--hidden-node-theories").out.split() == ["NH", "H"]
    assert krelax("supports", "--multiple-input-output-theories").out.split() == ["SIO", "MIO"]
    assert krelax("supports", "--multiple-network-theories").out.split() == ["SNET", "MNET", "MENET", "MINET"]
    assert krelax("supports", "--multiple-node-comparison-theories").out.split() == ["SNC", "MNC"]
    assert krelax("supports", "--arithmetic-complexity-theories").out.split() == ["BND", "OUTC", "LIN", "POLY"]
    types = krelax("supports", "--onnx-element-types").out.split()
    assert types[:5] == ["real", "float32", "float64", "float16", "bfloat16"]
    assert {"bool", "int8", "int64", "uint16"} < set(types)
    assert krelax("supports", "--optimised-disjunctive-reasoning").out.split() == ["false"]
    assert krelax("supports", "--serialise-assignments").out.split() == ["true"]
    assert krelax("supports", "--unsat-proofs").out.split() == ["false"]
    page = krelax("supports").out
    assert all(
        word in page for word in ("DepthToSpace", "LinearClassifier", "upsample_bilinear2d", "alpha", "--output")
    )


COMMANDS = ("certify", "demo", "verify", "bench", "bounds", "compare", "supports")


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help(krelax: Run, command: str | None, option: str) -> None:
    ran = krelax(*([command] if command else []), option)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Usage: krelax")
    assert max(map(len, ran.out.splitlines())) <= 110
    if command is None:
        assert all(f"  {name}" in ran.out for name in COMMANDS)


def test_name_and_version(krelax: Run) -> None:
    assert krelax("--name").out == "krelax\n"
    assert krelax("--version").out == f"{__version__}\n"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=True)


def test_the_version_is_known_at_once() -> None:
    """Few modules are read for it, and those are what takes time."""
    assert python("-m", "krelax", "--version").stdout == f"{__version__}\n"
    counted = "import atexit, sys; before = len(sys.modules); atexit.register(lambda: print(len(sys.modules) - before))"
    code = f"{counted}; from krelax.cli import main"
    version, modules = python("-c", f"{code}; main(['--version'])").stdout.split()
    assert version == __version__
    assert int(modules) < 120


@pytest.mark.parametrize("arguments", [["--version"], ["--name"], ["--help"], *([name, "--help"] for name in COMMANDS)])
def test_heavy_libraries_wait_until_they_are_needed(arguments: list[str]) -> None:
    code = f"""
import sys
from krelax.cli import main
try:
    main({arguments})
except SystemExit:
    print(sorted({{"torch", "onnx", "onnxruntime", "numpy", "rich"}} & set(sys.modules)))
"""
    assert python("-c", code).stdout.splitlines()[-1] == "[]"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, krelax; print('torch' in sys.modules); krelax.load_onnx; print('torch' in sys.modules)"
    assert python("-c", code).stdout.split() == ["False", "True"]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_for_terminals_only(
    krelax: Run, good: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """And on stderr, so that stdout is the same in both cases."""
    monkeypatch.setattr("krelax.run.progress._PATIENCE", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    reader, writer = os.openpty() if terminal else os.pipe()
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        ran = krelax("certify", "good.onnx", "good.npz", "--eps", "0.1")
        stream.flush()
        shown = os.read(reader, 65536) if terminal else b""
    monkeypatch.undo()
    if not terminal:
        shown = os.read(reader, 65536)
    os.close(reader)
    assert (ran.code, ran.out.count("\n")) == (0, 5)
    assert (b"certifying" in shown) is terminal
    assert terminal or shown == b""


def test_certificates_are_written_and_accepted(krelax: Run, tmp_path: Path) -> None:
    proofs, journal = tmp_path / "proofs", tmp_path / "run.jsonl"
    run = krelax("certify", "--range", "0:3", "--certificates", proofs, "--check", "--jsonl", journal)
    assert run.code == 0
    assert "checked as they were written" in run.out
    records = [json.loads(line) for line in journal.read_text().splitlines()][1:]
    assert {r["certificate"]["file"] for r in records} == {f"image-{i}.zip" for i in range(3)}
    assert all(r["certificate"]["checked"] == pytest.approx(r["margin"], rel=1e-4) for r in records)
    assert krelax("check", proofs / "image-2.zip", "--network", bundled("digits_conv.onnx")).code == 0
    assert krelax("check", proofs / "image-2.zip", "--network", bundled("digits_dense.onnx")).code == 1


def test_certificates_of_specifications(krelax: Run, good: Path) -> None:
    proof = ("verify", "good.vnnlib", "--network", "good.onnx", "--certificate", "one.zip", "--check")
    assert krelax(*proof).out == "unsat\n"
    assert krelax("check", "one.zip", "--network", "good.onnx", "--spec", "good.vnnlib").code == 0
    assert krelax("bench", "good.csv", "--certificates", "all", "--check").code == 0
    assert (good / "all" / "instance-0.zip").is_file()


def test_float32_is_judged_by_the_checker(krelax: Run, tmp_path: Path) -> None:
    run = krelax("certify", "--range", "0:2", "--certificates", tmp_path, "--semantics", "float32")
    assert run.code == 0
    assert "holds         2" in run.out
    shown = krelax("check", tmp_path / "image-0.zip", "--network", bundled("digits_conv.onnx"))
    assert "semantics float32" in shown.out


def test_functions_are_executed_as_precisely_as_somebody_says(
    krelax: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nodes = [node("MatMul", "x", "w", "z"), node("Sigmoid", "z", "y")]
    save(model(nodes, {"w": np.eye(2, dtype=np.float32)}, [tensor("x", [1, 2])]), tmp_path / "net.onnx")
    spec = specification([0.5, 0], [1, 0.25], "(assert (<= Y_0 Y_1))")
    (tmp_path / "p.vnnlib").write_text(spec, encoding="utf-8")
    proof = ("verify", "p.vnnlib", "--network", "net.onnx", "--certificate", "proof.zip", "--semantics")
    assert krelax(*proof, "float32:4").out == "unsat\n"
    shown = krelax("check", "proof.zip", "--network", "net.onnx", "--spec", "p.vnnlib")
    assert "within 4 units in the last place" in shown.out
    assert "semantics float32:4," in shown.out
    nothing = krelax(*proof, "float32")
    assert nothing.out == "unknown\n"
    assert "float32:N" in nothing.err
    assert krelax(*proof, "float32:1000000", "--method", "crown").out == "unknown\n"


@pytest.mark.parametrize("wrong", ["float64", "float32:", "float32:0", "float32:1.5", "float32:99999999", "real:4"])
def test_semantics_that_nothing_has(krelax: Run, tmp_path: Path, wrong: str) -> None:
    run = krelax("certify", "--range", "0:1", "--certificates", tmp_path, "--semantics", wrong)
    assert run.code == 2
    assert "give real, float32, or float32:N" in run.err


@pytest.mark.parametrize("option", [("--check",), ("--semantics", "float32")])
def test_checks_need_certificates(krelax: Run, option: tuple[str, ...]) -> None:
    run = krelax("certify", "--range", "0:1", *option)
    assert run.code == 2
    assert "--certificates" in run.err


def test_refused_certificates_make_answers_unknown(
    krelax: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> list[float]:
        raise Rejected("a reason")

    monkeypatch.setattr("krelax.run.certificates.check", refuse)
    run = krelax("certify", "--range", "0", "--certificates", tmp_path, "--check")
    assert "unknown       1" in run.out
    assert "image 0: certificate not accepted: a reason" in run.err
