"""Reads an ONNX file into a `Network`.

The graph is walked once in file order with every shape known: dynamic axes count as one. Nodes whose inputs are all
constant are evaluated on the spot (`krelax.network.onnx_constants`), so shape arithmetic disappears; every other node
goes through one table, `krelax.network.onnx_operators.READERS`. Whatever these do not model exactly is refused. The
result is compared with ONNX Runtime on random inputs before anyone sees it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx.inliner import inline_local_functions

from krelax.elements import PRECISION, Elements
from krelax.errors import InputError, KrelaxError, UnsupportedError
from krelax.network import (  # noqa: F401 (they fill READERS and FOLDS)
    onnx_affine,
    onnx_composites,
    onnx_computed,
    onnx_decisions,
    onnx_folds,
    onnx_ml,
    onnx_norms,
    onnx_orders,
    onnx_quantised,
)
from krelax.network.check import check_import, tolerance
from krelax.network.graph import Builder, Network, Node
from krelax.network.linear import Arithmetic, Conv, ConvTranspose
from krelax.network.onnx_branches import operands, taken
from krelax.network.onnx_constants import FOLDS
from krelax.network.onnx_decisions import DECIDING
from krelax.network.onnx_enclosed import folded, leading
from krelax.network.onnx_file import first_line, read_model
from krelax.network.onnx_inputs import Inputs, element_name
from krelax.network.onnx_operators import READERS
from krelax.network.onnx_outputs import HEADS, KeptHeadError, Wanted, check_label, needed
from krelax.network.onnx_quantised import KEEPING, QUANTISED, WHOLE, said_kind
from krelax.network.onnx_ranges import within_half
from krelax.network.onnx_reader import FLOATS, Kind, Known, Literal, Reader
from krelax.network.onnx_recurrent import RECURRENT
from krelax.network.onnx_replay import replay_of
from krelax.network.onnx_schema import check_node, full_name, kind_name, results, schema_of
from krelax.network.onnx_whole import INTEGERS
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
# Operators whose results are not larger than their operands, or one: in half precision they do not overflow.
_STEADY = {
    "Clip", "Cos", "Dropout", "Erf", "HardSigmoid", "HardSwish", "Max", "Min", "Neg",
    "Relu", "ReduceMax", "ReduceMin", "Sigmoid", "Sign", "Sin", "Softmax", "Softsign", "Tanh", "Abs", "GlobalMaxPool",
}  # fmt: skip


def load_onnx(path: str | Path, check: bool = True, output: str | None = None, scores: bool = False) -> Network:
    """The network in an ONNX file, with float64 constants and a `replay` through ONNX Runtime.

    Args:
        path: The file, which may be compressed with gzip. Of its inputs one floating-point input may be used.
        check: Whether values are compared with ONNX Runtime's at random inputs (1e-4 of the largest output).
        output: Which output; it may be left out where there is one, or one of floating-point numbers.
        scores: Whether only the order of outputs is asked for. Then a head that keeps it (a softmax, its logarithm, the
            place of the largest) is left out, and the network is that of the scores before it. Its `replay` is still
            of the output itself, if that is a table of numbers.

    Returns:
        The network, a function from `(batch, *input_shape)` to `(batch, *output_shape)`; its `notes` say which output
        it is, and what was left out.

    Raises:
        InputError: The file cannot be used.
        UnsupportedError: It has something that krelax does not model exactly.

    Sound: yes. What is not modelled exactly is refused, and the rounding of folded constants is charged.
    """
    path = Path(path)
    model, content = read_model(path)
    source = path if content is None else content
    model = inlined(model, path)
    try:
        network, wanted, inputs, known = _build(model, path, output, scores)
    except KeptHeadError:
        network, wanted, inputs, known = _build(model, path, output, False)
    elements = Elements((element_name(inputs.kind),))
    replay = replay_of(model, path, source, inputs.feeds, wanted.name, elements)
    network = replace(network, replay=replay, elements=elements, notes=wanted.notes, output=wanted.output)
    declared = next((o.type.tensor_type.elem_type for o in model.graph.output if o.name == wanted.output), 0)
    network = replace(network, result=element_name(declared) if declared else "", integral=integral(known))
    if check:
        check_import(network, str(path), tolerance_of(known), known.head)
    return network


def tolerance_of(known: Known) -> float:
    """How far the runtime may be off: as the coarsest type in the file rounds."""
    return tolerance(PRECISION.get(element_name(kind), 0.0) for kind in known.kinds.values())


def integral(known: Known) -> bool:
    """Whether nothing is computed in floating-point numbers."""
    return not FLOATS.intersection(known.kinds.values())


def inlined(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model without functions of its own: what they are stands where they are called."""
    if not model.functions:
        return model
    try:
        return inline_local_functions(model)
    except Exception as error:  # onnx raises types of its own
        names = ", ".join(f.name for f in model.functions)
        raise UnsupportedError(
            f"{path}: functions of the model's own ({names}) that cannot be inlined ({first_line(error)})"
        ) from error


