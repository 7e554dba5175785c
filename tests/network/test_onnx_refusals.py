"""What the ONNX reader refuses, and how: one line that says what, where and what to do, and never a network."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from tests.run.files import dense, model, node, random_dense, save, tensor

from krelax.errors import InputError
from krelax.network.onnx import load_onnx


def refused(proto: onnx.ModelProto, folder: Path, reason: str) -> None:
    path = save(proto, folder / "net.onnx")
    with pytest.raises(InputError, match=reason) as caught:
        load_onnx(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def of(op: str, *names: str, constants: dict[str, Any] | None = None, opset: int = 17, shape: Sequence[int] = (1, 4),
       **attributes: Any) -> onnx.ModelProto:  # fmt: skip
    return model([node(op, *names, "y", **attributes)], constants, [tensor("x", shape)], opset=opset)


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def whole(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


IMAGE = (1, 1, 4, 4)
MALFORMED: dict[str, tuple[onnx.ModelProto, str]] = {
    "unknown attribute": (of("Relu", "x", alpha=1.0), "attribute 'alpha', which Relu does not have"),
    "broadcast of old operator sets": (of("Add", "x", "w", constants={"w": ones(4)}, broadcast=1), "'broadcast'"),
    "attribute of another type": (of("Transpose", "x", perm=1), "attribute 'perm' has another type than ONNX gives it"),
    "attribute of a later version": (of("Shape", "x", start=1, opset=13), "attribute 'start'"),
    "attribute that became an operand": (of("Squeeze", "x", axes=[0], opset=13), "attribute 'axes'"),
    "required attribute missing": (of("Concat", "x"), "axis"),
    "too many operands": (of("Relu", "x", "x"), "input size 2"),
    "too few operands": (of("Add", "x"), "input size 1"),
    "operator set 6": (of("Relu", "x", opset=6), "operator set 6; export with one from 7"),
    "operator set of the future": (of("Relu", "x", opset=1000), "operator set 1000"),
    "another domain": (of("Relu", "x", domain="com.example"), "operator com.example.Relu is not supported"),
    "undefined operand": (of("Add", "x", "nothing"), "'nothing' is not computed by any earlier node"),
    "integer operand of a product": (of("Mul", "x", "w", constants={"w": whole(1)}), "operand 1 of type int64"),
    "double operand of a float product": (of("Mul", "x", "w", constants={"w": np.ones(4)}), "operand 1 of type double"),
    "float list of axes": (of("Squeeze", "x", "a", constants={"a": ones(1)}), "operand 1 of type float"),
    "activation in bfloat16": (of("Cast", "x", to=TensorProto.BFLOAT16), "a cast that rounds, from float to bfloat16"),
    "activation in four bits": (of("Cast", "x", to=TensorProto.INT4), "a cast that rounds, from float to int4"),
    "dropout that drops": (
        of("Dropout", "x", "r", "t", constants={"r": np.float32(0.5), "t": np.bool_(True)}), "training mode"),
    "normalisation in training": (
        of("BatchNormalization", "x", *"sbmv", constants=dict.fromkeys("sbmv", ones(4)), training_mode=1),
        "training mode"),
    "normalisation of every entry": (
        of("BatchNormalization", "x", *"sbmv", constants=dict.fromkeys("sbmv", ones(4)), spatial=0, opset=8),
        "spatial=0"),
    "statistics of another size": (
        of("BatchNormalization", "x", *"sbmv", constants=dict.fromkeys("sbmv", ones(3))), r"shape \[3\], not \[4\]"),
    "negative variance": (
        of("BatchNormalization", "x", *"sbmv", constants={**dict.fromkeys("sbm", ones(4)), "v": -ones(4)}), "negative"),
    "variance of zero without epsilon": (
        of("BatchNormalization", "x", *"sbmv", epsilon=0.0,
           constants={**dict.fromkeys("sbm", ones(4)), "v": 0 * ones(4)}),
        "division by zero"),
    "infinite scale": (of("Div", "x", "w", constants={"w": np.full(4, 1e-45, np.float32)}), "import check failed"),
    "pads with auto_pad": (
        of("MaxPool", "x", shape=IMAGE, kernel_shape=[2, 2], auto_pad="VALID", pads=[1] * 4), "together with auto_pad"),
    "unknown auto_pad": (of("MaxPool", "x", shape=IMAGE, kernel_shape=[2, 2], auto_pad="SAME"), "auto_pad 'SAME'"),
    "ceil_mode with auto_pad": (
        of("MaxPool", "x", shape=IMAGE, kernel_shape=[2, 2], auto_pad="SAME_UPPER", ceil_mode=1), "ceil_mode"),
    "dilations with auto_pad": (
        of("MaxPool", "x", shape=IMAGE, kernel_shape=[2, 2], auto_pad="SAME_UPPER", dilations=[2, 2]), "dilations"),
    "negative pads of a pool": (of("MaxPool", "x", shape=IMAGE, kernel_shape=[2, 2], pads=[-1, 0, 0, 0]), "pads"),
    "pool without a kernel": (of("MaxPool", "x", shape=IMAGE), "kernel_shape"),
    "padding of a mode": (of("Pad", "x", "p", constants={"p": whole(0, 1, 0, 9)}, mode="reflect"), "of mode reflect"),
    "pads of another rank": (of("Pad", "x", "p", constants={"p": whole(0, 1, 0)}), "3 pads for 2 axes"),
    "axis given twice to Pad": (
        of("Pad", "x", "p", "", "a", constants={"p": whole(1, 1, 1, 1), "a": whole(1, -1)}, opset=18), "twice"),
    "padding by a list": (
        of("Pad", "x", "p", "v", constants={"p": whole(0, 1, 0, 1), "v": ones(2)}), "not one number"),
    "axis that is not there": (of("Concat", "x", "x", axis=2), "axis 2 of a tensor of rank 2"),
    "axis of Flatten that is not there": (of("Flatten", "x", axis=3), "axis 3 of a tensor of rank 2"),
    "axis dropped that is not one": (of("Squeeze", "x", "a", constants={"a": whole(1)}), "cannot drop axes"),
    "axis dropped twice": (of("Squeeze", "x", "a", constants={"a": whole(0, -2)}), "twice"),
    "empty list of axes": (of("Squeeze", "x", "a", constants={"a": whole()}), "empty list of axes"),
    "shapes joined that differ": (
        of("Concat", "x", "w", constants={"w": ones(1, 1)}, axis=0), "cannot be joined along axis 0"),
    "reshape to another size": (of("Reshape", "x", "s", constants={"s": whole(3)}), r"cannot reshape \[1, 4\]"),
    "reshape that divides unevenly": (of("Reshape", "x", "s", constants={"s": whole(3, -1)}), "cannot reshape"),
    "reshape by two unknowns": (of("Reshape", "x", "s", constants={"s": whole(-1, -1)}), "cannot reshape"),
    "reshape that copies no axis": (of("Reshape", "x", "s", constants={"s": whole(1, 4, 0)}), "copies an axis"),
    "reshape to nothing": (of("Reshape", "x", "s", constants={"s": whole(0, 4)}, allowzero=1), "no entries"),
    "slice of nothing": (of("Slice", "x", "s", "s", "a", constants={"s": whole(2), "a": whole(1)}), "without entries"),
    "slice by steps of zero": (
        of("Slice", "x", "s", "e", "a", "t", constants={"s": whole(0), "e": whole(2), "a": whole(1), "t": whole(0)}),
        "step is zero"),
    "slice backwards from before the first entry": (
        of("Slice", "x", "s", "e", "a", "t", constants={"s": whole(-5), "e": whole(-9), "a": whole(1), "t": whole(-1)}),
        "before the first entry"),
    "slice of a constant backwards from before its first entry": (
        model([node("Slice", "w", "s", "e", "a", "t", "v"), node("ReduceSum", "v", "r"), node("Add", "x", "r", "y")],
              {"w": ones(4), "s": whole(-5), "e": whole(-9), "a": whole(0), "t": whole(-1)}, [tensor("x", (1, 4))]),
        "before the first entry"),
    "index out of range": (of("Gather", "x", "i", constants={"i": whole(4)}, axis=1), "beyond axis 1, which has size"),
    "uneven split before operator set 18": (
        model([helper.make_node("Split", ["x"], ["a", "b", "c"], axis=1), node("Relu", "a", "y")],
              inputs=[tensor("x", (1, 4))], opset=13), "does not split into 3 equal parts"),
    "split by both": (
        model([helper.make_node("Split", ["x", "s"], ["a", "b"], axis=1, num_outputs=2), node("Relu", "a", "y")],
              {"s": whole(2, 2)}, [tensor("x", (1, 4))], opset=18), "num_outputs"),
    "limit that is a list": (of("Clip", "x", "l", constants={"l": ones(4)}), "not one number"),
    "kernel of four axes": (of("Conv", "x", "w", shape=(1,) * 6, constants={"w": ones(*[1] * 6)}), "over 4 axes"),
    "bias of another size": (
        of("Conv", "x", "w", "b", shape=IMAGE, constants={"w": ones(2, 1, 2, 2), "b": ones(1)}), "bias of shape"),
    "channels of another number": (of("Conv", "x", "w", shape=IMAGE, constants={"w": ones(2, 2, 2, 2)}), "channels"),
    "third operand of Gemm": (
        of("Gemm", "x", "w", "b", constants={"w": ones(4, 3), "b": ones(2)}), r"operand C of shape \[2\]"),
    "product of unsuitable shapes": (of("MatMul", "x", "w", constants={"w": ones(3, 3)}), r"\(1, 4\) and \(3, 3\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_not_modelled_is_refused(name: str, tmp_path: Path) -> None:
    proto, reason = MALFORMED[name]
    refused(proto, tmp_path, reason)


def folded(op: str, *constants: Any, opset: int = 17, **attributes: Any) -> onnx.ModelProto:
    """A model that adds a constant node's result to its input."""
    names = [f"c{i}" for i in range(len(constants))]
    nodes = [node(op, *names, "r", **attributes), node("Cast", "r", "f", to=1), node("Add", "x", "f", "y")]
    return model(nodes, dict(zip(names, constants, strict=True)), [tensor("x", (1,))], opset=opset)


