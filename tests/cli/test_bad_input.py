"""Whatever a user gets wrong is answered by exit code 2 and one line on stderr that says what, and by no verdict."""

from __future__ import annotations

import gzip
import json
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tests.cli.conftest import Ran
from tests.marks import at_night_after
from tests.run.files import dense, images, model, node, random_dense, save, specification, tensor

Run = Callable[..., Ran]

# A warning would be a second line on stderr. Old releases of matplotlib warn of what they use themselves.
pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib")]


def check_refusal(ran: Ran, *words: str) -> None:
    """Exit code 2, nothing on stdout, and on stderr one line with the words in it."""
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith("\n")
    (line,) = ran.err.splitlines()
    assert line.startswith("krelax: ")
    assert "Traceback" not in line
    for word in words:
        assert word in line


GOOD = random_dense([2, 4, 2]).SerializeToString()
WEIGHT = np.ones((2, 2), np.float32)
IMAGE = [tensor("x", [1, 1, 4, 4])]


def gemm(weight: Any, **attributes: Any) -> onnx.ModelProto:
    return model([node("Gemm", "x", "w", "y", **attributes)], {"w": weight})


def one(op: str, *names: str, constants: dict[str, Any] | None = None, **attributes: Any) -> onnx.ModelProto:
    """A single operator on four inputs."""
    return model([node(op, *names, "y", **attributes)], constants, [tensor("x", [1, 4])])


def convolution(weight: Any, **attributes: Any) -> onnx.ModelProto:
    return model([node("Conv", "x", "k", "y", **attributes)], {"k": np.asarray(weight, np.float32)}, IMAGE)


def unfinished(kind: str) -> onnx.ModelProto:
    """A model whose graph is not what it says."""
    proto = gemm(WEIGHT)
    if kind == "no nodes":
        del proto.graph.node[:]
    elif kind == "no outputs":
        del proto.graph.output[:]
    elif kind == "no constant":
        del proto.graph.initializer[:]
    elif kind == "short constant":
        proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-3]
    elif kind == "no operator set":
        del proto.opset_import[:]
    elif kind == "no operand":
        del proto.graph.node[0].input[:]
    elif kind == "no result":
        del proto.graph.node[0].output[:]
    elif kind == "cycle":
        proto.graph.node[0].input[0] = "y"
    elif kind == "no shape":
        proto.graph.input[0].type.tensor_type.ClearField("shape")
    return proto