def _build(
    model: onnx.ModelProto, path: Path, output: str | None, scores: bool
) -> tuple[Network, Wanted, Inputs, Known]:
    graph = model.graph
    version, known = version_and_constants(model, path)
    try:
        wanted = Wanted.of(graph, output, scores)
    except KrelaxError as error:
        raise type(error)(f"{path}: {error}") from error
    nodes = needed(graph, wanted.name)
    inputs = Inputs.of(graph, {name for _, node in nodes for name in operands(node)} | {wanted.name}, known, path)
    try:
        builder = Builder(inputs.shape)
        known.values[inputs.name], known.kinds[inputs.name] = 0, inputs.kind
        read_nodes(builder, nodes, known, version, wanted.head)
        network = builder.build(_output(graph, wanted, known, inputs))
        check_label(wanted, network.output_shape)
        check_shapes(network)
    except KrelaxError as error:
        hint = "" if isinstance(error, UnsupportedError) else inputs.hint
        raise type(error)(f"{path}: {error}{hint}") from error
    return fuse(network), wanted, inputs, known


def version_and_constants(model: onnx.ModelProto, path: Path) -> tuple[int, Known]:
    """The operator set of a model, and its constants. Raises KrelaxError for models that cannot be read."""
    if model.graph.sparse_initializer or model.training_info:
        raise UnsupportedError(f"{path}: sparse constants or training information; export without them")
    return _version(model, path), _constants(model.graph, path)


def read_nodes(
    builder: Builder, nodes: Iterable[tuple[int, onnx.NodeProto]], known: Known, version: int, head: frozenset[int]
) -> None:
    """Append nodes, each with its place, whose inputs and constants are known, and add what they compute to that. Those
    in places of `head` are left out."""
    for place, node in nodes:
        tick()
        _read_node(builder, node, known, version, place in head)


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
    try:
        _define(graph, known)
    except KrelaxError as error:
        raise type(error)(f"{path}: {error}") from error
    return known


def _define(graph: onnx.GraphProto, known: Known) -> None:
    """Add the constants of a graph to what is known."""
    for tensor in graph.initializer:
        place = f"constant {tensor.name!r}"
        if not tensor.name or tensor.name in known.constants or tensor.name in known.values:
            raise InputError(f"{place} is defined twice, or has no name; export the network again")
        try:
            known.define(tensor.name, Literal.read(tensor))
        except KrelaxError as error:
            raise type(error)(f"{place}: {error}") from error
        except _FOREIGN as error:
            raise InputError(f"{place} cannot be read ({first_line(error)}); export the network again") from error


def _read_node(builder: Builder, node: onnx.NodeProto, known: Known, version: int, head: bool) -> None:
    place = f"node {(node.name or node.output[0]) if node.output else node.name!r} ({node.op_type})"
    try:
        if full_name(node) == "If":
            _branch(builder, node, known, version)
        else:
            _interpret(builder, node, known, version, HEADS if head else None)
    except KrelaxError as error:
        raise type(error)(f"{place}: {error}") from error
    except _FOREIGN as error:
        raise InputError(f"{place}: malformed ({first_line(error)}); export the network again") from error


def _branch(builder: Builder, node: onnx.NodeProto, known: Known, version: int) -> None:
    """Read the branch of an `If` that is taken, and give its results the node's names."""
    graph = taken(node, known)
    _define(graph, known)
    read_nodes(builder, needed(graph, *(o.name for o in graph.output)), known, version, frozenset())
    for name, result in zip(node.output, graph.output, strict=True):
        if name:
            known.call(name, result.name)


