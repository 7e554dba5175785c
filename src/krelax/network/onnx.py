"""Reads an ONNX file into a `Network`.

The graph is walked once in file order with every shape known: dynamic axes count as one. Nodes whose inputs are all
constant are evaluated on the spot by the ONNX reference implementation (in float64), so shape arithmetic disappears;
every other node goes through one table, `krelax.network.onnx_operators.READERS`. The result is compared with ONNX
Runtime on random inputs before anyone sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from krelax.errors import InputError, KrelaxError, UnsupportedError
from krelax.network.check import check_import
from krelax.network.graph import Builder, Element, Network, Replay, as_element
from krelax.network.onnx_operators import READERS
from krelax.network.onnx_reader import Reader
from krelax.network.simplify import fuse

# Inputs with more numbers than this, or evaluations with more of them in all, are a damaged file, not a network.
_MOST_NUMBERS = 10**8
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}
# What foreign data can make NumPy, torch or protobuf raise while a node is read.
_FOREIGN = (
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
)


def load_onnx(path: str | Path, check: bool = True) -> Network:
    """The network in an ONNX file, with float64 constants and a `replay` through ONNX Runtime.

    The network must have one floating-point input and one output. With `check` its values are compared with ONNX
    Runtime's at random inputs (1e-4 of the largest output).
    Raises InputError for a file that cannot be used and UnsupportedError for an operator krelax does not know.
    """
    path = Path(path)
    model = _read(path)
    network = _build(model, path)
    if check:
        check_import(network, str(path))
    return network


def _read(path: Path) -> onnx.ModelProto:
    if not path.exists():
        raise InputError(f"{path}: no such file; give the path of an ONNX network")
    if not path.is_file():
        raise InputError(f"{path}: not a file; give the path of an ONNX network")
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf raises its own unrelated types
        raise InputError(f"{path}: not an ONNX file ({_line(error)}); export the network again") from error
    if not model.graph.node:
        raise InputError(f"{path}: the ONNX file has no operators; export the network again")
    return model


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def _build(model: onnx.ModelProto, path: Path) -> Network:
    graph = model.graph
    constants = _constants(graph, path)
    name, shape = _input(graph, constants, path)
    if len(graph.output) != 1:
        raise UnsupportedError(f"{path}: the network has {len(graph.output)} outputs; export it with one")
    builder = Builder(shape)
    version = next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 1)
    values: dict[str, int] = {name: 0}
    for node in graph.node:
        _read_node(Reader(builder, node, values, constants, version), path)
    output = values.get(graph.output[0].name)
    if output is None:
        raise InputError(f"{path}: the output {graph.output[0].name!r} does not depend on the input {name!r}")
    network = builder.build(output)
    _check_shapes(network, path)
    kind = _element(graph, name)
    return replace(fuse(network), replay=_session(path, name, shape, kind), replay_dtype=kind)


def _check_shapes(network: Network, path: Path) -> None:
    """Evaluate the network once, so that operands of unsuitable shape are found where they are."""
    if sum(np.prod(node.shape, dtype=float) for node in network.nodes) > _MOST_NUMBERS:
        raise InputError(f"{path}: one evaluation takes more than {_MOST_NUMBERS} numbers; is the file damaged?")
    values = [torch.zeros(1, *network.input_shape, dtype=torch.float64)]
    for node in network.nodes[1:]:
        try:
            values.append(node.op.forward(*(values[i] for i in node.inputs)))
            problem = "" if tuple(values[-1].shape[1:]) == node.shape else f"gives {list(values[-1].shape[1:])}"
        except _FOREIGN as error:
            problem = _line(error)
        if problem:
            place = f"{path}: node {node.name!r} ({type(node.op).__name__})"
            raise InputError(f"{place}: operands of unsuitable shape ({problem}); export the network again")


def _constants(graph: onnx.GraphProto, path: Path) -> dict[str, NDArray[Any]]:
    result = {}
    for tensor in graph.initializer:
        try:
            array = numpy_helper.to_array(tensor)
        except _FOREIGN as error:
            raise InputError(f"{path}: cannot read constant {tensor.name!r} ({_line(error)})") from error
        result[tensor.name] = _wide(array, tensor.name, path)
    return result


def _wide(array: NDArray[Any], name: str, path: Path) -> NDArray[Any]:
    if not np.issubdtype(array.dtype, np.floating):
        return array
    if not np.isfinite(array).all():
        raise InputError(f"{path}: constant {name!r} holds NaN or infinity; train or export the network again")
    return array.astype(np.float64)


def _input(graph: onnx.GraphProto, constants: dict[str, Any], path: Path) -> tuple[str, tuple[int, ...]]:
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(i.name for i in inputs) or "none"
        raise UnsupportedError(f"{path}: the network has {len(inputs)} inputs ({names}); export it with one")
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in _FLOATS:
        raise UnsupportedError(f"{path}: input {inputs[0].name!r} is not float32 or float64; export a float network")
    if not kind.HasField("shape"):
        raise InputError(f"{path}: input {inputs[0].name!r} has no shape; export the network with its input shape")
    shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value != 0 else 1 for d in kind.shape.dim)
    if any(n < 1 for n in shape) or np.prod(shape, dtype=float) > _MOST_NUMBERS:
        raise InputError(f"{path}: input {inputs[0].name!r} has the impossible shape {list(shape)}")
    return inputs[0].name, shape


def _read_node(reader: Reader, path: Path) -> None:
    node = reader.node
    place = f"{path}: node {node.name or node.output[0] if node.output else node.name!r} ({node.op_type})"
    if not any(reader.depends(name) for name in node.input) or node.op_type == "Shape":
        try:
            reader.fold()
        except Exception as error:  # whatever the reference implementation raises
            raise InputError(f"{place}: cannot evaluate this constant ({_line(error)})") from error
        return
    read: Callable[[Reader], int] | None = READERS.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
    if read is None:
        raise UnsupportedError(
            f"{place}: operator {node.op_type} is not supported; "
            "`krelax supports --onnx-operators` lists those that are"
        )
    try:
        reader.values[node.output[0]] = read(reader)
    except KrelaxError as error:
        raise type(error)(f"{place}: {error}") from error
    except _FOREIGN as error:
        raise InputError(f"{place}: malformed ({_line(error)}); export the network again") from error


def _element(graph: onnx.GraphProto, name: str) -> Element:
    """The type of the input's numbers."""
    double = next(i for i in graph.input if i.name == name).type.tensor_type.elem_type == onnx.TensorProto.DOUBLE
    return np.float64 if double else np.float32


def _session(path: Path, name: str, shape: tuple[int, ...], kind: Element) -> Replay:
    """Evaluates the file itself, in its own type, with ONNX Runtime; the session is made at the first call."""
    sessions: list[Any] = []

    def replay(x: NDArray[Any]) -> NDArray[Any]:
        import onnxruntime

        if not sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            options.intra_op_num_threads = 1
            runtime = onnxruntime.InferenceSession
            try:  # without the fallback, which prints
                sessions.append(runtime(str(path), options, ["CPUExecutionProvider"], enable_fallback=0))
            except Exception as error:  # ONNX Runtime raises its own types
                raise InputError(f"{path}: ONNX Runtime cannot run the file ({_line(error)})") from error
        feed = as_element(x, kind).reshape(shape)
        try:
            result: NDArray[Any] = sessions[0].run(None, {name: feed})[0]
        except Exception as error:
            raise InputError(f"{path}: ONNX Runtime cannot evaluate the network ({_line(error)})") from error
        return result

    return replay
