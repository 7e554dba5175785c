"""The graph in an ONNX file: inputs, tensors that are wanted of it, constants, and calls of operators in order.

Every constant keeps its element type. Nothing is guessed: versions, types and encodings that are not listed here are
UnsupportedErrors, and so is everything that is neither read nor without meaning (names and descriptions have none).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.onnx.functions import Functions, branches_of
from krelax.certificate.onnx.heads import Wanted, before_head, needed
from krelax.certificate.onnx.model import Model
from krelax.certificate.onnx.protobuf import Message, decode
from krelax.certificate.onnx.tensors import MOST_AXES, MOST_NUMBERS, Shape, element_type, tensor, without
from krelax.errors import InputError, UnsupportedError

# AttributeProto.AttributeType: what is read, and the field that holds it.
_ATTRIBUTES = {1: ("float", "f"), 2: ("int", "i"), 3: ("string", "s"), 4: ("tensor", "t"), 6: ("floats", "floats"),
               7: ("ints", "ints"), 8: ("strings", "strings")}  # fmt: skip
_VALUES = {"f", "i", "s", "t", "g", "floats", "ints", "strings", "tensors", "graphs", "tp", "type_protos",
           "sparse_tensor", "sparse_tensors"}  # fmt: skip
_MISSING: dict[str, Any] = {"float": np.float32(0), "int": 0, "string": b"", "floats": [], "ints": [], "strings": []}
_STANDARD, _TABLE = {"", "ai.onnx"}, "ai.onnx.ml.ZipMap"
OLDEST, NEWEST = 7, 24
_OLDEST_IR, _NEWEST_IR = 3, 13


@dataclass(frozen=True)
class Call:
    """A node of the file: `outputs = op(inputs)`, tensors by name; attributes with the names of their types."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, tuple[str, Any]]
    branches: tuple[Branch, ...] = ()


@dataclass(frozen=True)
class Pending:
    """A node before its attributes are read: that is done only where it is needed."""

    op: str
    inputs: list[str]
    outputs: list[str]
    node: Message
    given: Mapping[str, tuple[str, Any]]
    branches: tuple[Branch, ...] = ()


@dataclass(frozen=True)
class Branch:
    """A branch of an `If`: its graph, how its tensors are called, the nodes in it, and what it gives."""

    graph: Message
    called: Callable[[str], str]
    nodes: list[Pending]
    outputs: list[str]

    @property
    def reads(self) -> list[str]:
        """What its nodes and its outputs are made of, from outside or its own."""
        return [*(name for node in self.nodes for name in node.inputs), *self.outputs]

    def read(self, external: Mapping[str, bytes]) -> tuple[dict[str, NDArray[Any]], list[Call], dict[str, Declared]]:
        """Its constants, the calls that are needed, and what is said of its tensors."""
        constants = {self.called(n): x for n, x in _initializers(self.graph, external).items()}
        said = [*self.graph.all("output"), *self.graph.all("value_info")]
        declared = {self.called(i.get("name", "")): _declared(i) for i in said}
        return constants, [_call(p, external) for p in needed(self.nodes, *self.outputs)], declared


@dataclass(frozen=True)
class Declared:
    """What a file says of a tensor: its element type and its axes, None where it does not say."""

    dtype: np.dtype[Any] | None
    shape: tuple[int | None, ...] | None

    def fits(self, dtype: np.dtype[Any], shape: Shape) -> bool:
        """Whether a tensor can be what is said."""
        if self.dtype not in {None, dtype}:
            return False
        if self.shape is None:
            return True
        same = zip(self.shape, shape, strict=False)
        return len(self.shape) == len(shape) and all(n is None or n == m for n, m in same)


@dataclass(frozen=True)
class Input:
    """An input of a file: its element type and shape (unknown axes count as one)."""

    name: str
    dtype: np.dtype[Any]
    shape: Shape


@dataclass(frozen=True)
class Ends:
    """What a file calls its inputs that are no constants, those of them that something reads, its outputs, and the
    results of its nodes: each with the name of the node."""

    inputs: tuple[str, ...]
    used: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Graph:
    """A graph. `declared` is what the file says of tensors by their names. `wanted` are the tensors that are read. If
    that is one, for the output that is `called` so, then for questions that only compare `head` are the tensors whose
    calls are left out, and `label` is what comes behind."""

    version: int
    calls: list[Call]
    constants: dict[str, NDArray[Any]]
    inputs: tuple[Input, ...]
    wanted: tuple[str, ...]
    declared: dict[str, list[Declared]]
    external: Mapping[str, bytes]
    called: str = ""
    head: tuple[str, ...] = ()
    label: Call | None = None

    @property
    def shape(self) -> Shape:
        """The shape of the only input."""
        (given,) = self.inputs
        return given.shape