CONSTANTS: dict[str, tuple[onnx.ModelProto, str]] = {
    "sum that overflows int32": (folded("Add", np.int32(2**31 - 1), np.int32(1)), "int32 does not hold"),
    "product that overflows int64": (folded("Mul", whole(2**62), whole(2)), "int64 does not hold"),
    "difference below zero": (folded("Sub", np.uint8(3), np.uint8(5)), "uint8 does not hold"),
    "integer division by zero": (folded("Div", whole(1), whole(0)), "division by zero"),
    "negated least int32": (folded("Neg", np.int32(-(2**31))), "int32 does not hold"),
    "cast to a narrower integer": (folded("Cast", whole(256), to=TensorProto.UINT8), "uint8 does not hold"),
    "cast of a float beyond an integer": (folded("Cast", np.float32(1e20), to=TensorProto.INT64), "int64 does not"),
    "cast that rounds to float16": (folded("Cast", np.float32(0.1), to=TensorProto.FLOAT16), "cast that rounds"),
    "cast that rounds to bfloat16": (folded("Cast", np.float32(0.1), to=TensorProto.BFLOAT16), "cast that rounds"),
    "cast of a large integer": (folded("Cast", whole(2**24 + 1), to=TensorProto.FLOAT), "cast that rounds"),
    "determinant": (folded("Det", ones(1)), "operator Det of constants is not evaluated"),
    "random numbers": (folded("RandomNormal", shape=[1]), "operator RandomNormal of constants is not evaluated"),
    "root of a negative number": (folded("Sqrt", -ones(1)), "square root of a negative number"),
    "division by zero": (folded("Div", ones(1), 0 * ones(1)), "division by zero"),
    "comparison of what is rounded": (
        model([node("Div", "a", "b", "q"), node("Less", "q", "q", "l"), node("Cast", "l", "f", to=1),
               node("Add", "x", "f", "y")], {"a": ones(1), "b": 3 * ones(1)}), "comparison of a computed constant"),
    "string": (model([node("Add", "x", "s", "y")], {"s": np.array(["a"])}), "constants of type string"),
    "infinity": (model([node("Add", "x", "s", "y")], {"s": np.float32(np.inf)}), "NaN or infinity"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_that_are_not_modelled_are_refused(name: str, tmp_path: Path) -> None:
    proto, reason = CONSTANTS[name]
    refused(proto, tmp_path, reason)


def test_names_are_defined_once(tmp_path: Path) -> None:
    relus = [node("Relu", "x", "y"), node("Relu", "x", "y")]
    refused(model(relus), tmp_path, "name is defined already")
    refused(model([node("Relu", "x", "x"), node("Relu", "x", "y")]), tmp_path, "name is defined already")
    refused(
        model([node("Neg", "w", "w"), node("Add", "x", "w", "y")], {"w": ones(2)}), tmp_path, "name is defined already"
    )
    twice = model([node("Add", "x", "w", "y")], {"w": ones(2)})
    twice.graph.initializer.append(numpy_helper.from_array(2 * ones(2), "w"))
    refused(twice, tmp_path, "constant 'w' is defined twice")
    listed = model([node("Relu", "x", "y")], inputs=[tensor("x", [1, 2]), tensor("x", [1, 2])])
    refused(listed, tmp_path, "an input that is listed twice")


def test_an_attribute_that_is_given_twice(tmp_path: Path) -> None:
    proto = of("LeakyRelu", "x", alpha=0.5)
    proto.graph.node[0].attribute.append(helper.make_attribute("alpha", 0.25))
    refused(proto, tmp_path, "given twice")


def test_functions_are_inlined_and_sparse_constants_and_references_refused(tmp_path: Path) -> None:
    local = model([node("Twice", "x", "y", domain="own")])
    local.opset_import.append(helper.make_opsetid("own", 1))
    body, sets = [node("Add", "a", "a", "b")], [helper.make_opsetid("", 17)]
    local.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, sets))
    assert load_onnx(save(local, tmp_path / "local.onnx"))(torch.ones(1, 1, 2).double()).tolist() == [[[2.0, 2.0]]]
    sparse = model([node("Relu", "x", "y")])
    values, indices = numpy_helper.from_array(ones(1), "w"), numpy_helper.from_array(whole(0), "i")
    sparse.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2]))
    refused(sparse, tmp_path, "sparse constants")
    reference = of("LeakyRelu", "x", alpha=0.5)
    reference.graph.node[0].attribute[0].ref_attr_name = "slope"
    refused(reference, tmp_path, "attribute 'alpha' has another type than ONNX gives it")


