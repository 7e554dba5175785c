"""Small ONNX files, specifications and data sets for the tests of commands and runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Arrays = Mapping[str, Any]
Shape = Sequence[int | str | None]


def tensor(name: str, shape: Shape | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Arrays | None = None,
    inputs: Sequence[onnx.ValueInfoProto] = (tensor("x", [1, 2]),),
    outputs: Sequence[onnx.ValueInfoProto] = (tensor("y", None),),
    opset: int = 17,
) -> onnx.ModelProto:
    """A model from nodes that lead from `x` to `y`; the constants are stored in their own types."""
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(op: str, *names: str, **attributes: Any) -> onnx.NodeProto:
    """A node with one output, its last name."""
    return helper.make_node(op, names[:-1], names[-1:], **attributes)


def dense(*layers: tuple[Any, Any], shape: Shape = (1, 2), op: str = "Relu") -> onnx.ModelProto:
    """Gemm layers with ReLU, or another operator, between them, weights as `(outputs, inputs)`."""
    nodes, constants, last = [], dict[str, Any](), "x"
    for i, (weight, bias) in enumerate(layers):
        constants |= {f"w{i}": np.asarray(weight, np.float32), f"b{i}": np.asarray(bias, np.float32)}
        end = "y" if i == len(layers) - 1 else f"z{i}"
        nodes.append(node("Gemm", last, f"w{i}", f"b{i}", end, transB=1))
        if end != "y":
            nodes.append(node(op, end, f"a{i}"))
        last = f"a{i}"
    return model(nodes, constants, [tensor("x", shape)])


def random_dense(widths: Sequence[int], seed: int = 0) -> onnx.ModelProto:
    """A network of random weights."""
    rng = np.random.default_rng(seed)
    layers = [(rng.normal(size=(m, n)) / np.sqrt(n), rng.normal(size=m) / 4) for n, m in zip(widths, widths[1:])]  # noqa: B905, RUF007
    return dense(*layers, shape=(1, widths[0]))


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write the model as it is, checked by nobody."""
    path.write_bytes(model.SerializeToString())
    return path


def specification(lower: Sequence[float], upper: Sequence[float], unsafe: str, outputs: int = 2) -> str:
    """VNN-LIB 1.0: inputs in a box, and assertions that describe the unsafe outputs."""
    lines = [f"(declare-const X_{i} Real)" for i in range(len(lower))]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    for i, (low, high) in enumerate(zip(lower, upper, strict=True)):
        lines += [f"(assert (>= X_{i} {low:.17f}))", f"(assert (<= X_{i} {high:.17f}))"]
    return "\n".join([*lines, unsafe, ""])


def images(path: Path, pixels: Any, labels: Any) -> Path:
    """A file of labelled images."""
    np.savez(path, images=np.asarray(pixels), labels=np.asarray(labels))
    return path


def external(path: Path, values: float) -> Path:
    """A network of two inputs and two outputs, some weights of which lie in a file beside it and have one value."""
    model = onnx.load_from_string(random_dense([2, 40, 2]).SerializeToString())
    weights = np.full((40, 2), values, np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, model.graph.initializer[0].name))
    Path(f"{path}.data").unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=path.name + ".data", size_threshold=100)
    return path