@dataclass(frozen=True)
class _File:
    """What is in a file: its graph, its nodes with functions replaced by what they are, and which of them made what."""

    graph: Message
    external: Mapping[str, bytes]
    version: int
    constants: dict[str, NDArray[Any]]
    pending: list[Pending]
    made: dict[str, Pending]

    @classmethod
    def of(cls, model: Model | bytes) -> _File:
        files = model if isinstance(model, Model) else Model(model)
        message = decode("Model", files.data)
        if not _OLDEST_IR <= message.get("ir_version", 0) <= _NEWEST_IR:
            raise UnsupportedError(f"IR version {message.get('ir_version', 'none')}, not {_OLDEST_IR} to {_NEWEST_IR}")
        without(message, "training_info", "configuration")
        graph = message.get("graph")
        if graph is None:
            raise InputError("no graph; give the path of an ONNX network")
        without(graph, "quantization_annotation", "sparse_initializer")
        constants, version = _initializers(graph, files.external), _version(message)
        pending = list(_expanded(graph.all("node"), Functions(message, version)))
        made = {name: p for p in pending for name in p.outputs if name}
        if sum(len([n for n in p.outputs if n]) for p in pending) != len(made) or made.keys() & constants.keys():
            raise UnsupportedError("a name that is defined twice")
        return cls(graph, files.external, version, constants, pending, made)

    @property
    def free(self) -> list[Message]:
        """The inputs that are no constants."""
        return [i for i in self.graph.all("input") if i.get("name", "") not in self.constants]


def parse(model: Model | bytes, output: str | None = None, scores: bool = False) -> Graph:
    """The graph in an ONNX file: of its output of that name, or of the only one of numbers; with `scores` without a
    head that keeps their order. InputError for what is no such file, UnsupportedError for what is not read."""
    file = _File.of(model)
    graph, made = file.graph, file.made
    called = _chosen(graph, made, output)
    name = made[called].inputs[0] if called in made and made[called].op == _TABLE and made[called].inputs else called
    calls = [_call(p, file.external) for p in needed(file.pending, name)]
    by_name = {n: call for call in calls for n in call.outputs if n}
    wanted = before_head(name, by_name) if scores else Wanted(name)
    label = by_name.get(wanted.label)
    calls = needed(calls, wanted.name)
    read = {n for call in calls for n in call.inputs} | {wanted.name}
    own = [i for i in file.free if i.get("name", "") in read] if len(file.free) > 1 else file.free
    if len(own) != 1:
        raise UnsupportedError(f"{len(own)} inputs that are read; only one is supported")
    inputs, declared = _ends(graph, own, read)
    _without_shapes(declared, calls, [wanted.name])
    return Graph(file.version, calls, file.constants, inputs, (wanted.name,), declared, file.external, called,
                 wanted.head, label)  # fmt: skip


def parse_values(model: Model | bytes, given: Sequence[str], values: Sequence[str]) -> tuple[Graph, Ends]:
    """The graph of some tensors of an ONNX file, results of its nodes, inputs or constants, with all its inputs that
    are `given`; and what the file calls its ends. Raises as `parse`, and InputError for tensors that are not there, and
    inputs that are read and not given."""
    file = _File.of(model)
    free = {i.get("name", ""): i for i in file.free}
    nodes = [(n.get("name", ""), tuple(name for name in n.all("output") if name)) for n in file.graph.all("node")]
    outputs = tuple(o.get("name", "") for o in file.graph.all("output"))
    everywhere = {n for p in file.pending for n in p.inputs} | {*outputs}
    ends = Ends(tuple(free), tuple(n for n in free if n in everywhere), outputs, tuple(nodes))
    known = {name for _, results in nodes for name in results} | free.keys() | file.constants.keys()
    if missing := [*(name for name in values if name not in known), *(name for name in given if name not in free)]:
        raise InputError(f"no tensor, or no input, {missing[0]!r}")
    if len({*given}) < len(given):
        raise InputError("an input that is given twice")
    calls = [_call(p, file.external) for p in needed(file.pending, *values)]
    read = {n for call in calls for n in call.inputs} | {*values}
    if left := [name for name in free if name in read and name not in given]:
        raise InputError(f"an input {left[0]!r} that is read and not given")
    inputs, declared = _ends(file.graph, [free[name] for name in given], read)
    _without_shapes(declared, calls, values)
    return Graph(file.version, calls, file.constants, inputs, tuple(values), declared, file.external), ends


