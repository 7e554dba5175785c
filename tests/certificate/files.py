"""Small ONNX files of a few operators, for the tests of the checker's reader."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from tests.run.files import model, tensor

F32, F64, INT64 = np.float32, np.float64, np.int64
INF = np.inf
TRUE = np.array(True)
HALVES = F32([0.5, 0.5])
IMAGE = (1, 2, 4, 4)
ML = "ai.onnx.ml"


def i8(*values: int) -> Any:
    return np.array(values, INT64)


def call(op: str, inputs: str, output: str = "y", **attributes: Any) -> Any:
    """A node; `-` is an operand that is left out."""
    outputs = output.split()
    return onnx.helper.make_node(op, ["" if n == "-" else n for n in inputs.split()], outputs, **attributes)


def file(nodes: list[Any], constants: Any = None, shape: Any = (1, 2), opset: int = 17, kind: int = 1) -> bytes:
    made = model(nodes, constants, [tensor("x", shape)], opset=opset)
    made.graph.input[0].type.tensor_type.elem_type = kind
    made.graph.output[0].type.tensor_type.elem_type = kind
    if any(n.domain for n in nodes):
        made.opset_import.append(onnx.helper.make_opsetid(ML, 3))
    data: bytes = made.SerializeToString()
    return data


def one(op: str, *constants: Any, shape: Any = (1, 2), opset: int = 17, outputs: str = "y", **attributes: Any) -> bytes:
    """A file of one operator of the input and some constants; None leaves an operand out."""
    names = " ".join("-" if c is None else f"c{i}" for i, c in enumerate(constants))
    given = {f"c{i}": np.asarray(c) for i, c in enumerate(constants) if c is not None}
    return file([call(op, f"x {names}", outputs, **attributes)], given, shape, opset)


def computed(*nodes: Any, shape: Any = (1, 2), opset: int = 17, **constants: Any) -> bytes:
    """A file with a constant `k` that is a product of two others, which rounds."""
    given = {"a": F32([0.1, 0.3]), "b": F32([0.7, 1.1]), **{n: np.asarray(c) for n, c in constants.items()}}
    return file([call("Mul", "a b", "k"), *nodes], given, shape, opset)


def quantised(*nodes: Any, shape: Any = (1, 2), **constants: Any) -> bytes:
    """A file with the input on a grid as `q`."""
    given = {"s": np.asarray(F32(0.5)), "z": np.asarray(np.int8(0)), **{n: np.asarray(c) for n, c in constants.items()}}
    return file([call("QuantizeLinear", "x s z", "q"), *nodes], given, shape)


def chosen(**attributes: Any) -> bytes:
    """A branch by a condition, with these attributes besides."""
    return file([call("If", "c", "y", **attributes)], {"c": TRUE})


def branch(*nodes: Any, result: str = "z", constants: Any = None) -> Any:
    stored = [onnx.numpy_helper.from_array(np.asarray(c), n) for n, c in (constants or {}).items()]
    return onnx.helper.make_graph(nodes, "branch", [], [tensor(result, None)], stored)


def edited(change: Any, *nodes: Any, constants: Any = None, shape: Any = (1, 2)) -> bytes:
    made = model(list(nodes) or [call("Relu", "x")], constants, [tensor("x", shape)])
    change(made)
    data: bytes = made.SerializeToString()
    return data


def with_functions(*functions: Any, inputs: str = "x", opset: int = 17) -> bytes:
    made = model([call("mine", inputs, domain="here")], None, [tensor("x", (1, 2))], opset=opset)
    made.opset_import.append(onnx.helper.make_opsetid("here", 1))
    made.functions.extend(functions)
    data: bytes = made.SerializeToString()
    return data


def function(*nodes: Any, domain: str = "here", inputs: Any = ("p",), outputs: Any = ("q",), version: int = 17) -> Any:
    sets = [onnx.helper.make_opsetid("", version), onnx.helper.make_opsetid("here", 1)]
    return onnx.helper.make_function(domain, "mine", list(inputs), list(outputs), list(nodes), sets)
