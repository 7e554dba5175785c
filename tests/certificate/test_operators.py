"""The checker's own reading of ONNX files, against ONNX Runtime and against krelax's."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.resources import files
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tests.certificate.values import evaluate
from tests.marks import at_night_after
from tests.network.affine import AFFINE
from tests.network.cases import Case
from tests.network.functions import BETWEEN, FUNCTIONS
from tests.network.quantised import QUANTISED
from tests.network.recognised import FORMS
from tests.network.recognised import form as recognised
from tests.network.several import SEVERAL
from tests.network.test_onnx_folds import FOLDED, WHOLE, folded, whole
from tests.run.files import model, node, tensor

import krelax
from krelax.certificate.errors import Rejected
from krelax.certificate.kernel.arithmetic import Exact, Float64
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.region import Region
from krelax.certificate.onnx.graph import NEWEST, OLDEST, parse
from krelax.certificate.onnx.model import Model
from krelax.certificate.onnx.operator import OPERATORS
from krelax.certificate.onnx.reader import read_network
from krelax.errors import InputError, KrelaxError, UnsupportedError
from krelax.network.onnx_operators import READERS

BENCHMARKS = Path(os.environ.get("KRELAX_BENCHMARKS", Path(__file__).resolve().parents[3] / "shared" / "benchmarks"))
BUNDLED = sorted(Path(str(files("krelax") / "data")).glob("*.onnx"))
NETWORKS = [*BUNDLED, *sorted(BENCHMARKS.rglob("*.onnx"))]
# of every list three always
FEW = [path for _, group in groupby(NETWORKS, key=lambda path: path.parent) for path in islice(group, 3)]
RNG = np.random.default_rng(7)


def w(*shape: int) -> Any:
    return RNG.normal(0, 1, shape).astype(np.float32)


MOST = np.finfo(np.float32).max


def i8(*values: int) -> Any:
    return np.array(values, np.int64)


IMAGE = [1, 4, 6, 5]
COMPOSED = [
    "max pool", "global max pool", "relu", "abs", "clip", "max", "max of one", "min", *SEVERAL,
]  # fmt: skip
POOL = {"kernel_shape": [2, 3], "strides": [2, 1]}

# The shape of the input, the nodes from x to y, their constants, and the operator set.
CASES: dict[str, tuple[list[int], list[Any], dict[str, Any], int]] = {
    "gemm": ([2, 3], [node("Gemm", "x", "w", "b", "y", alpha=0.3, beta=2.0)], {"w": w(3, 4), "b": w(4)}, 17),
    "gemm, transposed": ([1, 3], [node("Gemm", "x", "w", "y", transB=1)], {"w": w(4, 3)}, 17),
    "gemm, scalar bias": ([1, 3], [node("Gemm", "x", "w", "b", "y")], {"w": w(3, 4), "b": w(1)}, 17),
    "gemm, transposed twice": ([3, 1], [node("Gemm", "x", "w", "b", "y", transA=1, transB=1, beta=0.5)],
                               {"w": w(4, 3), "b": w(4)}, 17),
    "gemm, left": ([3, 2], [node("Gemm", "w", "x", "b", "y", alpha=0.5)], {"w": w(4, 3), "b": w(4, 1)}, 17),
    "gemm, left, transposed": ([3, 2], [node("Gemm", "w", "x", "b", "y", transA=1, transB=1)],
                               {"w": w(2, 4), "b": w(3)}, 17),
    "matmul, vectors": ([3], [node("MatMul", "x", "w", "y")], {"w": w(3)}, 17),
    "matmul, vector": ([2, 2, 3], [node("MatMul", "x", "w", "y")], {"w": w(3)}, 17),
    "matmul, vector first": ([2, 3, 2], [node("MatMul", "w", "x", "y")], {"w": w(3)}, 17),
    "matmul": ([2, 2, 3], [node("MatMul", "x", "w", "y")], {"w": w(3, 4)}, 17),
    "matmul, left of a vector": ([3], [node("MatMul", "w", "x", "y")], {"w": w(4, 3)}, 17),
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
    "clip, no bound": (IMAGE, [node("Clip", "x", "l", "h", "y")], {"l": np.float32(-0.3), "h": MOST}, 17),
    "clip, no bounds": (IMAGE, [node("Clip", "x", "y", min=-3.4028235e38, max=3.4028235e38)], {}, 10),
    "clip, missing bound": (IMAGE, [node("Clip", "x", "y", max=0.5)], {}, 7),
    "clip, 7": (IMAGE, [node("Clip", "x", "y", min=-0.25, max=0.5)], {}, 7),
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
    "pad, some axes": (IMAGE, [node("Pad", "x", "p", "v", "a", "y")],
                       {"p": i8(1, 0, 2, -1), "v": np.float32(-0.5), "a": i8(-1, 1)}, 18),
    "constants of all kinds": (IMAGE, [
        onnx.helper.make_node("Constant", [], ["a"], value_float=0.5),
        onnx.helper.make_node("Constant", [], ["b"], value_floats=[0.5, 1, 2, 3, 4]),
        onnx.helper.make_node("Constant", [], ["s"], value_ints=[0, 0, 0, -1]), node("Mul", "x", "a", "t"),
        node("Add", "t", "b", "u"), node("Reshape", "u", "s", "y")], {}, 17),
    "casts of constants": (IMAGE, [
        node("Cast", "h", "a", to=1), node("Cast", "f", "b", to=7), node("Cast", "b", "d", to=2),
        node("Cast", "d", "e", to=1), node("Cast", "e", "g", to=9), node("Cast", "g", "i", to=1),
        node("Mul", "x", "a", "t"), node("Mul", "t", "e", "u"), node("Add", "u", "i", "y")],
        {"h": w(4, 1, 1).astype(np.float16), "f": np.float32([2.9, -0.5, 7, 0, 1])}, 17),
    "int32 arithmetic": ([6], [
        node("Mul", "a", "b", "t"), node("Sub", "t", "a", "u"), node("Div", "u", "d", "v"),
        node("Cast", "v", "s", to=7), node("Reshape", "x", "s", "y")],
        {"a": np.int32([-1, 6]), "b": np.int32([2, 2]), "d": np.int32([-1, 1])}, 17),
    **{op: ([2, 3], [node("Exp", "x", "t"), node(op, "t", "y")], {}, 17) for op in ("Log", "Sqrt", "Reciprocal")},
    **{op: ([2, 3], [node(op, "x", "y", axis=1)], {}, 17) for op in ("Softmax", "LogSoftmax")},
    **{op: ([2, 3], [node(op, "x", "y", axes=[1])], {}, 17) for op in ("ReduceL2", "ReduceSumSquare")},
    "ReduceLogSumExp": ([2, 3], [node("ReduceLogSumExp", "x", "y", axes=[1], keepdims=0)], {}, 17),
    "InstanceNormalization": (IMAGE, [node("InstanceNormalization", "x", "s", "b", "y")], {"s": w(4), "b": w(4)}, 17),
    "LayerNormalization": (IMAGE, [node("LayerNormalization", "x", "s", "b", "y", axis=2)],
                           {"s": w(6, 5), "b": w(6, 5)}, 17),
    "GroupNormalization": (IMAGE, [node("GroupNormalization", "x", "s", "b", "y", num_groups=2)],
                           {"s": w(4), "b": w(4)}, 21),
    **{op: ([2, 1, 3], [node(op, "x", "w", "r", "y", hidden_size=2)],
            {"w": w(1, 2 * gates, 3), "r": w(1, 2 * gates, 2)}, 17)
       for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))},
    **{f"{op}, from a state {more}": (
        [2, 1, 3], [onnx.helper.make_node(op, ["x", "w", "r", "b", "", "h", *last], ["y"], hidden_size=2,
                                          direction="bidirectional", **more)],
        {"w": w(2, 2 * gates, 3), "r": w(2, 2 * gates, 2), "b": w(2, 4 * gates),
         "h": w(2, 1, 2), **{n: w(2, 1, 2) for n in last}}, 17)
       for op, gates, last, more in (
           ("LSTM", 4, ["c"], {}), ("GRU", 3, [], {}), ("GRU", 3, [], {"linear_before_reset": 1}), ("RNN", 1, [], {}))},
    "dropout": (IMAGE, [node("Dropout", "x", "t"), node("Identity", "t", "y")], {}, 17),
    "shape arithmetic": (IMAGE, [
        node("Shape", "x", "s"), node("Gather", "s", "i", "n"), node("Unsqueeze", "n", "z", "u"),
        node("Div", "k", "one", "p"), node("Concat", "u", "p", "q", axis=0), node("Cast", "q", "r", to=7),
        node("Reshape", "x", "r", "y")], {"i": np.array(2), "z": i8(0), "k": i8(20), "one": i8(1)}, 17),
}  # fmt: skip


CASES |= SEVERAL


def run(data: bytes, x: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(data, options)
    kind = np.float64 if "double" in session.get_inputs()[0].type else np.float32
    return session.run(None, {session.get_inputs()[0].name: x.astype(kind)})[0]


def agree(data: bytes, shape: Any, count: int = 3) -> None:
    network = read_network(data)
    for _ in range(count):
        x = RNG.uniform(-1, 1, shape).astype(np.float32)
        wanted = run(data, x).flatten()
        values = evaluate(network, x.reshape(1, -1).astype(np.float64))
        # a runtime rounds every value on the way to float32; an operator that is read wrongly is off by more
        rounded = 1e-5 * max(1.0, *(float(abs(v).max(initial=0.0)) for v in values))
        assert np.allclose(values[-1][0], wanted, rtol=1e-5, atol=rounded)


@pytest.mark.parametrize(("shape", "nodes", "constants", "version"), CASES.values(), ids=CASES.keys())
def test_operators_compute_what_onnx_runtime_does(shape: Any, nodes: Any, constants: Any, version: int) -> None:
    made = model(nodes, constants, [tensor("x", shape)], opset=version)
    agree(made.SerializeToString(), shape)


@pytest.mark.parametrize("clip", [{"min": 0.0}, {}, {"max": 2.0**126}], ids=str)
def test_a_clip_at_the_largest_numbers_is_none_for_smaller_ones(clip: dict[str, float]) -> None:
    """Nothing is said of larger ones, where the identity is something else."""
    data, limit = only("Clip", opset=10, **clip), 2.0**127
    for ar in (Float64(), Exact()):
        network = read_network(data).over(ar)
        bounds = LayerBounds.of(network, Region(np.full((1, 2), -limit), np.full((1, 2), limit)), ar, False)
        while len(bounds.lower) < len(network.nodes):
            bounds = bounds.advanced()
        assert bounds.upper[-1].max() >= clip.get("max", limit)
        beyond = LayerBounds.of(network, Region(np.zeros((1, 2)), np.array([[1.0, 4 * limit]])), ar, False)
        with pytest.raises(Rejected, match="beyond which the file clips"):
            beyond.advanced()


@pytest.mark.parametrize("given", AFFINE, ids=str)
def test_what_converters_write_is_read_as_krelax_reads_it(given: Case, tmp_path: Path) -> None:
    onnx.save(given.model(), tmp_path / "made.onnx")
    agree((tmp_path / "made.onnx").read_bytes(), given.shape, 1)
    agree_on_activations(tmp_path / "made.onnx")


@pytest.mark.parametrize("given", [*FUNCTIONS, *BETWEEN], ids=str)
def test_functions_of_one_number_are_read_as_krelax_reads_them(given: Case, tmp_path: Path) -> None:
    onnx.save(given.model(), tmp_path / "made.onnx")
    agree((tmp_path / "made.onnx").read_bytes(), given.shape, 1)
    agree_on_activations(tmp_path / "made.onnx")


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_operators_are_read_as_krelax_reads_them(name: str, tmp_path: Path) -> None:
    onnx.save(QUANTISED[name], tmp_path / "made.onnx")
    data = (tmp_path / "made.onnx").read_bytes()
    agree(data, parse(data).shape, 1)
    agree_on_activations(tmp_path / "made.onnx")
    assert not read_network(data).single


@pytest.mark.parametrize("name", FORMS)
def test_functions_that_are_written_with_others_are_read_as_krelax_reads_them(name: str, tmp_path: Path) -> None:
    onnx.save(recognised(name), tmp_path / "made.onnx")
    data = (tmp_path / "made.onnx").read_bytes()
    agree(data, parse(data).shape, 1)
    agree_on_activations(tmp_path / "made.onnx")


@pytest.mark.parametrize("given", FOLDED, ids=str)
def test_constants_are_computed_exactly_or_refused(given: Case) -> None:
    data = folded(given).SerializeToString()
    if not refusal(read_network, data):
        agree(data, (1,), 1)


@pytest.mark.parametrize(("op", "values", "attributes"), WHOLE)
def test_whole_numbers_are_computed(op: str, values: list[Any], attributes: dict[str, Any]) -> None:
    data = whole(op, values, attributes).SerializeToString()
    agree(data, (1,), 1)


def test_every_operator_has_a_case() -> None:
    used = {n.op_type for _, nodes, _, _ in CASES.values() for n in nodes}
    used |= {given.op for given in (*AFFINE, *FOLDED)} | {op for op, _, _ in WHOLE}
    used |= {given.op for given in (*FUNCTIONS, *BETWEEN)} | {"Swish"}  # which no runtime here has
    used |= {n.op_type for made in QUANTISED.values() for n in made.graph.node}
    used |= {n.op_type for nodes, _ in FORMS.values() for n in nodes}
    assert {op for op in OPERATORS if not op.startswith("ai.onnx.ml.")} == used


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


def refusal(read: Any, *arguments: Any) -> str:
    """Why a reader refuses a network, in one line; empty if it does not."""
    try:
        read(*arguments)
    except UnsupportedError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return str(error)
    return ""


@pytest.mark.parametrize(
    "path", at_night_after(len(FEW), [*FEW, *(p for p in NETWORKS if p not in FEW)]), ids=lambda p: p.stem
)
def test_networks_are_read_as_krelax_reads_them(path: Path) -> None:
    """Values as ONNX Runtime's, activations as krelax's; what is refused is refused in one line that says what."""
    data = path.read_bytes()
    if refused := refusal(read_network, data):
        assert refused.startswith(("not supported by the checker: operator ", "operator ")) or " inputs and " in refused
        return
    agree(data, parse(data).shape, 1)
    if refusal(krelax.load_onnx, path, False):
        return
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


def only(
    op: str, shape: Any = (1, 2), opset: int = 17, constants: Any = None, more: Any = (), **attributes: Any
) -> bytes:
    """A network of one operator."""
    made = model([node(op, "x", *more, "y", **attributes)], constants, [tensor("x", shape)], opset=opset)
    data: bytes = made.SerializeToString()
    return data


def by_cast(value: Any, *kinds: int) -> bytes:
    """`x` times a constant that is cast from type to type."""
    names = [f"c{i}" for i in range(len(kinds) + 1)]
    nodes = [node("Cast", a, b, to=k) for a, b, k in zip(names, names[1:], kinds, strict=False)]
    return model([*nodes, node("Mul", "x", names[-1], "y")], {"c0": np.asarray(value)}).SerializeToString()


def by_integers(op: str, a: Any, b: Any) -> bytes:
    """`x` times the quotient, sum, ... of two integers."""
    nodes = [node(op, "a", "b", "c"), node("Cast", "c", "d", to=1), node("Mul", "x", "d", "y")]
    return model(nodes, {"a": np.asarray(a), "b": np.asarray(b)}).SerializeToString()


def edited(change: Any) -> bytes:
    """A network of one Gemm, changed."""
    made = model([node("Gemm", "x", "w", "y", alpha=0.5, transB=0)], {"w": w(2, 2)})
    change(made)
    return made.SerializeToString()


def twice(made: Any) -> None:
    made.graph.node.append(made.graph.node[0])


F32 = np.float32
UNREADABLE: dict[str, bytes] = {
    "nothing": b"",
    "text": b"hello, this is no protocol buffer",
    "zeros": bytes(100),
    "an operator nobody knows": only("Det"),
    "a name of two lines": model([node("Softsign\n", "x", "y\n\x1b")]).SerializeToString(),
    "a missing tensor": model([node("Relu", "z", "y")]).SerializeToString(),
    "an axis that is none": only("Gather", constants={"i": i8(0)}, more=["i"], axis=5),
    "indices that are none": only("Gather", constants={"i": i8(2)}, more=["i"], axis=1),
    "negative indices of old": only("Gather", opset=10, constants={"i": i8(-1)}, more=["i"], axis=1),
    "shapes that do not fit": only("MatMul", constants={"w": w(3, 4)}, more=["w"]),
    "a constant network": model([node("Identity", "c", "y")], {"c": w(2)}).SerializeToString(),
    "a weight that is not finite": only("Add", constants={"c": F32([np.nan, 0])}, more=["c"]),
    "broadcasting of old": only("Add", opset=6, constants={"c": w(2)}, more=["c"], broadcast=1, axis=0),
    "a normalisation that divides by zero": only(
        "BatchNormalization", constants={"c": w(2), "v": F32([0, 1])}, more=["c", "c", "c", "v"], epsilon=0.0
    ),
    "a normalisation in training": only(
        "BatchNormalization", constants={"c": abs(w(2))}, more=["c", "c", "c", "c"], training_mode=1
    ),
    "a normalisation of pixels": only(
        "BatchNormalization", opset=7, constants={"c": abs(w(2))}, more=["c", "c", "c", "c"], spatial=0
    ),
    "a division by zero": only("Div", constants={"c": F32([1, 0])}, more=["c"]),
    "another domain": model([onnx.helper.make_node("Relu", ["x"], ["y"], domain="mine")]).SerializeToString(),
    "two inputs": model([node("Add", "x", "z", "y")], inputs=[tensor("x", [2]), tensor("z", [2])]).SerializeToString(),
    "operands of two types": only("Add", constants={"c": np.float64([1, 2])}, more=["c"]),
    "0.1 as float16": by_cast(F32([0.1]), 10, 1),
    "a cast to bfloat16": by_cast(F32([0.5]), 16, 1),
    "a cast to uint8 of -1": by_cast(F32([-1]), 2, 1),
    "a cast to int32 of 1e10": by_cast(F32([1e10]), 6, 1),
    "a cast of integers that rounds": by_cast(i8(2**24 + 1), 1),
    "a cast of the input": only("Cast", to=10),
    "a quotient that is negative": by_integers("Div", i8(-7), i8(2)),
    "a product beyond int32": by_integers("Mul", np.int32([2**16]), np.int32([2**16])),
    "a sum beyond int64": by_integers("Add", i8(2**63 - 1), i8(1)),
    "arithmetic of int8": by_integers("Add", np.int8([1]), np.int8([1])),
    "arithmetic of two types": by_integers("Add", np.int32([1]), i8(1)),
    "auto_pad with pads": only("MaxPool", [1, 1, 2, 2], auto_pad="VALID", kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
    "auto_pad with dilations": only(
        "Conv", [1, 1, 5], constants={"w": w(1, 1, 2)}, more=["w"], auto_pad="SAME_UPPER", dilations=[2]
    ),
    "another kernel_shape": only("Conv", [1, 1, 5], constants={"w": w(1, 1, 2)}, more=["w"], kernel_shape=[3]),
    "windows that begin in the padding": only(
        "MaxPool", [1, 1, 4], kernel_shape=[2], strides=[4], pads=[0, 1], ceil_mode=1
    ),
    "padding that is counted in windows beyond it": only(
        "AveragePool", [1, 1, 4], kernel_shape=[3], strides=[2], ceil_mode=1, count_include_pad=1
    ),
    "column-major indices of a maximum": only("MaxPool", [1, 1, 4], kernel_shape=[2], storage_order=1),
    "an attribute nobody knows": only("Relu", beta=1.0),
    "an attribute of another type": only("LeakyRelu", alpha=1),
    "an attribute of a later version": only("MaxPool", [1, 1, 4], opset=8, kernel_shape=[2], ceil_mode=1),
    "a value of a flag": only("Gemm", constants={"w": w(2, 2)}, more=["w"], transB=2),
    "an empty tensor": only("Slice", constants={"a": i8(1), "b": i8(1)}, more=["a", "b"]),
    "a start before the beginning": only(
        "Slice", constants={"a": i8(-9), "b": i8(-99), "c": i8(1), "d": i8(-1)}, more=["a", "b", "c", "d"]
    ),
    "axes that are equal": only("Squeeze", [1, 1, 2], constants={"a": i8(0, -3)}, more=["a"]),
    "an axis beyond the last": only("ReduceSum", constants={"a": i8(5)}, more=["a"]),
    "an empty list of axes": only("ReduceSum", constants={"a": np.zeros(0, np.int64)}, more=["a"]),
    "a clip that is crossed": only("Clip", constants={"l": F32(1), "h": F32(0)}, more=["l", "h"]),
    "a clip to the largest number": only("Clip", constants={"l": MOST}, more=["l"]),
    "a clip to the least number": only("Clip", opset=10, max=-3.4028235e38),
    "uneven parts of old": model(
        [onnx.helper.make_node("Split", ["x"], ["a", "b"], axis=1), node("Sub", "a", "b", "y")], {},
        [tensor("x", [1, 3])], opset=13,
    ).SerializeToString(),
    "a division by a tiny number": only("Div", constants={"c": np.float64([1e-320])}, more=["c"]),
    "too many numbers": only("Expand", constants={"s": i8(10**8, 2)}, more=["s"]),
    "more axes than NumPy has": only("Unsqueeze", constants={"a": i8(*range(70))}, more=["a"]),
    "more axes than windows have": only("Reshape", constants={"s": i8(*[1] * 40, 2)}, more=["s"]),
    "an input of many axes": only("Relu", [1] * 65 + [2]),
    "a name defined twice": edited(twice),
    "an attribute twice": edited(lambda m: m.graph.node[0].attribute.append(m.graph.node[0].attribute[0])),
    "a constant twice": edited(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
    "an input that is computed": edited(lambda m: m.graph.node[0].output.__setitem__(0, "x")),
    "two values of an attribute": edited(lambda m: setattr(m.graph.node[0].attribute[0], "i", 1)),
    "an attribute without a type": edited(lambda m: setattr(m.graph.node[0].attribute[0], "type", 0)),
    "an attribute of a function": edited(lambda m: setattr(m.graph.node[0].attribute[0], "ref_attr_name", "a")),
    "NaN in an attribute": edited(lambda m: setattr(m.graph.node[0].attribute[0], "f", np.nan)),
    "numbers in two fields": edited(lambda m: m.graph.initializer[0].float_data.append(1)),
    "too few numbers": edited(lambda m: setattr(m.graph.initializer[0], "raw_data", b"1234")),
    "a segment": edited(lambda m: setattr(m.graph.initializer[0].segment, "begin", 0)),
    "a version that is unknown": edited(lambda m: setattr(m.opset_import[0], "version", 99)),
    "two versions": edited(lambda m: m.opset_import.add(domain="ai.onnx", version=12)),
    "an IR version that is unknown": edited(lambda m: setattr(m, "ir_version", 99)),
    "a sparse constant": edited(lambda m: m.graph.sparse_initializer.add()),
    "another type of the result": edited(lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", 11)),
    "another shape on the way": edited(lambda m: m.graph.value_info.append(tensor("x", [1, 3]))),
    "an input of size zero": edited(
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_files_that_cannot_be_read_say_so(data: bytes) -> None:
    with pytest.raises(InputError) as error:
        read_network(data)
    assert "\n" not in str(error.value)


def test_names_in_one_file_are_not_those_of_another() -> None:
    """Constants in another file are read only with that file."""
    made = model([node("Add", "x", "c", "y")], {"c": w(2)})
    stored = made.graph.initializer[0]
    raw, stored.data_location = stored.raw_data, onnx.TensorProto.EXTERNAL
    stored.ClearField("raw_data")
    stored.external_data.add(key="location", value="c.bin")
    data = made.SerializeToString()
    with pytest.raises(InputError, match=r"c\.bin"):
        read_network(data)
    assert read_network(Model(data, {"c.bin": raw})).size(1) == 2
    for bad in (raw + b"1234", raw[:4]):
        with pytest.raises(InputError, match="bytes are needed"):
            read_network(Model(data, {"c.bin": bad}))
    stored.external_data.add(key="offset", value="4")
    stored.external_data.add(key="length", value="8")
    assert read_network(Model(made.SerializeToString(), {"c.bin": b"1234" + raw + b"1"})).size(1) == 2
    for offset, length in (("-4", "8"), ("4", "8.0"), ("4", "4"), ("5", "8")):
        stored.external_data[1].value, stored.external_data[2].value = offset, length
        with pytest.raises(InputError):
            read_network(Model(made.SerializeToString(), {"c.bin": b"1234" + raw}))


def test_the_tables_say_what_onnx_says() -> None:
    """Every form is one of ONNX's: attributes with their types and defaults, and counts of operands and outputs."""
    history = onnx.defs.get_all_schemas_with_history()
    kinds = {"int": 2, "ints": 7, "float": 1, "floats": 6, "string": 3, "tensor": 4, "strings": 8}
    for name, operator in OPERATORS.items():
        domain, _, plain = name.rpartition(".")
        known = [s.since_version for s in history if (s.domain, s.name) == (domain, plain)]
        first, last = (1, 5) if domain else (OLDEST, NEWEST)
        versions = range(max(min(known), operator.forms[0].since, first), last + 1)
        for version in versions:
            form = [f for f in operator.forms if f.since <= version][-1]
            schema = onnx.defs.get_schema(plain, version, domain)
            assert schema.min_input <= form.operands[0]
            assert form.operands[1] <= schema.max_input
            assert form.outputs[1] <= schema.max_output
            for label, attribute in form.attributes.items():
                bounds: Any = schema.attributes[label]
                assert int(bounds.type.value) == kinds[attribute.kind]
                default = onnx.helper.get_attribute_value(bounds.default_value) if bounds.default_value.name else None
                default = default.decode() if isinstance(default, bytes) else default
                if not bounds.required:  # else it has no default
                    assert attribute.default in [default, None], (name, version, label)
                assert attribute.default is not None or default is None or name in {"Clip", "RNN", "GRU", "LSTM"}


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
