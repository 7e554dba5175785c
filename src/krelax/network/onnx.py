"""Reads an ONNX file into a `Network`.

The graph is walked once in file order with every shape known: dynamic axes count as one. Nodes whose inputs are all
constant are evaluated on the spot (`krelax.network.onnx_constants`), so shape arithmetic disappears; every other node
goes through one table, `krelax.network.onnx_operators.READERS`. Whatever these do not model exactly is refused. The
result is compared with ONNX Runtime on random inputs before anyone sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from krelax.errors import InputError, KrelaxError, UnsupportedError
from krelax.network import onnx_affine, onnx_folds  # noqa: F401 (they fill READERS and FOLDS)
from krelax.network.check import check_import
from krelax.network.graph import MOST_NUMBERS, Builder, Element, Network, Node, Replay, as_element
from krelax.network.linear import Arithmetic, Conv, ConvTranspose
from krelax.network.onnx_constants import FOLDS
from krelax.network.onnx_file import first_line, read_model
from krelax.network.onnx_operators import READERS
from krelax.network.onnx_reader import FLOATS, Kind, Known, Literal, Reader
from krelax.network.onnx_schema import check_node, kind_name, results, schema_of
from krelax.network.simplify import fuse
from krelax.watch import tick

# Multiplications in one evaluation, and numbers that one convolution lays out: more are a damaged file.
_MOST_WORK, _MOST_LAID_OUT = 10**12, 10**9
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
_STANDARD = {"", "ai.onnx"}


def load_onnx(path: str | Path, check: bool = True) -> Network:
    """The network in an ONNX file, with float64 constants and a `replay` through ONNX Runtime.

    Args:
        path: The file, which may be compressed with gzip. Of its inputs one floating-point input may be used, and it
            must have one output.
        check: Whether values are compared with ONNX Runtime's at random inputs (1e-4 of the largest output).

    Returns:
        The network, a function from `(batch, *input_shape)` to `(batch, *output_shape)`.

    Raises:
        InputError: The file cannot be used.
        UnsupportedError: It has something that krelax does not model exactly.

    Sound: yes. What is not modelled exactly is refused, and the rounding of folded constants is charged.
    """
    path = Path(path)
    model, content = read_model(path)
    network = _build(model, path, path if content is None else content)
    if check:
        check_import(network, str(path))
    return network


def _build(model: onnx.ModelProto, path: Path, source: Path | bytes) -> Network:
    graph = model.graph
    if model.functions:
        names = ", ".join(f.name for f in model.functions)
        raise UnsupportedError(f"{path}: functions of the model's own ({names}); inline them when exporting")
    if graph.sparse_initializer or model.training_info:
        raise UnsupportedError(f"{path}: sparse constants or training information; export without them")
    version = _version(model, path)
    known = _constants(graph, path)
    inputs = _Inputs.of(graph, known, path)
    if len(graph.output) != 1:
        names = ", ".join(o.name for o in graph.output) or "none"
        raise UnsupportedError(f"{path}: the network has {len(graph.output)} outputs ({names}); export it with one")
    try:
        builder = Builder(inputs.shape)
        known.values[inputs.name], known.kinds[inputs.name] = 0, inputs.kind
        for node in graph.node:
            tick()
            _read_node(builder, node, known, version)
        network = builder.build(_output(graph.output[0], known, inputs))
        _check_shapes(network)
    except KrelaxError as error:
        hint = "" if isinstance(error, UnsupportedError) else inputs.hint
        raise type(error)(f"{path}: {error}{hint}") from error
    kind: Element = np.float64 if inputs.kind == Kind.DOUBLE else np.float32
    return replace(fuse(network), replay=_session(path, source, inputs, kind), replay_dtype=kind)


def _version(model: onnx.ModelProto, path: Path) -> int:
    """The operator set of the standard operators."""
    versions = {o.version for o in model.opset_import if o.domain in _STANDARD}
    if len(versions) != 1:
        raise InputError(f"{path}: {len(versions)} versions of the standard operator set; export the network again")
    version = int(versions.pop())
    newest = onnx.defs.onnx_opset_version()
    if not 7 <= version <= newest:
        raise UnsupportedError(f"{path}: operator set {version}; export with one from 7 to {newest}")
    return version


def _constants(graph: onnx.GraphProto, path: Path) -> Known:
    known = Known()
    for tensor in graph.initializer:
        place = f"{path}: constant {tensor.name!r}"
        if not tensor.name or tensor.name in known.constants:
            raise InputError(f"{place} is defined twice, or has no name; export the network again")
        try:
            known.define(tensor.name, Literal.read(tensor))
        except KrelaxError as error:
            raise type(error)(f"{place}: {error}") from error
        except _FOREIGN as error:
            raise InputError(f"{place} cannot be read ({first_line(error)}); export the network again") from error
    return known


@dataclass(frozen=True)
class _Inputs:
    """The input that is used, and the others, which only the runtime wants: zeros by name."""

    name: str
    kind: int
    shape: tuple[int, ...]
    hint: str
    others: dict[str, NDArray[Any]]

    @classmethod
    def of(cls, graph: onnx.GraphProto, known: Known, path: Path) -> _Inputs:
        names = [i.name for i in graph.input]
        if len(set(names)) < len(names):
            raise InputError(f"{path}: an input that is listed twice; export the network again")
        inputs = [i for i in graph.input if i.name not in known.constants]
        read = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
        used = [i for i in inputs if i.name in read] if len(inputs) > 1 else inputs
        if len(used) != 1:
            listed = ", ".join(i.name for i in used) or "none"
            raise UnsupportedError(f"{path}: the network has {len(used)} inputs ({listed}); export it with one")
        kind, shape, dynamic = _declared(used[0], path)
        if kind not in FLOATS:
            name = f"input {used[0].name!r} is {kind_name(kind)}"
            raise UnsupportedError(f"{path}: {name}, not float32 or float64; export a float network")
        if prod(shape) > MOST_NUMBERS:
            raise InputError(f"{path}: input {used[0].name!r} has the impossible shape {list(shape)}")
        hint = f" (dynamic axes of the input, {', '.join(dynamic)}, were taken as 1)" if dynamic else ""
        return cls(used[0].name, kind, shape, hint, {i.name: _zeros(i, path) for i in inputs if i is not used[0]})


def _declared(value: onnx.ValueInfoProto, path: Path) -> tuple[int, tuple[int, ...], list[str]]:
    """Element type and shape of an input, and which axes of it are dynamic."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise InputError(f"{path}: input {value.name!r} has no shape; export the network with its input shape")
    sizes = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    shape = tuple(1 if n is None else int(n) for n in sizes)
    if any(n < 1 for n in shape):
        reason = "has the impossible shape"
        raise InputError(f"{path}: input {value.name!r} {reason} {list(shape)}; export it with a batch of one")
    names = [d.dim_param or f"axis {i}" for i, d in enumerate(kind.shape.dim)]
    return int(kind.elem_type), shape, [name for name, n in zip(names, sizes, strict=True) if n is None]


