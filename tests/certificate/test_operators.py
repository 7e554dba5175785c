"""The checker's own reading of ONNX files, against ONNX Runtime and against krelax's."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tests.certificate.values import evaluate
from tests.run.files import model, node, tensor

import krelax
from krelax.certificate.arithmetic import Exact
from krelax.certificate.onnx import parse
from krelax.certificate.operators import OPERATORS, read_network
from krelax.errors import InputError, KrelaxError, UnsupportedError
from krelax.network.onnx_operators import READERS

BENCHMARKS = Path(os.environ.get("KRELAX_BENCHMARKS", Path(__file__).resolve().parents[3] / "shared" / "benchmarks"))
BUNDLED = sorted(Path(str(files("krelax") / "data")).glob("*.onnx"))
NETWORKS = [*BUNDLED, *sorted(BENCHMARKS.rglob("*.onnx"))]
RNG = np.random.default_rng(7)


def w(*shape: int) -> Any:
    return RNG.normal(0, 1, shape).astype(np.float32)


def i8(*values: int) -> Any:
    return np.array(values, np.int64)


IMAGE = [1, 4, 6, 5]
COMPOSED = ["max pool", "global max pool", "relu", "abs", "clip", "max", "max of one", "min"]
POOL = {"kernel_shape": [2, 3], "strides": [2, 1]}

# The shape of the input, the nodes from x to y, their constants, and the operator set.
CASES: dict[str, tuple[list[int], list[Any], dict[str, Any], int]] = {
    "gemm": ([2, 3], [node("Gemm", "x", "w", "b", "y", alpha=0.3, beta=2.0)], {"w": w(3, 4), "b": w(4)}, 17),
    "gemm, transposed": ([1, 3], [node("Gemm", "x", "w", "y", transB=1)], {"w": w(4, 3)}, 17),
    "gemm, scalar bias": ([1, 3], [node("Gemm", "x", "w", "b", "y")], {"w": w(3, 4), "b": w(1)}, 17),
    "matmul": ([2, 2, 3], [node("MatMul", "x", "w", "y")], {"w": w(3, 4)}, 17),
    "matmul, left": ([2, 3, 2], [node("MatMul", "w", "x", "y")], {"w": w(4, 3)}, 17),
    "conv": (IMAGE, [node("Conv", "x", "w", "b", "y", strides=[2, 1], pads=[1, 0, 2, 1], dilations=[1, 2])],
             {"w": w(6, 4, 3, 2), "b": w(6)}, 17),
    "conv, groups": (IMAGE, [node("Conv", "x", "w", "b", "y", group=2)], {"w": w(6, 2, 2, 2), "b": w(6)}, 17),
    "conv, same": (IMAGE, [node("Conv", "x", "w", "y", auto_pad="SAME_LOWER", strides=[2, 2])],
                   {"w": w(3, 4, 3, 2)}, 17),
    "conv, one axis": ([2, 4, 7], [node("Conv", "x", "w", "y")], {"w": w(3, 4, 3)}, 17),
    "conv transpose": (IMAGE, [node("ConvTranspose", "x", "w", "b", "y", strides=[2, 3], pads=[1, 0, 0, 1],
                                    output_padding=[1, 0], dilations=[1, 2])], {"w": w(4, 3, 3, 2), "b": w(3)}, 17),
    "conv transpose, groups": (IMAGE, [node("ConvTranspose", "x", "w", "y", group=2)], {"w": w(4, 3, 2, 2)}, 17),
    "batch norm": (IMAGE, [node("BatchNormalization", "x", "s", "b", "m", "v", "y", epsilon=0.01)],
                   {"s": w(4), "b": w(4), "m": w(4), "v": abs(w(4))}, 17),
    "add": (IMAGE, [node("Add", "x", "c", "y")], {"c": w(4, 1, 1)}, 17),
    "add, constant first": ([3], [node("Add", "c", "x", "y")], {"c": w(2, 3)}, 17),
    "add, itself": ([3, 1], [node("Transpose", "x", "t"), node("Add", "x", "t", "y")], {}, 17),
    "sub": (IMAGE, [node("Sub", "c", "x", "t"), node("Sub", "t", "x", "y")], {"c": w(5)}, 17),
    "mul": (IMAGE, [node("Mul", "c", "x", "y")], {"c": w(4, 1, 1)}, 17),
    "div": (IMAGE, [node("Div", "x", "c", "y")], {"c": w(4, 1, 1)}, 17),
    "neg": (IMAGE, [node("Neg", "x", "y")], {}, 17),
    "average pool": (IMAGE, [node("AveragePool", "x", "y", **POOL, pads=[1, 1, 0, 1])], {}, 17),
    "average pool, padding": (IMAGE, [node("AveragePool", "x", "y", **POOL, pads=[1, 1, 0, 1], count_include_pad=1)],
                              {}, 17),
    "average pool, ceil": (IMAGE, [node("AveragePool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
                           {}, 17),
    "max pool": (IMAGE, [node("MaxPool", "x", "y", **POOL, pads=[1, 1, 0, 1])], {}, 17),
    "max pool, ceil": (IMAGE, [node("MaxPool", "x", "y", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1)], {}, 17),
    "max pool, trivial": (IMAGE, [node("MaxPool", "x", "y", kernel_shape=[1, 1], strides=[2, 2])], {}, 17),
    "global average": (IMAGE, [node("GlobalAveragePool", "x", "y")], {}, 17),
    "reduce mean": (IMAGE, [node("ReduceMean", "x", "y", axes=[-1, 1], keepdims=0)], {}, 13),
    "reduce mean, 18": (IMAGE, [node("ReduceMean", "x", "a", "y")], {"a": i8(2)}, 18),
    "reduce sum": (IMAGE, [node("ReduceSum", "x", "a", "y", keepdims=0)], {"a": i8(1, 3)}, 17),
    "reduce sum, all": (IMAGE, [node("ReduceSum", "x", "y")], {}, 17),
    "global max pool": (IMAGE, [node("GlobalMaxPool", "x", "y")], {}, 17),
    "abs": (IMAGE, [node("Abs", "x", "y")], {}, 17),
    "clip": (IMAGE, [node("Clip", "x", "l", "h", "y")], {"l": np.float32(-0.3), "h": np.float32(0.4)}, 17),
    "clip, one side": (IMAGE, [onnx.helper.make_node("Clip", ["x", "", "h"], ["y"])], {"h": np.float32(0.4)}, 17),
    "clip, 6": (IMAGE, [node("Clip", "x", "y", min=-0.25)], {}, 6),
    "clip, crossed": (IMAGE, [node("Clip", "x", "l", "h", "y")], {"l": np.float32(0.3), "h": np.float32(-0.4)}, 17),
    "max": (IMAGE, [node("Neg", "x", "t"), node("Max", "c", "x", "t", "y")], {"c": w(4, 1, 1)}, 17),
    "max of one": (IMAGE, [node("Max", "x", "y")], {}, 17),
    "min": (IMAGE, [node("Neg", "x", "t"), node("Min", "x", "t", "c", "y")], {"c": w(5)}, 17),
    "min, smaller": ([3, 1], [node("Min", "c", "x", "y")], {"c": w(2, 1, 4)}, 17),
    "relu": (IMAGE, [node("Relu", "x", "y")], {}, 17),
    "leaky relu": (IMAGE, [node("LeakyRelu", "x", "y", alpha=0.2)], {}, 17),
    "sigmoid": (IMAGE, [node("Sigmoid", "x", "y")], {}, 17),
    "tanh": (IMAGE, [node("Tanh", "x", "y")], {}, 17),
    "pad": (IMAGE, [node("Pad", "x", "p", "v", "y")], {"p": i8(0, 1, 0, 2, 0, 0, 1, 0), "v": np.float32(1.5)}, 17),
    "pad, cropping": (IMAGE, [node("Pad", "x", "p", "y")], {"p": i8(0, 0, -1, 0, 0, 0, 0, -2)}, 17),
    "transpose": (IMAGE, [node("Transpose", "x", "y", perm=[0, 3, 1, 2])], {}, 17),
    "flatten": (IMAGE, [node("Flatten", "x", "y", axis=2)], {}, 17),
    "reshape": (IMAGE, [node("Reshape", "x", "s", "y")], {"s": i8(0, -1, 10)}, 17),
    "squeeze": ([1, 3, 1], [node("Squeeze", "x", "a", "y")], {"a": i8(0)}, 17),
    "unsqueeze": ([3, 2], [node("Unsqueeze", "x", "a", "y")], {"a": i8(0, 2)}, 17),
    "slice": (IMAGE, [node("Slice", "x", "s", "e", "a", "t", "y")],
              {"s": i8(-1, 1), "e": i8(-99, 5), "a": i8(2, 3), "t": i8(-2, 1)}, 17),
    "slice, 9": (IMAGE, [node("Slice", "x", "y", starts=[1], ends=[1000], axes=[1])], {}, 9),
    "gather": (IMAGE, [node("Gather", "x", "i", "y", axis=2)], {"i": np.array([[0, -1], [2, 2]])}, 17),
    "gather, one": (IMAGE, [node("Gather", "x", "i", "y", axis=1)], {"i": np.array(1)}, 17),
    "expand": ([3, 1], [node("Expand", "x", "s", "y")], {"s": i8(2, 1, 4)}, 17),
    "concat": (IMAGE, [node("Neg", "x", "t"), node("Concat", "x", "c", "t", "x", "y", axis=-1)],
               {"c": w(1, 4, 6, 2)}, 17),
    "split": (IMAGE, [onnx.helper.make_node("Split", ["x", "s"], ["a", "b"], axis=1), node("Sub", "a", "b", "y")],
              {"s": i8(2, 2)}, 17),
    "split evenly": (IMAGE, [onnx.helper.make_node("Split", ["x"], ["a", "b"], axis=2), node("Sub", "a", "b", "y")],
                     {}, 13),
    "dropout": (IMAGE, [node("Dropout", "x", "t"), node("Identity", "t", "y")], {}, 17),
    "shape arithmetic": (IMAGE, [
        node("Shape", "x", "s"), node("Gather", "s", "i", "n"), node("Unsqueeze", "n", "z", "u"),
        node("Div", "k", "one", "p"), node("Concat", "u", "p", "q", axis=0), node("Cast", "q", "r", to=7),
        node("Reshape", "x", "r", "y")], {"i": np.array(2), "z": i8(0), "k": i8(20), "one": i8(1)}, 17),
}  # fmt: skip


def run(data: bytes, x: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(data, options)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def agree(data: bytes, shape: Any, count: int = 3) -> None:
    network = read_network(data)
    for _ in range(count):
        x = RNG.uniform(-1, 1, shape).astype(np.float32)
        wanted = run(data, x).flatten()
        found = evaluate(network, x.reshape(1, -1).astype(np.float64))[-1][0]
        assert np.allclose(found, wanted, atol=2e-6 * max(1.0, float(abs(wanted).max())))


@pytest.mark.parametrize(("shape", "nodes", "constants", "version"), CASES.values(), ids=CASES.keys())
def test_operators_compute_what_onnx_runtime_does(shape: Any, nodes: Any, constants: Any, version: int) -> None:
    made = model(nodes, constants, [tensor("x", shape)], opset=version)
    agree(made.SerializeToString(), shape)


def test_every_operator_has_a_case() -> None:
    used = {n.op_type for _, nodes, _, _ in CASES.values() for n in nodes}
    assert set(OPERATORS) - used == {"Constant"}


def test_every_operator_that_krelax_reads_is_read_by_the_checker() -> None:
    """The checker also reads some that krelax evaluates as constants."""
    assert set(READERS) <= set(OPERATORS)


def agree_on_activations(path: Path) -> None:
    """Pre-activations at a random input, as the checker and as krelax number them."""
    mine, theirs = read_network(path.read_bytes()), krelax.load_onnx(path, check=False)
    x = RNG.uniform(-1, 1, (1, *theirs.input_shape))
    values, wanted = evaluate(mine, x.reshape(1, -1)), theirs.values(torch.from_numpy(x))
    places = theirs.activations()
    assert len(places) == len(mine.activations)
    for j, place in enumerate(places):
        z = wanted[theirs.nodes[place].inputs[0]].flatten().numpy()
        assert np.allclose(values[mine.before(j)][0], z, atol=1e-9 * max(1.0, float(abs(z).max())))


@pytest.mark.parametrize("name", [name for name in CASES if name.split(",")[0] in COMPOSED])
def test_activations_are_numbered_as_krelax_numbers_them(name: str, tmp_path: Path) -> None:
    shape, nodes, constants, version = CASES[name]
    onnx.save(model(nodes, constants, [tensor("x", shape)], opset=version), tmp_path / "made.onnx")
    agree_on_activations(tmp_path / "made.onnx")


@pytest.mark.parametrize("path", NETWORKS, ids=lambda p: p.stem)
def test_networks_are_read_as_krelax_reads_them(path: Path) -> None:
    """Values as ONNX Runtime's; activations numbered and laid out as krelax's."""
    data = path.read_bytes()
    try:
        read_network(data)
    except UnsupportedError:
        assert any(name in path.stem for name in ("ml4acopf", "mscn", "pgd_2_3_16"))
        return
    agree(data, parse(data).shape, 1)
    agree_on_activations(path)


@pytest.mark.parametrize(
    "name", ["conv", "conv transpose", "average pool", "concat", "slice", "gather", "sub", "matmul, left"]
)
def test_exact_numbers_agree_with_floats(name: str) -> None:
    """Forward, and the adjoint: <c, W x> = <W' c, x>."""
    shape, nodes, constants, version = CASES[name]
    network = read_network(model(nodes, constants, [tensor("x", shape)], opset=version).SerializeToString())
    ar = Exact()
    numbers = network.over(ar)
    x = ar.number(RNG.normal(0, 1, (2, network.input_size)))
    values, coeff = [x], {}
    for n in numbers.nodes[1:]:
        values.append(n.forward(ar, [values[j] for j in n.inputs]))  # type: ignore[union-attr]
    assert np.allclose(ar.floats(values[-1]), evaluate(network, ar.floats(x))[-1])
    coeff[len(numbers.nodes) - 1] = c = ar.number(RNG.normal(0, 1, values[-1].shape))
    constant = ar.number(np.zeros(2))
    for i in range(len(numbers.nodes) - 1, 0, -1):
        n = numbers.nodes[i]
        for j, m in zip(n.inputs, n.maps, strict=True):  # type: ignore[union-attr]
            part = m.adjoint(ar, coeff[i])
            coeff[j] = coeff[j] + part if j in coeff else part
        if n.bias is not None:  # type: ignore[union-attr]
            constant = constant + ar.dot(coeff[i], n.bias.reshape(1, -1))  # type: ignore[union-attr]
    difference = ar.dot(c, values[-1]) - ar.dot(coeff[0], x) - constant
    assert not difference.ints.any()