def _without_shapes(declared: dict[str, list[Declared]], calls: Sequence[Call], wanted: Sequence[str]) -> None:
    """Forget what is said of the shapes of results that nothing reads: it changes nothing."""
    read = {name for call in calls for name in call.inputs}
    for name in wanted:
        if name not in read:
            declared[name] = [Declared(what.dtype, None) for what in declared.get(name, [])]


def _chosen(graph: Message, made: Mapping[str, Pending], output: str | None) -> str:
    """The name of the output that is meant."""
    outputs = {o.get("name", ""): o for o in graph.all("output")}
    if len(outputs) != len(graph.all("output")) or not outputs:
        raise UnsupportedError("no outputs, or several of the same name")
    if output is not None:
        if output not in outputs:
            raise InputError(f"no output {output!r}, but {', '.join(outputs)}")
        return output
    numbers = [n for n, o in outputs.items() if len(outputs) == 1 or _has_numbers(o, made.get(n))]
    if not numbers:
        raise UnsupportedError(f"{len(outputs)} outputs, none of floating-point numbers; name the one that is meant")
    return numbers[0]


def _has_numbers(output: Message, made: Pending | None) -> bool:
    said = output.get("type")
    tensor_type = None if said is None else said.get("tensor_type")
    if tensor_type is not None:
        return tensor_type.get("elem_type", 0) in {1, 11}
    return made is not None and made.op == _TABLE


def _expanded(nodes: Sequence[Message], functions: Functions) -> Iterator[Pending]:
    """The nodes, with functions replaced by what they are."""
    yield from _bodies(nodes, functions, lambda name: name, {}, 0)


def _bodies(
    nodes: Sequence[Message],
    functions: Functions,
    called: Callable[[str], str],
    given: Mapping[str, tuple[str, Any]],
    depth: int,
) -> Iterator[Pending]:
    for node in nodes:
        domain, op = node.get("domain", ""), node.get("op_type", "")
        operands, results = ([called(n) for n in node.all(side)] for side in ("input", "output"))
        if not functions.names(node):
            name = op if domain in _STANDARD else f"{domain}.{op}"
            branches = _branches(node, functions, called, given, depth + 1) if name == "If" else ()
            yield Pending(name, [*operands, *(n for b in branches for n in b.reads)], results, node, given, branches)
            continue
        inner = Message("Node", {**{k: node.get(k) for k in node.present()}, "input": operands, "output": results})
        function, renamed = functions.body(inner, depth)
        handed = {**_defaults(function), **_call(Pending(op, operands, results, node, given), {}).attributes}
        yield from _bodies(function.all("node"), functions, renamed, handed, depth + 1)


def _branches(
    node: Message,
    functions: Functions,
    called: Callable[[str], str],
    given: Mapping[str, tuple[str, Any]],
    depth: int,
) -> tuple[Branch, ...]:
    """Both branches of an `If`; one of them is needed, once its condition is known."""
    result = []
    for graph in branches_of(node):
        without(graph, "input", "quantization_annotation", "sparse_initializer")
        own = functions.named(graph, called, depth)
        nodes = list(_bodies(graph.all("node"), functions, own, given, depth))
        result.append(Branch(graph, own, nodes, [own(o.get("name", "")) for o in graph.all("output")]))
    return tuple(result)


def _defaults(function: Message) -> dict[str, tuple[str, Any]]:
    """Attributes of a function that its calls may leave out."""
    return {item.get("name", ""): _attribute(item, {}) for item in function.all("attribute_proto")}


def _version(model: Message) -> int:
    """The version of ONNX's own operators. Others may be imported, but are not read where they are used."""
    imports = [(o.get("domain", ""), o.get("version", 0)) for o in model.all("opset_import")]
    versions = {version for domain, version in imports if domain in {"", "ai.onnx"}}
    if len(versions) != 1 or not OLDEST <= min(versions) <= NEWEST:
        raise UnsupportedError(
            f"operator sets {sorted(versions)}, not one of versions {OLDEST} to {NEWEST}; export again"
        )
    return int(versions.pop())


def _initializers(graph: Message, external: Mapping[str, bytes]) -> dict[str, NDArray[Any]]:
    result: dict[str, NDArray[Any]] = {}
    for item in graph.all("initializer"):
        name = item.get("name", "")
        if name in result or not name:
            raise UnsupportedError(f"constants that are all named {name!r}")
        result[name] = tensor(item, external)
    return result