def _interpret(
    builder: Builder, node: onnx.NodeProto, known: Known, version: int, heads: Mapping[str, Any] | None
) -> None:
    """Add what a node computes to what is known: as the operator, or as a part of a head."""
    operands = [_kind(name, known) for name in node.input]
    constant = all(name in known.constants for name in node.input if name) or node.op_type in {"Shape", "Size"}
    op = full_name(node)
    table: Mapping[str, Any] = FOLDS if constant else heads or READERS
    if table is READERS and op in INTEGERS and _of_whole_numbers(node, known):
        table = INTEGERS
    first = leading(node, known) if constant else None
    if op not in table and first is None:
        if constant and node.domain in _STANDARD:
            raise UnsupportedError(f"operator {op} of constants is not evaluated; fold it when exporting")
        raise UnsupportedError(f"operator {op} is not supported; {remedy(op)}")
    schema = schema_of(node, version)
    check_node(node, schema, version)
    names = [name for name in node.output if name]
    if not names or (not node.output[0] and node.op_type not in RECURRENT):
        raise InputError("a node without a result")
    if len(set(names)) < len(names) or any(n in known.values or n in known.constants for n in names):
        raise InputError("a result whose name is defined already; export the network again")
    kinds = results(schema, operands, len(node.output))
    reader = Reader(builder, node, known, schema)
    result = _constants_of(reader, first, kinds) if first is not None else table[op](reader)
    several = result if isinstance(result, list) else [result]
    if constant:
        known.constants.update((name, c) for name, c in zip(node.output, several, strict=False) if c is not None)
        return
    found = [(name, v) for name, v in zip(node.output, several, strict=False) if name]
    known.values.update((name, v) for name, v in found if isinstance(v, int))
    known.constants.update((name, v) for name, v in found if isinstance(v, Literal))
    known.unread.update((name, op) for name, v in found if v is None and name not in known.values)
    for name, kind in zip(node.output, kinds, strict=True):
        if name in known.values:
            known.kinds[name] = _kept(op, said_kind(reader) if kind is None else kind)
            if known.kinds[name] == Kind.FLOAT16 and op not in KEEPING | _STEADY and not hides(builder, known, name):
                known.values[name] = within_half(builder, known.values[name])


def hides(builder: Builder, known: Known, name: str) -> bool:
    """Whether a tensor has minus infinities, which masks have."""
    return builder.shown(known.values[name])[1] is not None


def _of_whole_numbers(node: onnx.NodeProto, known: Known) -> bool:
    """Whether some operand that depends on the input has whole numbers, or truths."""
    return any(known.kinds[name] not in FLOATS for name in node.input if name in known.kinds)


def _constants_of(r: Reader, first: str, kinds: Sequence[int | None]) -> Any:
    """What a node computes of constants: as `FOLDS` has it, or else enclosed."""
    fold = FOLDS.get(r.node.op_type)
    if fold is not None:
        try:
            return fold(r)
        except UnsupportedError as error:
            try:
                return folded(r, first, kinds)
            except KrelaxError:
                raise error from None
    return folded(r, first, kinds)


def _kind(name: str, known: Known) -> int | None:
    """Element type of a tensor that is known; None for an operand that is left out."""
    if not name:
        return None
    if name in known.constants:
        return known.constants[name].kind
    if name in known.unread:
        raise UnsupportedError(f"operand {name!r}, a result of {known.unread[name]} that krelax does not have")
    if name not in known.values:
        raise InputError(f"operand {name!r} is not computed by any earlier node")
    return known.kinds[name]


def _kept(op: str, kind: int) -> int:
    """The element type of a result, which must be one in which it is not rounded."""
    able = {*KEEPING, *INTEGERS}
    whole = kind in WHOLE and op in able | QUANTISED
    if kind not in FLOATS and not whole and not (kind == Kind.BOOL and op in able | DECIDING):
        raise UnsupportedError(f"{op} with a result of type {kind_name(kind)}; let it compute in float32")
    return kind


def _output(graph: onnx.GraphProto, wanted: Wanted, known: Known, inputs: Inputs) -> int:
    node = known.values.get(wanted.name)
    if node is None:
        raise InputError(f"the output {wanted.name!r} does not depend on the input {inputs.name!r}")
    declared = next((o.type.tensor_type.elem_type for o in graph.output if o.name == wanted.name), Kind.UNDEFINED)
    if declared not in {Kind.UNDEFINED, known.kinds[wanted.name]}:
        raise InputError(f"the output {wanted.name!r} is declared {kind_name(declared)}, but has another type")
    return node


def check_shapes(network: Network) -> None:
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


def supported_operators() -> list[str]:
    """The operators that are read, of activations or of constants."""
    return sorted({*READERS, *INTEGERS, *FOLDS, "If"})


def remedy(op: str) -> str:
    """What to do about an operator that is not read."""
    return _REMEDIES.get(op, "`krelax supports` lists those that are")


_REMEDIES = {
    "NonMaxSuppression": "certify the scores before it",
    "ai.onnx.ml.TreeEnsembleClassifier": "krelax is about neural networks and linear models, not trees",
    "ai.onnx.ml.TreeEnsembleRegressor": "krelax is about neural networks and linear models, not trees",
    "Loop": "unroll the loop when exporting",
    "Scan": "unroll the loop when exporting",
    "RandomNormal": "export the network in evaluation mode",
    "RandomUniform": "export the network in evaluation mode",
}