def test_conditions_must_be_constant_booleans(tmp_path: Path) -> None:
    branch = helper.make_graph([node("Identity", "x", "z")], "branch", [], [tensor("z", None)])
    chosen = node("If", "c", "y", then_branch=branch, else_branch=branch)
    given = {"zero": np.float32([0])}
    asked = [node("ReduceSum", "x", "s", keepdims=0), node("Greater", "s", "zero", "c")]
    refused(model([*asked, chosen], given), tmp_path, "a condition that depends on the input")
    refused(model([chosen], {"c": np.int64(1)}), tmp_path, "a condition that is not one boolean")
    refused(model([chosen], {"c": np.array([True, True])}), tmp_path, "not one condition and two branches")
    two = helper.make_node("If", ["c"], ["y", "other"], then_branch=branch, else_branch=branch)
    refused(model([two], {"c": np.bool_(True)}), tmp_path, "other results than the node's")


def test_two_operator_sets(tmp_path: Path) -> None:
    proto = of("Relu", "x")
    proto.opset_import.append(helper.make_opsetid("ai.onnx", 13))
    refused(proto, tmp_path, "2 versions of the standard operator set")
    del proto.opset_import[:]
    refused(proto, tmp_path, "0 versions of the standard operator set")


def test_constants_with_two_encodings_or_numbers_outside_their_type(tmp_path: Path) -> None:
    both = model([node("Add", "x", "w", "y")], {"w": ones(2)})
    both.graph.initializer[0].float_data.extend([3.0, 4.0])
    refused(both, tmp_path, "constant 'w': a constant with several encodings")
    wrap = model([node("Add", "x", "f", "y")])
    wrap.graph.initializer.append(TensorProto(name="w", data_type=TensorProto.UINT8, dims=[1], int32_data=[300]))
    wrap.graph.node.insert(0, node("Cast", "w", "f", to=1))
    refused(wrap, tmp_path, "constant 'w'")
    short = model([node("Add", "x", "w", "y")], {"w": ones(2)})
    short.graph.initializer[0].raw_data = b"\0" * 4
    refused(short, tmp_path, "constant 'w' cannot be read")