UNREADABLE: dict[str, bytes] = {
    "nothing": b"",
    "text": b"hello, this is no protocol buffer",
    "zeros": bytes(100),
    "an operator nobody knows": model([node("Softsign", "x", "y")]).SerializeToString(),
    "a missing tensor": model([node("Relu", "z", "y")]).SerializeToString(),
    "an axis that is none": model([node("Gather", "x", "i", "y", axis=5)], {"i": i8(0)}).SerializeToString(),
    "shapes that do not fit": model([node("MatMul", "x", "w", "y")], {"w": w(3, 4)}).SerializeToString(),
    "a constant network": model([node("Identity", "c", "y")], {"c": w(2)}).SerializeToString(),
    "a product of activations": model([node("Mul", "x", "x", "y")]).SerializeToString(),
    "float arithmetic of constants": model(
        [node("Add", "c", "c", "t"), node("Add", "x", "t", "y")], {"c": w(2)}
    ).SerializeToString(),
    "a weight that is not finite": model(
        [node("Add", "x", "c", "y")], {"c": np.float32([np.nan, 0])}
    ).SerializeToString(),
    "broadcasting of old": model(
        [node("Add", "x", "c", "y", broadcast=1, axis=0)], {"c": w(2)}, opset=6
    ).SerializeToString(),
    "a maximum of constants": model(
        [node("Max", "c", "c", "t"), node("Add", "x", "t", "y")], {"c": w(2)}
    ).SerializeToString(),
    "a normalisation that divides by zero": model(
        [node("BatchNormalization", "x", "c", "c", "c", "v", "y", epsilon=0.0)],
        {"c": w(2), "v": np.float32([0, 1])},
        [tensor("x", [1, 2])],
    ).SerializeToString(),
    "a slope above one": model([node("LeakyRelu", "x", "y", alpha=1.5)]).SerializeToString(),
    "a division by zero": model([node("Div", "x", "c", "y")], {"c": np.float32([1, 0])}).SerializeToString(),
    "another domain": model([onnx.helper.make_node("Relu", ["x"], ["y"], domain="mine")]).SerializeToString(),
    "two inputs": model([node("Add", "x", "z", "y")], inputs=[tensor("x", [2]), tensor("z", [2])]).SerializeToString(),
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_files_that_cannot_be_read_say_so(data: bytes) -> None:
    with pytest.raises(InputError) as error:
        read_network(data)
    assert "\n" not in str(error.value)


def test_damaged_files_are_read_or_refused() -> None:
    """Whatever happens to the bytes, nothing but a KrelaxError comes out."""
    data = bytearray(BUNDLED[0].read_bytes())
    small = [i for i in range(len(data)) if i < 400 or i > len(data) - 1500]
    for _ in range(300):
        damaged = bytearray(data)
        for place in RNG.choice(small, 3):
            damaged[place] = RNG.integers(256)
        with suppress(KrelaxError):
            read_network(bytes(damaged))