def _zeros(value: onnx.ValueInfoProto, path: Path) -> NDArray[Any]:
    """What an input that nothing reads is given."""
    kind, shape, _ = _declared(value, path)
    if prod(shape) > MOST_NUMBERS or kind not in onnx.helper.get_all_tensor_dtypes() or kind == Kind.STRING:
        raise UnsupportedError(f"{path}: input {value.name!r}, which nothing reads; export the network without it")
    return np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(kind))


def _read_node(builder: Builder, node: onnx.NodeProto, known: Known, version: int) -> None:
    place = f"node {(node.name or node.output[0]) if node.output else node.name!r} ({node.op_type})"
    try:
        _interpret(builder, node, known, version)
    except KrelaxError as error:
        raise type(error)(f"{place}: {error}") from error
    except _FOREIGN as error:
        raise InputError(f"{place}: malformed ({first_line(error)}); export the network again") from error


def _interpret(builder: Builder, node: onnx.NodeProto, known: Known, version: int) -> None:
    """Add what a node computes to what is known."""
    operands = [_kind(name, known) for name in node.input]
    constant = all(name in known.constants for name in node.input if name) or node.op_type in {"Shape", "Size"}
    table: Mapping[str, Any] = FOLDS if constant else READERS
    if node.domain not in _STANDARD or node.op_type not in table:
        name = node.op_type if node.domain in _STANDARD else f"{node.domain}.{node.op_type}"
        if constant and node.domain in _STANDARD:
            raise UnsupportedError(f"operator {name} of constants is not evaluated; fold it when exporting")
        listed = "`krelax supports --onnx-operators` lists those that are"
        raise UnsupportedError(f"operator {name} is not supported; {listed}")
    schema = schema_of(node, version)
    check_node(node, schema, version)
    names = [name for name in node.output if name]
    if not names or not node.output[0]:
        raise InputError("a node without a result")
    if len(set(names)) < len(names) or any(n in known.values or n in known.constants for n in names):
        raise InputError("a result whose name is defined already; export the network again")
    kinds = results(schema, operands, len(node.output))
    reader = Reader(builder, node, known, schema)
    result = table[node.op_type](reader)
    if constant:
        for name, literal in zip(node.output, result if isinstance(result, list) else [result], strict=False):
            known.constants[name] = literal
        return
    known.values[node.output[0]] = result
    for name, kind in zip(node.output, kinds, strict=True):
        if name in known.values:
            known.kinds[name] = _float(reader.attribute("to") if kind is None else kind)