def _ends(
    graph: Message, given: Sequence[Message], read: set[str]
) -> tuple[tuple[Input, ...], dict[str, list[Declared]]]:
    """The inputs that are given, and what is said of tensors."""
    inputs, outputs = graph.all("input"), graph.all("output")
    if len({i.get("name", "") for i in inputs}) != len(inputs):
        raise UnsupportedError("inputs of the same name")
    said = [
        (i.get("name", ""), _declared(i))
        for i in (*inputs, *outputs, *graph.all("value_info"))
        if i.get("name", "") in read
    ]
    declared: dict[str, list[Declared]] = {}
    for name, what in said:
        declared.setdefault(name, []).append(what)
    return tuple(_input(message, declared) for message in given), declared


def _input(message: Message, declared: dict[str, list[Declared]]) -> Input:
    """An input, with what is said of it."""
    name = message.get("name", "")
    declared.setdefault(name, [_declared(message)])
    dtype, axes = declared[name][0].dtype, declared[name][0].shape
    if dtype is None or dtype not in {np.dtype(np.float32), np.dtype(np.float64)}:
        raise UnsupportedError(f"an input of type {dtype}; only float32 and float64 are supported")
    if axes is None or not name:
        raise InputError("an input without a shape; export the network with its input shape")
    shape = tuple(1 if n is None else n for n in axes)
    if prod(shape) > MOST_NUMBERS or min(shape, default=1) < 1 or len(shape) > MOST_AXES:
        raise UnsupportedError(f"an input of shape {list(shape)}")
    return Input(name, dtype, shape)


def _declared(info: Message) -> Declared:
    """ValueInfoProto: the type and the axes of a tensor."""
    kind = info.get("type")
    if kind is None:
        return Declared(None, None)
    where = f"tensor {info.get('name', '')!r}"
    said = kind.get("tensor_type")
    if said is None or kind.present() - {"tensor_type", "denotation"}:
        raise UnsupportedError(f"{where}, which is no tensor")
    dtype, shape = said.get("elem_type", 0), said.get("shape")
    axes = None if shape is None else tuple(_axis(dim, where) for dim in shape.all("dim"))
    return Declared(element_type(dtype) if dtype else None, axes)


def _axis(dim: Message, where: str) -> int | None:
    if "dim_value" in dim and ("dim_param" in dim or dim.get("dim_value") < 0):
        raise UnsupportedError(f"{where} with an axis that is both known and unknown, or negative")
    size: int | None = dim.get("dim_value")
    return size


def _call(pending: Pending, external: Mapping[str, bytes]) -> Call:
    node, op = pending.node, pending.op
    if node.get("overload", ""):
        raise UnsupportedError(f"operator {op}, overloaded")
    without(node, "device_configurations")
    if pending.branches:
        return Call(op, pending.inputs, pending.outputs, {}, pending.branches)
    attributes: dict[str, tuple[str, Any]] = {}
    for item in node.all("attribute"):
        name = item.get("name", "")
        if name in attributes:
            raise UnsupportedError(f"operator {op} with two attributes {name!r}")
        try:
            if reference := item.get("ref_attr_name", ""):
                if (item.present() & _VALUES) or reference not in pending.given:
                    raise UnsupportedError(f"a value that is {reference!r} of a function, which is not there")
                attributes[name] = pending.given[reference]
            else:
                attributes[name] = _attribute(item, external)
        except InputError as error:
            raise type(error)(f"operator {op}, attribute {name!r}: {error}") from error
    return Call(op, pending.inputs, pending.outputs, attributes)


def _attribute(item: Message, external: Mapping[str, bytes]) -> tuple[str, Any]:
    """The type and the value of an AttributeProto. Numbers that are zero, and text and lists that are empty, may be
    left out."""
    if item.get("type", 0) not in _ATTRIBUTES or item.get("ref_attr_name", ""):
        raise UnsupportedError(f"a value of type {item.get('type', 'none')}, or one that a function gives")
    kind, field = _ATTRIBUTES[item.get("type")]
    if (item.present() & _VALUES) - {field} or (field not in item and kind not in _MISSING):
        raise UnsupportedError(f"a value that is not exactly one of type {kind}")
    value = item.get(field, _MISSING.get(kind))
    if kind == "tensor":
        return kind, tensor(value, external)
    if kind in {"float", "floats"} and not np.isfinite(value).all():
        raise UnsupportedError("NaN or infinity")
    if kind == "string":
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise UnsupportedError("text that is not UTF-8") from error
    return kind, value