def test_what_a_small_file_expands_to_is_limited(tmp_path: Path) -> None:
    """Before it does: none of these takes a second or a gigabyte."""
    huge = whole(2**31, 2**31)
    doubled = [node("Concat", f"t{i}", f"t{i}", f"t{i + 1}", axis=0) for i in range(32)]
    refused(
        model([node("Relu", "x", "t0"), *doubled, node("Relu", "t32", "y")]), tmp_path, "numbers for one evaluation"
    )
    doubled = [node("Concat", f"t{i}", f"t{i}", f"t{i + 1}", axis=0) for i in range(32)]
    limited = "more than this file may expand to"
    refused(model([*doubled, node("Add", "x", "t32", "y")], {"t0": ones(1, 2)}), tmp_path, limited)
    refused(model([node("Expand", "x", "s", "y")], {"s": whole(10**9, 2)}), tmp_path, "numbers for one evaluation")
    for op, constants in {
        "ConstantOfShape": (huge,),
        "Expand": (ones(1), huge),
        "Tile": (ones(1, 1), huge),
        "Range": (np.int64(0), np.int64(2**40), np.int64(1)),
        "Gather": (ones(1, 10**4), np.zeros(10**5, np.int64)),
        "Mul": (ones(10**4, 1), ones(1, 10**4)),
        "MatMul": (ones(10**4, 1), ones(1, 10**4)),
        "Where": (np.zeros((10**4, 1), bool), ones(1, 10**4), ones(1)),
    }.items():
        refused(folded(op, *constants), tmp_path, limited)
    many = [node("ConstantOfShape", "s", f"t{i}") for i in range(64)]
    joined = [node("Concat", *[f"t{i}" for i in range(64)], "c", axis=0), node("Add", "x", "c", "y")]
    refused(model([*many, *joined], {"s": whole(10**6)}), tmp_path, limited)
    wide = of("Pad", "x", "p", constants={"p": whole(0, 10**10, 0, 0)})
    refused(wide, tmp_path, "numbers for one evaluation")
    windows = of("MaxPool", "x", shape=(1, 1, 10**3, 10**3), kernel_shape=[500, 500])
    refused(windows, tmp_path, "numbers for one evaluation")
    padded = of("AveragePool", "x", shape=IMAGE, kernel_shape=[10**6, 10**6], pads=[10**6] * 4)
    refused(padded, tmp_path, "numbers for one evaluation")
    far = of("ConvTranspose", "x", "w", shape=IMAGE, constants={"w": ones(1, 1, 1, 1)}, strides=[10**6, 10**6])
    refused(far, tmp_path, "numbers for one evaluation")
    pooled = of("Conv", "x", "w", shape=(1, 1, 3000, 3000), constants={"w": ones(1, 1, 1000, 1001)}, pads=[500] * 4)
    refused(pooled, tmp_path, "multiplications")