def _kind(name: str, known: Known) -> int | None:
    """Element type of a tensor that is known; None for an operand that is left out."""
    if not name:
        return None
    if name in known.constants:
        return known.constants[name].kind
    if name not in known.values:
        raise InputError(f"operand {name!r} is not computed by any earlier node")
    return known.kinds[name]


def _float(kind: int) -> int:
    if kind not in FLOATS:
        raise UnsupportedError(f"a result of type {kind_name(kind)}; krelax reads networks in float32 or float64")
    return kind


def _output(value: onnx.ValueInfoProto, known: Known, inputs: _Inputs) -> int:
    node = known.values.get(value.name)
    if node is None:
        raise InputError(f"the output {value.name!r} does not depend on the input {inputs.name!r}")
    declared = value.type.tensor_type.elem_type
    if declared not in {Kind.UNDEFINED, known.kinds[value.name]}:
        raise InputError(f"the output {value.name!r} is declared {kind_name(declared)}, but has another type")
    return node


def _check_shapes(network: Network) -> None:
    """Evaluate the network once, so that operands of unsuitable shape are found where they are."""
    work = sum(prod(n.shape) * n.op.terms for n in network.nodes if isinstance(n.op, Arithmetic))
    laid_out = max((_windows(network, n) for n in network.nodes), default=0)
    if work > _MOST_WORK or laid_out > _MOST_LAID_OUT:
        raise InputError(f"one evaluation takes {work:.1g} multiplications; is the file damaged?")
    values = [torch.zeros(1, *network.input_shape, dtype=torch.float64)]
    for node in network.nodes[1:]:
        try:
            values.append(node.op.forward(*(values[i] for i in node.inputs)))
            problem = "" if tuple(values[-1].shape[1:]) == node.shape else f"gives {list(values[-1].shape[1:])}"
        except _FOREIGN as error:
            problem = first_line(error)
        if problem:
            place = f"node {node.name!r} ({type(node.op).__name__})"
            raise InputError(f"{place}: operands of unsuitable shape ({problem}); export the network again")


def _windows(network: Network, node: Node) -> int:
    """Numbers in the windows of a convolution, one by one."""
    if isinstance(node.op, Conv):
        return prod(node.shape) // node.shape[1] * node.op.weight[0].numel() * node.op.groups
    if isinstance(node.op, ConvTranspose):
        given = network.nodes[node.inputs[0]].shape
        return prod(given) // given[1] * node.op.weight[0].numel() * node.op.groups
    return 0


def _text(path: Path) -> str:
    """A path as ONNX Runtime takes it."""
    try:
        return str(path).encode().decode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: a path that is not UTF-8, which ONNX Runtime does not open; rename it") from error


def _session(path: Path, source: Path | bytes, inputs: _Inputs, kind: Element) -> Replay:
    """Evaluates the file itself, in its own type, with ONNX Runtime; the session is made at the first call."""
    sessions: list[Any] = []

    def replay(x: NDArray[Any]) -> NDArray[Any]:
        import onnxruntime

        if not sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            options.intra_op_num_threads = 1
            given = source if isinstance(source, bytes) else _text(source)
            try:  # without the fallback, which prints
                runtime = onnxruntime.InferenceSession
                sessions.append(runtime(given, options, ["CPUExecutionProvider"], enable_fallback=0))
            except Exception as error:  # ONNX Runtime raises its own types
                raise InputError(f"{path}: ONNX Runtime cannot run the file ({first_line(error)})") from error
        feeds = {inputs.name: as_element(x, kind).reshape(inputs.shape), **inputs.others}
        try:
            result: NDArray[Any] = np.asarray(sessions[0].run(None, feeds)[0])
        except Exception as error:
            raise InputError(f"{path}: ONNX Runtime cannot evaluate the network ({first_line(error)})") from error
        return result

    return replay