def constant_condition() -> onnx.ModelProto:
    """Control flow over constants that never ends if it is evaluated."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [tensor("i", [], TensorProto.INT64), tensor("go", [], TensorProto.BOOL), tensor("v", [1])],
        [tensor("again", [], TensorProto.BOOL), tensor("w", [1])],
    )
    constants = {"n": np.int64(2**62), "true": np.bool_(True), "one": np.ones(1, np.float32)}
    return model([node("Loop", "n", "true", "one", "c", body=body), node("Add", "x", "c", "y")], constants)


Content = bytes | str | onnx.ModelProto
NETWORKS: dict[str, tuple[Content, str]] = {
    "empty": (b"", "no operators"),
    "first byte": (GOOD[:1], "not an ONNX file"),
    "a quarter": (GOOD[: len(GOOD) // 4], "ONNX"),
    "a half": (GOOD[: len(GOOD) // 2], "not an ONNX file"),
    "all but the last byte": (GOOD[:-1], "not an ONNX file"),
    "text": ("this is no network\n", "not an ONNX file"),
    "zeros": (bytes(1000), "not an ONNX file"),
    "gzip of text": (gzip.compress(b"this is no network\n"), "not an ONNX file"),
    "truncated gzip": (gzip.compress(GOOD)[:-9], "gzip"),
    "unsupported operator": (model([node("Det", "x", "y")]), "Det is not supported"),
    "unknown operator": (model([node("Frobnicate", "x", "y")]), "Frobnicate is not supported"),
    "operator of another domain": (model([node("Relu", "x", "y", domain="com.example")]), "Relu is not supported"),
    "constant of another domain": (
        model([node("Thing", "w", "c", domain="com.example"), node("Add", "x", "c", "y")], {"w": WEIGHT}),
        "com.example.Thing is not supported",
    ),
    "two inputs": (model([node("Add", "x", "u", "y")], None, [tensor("x", [1, 2]), tensor("u", [1, 2])]), "2 inputs"),
    "no inputs": (model([node("Relu", "c", "y")], {"c": WEIGHT}, []), "0 inputs"),
    "many axes": (one("Unsqueeze", "x", "a", constants={"a": np.arange(70)}), "72 axes"),
    "many axes for a while": (
        model(
            [node("Reshape", "x", "s", "z"), node("Relu", "z", "a"), node("Flatten", "a", "y", axis=0)],
            {"s": np.array([1] * 40 + [2])},
        ),
        "41 axes",
    ),
    "no outputs": (unfinished("no outputs"), "no output"),
    "no nodes": (unfinished("no nodes"), "no operators"),
    "no constant": (unfinished("no constant"), "'w'"),
    "short constant": (unfinished("short constant"), "constant 'w'"),
    "no operator set": (unfinished("no operator set"), "0 versions of the standard operator set"),
    "no operand": (unfinished("no operand"), "Gemm"),
    "no result": (unfinished("no result"), "Gemm"),
    "cycle": (unfinished("cycle"), "not computed by any earlier node"),
    "no shape": (unfinished("no shape"), "no shape"),
    "integer input": (model([node("Relu", "x", "y")], None, [tensor("x", [2], TensorProto.INT64)]), "float"),
    "text input": (model([node("Relu", "x", "y")], None, [tensor("x", [2], TensorProto.STRING)]), "float"),
    "huge input": (model([node("Relu", "x", "y")], None, [tensor("x", [10**6, 10**6])]), "impossible shape"),
    "negative input": (model([node("Relu", "x", "y")], None, [tensor("x", [-2, 2])]), "impossible shape"),
    "constant output": (model([node("Relu", "c", "y")], {"c": WEIGHT}), "does not depend on the input"),
    "NaN weight": (gemm(np.array([[1, np.nan], [0, 1]], np.float32)), "NaN"),
    "infinite weight": (gemm(np.array([[1, np.inf], [0, 1]], np.float32)), "infinity"),
    "infinite Constant": (
        model([node("Constant", "c", value_float=float("inf")), node("Add", "x", "c", "y")]),
        "infinity",
    ),
    "infinite folded constant": (
        model([node("Log", "z", "c"), node("Add", "x", "c", "y")], {"z": np.zeros(2, np.float32)}),
        "a constant overflows float64, divides by zero or is not a number",
    ),
    "endless constant": (constant_condition(), "Loop of constants is not evaluated"),
    "huge constant": (
        model(
            [node("ConstantOfShape", "s", "c"), node("ReduceSum", "c", "d"), node("Add", "x", "d", "y")],
            {"s": np.array([2**20, 2**20])},
        ),
        "constant of shape",
    ),
    "division by zero": (model([node("Div", "x", "c", "y")], {"c": np.zeros(2, np.float32)}), "division by zero"),
    "integer division by zero": (
        model([node("Div", "a", "b", "c"), node("Reshape", "x", "c", "y")], {"a": np.int64(1), "b": np.int64(0)}),
        "c",
    ),
    "Gemm of other sizes": (gemm(np.ones((3, 2), np.float32)), "product of shapes"),
    "Gemm with a cube": (gemm(np.ones((2, 2, 2), np.float32)), "two matrices"),
    "Gemm with a wrong bias": (
        model([node("Gemm", "x", "w", "b", "y")], {"w": WEIGHT, "b": np.ones(7, np.float32)}),
        "Gemm",
    ),
    "MatMul of other sizes": (
        one("MatMul", "x", "w", constants={"w": np.ones((3, 3), np.float32)}),
        "product of shapes",
    ),
    "Conv of other channels": (convolution(np.ones((1, 2, 3, 3))), "channels"),
    "Conv of other rank": (convolution(np.ones((1, 1, 3))), "rank"),
    "Conv larger than the image": (convolution(np.ones((1, 1, 9, 9))), "Conv"),
    "Conv without steps": (convolution(np.ones((1, 1, 2, 2)), strides=[0, 1]), "strides"),
    "Conv with a short pad": (convolution(np.ones((1, 1, 2, 2)), pads=[1, 1]), "pads"),
    "Conv in no groups": (convolution(np.ones((1, 1, 2, 2)), group=0), "Conv"),
    "MaxPool without kernel": (model([node("MaxPool", "x", "y")], None, IMAGE), "MaxPool"),
    "Reshape to another size": (one("Reshape", "x", "s", constants={"s": np.array([3, 2])}), "cannot reshape"),
    "Reshape to two unknowns": (one("Reshape", "x", "s", constants={"s": np.array([-1, -1])}), "cannot reshape"),
    "Concat of other sizes": (one("Concat", "x", "c", axis=0, constants={"c": np.ones((1, 3), np.float32)}), "Concat"),
    "Concat without axis": (one("Concat", "x", "x", axis=5), "Concat"),
    "Split into other sizes": (
        model([helper.make_node("Split", ["x", "s"], ["y", "z"])], {"s": np.array([1, 4])}, [tensor("x", [4, 1])]),
        "parts [1, 4]",
    ),
    "Add of other sizes": (one("Add", "x", "c", constants={"c": np.ones(3, np.float32)}), "broadcast"),
    "Gather beyond the end": (
        one("Gather", "x", "i", axis=1, constants={"i": np.array([4])}),
        "axis 1, which has size 4",
    ),
    "Slice of nothing": (one("Slice", "x", "i", "i", "i", constants={"i": np.array([1])}), "Slice"),
    "Slice without steps": (
        one("Slice", "x", "i", "e", "i", "z", constants={"i": np.array([1]), "e": np.array([3]), "z": np.array([0])}),
        "Slice",
    ),
    "Transpose of other rank": (one("Transpose", "x", perm=[0, 2, 1]), "perm [0, 2, 1]"),
    "random answers": (
        model(
            [node("Dropout", "x", "r", "t", "y")],
            {"r": np.float32(0.5), "t": np.bool_(True)},
            [tensor("x", [1, 64])],
        ),
        "dropout in training mode",
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(krelax: Run, good: Path, name: str) -> None:
    content, word = NETWORKS[name]
    content = content.SerializeToString() if isinstance(content, onnx.ModelProto) else content
    (good / "bad.onnx").write_bytes(content.encode() if isinstance(content, str) else content)
    began = time.process_time()
    check_refusal(krelax("verify", "good.vnnlib", "--network", "bad.onnx"), "bad.onnx", word)
    assert time.process_time() - began < 5  # CPU seconds: none takes half a second


@pytest.mark.parametrize("command", ["certify", "bounds", "compare"])
def test_every_command_refuses_a_bad_network(krelax: Run, good: Path, command: str) -> None:
    (good / "bad.onnx").write_bytes(GOOD[:100])
    index = [] if command == "certify" else ["--index", 0]
    check_refusal(krelax(command, "bad.onnx", "good.npz", "--eps", "0.1", *index), "bad.onnx", "ONNX")


@pytest.mark.parametrize(("path", "word"), [("missing.onnx", "no such file"), (".", "is a folder"), ("", "is empty")])
def test_networks_that_are_no_files(krelax: Run, good: Path, path: str, word: str) -> None:
    check_refusal(krelax("certify", path, "good.npz", "--eps", "0.1"), word)


def test_weights_in_another_file_that_is_not_there(krelax: Run, good: Path) -> None:
    big = dense((np.ones((2, 2)), np.ones(2)))
    onnx.save(big, good / "bad.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (good / "weights.bin").unlink()
    check_refusal(krelax("certify", "bad.onnx", "good.npz", "--eps", "0.1"), "bad.onnx", "weights.bin")


@pytest.mark.parametrize("seeds", at_night_after(1, [range(50), range(50, 500)]))
def test_flipped_bits(krelax: Run, good: Path, seeds: range) -> None:
    """A damaged network is refused, or it still is a network; nothing else happens, and soon."""
    refused = 0
    for seed in seeds:
        generator, content = random.Random(seed), bytearray(GOOD)
        for _ in range(1 + seed % 3):
            content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        (good / "bad.onnx").write_bytes(content)
        ran = krelax("verify", "good.vnnlib", "--network", "bad.onnx", "--timeout", "1")
        if ran.code == 2:
            check_refusal(ran)
            refused += 1
        else:
            assert ran.code in {0, 10, 20}
    assert 0 < refused < len(seeds)


def in_box(unsafe: str) -> str:
    return specification([0, 0], [1, 1], unsafe)


UNSAFE = "(assert (<= Y_0 0))"
SPECIFICATIONS: dict[str, tuple[Content, str]] = {
    "empty": (b"", "no commands"),
    "junk": (bytes(range(256)) * 4, "UTF-8"),
    "network": (GOOD, "bad.vnnlib"),
    "truncated gzip": (gzip.compress(in_box(UNSAFE).encode())[:-9], "gzip"),
    "undeclared variable": (in_box("(assert (<= Y_7 0))"), "'Y_7'"),
    "no declarations": (UNSAFE, "'Y_0'"),
    "huge exponent": (in_box("(assert (<= Y_0 1e999999999999))"), "exponent"),
    "shape of another network": (
        "(vnnlib-version <2.0>)(declare-network N (declare-input X float32 [2,2]) (declare-output Y float32 [2]))",
        "about 4 inputs",
    ),
    "unclosed": (in_box(UNSAFE)[:-3], "never closed"),
    "other number of inputs": (specification([0], [1], UNSAFE), "1 inputs"),
    "other number of outputs": (specification([0, 0], [1, 1], UNSAFE, outputs=3), "3 outputs"),
}


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_specifications(krelax: Run, good: Path, name: str) -> None:
    content, word = SPECIFICATIONS[name]
    assert not isinstance(content, onnx.ModelProto)
    (good / "bad.vnnlib").write_bytes(content.encode() if isinstance(content, str) else content)
    ran = krelax("verify", "bad.vnnlib", "--network", "good.onnx")
    check_refusal(ran, word, "bad.vnnlib")


@pytest.mark.parametrize(("path", "word"), [("missing.vnnlib", "no such file"), (".", "is a folder")])
def test_specifications_that_are_no_files(krelax: Run, good: Path, path: str, word: str) -> None:
    check_refusal(krelax("verify", path, "--network", "good.onnx"), path, word)


PIXELS, LABELS = np.full((3, 2), 0.5, np.float32), np.array([0, 1, 0])


def arrays(**given: Any) -> Callable[[Path], None]:
    """A file of these arrays, and of images and labels that fit unless they are given."""
    together = {"images": PIXELS, "labels": LABELS} | given
    kept = {name: value for name, value in together.items() if value is not None}
    return lambda path: np.savez(path, **kept)


def damaged(path: Path) -> None:
    np.savez_compressed(path, images=np.random.default_rng(0).random((500, 2)), labels=np.zeros(500, int))
    content = bytearray(path.read_bytes())
    content[2000:2400] = bytes(400)
    path.write_bytes(content)


def cut(path: Path) -> None:
    images(path, PIXELS, LABELS)
    path.write_bytes(path.read_bytes()[:300])


def plain_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, PIXELS)


DATA: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("images"), "it is text"),
    "CSV": (lambda path: path.write_text("label,pixel\n1,0.5\n"), "perhaps CSV"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"images")), "unpack it"),
    "pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps([1])), "pickle"),
    "empty": (lambda path: path.write_bytes(b""), "not an .npz file"),
    "cut short": (cut, "not an .npz file"),
    "damaged": (damaged, "not an .npz file"),
    "one plain array": (plain_array, "not an .npz file"),
    "no images": (arrays(images=None), "'images' is missing"),
    "no labels": (arrays(labels=None), "'labels' is missing"),
    "pickled images": (arrays(images=np.array([{}, [], "x"], dtype=object)), "Python objects"),
    "pickled labels": (arrays(labels=np.array([1, "a", None], dtype=object)), "not an .npz file"),
    "whole numbers": (arrays(images=PIXELS.astype(np.int64)), "int64"),
    "text as images": (arrays(images=np.array(["a", "b", "c"])), "type"),
    "complex images": (arrays(images=PIXELS.astype(complex)), "complex128"),
    "fractional labels": (arrays(labels=LABELS + 0.5), "`labels`"),
    "a table of labels": (arrays(labels=np.stack([LABELS, LABELS], 1)), "not one-hot"),
    "one number": (arrays(images=np.float32(1)), "`images`"),
    "other size": (arrays(images=np.ones((3, 5), np.float32)), "do not fit"),
    "zero images": (arrays(images=PIXELS[:0], labels=LABELS[:0]), "no images"),
    "other lengths": (arrays(labels=LABELS[:2]), "3 images but 2 labels"),
    "label too large": (arrays(labels=[0, 2, 0]), "label 2 of image 1"),
    "negative label": (arrays(labels=[0, 1, -1]), "label -1 of image 2"),
    "NaN": (arrays(images=np.where(np.eye(3, 2) > 0, np.nan, PIXELS)), "NaN"),
    "infinity": (arrays(images=PIXELS * np.float32(np.inf)), "infinity"),
    "beyond float32": (arrays(images=PIXELS.astype(float) * 1e300), "float32"),
    "outside the range": (arrays(images=PIXELS + 1), "[0.0, 1.0]"),
}


@pytest.mark.parametrize("name", DATA)
def test_images(krelax: Run, good: Path, name: str) -> None:
    write, word = DATA[name]
    write(good / "bad.npz")
    ran = krelax("certify", "good.onnx", "bad.npz", "--eps", "0.1")
    check_refusal(ran, word, *(["bad.npz"] if name != "outside the range" else []))
    assert "allow_pickle" not in ran.err


@pytest.mark.parametrize(("path", "word"), [("missing.npz", "a folder of pictures"), (".", "no PNG or JPEG files")])
def test_images_that_are_not_there(krelax: Run, good: Path, path: str, word: str) -> None:
    check_refusal(krelax("certify", "good.onnx", path, "--eps", "0.1"), path, word)


def test_networks_that_classify_nothing(krelax: Run, good: Path) -> None:
    save(random_dense([2, 1]), good / "one.onnx")
    images(good / "one.npz", PIXELS, [0, 0, 0])
    check_refusal(krelax("certify", "one.onnx", "one.npz", "--eps", "0.1"), "class scores")


CERTIFY, VERIFY, IMAGE_0 = "certify good.onnx good.npz", "verify good.vnnlib", "good.onnx good.npz --index 0"
OPTIONS = {
    f"{CERTIFY}": "--eps",
    f"{CERTIFY} --eps -0.1": "--eps",
    f"{CERTIFY} --eps nan": "--eps",
    f"{CERTIFY} --eps inf": "--eps",
    f"{CERTIFY} --eps many": "--eps",
    f"{CERTIFY} --eps": "--eps",
    f"{CERTIFY} --eps 0.1 --method guess": "'guess'",
    f"{CERTIFY} --eps 0.1 --norm l7": "--norm",
    f"{CERTIFY} --eps 0.1 --clip 1:0": "--clip",
    f"{CERTIFY} --eps 0.1 --clip 0": "--clip",
    f"{CERTIFY} --eps 0.1 --clip 0:nan": "--clip",
    f"{CERTIFY} --eps 0.1 --clip low:high": "--clip",
    f"{CERTIFY} --eps 0.1 --clip 0.6:1": "range",
    f"{CERTIFY} --eps 0.1 --range a:b": "--range",
    f"{CERTIFY} --eps 0.1 --range 1:2:3": "--range",
    f"{CERTIFY} --eps 0.1 --range -1:2": "--range",
    f"{CERTIFY} --eps 0.1 --range 2:2": "--range",
    f"{CERTIFY} --eps 0.1 --range 9": "--range",
    f"{CERTIFY} --eps 0.1 --timeout 0": "--timeout",
    f"{CERTIFY} --eps 0.1 --timeout -1": "--timeout",
    f"{CERTIFY} --eps 0.1 --timeout nan": "--timeout",
    f"{CERTIFY} --eps 0.1 --timeout soon": "--timeout",
    f"{CERTIFY} --eps 0.1 --device tpu": "--device",
    f"{CERTIFY} --eps 0.1 --jsonl none/results.jsonl": "none/results.jsonl",
    f"{CERTIFY} --eps 0.1 --jsonl .": "regular file",
    f"{CERTIFY} --eps 0.1 --jsonl good.csv": "already exists",
    "radius good.onnx good.npz --figure curve.gif": "curve.gif: figures",
    "radius good.onnx good.npz --figure none/curve.svg": "a folder that exists",
    f"{CERTIFY} --eps 0.1 --labels .": "is a folder",
    f"{CERTIFY} --eps 0.1 --hints missing.npz": "`points`",
    f"{CERTIFY} --eps 0.1 --hints good.csv": "save points",
    "check . --network good.onnx": "is a folder",
    "check missing.zip --network good.onnx": "certificate",
    "report . --network good.onnx --images good.npz --output page.html": "is a folder",
    f"{CERTIFY} --eps 0.1 --frobnicate": "--frobnicate",
    f"{CERTIFY} more --eps 0.1": "more",
    "certify good.onnx --eps 0.1": "images",
    f"bounds {IMAGE_0}": "--eps",
    f"bounds {IMAGE_0} --eps 0.1 --method auto": "'auto'",
    "bounds good.onnx good.npz --eps 0.1": "--index",
    "bounds good.onnx good.npz --eps 0.1 --index 3": "--index 3",
    "bounds good.onnx good.npz --eps 0.1 --index -1": "--index",
    "bounds good.onnx good.npz --eps 0.1 --index x": "--index",
    f"compare {IMAGE_0} --eps -1": "--eps",
    "compare good.onnx": "'IMAGES'",
    f"{VERIFY}": "--network",
    "verify": "'QUERY'",
    f"{VERIFY} --network": "--network",
    f"{VERIFY} --network good.onnx --network good.onnx": "given twice",
    f"{VERIFY} --network net=missing.onnx": "missing.onnx",
    f"{VERIFY} --network good.onnx --timeout 0": "--timeout",
    f"{VERIFY} --network good.onnx --method guess": "'guess'",
    f"{VERIFY} --network good.onnx --serialise-assignments good.csv": "good.csv",
    "bench": "'INSTANCES'",
    "bench missing.csv": "missing.csv",
    "bench .": "is a folder",
    "bench good.csv --timeout 0": "--timeout",
    "bench good.csv --method guess": "'guess'",
    "supports --everything": "--everything",
    "frobnicate": "frobnicate",
    "--frobnicate": "--frobnicate",
    "": "command",
}


@pytest.mark.parametrize("arguments", OPTIONS)
def test_options(krelax: Run, good: Path, arguments: str) -> None:
    check_refusal(krelax(*arguments.split()), OPTIONS[arguments])


def test_an_empty_path_is_not_the_current_folder(krelax: Run, good: Path) -> None:
    for option in ("--certificates", "--jsonl", "--report", "--hints", "--classes", "--eps-file"):
        check_refusal(krelax(*CERTIFY.split(), "--eps", "0.1", option, ""), option, "is empty")


def test_what_is_malformed_is_one_line_whatever_its_name_is(krelax: Run, good: Path) -> None:
    (good / "a\nb").write_bytes(b"none")
    ran = krelax("check", "a\nb", "--network", "good.onnx")
    assert (ran.code, ran.err.count("\n"), ran.err[:14]) == (2, 1, "malformed: a?b")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(
    "command",
    [f"{CERTIFY} --eps 0.1", f"{VERIFY} --network good.onnx", f"bounds {IMAGE_0} --eps 0.1", "bench good.csv"],
)
def test_no_cuda(krelax: Run, good: Path, command: str) -> None:
    check_refusal(krelax(*command.split(), "--device", "cuda"), "CUDA")


LISTS = {
    "empty": ("", "empty"),
    "only a header": ("onnx,vnnlib,timeout_s,expected\n", "empty"),
    "no column": ("onnx,timeout_s\ngood.onnx,5\n", "vnnlib"),
    "only the names of files": ("good.onnx,good.vnnlib\n" * 2, "line 1"),
    "too many values": ("good.onnx,good.vnnlib,5,sat,more\n", "line 1"),
    "a column twice": ("onnx,vnnlib,timeout_s,onnx\ngood.onnx,good.vnnlib,5,good.onnx\n", "onnx twice"),
    "another word for an answer": ("good.onnx,good.vnnlib,5,unsat\ngood.onnx,good.vnnlib,5,robust\n", "line 2"),
    "an open quote": ('good.onnx,"good.vnnlib,5\n', "comma-separated"),
    "short line": ("onnx,vnnlib,timeout_s,expected\ngood.onnx,good.vnnlib\n", "line 2"),
    "empty cell": ("onnx,vnnlib,timeout_s\ngood.onnx,good.vnnlib,5\n,good.vnnlib,5\n", "line 3"),
    "no number": ("onnx,vnnlib,timeout_s\ngood.onnx,good.vnnlib,soon\n", "'soon'"),
    "no time": ("onnx,vnnlib,timeout_s\ngood.onnx,good.vnnlib,0\n", "'0'"),
    "less than no time": ("onnx,vnnlib,timeout_s\ngood.onnx,good.vnnlib,-5\n", "'-5'"),
    "NaN": ("onnx,vnnlib,timeout_s\ngood.onnx,good.vnnlib,nan\n", "'nan'"),
    "network": (GOOD, "bad.csv"),
    "zero byte": ("good.onnx\0,good.vnnlib,5\n", "line 1"),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists(krelax: Run, good: Path, name: str) -> None:
    content, word = LISTS[name]
    (good / "bad.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    check_refusal(krelax("bench", "bad.csv"), "bad.csv", word)


def test_an_unreadable_instance_is_an_error_and_the_next_one_follows(krelax: Run, good: Path) -> None:
    names = ("missing.onnx", "good.vnnlib"), ("good.onnx", "missing.vnnlib"), (".", "good.vnnlib"), ("good.onnx", "..")
    long = ("x" * 300, "good.vnnlib"), ("good.onnx", "x" * 300), ("good.onnx", "good.vnnlib")
    lines = [f"{onnx},{vnnlib},5,unsat" for onnx, vnnlib in (*names, *long)]
    (good / "mixed.csv").write_text("\n".join(["onnx,vnnlib,timeout_s,expected", *lines, ""]), encoding="utf-8")
    ran = krelax("bench", "mixed.csv", "--jsonl", "results.jsonl")
    assert (ran.code, ran.err) == (3, "")
    assert [line.split()[1] for line in ran.out.splitlines()[:7]] == ["error"] * 6 + ["unsat"]
    assert "1 unsat, 0 sat; 0 unknown, 0 timed-out, 6 error" in ran.out


def test_results_of_instances_that_are_not_in_the_list(krelax: Run, good: Path) -> None:
    assert krelax("bench", "good.csv", "--jsonl", "results.jsonl").code == 0
    header, line = (good / "results.jsonl").read_text(encoding="utf-8").splitlines()
    for index in (1, -1, 10**30):
        other = json.dumps(json.loads(line) | {"index": index})
        (good / "results.jsonl").write_text(f"{header}\n{other}\n", encoding="utf-8")
        ran = krelax("bench", "good.csv", "--jsonl", "results.jsonl", "--resume")
        check_refusal(ran, "results.jsonl", f"instance {index} of 1")


RESULT = {"kind": "result", "index": 0, "verdict": "holds", "reason": "crown"}
JOURNALS: dict[str, tuple[bytes, str]] = {
    "notes": (b"remember the milk", "results"),
    "notes with lines": (b"remember\nthe milk\n", "line 1"),
    "binary": (bytes(range(256)), "line 1"),
    "another kind of record": (b'{"kind": "result", "index": 0}\n', "line 1"),
    "a list": (b"[1, 2, 3]\n", "line 1"),
    "deep": (b"[" * 100_000 + b"\n", "line 1"),
    "another run": (b'{"kind": "run", "schema": 1, "model": "0"}\n', "model differs"),
    "another schema": (b'{"kind": "run", "schema": 9}\n', "schema differs: 9 there"),
    "results before the header": (json.dumps(RESULT).encode() + b"\n", "header of a run"),
}


@pytest.mark.parametrize("name", JOURNALS)
def test_files_of_results_that_are_none(krelax: Run, good: Path, name: str) -> None:
    """They are refused, and left as they are."""
    content, word = JOURNALS[name]
    (good / "bad.jsonl").write_bytes(content)
    command = [*CERTIFY.split(), "--eps", "0.1", "--jsonl", "bad.jsonl"]
    check_refusal(krelax(*command), "bad.jsonl", "--resume")
    check_refusal(krelax(*command, "--resume"), "bad.jsonl", word)
    assert (good / "bad.jsonl").read_bytes() == content


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b'{"kind": "result"}', b'{"kind": "result", "index": "0"}', b""])
def test_a_damaged_line_among_the_results(krelax: Run, good: Path, line: bytes) -> None:
    command = [*CERTIFY.split(), "--eps", "0.1", "--jsonl", "results.jsonl"]
    assert krelax(*command).code == 0
    lines = (good / "results.jsonl").read_bytes().splitlines()
    (good / "results.jsonl").write_bytes(b"\n".join([*lines[:2], line, *lines[2:], b""]))
    check_refusal(krelax(*command, "--resume"), "results.jsonl", "line 3")


def test_results_of_another_run(krelax: Run, good: Path) -> None:
    assert krelax(*CERTIFY.split(), "--eps", "0.1", "--jsonl", "results.jsonl").code == 0
    before = (good / "results.jsonl").read_bytes()
    others = {"--eps": "0.2", "--method": "crown", "--norm": "l2", "--clip": "none", "--timeout": "9"}
    for option, value in others.items():
        eps = [] if option == "--eps" else ["--eps", "0.1"]
        ran = krelax(*CERTIFY.split(), *eps, option, value, "--jsonl", "results.jsonl", "--resume")
        check_refusal(ran, "results.jsonl", option[2:])
    save(random_dense([2, 4, 2], seed=1), good / "good.onnx")
    ran = krelax(*CERTIFY.split(), "--eps", "0.1", "--jsonl", "results.jsonl", "--resume")
    check_refusal(ran, "results.jsonl", "model")
    check_refusal(krelax("bench", "good.csv", "--jsonl", "results.jsonl", "--resume"), "instances")
    assert (good / "results.jsonl").read_bytes() == before


def test_a_refused_run_does_not_stand_in_the_way_of_the_next(krelax: Run, good: Path) -> None:
    """Nothing was computed, so there is nothing to resume."""
    command = [*CERTIFY.split(), "--eps", "0.1", "--jsonl", "results.jsonl"]
    check_refusal(krelax(*command, "--clip", "0.6:1"), "range")
    assert krelax(*command).code == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    at_night_after(
        1,
        [
            ("verify good.vnnlib --network bad.onnx", "bad.onnx"),
            ("certify bad.onnx good.npz --eps 0.1", "bad.onnx"),
            (f"{CERTIFY} --eps nan", "--eps"),
        ],
    ),
)
def test_as_a_program(good: Path, arguments: str, word: str) -> None:
    """The same through the interpreter, with whatever an import or a shutdown might print."""
    (good / "bad.onnx").write_bytes(GOOD[:-5])
    command = [sys.executable, "-m", "krelax", *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    check_refusal(Ran(done.returncode, done.stdout, done.stderr), word)