def test_inputs_and_outputs_that_do_not_fit(tmp_path: Path) -> None:
    relu = [node("Relu", "x", "y")]
    refused(model(relu, inputs=[tensor("x", [0, 2])]), tmp_path, r"impossible shape \[0, 2\]; export it with a batch")
    refused(model(relu, inputs=[tensor("x", None)]), tmp_path, "has no shape")
    complex_ = [tensor("x", [1, 2], TensorProto.COMPLEX64)]
    refused(model(relu, inputs=complex_), tmp_path, "input 'x' is complex64; export it as one of float32, float64")
    refused(model(relu, inputs=[tensor("x", [10**5, 10**5])]), tmp_path, "impossible shape")
    two = model([node("Add", "x", "z", "y")], inputs=[tensor("x", [1, 2]), tensor("z", [1, 2])])
    refused(two, tmp_path, r"2 inputs \(x, z\)")
    wrong = model(relu, outputs=[tensor("y", None, TensorProto.DOUBLE)])
    refused(wrong, tmp_path, "output 'y' is declared double")


def test_a_dynamic_axis_is_said_to_be_one_where_shapes_do_not_fit(tmp_path: Path) -> None:
    gemm = model([node("MatMul", "x", "w", "y")], {"w": ones(4, 3)}, [tensor("x", ["N", "F"])])
    refused(gemm, tmp_path, r"product of shapes \(1, 1\) .*dynamic axes of the input, N, F, were taken as 1\)$")
    pool = model([node("MaxPool", "x", "y", kernel_shape=[2])], inputs=[tensor("x", [1, 1, None])])
    refused(pool, tmp_path, r"dynamic axes of the input, axis 2, were taken as 1\)$")
    unsupported = model([node("Det", "x", "y")], inputs=[tensor("x", ["N", 4])])
    refused(unsupported, tmp_path, "lists those that are$")


