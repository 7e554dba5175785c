"""Branches of an `If` whose condition is a constant: the one that is taken stands where the node stood.

PyTorch writes such conditions about shapes, which are all known here. A branch uses tensors from outside by their
names. Its own may be called as those of another branch are, so they get new names.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from krelax.errors import InputError, UnsupportedError
from krelax.network.onnx_file import subgraphs
from krelax.network.onnx_reader import Kind, Known


def operands(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node reads: its operands, and what the graphs in it take from outside."""
    yield from node.input
    for graph in subgraphs(node):
        own = _own(graph)
        yield from (name for inner in graph.node for name in operands(inner) if name not in own)
        yield from (o.name for o in graph.output if o.name not in own)


def taken(node: onnx.NodeProto, known: Known) -> onnx.GraphProto:
    """The branch of an `If` that is taken, under names that start with that of the first result. Its outputs are in the
    order of the node's results. Raises UnsupportedError where the input decides."""
    name = node.input[0] if len(node.input) == 1 else ""
    if name in known.values:
        raise UnsupportedError("a condition that depends on the input; export the branch that is taken")
    if name not in known.constants or known.constants[name].kind != Kind.BOOL:
        raise InputError("a condition that is not one boolean; export the network again")
    condition = known.constants[name].integers
    branches = {a.name: a.g for a in node.attribute if a.HasField("g")}
    if condition.size != 1 or branches.keys() != {"then_branch", "else_branch"} or len(node.attribute) != 2:
        raise InputError("not one condition and two branches; export the network again")
    graph = branches["then_branch" if condition.item() else "else_branch"]
    if graph.input or len(graph.output) != len(node.output) or graph.sparse_initializer:
        raise InputError("a branch with inputs, sparse constants or other results than the node's; export it again")
    return _renamed(graph, f"{node.output[0]}/{graph.name}/")


def _own(graph: onnx.GraphProto) -> set[str]:
    """The names that a graph defines."""
    results = {name for node in graph.node for name in node.output if name}
    return results | {t.name for t in graph.initializer} | {i.name for i in graph.input}


def _renamed(graph: onnx.GraphProto, prefix: str) -> onnx.GraphProto:
    """A copy whose own names start with a prefix."""
    result, own = onnx.GraphProto(), _own(graph)
    result.CopyFrom(graph)
    for tensor in result.initializer:
        tensor.name = prefix + tensor.name
    _rename(result, own, prefix)
    return result


def _rename(graph: onnx.GraphProto, names: set[str], prefix: str) -> None:
    """Put a prefix before names in the nodes of a graph and in graphs within them, where these do not mean others."""
    for node in graph.node:
        node.input[:] = [prefix + n if n in names else n for n in node.input]
        node.output[:] = [prefix + n if n in names else n for n in node.output]
        for inner in subgraphs(node):
            _rename(inner, names - _own(inner), prefix)
    for output in graph.output:
        output.name = prefix + output.name if output.name in names else output.name
