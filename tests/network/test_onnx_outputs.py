"""Several outputs, heads that keep the order of scores, functions of the model's own, scikit-learn's operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tests.certificate.values import evaluate
from tests.network.cases import weights
from tests.run.files import model, node, save, tensor

from krelax.certificate.onnx.reader import read_file
from krelax.errors import InputError, UnsupportedError
from krelax.network.onnx import load_onnx

ML, RNG = "ai.onnx.ml", np.random.default_rng(3)
SCORES = [node("Gemm", "x", "w", "b", "h"), node("Relu", "h", "a"), node("Gemm", "a", "v", "s")]
CONSTANTS = {"w": weights(4, 6), "b": weights(6), "v": weights(6, 3, seed=1)}


def learned(op: str, *names: str, outputs: int = 1, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, names[:-outputs], names[-outputs:], domain=ML, **attributes)


def network(*nodes: onnx.NodeProto, outputs: Any = None, opset: int = 17) -> onnx.ModelProto:
    """Scores `s`, and what is made of them."""
    made = model([*SCORES, *nodes], CONSTANTS, [tensor("x", (1, 4))], outputs or [tensor("y", None)], opset=opset)
    made.opset_import.append(helper.make_opsetid(ML, 3))
    return made


def same(proto: onnx.ModelProto, folder: Path, output: str | None = None) -> Any:
    """The scores that krelax reads where only their order counts, which are those that the checker reads."""
    read = load_onnx(save(proto, folder / "net.onnx"), output=output, scores=True)
    mine, interface = read_file(proto.SerializeToString(), output, True)
    x = RNG.normal(size=(1, 1, 4))
    found = read(torch.from_numpy(x)).flatten().numpy()
    np.testing.assert_allclose(evaluate(mine, x[0])[-1][0], found, atol=1e-12)
    assert interface.shapes[1] == read.output_shape
    assert len(read.activations()) == len(mine.activations)
    return read, interface


CLASSES = {"coefficients": weights(9).tolist(), "intercepts": weights(3).tolist(), "classlabels_ints": [0, 1, 2]}
HEADS = {
    "softmax": [node("Softmax", "s", "y")],
    "softmax of old": [node("Softmax", "s", "y", axis=0)],
    "log softmax": [node("LogSoftmax", "s", "y", axis=-1)],
    "softmax and reshape": [node("Softmax", "s", "p"), node("Flatten", "p", "y", axis=0)],
    "normalised twice": [node("Softmax", "s", "p"), learned("Normalizer", "p", "q", norm="L1"),
                         learned("Normalizer", "q", "y", norm="L2")],
    "classifier": [learned("LinearClassifier", "s", "l", "y", outputs=2, post_transform="SOFTMAX", **CLASSES)],
    "one against the rest": [
        learned("LinearClassifier", "s", "l", "p", outputs=2, post_transform="LOGISTIC", **CLASSES),
        learned("Normalizer", "p", "y", norm="L1"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_keeps_the_order_of_scores_is_left_out(name: str, tmp_path: Path) -> None:
    opset = 12 if "old" in name else 17
    read, interface = same(network(*HEADS[name], opset=opset), tmp_path)
    assert interface.head
    assert "keeps their order" in read.notes[0]
    x = RNG.normal(size=(1, 4)).astype(np.float32)
    scores, said = read(torch.from_numpy(x[None]).double()).flatten().numpy(), read.replay(x).flatten()
    assert scores.argsort().tolist() == said.argsort().tolist()
    assert abs(said).max() <= 1 or "log" in name  # probabilities, not scores


@pytest.mark.parametrize("behind", [[], [node("Cast", "i", "y", to=TensorProto.INT32)]])
def test_the_place_of_the_largest_is_about_the_scores(behind: list[onnx.NodeProto], tmp_path: Path) -> None:
    label = node("ArgMax", "s", "i" if behind else "y", axis=1)
    kind = TensorProto.INT32 if behind else TensorProto.INT64
    read, interface = same(network(label, *behind, outputs=[tensor("y", None, kind)]), tmp_path)
    assert interface.head == ("ArgMax",)
    assert read.output_shape == (1, 3)
    whole = load_onnx(tmp_path / "net.onnx")  # the label itself, by comparisons
    x = RNG.normal(size=(1, 4)).astype(np.float32)
    assert whole.replay is not None
    assert whole(torch.from_numpy(x[None]).double()).item() == whole.replay(x).item()


def test_what_is_no_head_is_kept(tmp_path: Path) -> None:
    """Parts of scores, a division by the largest, and what goes on behind."""
    parts = [node("Reshape", "s", "shape", "r"), node("ArgMax", "r", "y", axis=1)]
    proto = network(*parts, outputs=[tensor("y", None, TensorProto.INT64)])
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([3, 1]), "shape"))
    for read in (lambda: load_onnx(save(proto, tmp_path / "a.onnx"), scores=True),
                 lambda: read_file(proto.SerializeToString(), None, True)):  # fmt: skip
        with pytest.raises(UnsupportedError, match="labels of parts"):
            read()
    largest = network(learned("Normalizer", "s", "y", norm="MAX"))
    for read in (lambda: load_onnx(save(largest, tmp_path / "b.onnx"), scores=True),
                 lambda: read_file(largest.SerializeToString(), None, True)):  # fmt: skip
        with pytest.raises(UnsupportedError, match="Normalizer"):
            read()


def test_a_head_is_kept_before_a_cast(tmp_path: Path) -> None:
    """Probabilities that are cast to whole numbers are zeros, or a one; scores are not."""
    casts = [node("Cast", "p", "c", to=TensorProto.INT64), node("Cast", "c", "y", to=TensorProto.FLOAT)]
    proto = network(node("Softmax", "s", "p"), *casts)
    read = load_onnx(save(proto, tmp_path / "net.onnx"), scores=True)
    assert not read.notes
    assert read(100 * torch.ones(1, 1, 4, dtype=torch.float64)).abs().max() <= 1
    _, interface = read_file(proto.SerializeToString(), None, True)
    assert not interface.head


def test_outputs_are_chosen_by_name_or_by_what_they_are(tmp_path: Path) -> None:
    table = helper.make_sequence_type_proto(helper.make_map_type_proto(7, helper.make_tensor_type_proto(1, None)))
    nodes = [
        node("Softmax", "s", "p"),
        node("ArgMax", "p", "l", axis=1),
        learned("ZipMap", "p", "t", classlabels_int64s=[0, 1, 2]),
    ]
    outputs = [tensor("l", None, TensorProto.INT64), helper.make_value_info("t", table)]
    read, interface = same(network(*nodes, outputs=outputs), tmp_path)
    assert read.output == interface.names[1] == "t"
    assert "about the output 't', not l" in read.notes[0]
    two = network(node("Relu", "s", "y"), outputs=[tensor("y", None), tensor("h", None)])
    read, interface = same(two, tmp_path)
    assert read.output == interface.names[1] == "y"
    assert "about the output 'y', not h; choose another one with --output" in read.notes[0]
    assert same(two, tmp_path, "h")[0].output_shape == (1, 6)
    save(two, tmp_path / "two.onnx")
    none = network(node("ArgMax", "s", "y"), node("ArgMax", "s", "h"),
                   outputs=[tensor(n, None, TensorProto.INT64) for n in "yh"])  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"no output has floating-point numbers \(y, h\); choose one"):
        load_onnx(save(none, tmp_path / "none.onnx"))
    with pytest.raises(UnsupportedError):
        read_file(none.SerializeToString())
    for read in (lambda: load_onnx(tmp_path / "two.onnx", output="z"),
                 lambda: read_file(two.SerializeToString(), "z")):  # fmt: skip
        with pytest.raises(InputError, match="no output 'z'"):
            read()


def test_linear_models(tmp_path: Path) -> None:
    scale = {"offset": weights(3).tolist(), "scale": weights(3, seed=4).tolist()}
    nodes = [
        learned("Scaler", "s", "z", **scale),
        learned("LinearRegressor", "z", "y", coefficients=weights(6).tolist(), intercepts=[0.5, 1.0], targets=2),
    ]
    assert same(network(*nodes), tmp_path)[0].output_shape == (1, 2)
    plain = network(learned("LinearClassifier", "s", "l", "y", outputs=2, post_transform="LOGISTIC", **CLASSES))
    read = load_onnx(save(plain, tmp_path / "plain.onnx"))
    assert len(read.activations()) == len(read_file(plain.SerializeToString())[0].activations) == 2


def test_functions_of_the_model_are_inlined(tmp_path: Path) -> None:
    """Nested, called twice, with attributes that calls give or leave out."""
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    bend = helper.make_node("LeakyRelu", ["a"], ["b"])
    bend.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    leak = helper.make_function("own", "Leak", ["a"], ["b"], [bend], sets, [], [helper.make_attribute("slope", 0.25)])
    body = [node("Leak", "u", "t", domain="own", slope=0.125), node("Add", "t", "c", "v")]
    shifted = helper.make_function("own", "Shifted", ["u", "c"], ["v"], body, sets)
    calls = [node("Shifted", "s", "k", "t", domain="own"), node("Shifted", "t", "k", "q", domain="own"),
             node("Leak", "q", "y", domain="own")]  # fmt: skip
    proto = network(*calls)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights(3), "k"))
    proto.opset_import.append(sets[1])
    proto.functions.extend([leak, shifted])
    read, _ = same(proto, tmp_path)
    assert len(read.activations()) == 4


def branch(name: str, outputs: list[str], *nodes: onnx.NodeProto, **constants: Any) -> onnx.GraphProto:
    results = [helper.make_tensor_value_info(o, onnx.TensorProto.FLOAT, None) for o in outputs]
    given = [onnx.numpy_helper.from_array(x, n) for n, x in constants.items()]
    return helper.make_graph([*nodes], name, [], results, given)


@pytest.mark.parametrize("rank", [2, 3])
def test_branches_with_constant_conditions_are_inlined(rank: int, tmp_path: Path) -> None:
    """Of a shape, as PyTorch writes them; nested, with the same names in both, constants of their own, and tensors from
    outside."""
    inner = node("If", "yes", "o", then_branch=branch("yes", ["u"], node("Add", "p", "k", "u"), k=weights(3)),
                 else_branch=branch("no", ["u"], node("Neg", "p", "u")))  # fmt: skip
    same_both = node("Identity", "s", "g")
    first = [same_both, node("Relu", "s", "t"), node("Tanh", "t", "p"), node("Sin", "p", "unused"), inner]
    flat = branch("first", ["o", "g"], *first)
    other = branch("other", ["o", "g"], same_both, node("LeakyRelu", "s", "t"), node("Identity", "t", "o"))
    asked = [node("Shape", "s", "n"), node("Size", "n", "r"), node("Equal", "r", "two", "c")]
    chosen = helper.make_node("If", ["c"], ["e", "f"], then_branch=flat, else_branch=other)
    proto = network(*asked, chosen, node("Add", "e", "f", "y"))
    numbers = {"two": np.int64(rank), "yes": np.bool_(True)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(x), n) for n, x in numbers.items())
    read, _ = same(proto, tmp_path)
    assert len(read.activations()) == (3 if rank == 2 else 2)


def test_the_checker_refuses_conditions_that_are_not_known(tmp_path: Path) -> None:
    plain = branch("a", ["w"], node("Relu", "s", "w"))
    asked = [node("ReduceSum", "s", "n", keepdims=0), node("Greater", "n", "zero", "c")]
    proto = network(*asked, node("If", "c", "y", then_branch=plain, else_branch=plain))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.float32), "zero"))
    with pytest.raises(UnsupportedError, match="not one constant boolean"):
        read_file(proto.SerializeToString())