Damage = Callable[[Path], object]
FILES: dict[str, tuple[Damage, str]] = {
    "missing": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "not a file"),
    "empty": (lambda path: path.write_bytes(b""), "no operators"),
    "text": (lambda path: path.write_text("hello"), "not an ONNX file"),
    "pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "a git-lfs pointer, not the network itself; fetch it with 'git lfs pull'",
    ),
    "zip": (lambda path: path.write_bytes(b"PK\x03\x04rest"), "a zip archive"),
    "damaged gzip": (lambda path: path.write_bytes(gzip.compress(b"network" * 99)[:-9]), "damaged gzip data"),
    "gzip of text": (lambda path: path.write_bytes(gzip.compress(b"network")), "not an ONNX file"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_network_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    make, reason = FILES[name]
    make(path)
    with pytest.raises(InputError, match=reason) as caught:
        load_onnx(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="everything is readable here")
def test_a_file_without_read_permission(tmp_path: Path) -> None:
    path = save(random_dense([2, 2]), tmp_path / "net.onnx")
    path.chmod(0)
    with pytest.raises(InputError, match=r"cannot be read .*check its permissions"):
        load_onnx(path)


def test_a_read_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = save(random_dense([2, 2]), tmp_path / "net.onnx")
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\); check its permissions"):
        load_onnx(path)


def test_compressed_networks_are_read_and_replayed(tmp_path: Path) -> None:
    proto = random_dense([3, 4, 2])
    plain = load_onnx(save(proto, tmp_path / "net.onnx"))
    path = tmp_path / "net.onnx.gz"
    path.write_bytes(gzip.compress(proto.SerializeToString()))
    packed = load_onnx(path)
    x = np.full((1, 3), 0.5, np.float32)
    assert plain.replay is not None
    assert packed.replay is not None
    np.testing.assert_array_equal(packed.replay(x), plain.replay(x))


def test_the_entries_of_a_file_are_counted_before_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krelax.network.onnx_file._MOST_ENTRIES", 1000)
    proto, path = random_dense([3, 4, 2]), tmp_path / "net.onnx"
    assert load_onnx(save(proto, path)).output_shape == (1, 2)
    nodes, attributes = onnx.ModelProto(), onnx.ModelProto()
    nodes.graph.node.extend(onnx.NodeProto() for _ in range(1000))
    attributes.graph.node.add().attribute.extend(onnx.AttributeProto() for _ in range(1000))
    floats = onnx.ModelProto()
    floats.graph.node.add().attribute.add().floats.extend([0.0] * 1000)
    for crowded in (nodes, attributes, floats):
        path.write_bytes(crowded.SerializeToString())
        with pytest.raises(InputError, match="more than 1,000 nodes, attributes and other entries"):
            load_onnx(path)


def test_entries_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for content in (
        b"\x3a" + b"\xff" * 99,
        b"\x3a\xff\xff\xff\xff\x07\x0a",
        b"\x08" + b"\x80" * 30,
        b"\x0b\x0c",
        b"\x39\x00",
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"not an ONNX file|has no operators"):
            load_onnx(path)


def external(folder: Path, location: str) -> Path:
    """A network whose weights are to lie in another file."""
    proto, path = dense((ones(2, 2), ones(2)), shape=(1, 2)), folder / "net.onnx"
    for constant in proto.graph.initializer:
        onnx.external_data_helper.set_external_data(constant, location)
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_beside_the_network(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    proto = dense((3 * ones(300, 2), ones(300)), shape=(1, 2))
    onnx.save(proto, path, save_as_external_data=True, location="net.data", size_threshold=0)
    assert load_onnx(path).output_shape == (1, 300)
    packed = tmp_path / "net.onnx.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="decompress it first"):
        load_onnx(packed)
    (tmp_path / "net.data").unlink()
    with pytest.raises(InputError, match=r"cannot load the external data of constant 'w0'.*keep the file") as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("location", ["../secret.data", "/etc/hostname", "link.data"])
def test_external_data_elsewhere_is_refused(location: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.data").write_bytes(b"\0" * 64)
    (inside / "link.data").symlink_to(tmp_path / "secret.data")
    with pytest.raises(InputError, match="cannot load the external data"):
        load_onnx(external(inside, location))


def test_an_attribute_without_a_type(tmp_path: Path) -> None:
    proto = of("LeakyRelu", "x", alpha=0.5)
    proto.graph.node[0].attribute[0].type = AttributeProto.UNDEFINED
    refused(proto, tmp_path, "attribute 'alpha' has another type than ONNX gives it")
