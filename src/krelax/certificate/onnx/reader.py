"""The network in an ONNX file, as the checker sees it: every operator is read by a function of its own.

They lie in modules beside this one: operators that move entries, affine ones, activations, and those on constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from krelax.certificate.kernel.network import Network
from krelax.certificate.onnx import (  # noqa: F401 (each fills OPERATORS)
    activations,
    affine,
    casts,
    composed,
    composites,
    constants,
    contraction,
    convolution,
    curves,
    decisions,
    learned,
    moves,
    ordered,
    quantised,
    recurrent,
    resize,
    scattered,
    shapes,
    spatial,
)
from krelax.certificate.onnx.builder import Builder, Interface
from krelax.certificate.onnx.enclosures import folded, folds
from krelax.certificate.onnx.folding import by_reading
from krelax.certificate.onnx.graph import Call, Declared, Graph, parse
from krelax.certificate.onnx.model import Model
from krelax.certificate.onnx.operator import OPERATORS, Context, Endless, Everything, Operator, Value
from krelax.certificate.onnx.outputs import HEADS, ChangedOrder, check_label
from krelax.errors import InputError, UnsupportedError, one_line


def read_network(model: Model | bytes) -> Network:
    """The network in an ONNX file. InputError if it cannot be used, UnsupportedError for what is not read exactly."""
    return read_file(model)[0]


def read_file(model: Model | bytes, output: str | None = None, scores: bool = False) -> tuple[Network, Interface]:
    """The network in an ONNX file, and what the file calls its input and its output.

    Args:
        model: The file.
        output: Which output; it may be left out where there is one, or one of numbers.
        scores: Whether only the order of outputs is asked for: then a head that keeps it is left out.

    Raises as `read_network` does.
    """
    try:
        graph = parse(model, output, scores)
        try:
            return _network(graph)
        except ChangedOrder:
            return _network(parse(model, output))
    except InputError as error:  # names in a file may hold anything, messages are one line
        kind = "not supported by the checker: " if isinstance(error, UnsupportedError) else ""
        raise type(error)(one_line(f"{kind}{error}")) from error


def _network(graph: Graph) -> tuple[Network, Interface]:
    (given,), (wanted,) = graph.inputs, graph.wanted
    builder = Builder(prod(given.shape))
    tensors, single = read_into(builder, graph, [0])
    output = tensors.get(wanted)
    if not isinstance(output, Value):
        raise InputError("the output does not depend on the input, or does not exist")
    check_label(graph.label, output)
    left_out = [call.op for call in graph.calls if set(call.outputs) & set(graph.head)]
    interface = Interface(
        (given.name, graph.called),
        (given.shape, output.shape),
        given.dtype.name,
        (*left_out, *([graph.label.op] if graph.label else [])),
    )
    return builder.build(output.node, single), interface


def read_into(builder: Builder, graph: Graph, nodes: Sequence[int]) -> tuple[dict[str, Everything], bool]:
    """Append what a graph computes of its inputs, which are given by `nodes`; its tensors by their names, and whether
    all that depend on inputs are of float32."""
    tensors: dict[str, Everything] = {name: marked(x) for name, x in graph.constants.items()}
    for given, node in zip(graph.inputs, nodes, strict=True):
        tensors[given.name] = Value(node, given.shape, given.dtype)
    for name, x in tensors.items():
        _compare(graph, name, x)
    _read_all(graph, builder, graph.calls, tensors)
    return tensors, all(x.dtype == np.float32 for x in tensors.values() if isinstance(x, Value))


def _read_all(graph: Graph, builder: Builder, calls: Sequence[Call], tensors: dict[str, Everything]) -> None:
    for call in calls:
        try:
            (_choose if call.branches else _read)(graph, builder, call, tensors)
        except InputError as error:
            raise type(error)(f"operator {call.op} for {', '.join(call.outputs)}: {error}") from error


def _choose(graph: Graph, builder: Builder, call: Call, tensors: dict[str, Everything]) -> None:
    """Add what the branch of an `If` computes that its condition, a constant, takes."""
    condition = tensors.get(call.inputs[0])
    if not isinstance(condition, np.ndarray) or condition.dtype != np.bool_ or condition.size != 1:
        raise UnsupportedError("a condition that is not one constant boolean")
    branch = call.branches[0 if condition.item() else 1]
    own, calls, declared = branch.read(graph.external)
    if len(branch.outputs) != len(call.outputs) or own.keys() & tensors.keys():
        raise UnsupportedError("a branch with other results than the node's, or a name that is defined twice")
    tensors.update((name, marked(x)) for name, x in own.items())
    _read_all(graph, builder, calls, tensors)
    for name, what in declared.items():
        if name in tensors:
            _compare_with(name, tensors[name], [what])
    for name, inner in zip(call.outputs, branch.outputs, strict=True):
        if inner not in tensors or name in tensors:
            raise UnsupportedError(f"{inner!r}, which is not computed, or a name that is defined twice")
        if name:
            tensors[name] = tensors[inner]
            _compare(graph, name, tensors[name])


def _read(graph: Graph, builder: Builder, call: Call, tensors: dict[str, Everything]) -> None:
    """Add what a call computes to the tensors, each of which has a name of its own."""
    head = HEADS.get(call.op) if set(call.outputs) & set(graph.head) else None
    if head is None and call.op not in OPERATORS:
        raise UnsupportedError("an operator that is not in its list")
    operator = OPERATORS[call.op] if head is None else Operator(*head)
    form = operator.form(call, graph.version)
    names = [name for name in call.outputs if name]
    if missing := [name for name in call.inputs if name and name not in tensors]:
        raise InputError(f"{missing[0]!r} is not computed before")
    if len(set(names)) != len(names) or any(name in tensors for name in names):
        raise UnsupportedError("a name that is defined twice")
    operands = [tensors[name] if name else None for name in call.inputs]
    _check_whole(call, operands)
    context, first = Context(builder, call, operands, graph.version, form), builder.count
    results = folded(context) if folds(context) else by_reading(operator, context)
    builder.check_composed(first, [x.node for x in operands if isinstance(x, Value)])
    several = results if isinstance(results, Sequence) else [results]
    for name, x in zip(call.outputs, several, strict=False):
        if name and x is not None:
            tensors[name] = marked(x)
            _compare(graph, name, tensors[name])


def marked(x: Everything) -> Everything:
    """A constant with minus infinities as that."""
    if isinstance(x, np.ndarray) and x.dtype.kind == "f" and not np.isfinite(x).all():
        return Endless(x.astype(np.float64), x.dtype)
    return x


# Operators that take truths which depend on the input.
_TRUTHS = {
    "And",
    "Cast",
    "CastLike",
    "Expand",
    "Identity",
    "Not",
    "Or",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "Where",
}
# Operators that take whole numbers which depend on the input, and keep them as they are.
_WHOLE = {
    "Cast", "CastLike", "Concat", "ConvInteger", "DequantizeLinear", "Expand", "Flatten", "Gather", "Identity",
    "MatMulInteger", "MaxPool", "QLinearConv", "QLinearMatMul", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip


def _check_whole(call: Call, operands: Sequence[Everything | None]) -> None:
    """Integers wrap around, so only some operators are read of them."""
    kinds = {x.dtype.kind for x in operands if isinstance(x, Value)}
    if ("b" in kinds and call.op not in _TRUTHS) or (kinds & set("iu") and call.op not in _WHOLE):
        raise UnsupportedError("arithmetic of integers or truths that depend on the input")


def _compare(graph: Graph, name: str, x: Everything) -> None:
    """Raises UnsupportedError where the file says something else of a tensor than what it is."""
    _compare_with(name, x, graph.declared.get(name, []))


def _compare_with(name: str, x: Everything, said: Sequence[Declared]) -> None:
    if any(not what.fits(x.dtype, x.shape) for what in said):
        raise UnsupportedError(f"{name!r} is {x.dtype} of shape {list(x.shape)}, and not what the file says of it")
