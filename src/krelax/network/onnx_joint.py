"""Several ONNX models, or several tensors of one, as a single network: models side by side over one vector of inputs.

The network's output are products of its inputs and of the models' values, each a term that a question is about. Its
`replay` gives the values of the models, each as ONNX Runtime computes it in the model's own type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from krelax.errors import InputError, KrelaxError, UnsupportedError
from krelax.network.compose import dense, reshape
from krelax.network.constants import Constant
from krelax.network.difference import alike, subtract
from krelax.network.graph import Builder, Element, Network, as_element
from krelax.network.linear import Add
from krelax.network.onnx import check_shapes, inlined, read_nodes, version_and_constants
from krelax.network.onnx_branches import operands
from krelax.network.onnx_file import read_model
from krelax.network.onnx_inputs import declared_input
from krelax.network.onnx_outputs import needed
from krelax.network.onnx_reader import FLOATS, Kind, Known
from krelax.network.onnx_replay import Runner, runner_of
from krelax.network.onnx_schema import kind_name
from krelax.network.ops import Concat, Take
from krelax.network.polynomials import Factors, monomials
from krelax.network.simplify import fuse
from krelax.op import Shape

# How far values may be off ONNX Runtime's at a random input, of the largest value.
_TOLERANCE = 1e-4


_ACTIVATIONS = {"Relu": "leak", "LeakyRelu": "leak", "Sigmoid": "sigmoid", "Tanh": "tanh"}


@dataclass(frozen=True)
class Given:
    """A tensor of a model: its name, shape and element type."""

    name: str
    shape: Shape
    kind: int

    @property
    def element(self) -> str:
        """The name of the element type."""
        return str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.kind)).name)


@dataclass(frozen=True, eq=False)
class Model:
    """An ONNX file and its interface."""

    path: Path
    proto: onnx.ModelProto
    content: bytes | None

    @classmethod
    def read(cls, path: Path) -> Model:
        """The model in a file, which may be compressed with gzip. Raises InputError if there is none."""
        model, content = read_model(path)
        return cls(path, inlined(model, path), content)

    @cached_property
    def inputs(self) -> list[Given]:
        """The inputs that are no constants of the file, in order."""
        constants = {tensor.name for tensor in self.proto.graph.initializer}
        result = []
        for value in self.proto.graph.input:
            if value.name not in constants:
                kind, shape, _ = declared_input(value, self.path)
                if kind not in FLOATS:
                    name = f"input {value.name!r} is {kind_name(kind)}"
                    raise UnsupportedError(f"{self.path}: {name}, not float32 or float64; export a float network")
                result.append(Given(value.name, shape, kind))
        return result

    @property
    def nodes(self) -> list[str]:
        """The operators of its nodes, in order."""
        return [node.op_type for node in self.proto.graph.node]

    @property
    def activations(self) -> Iterator[tuple[str, str, str, float]]:
        """Operand, result and kind of nodes that compute `max(z, leak z)`, a sigmoid or a tanh, and the leak."""
        for node in self.proto.graph.node:
            known = _ACTIVATIONS.get(node.op_type) if not node.domain or node.domain == "ai.onnx" else None
            if known is not None:
                given = {attribute.name: attribute.f for attribute in node.attribute}
                leak = given.get("alpha", 0.01) if node.op_type == "LeakyRelu" else 0.0
                leak = float(np.float32(leak))
                if 0 <= leak <= 1:
                    yield node.input[0], node.output[0], known, leak

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs, in order."""
        return [value.name for value in self.proto.graph.output]

    @property
    def used(self) -> list[Given]:
        """The inputs that something reads."""
        graph = self.proto.graph
        read = {name for node in graph.node for name in operands(node)} | set(self.outputs)
        return [given for given in self.inputs if given.name in read]

    def tensor(self, label: str) -> str:
        """The tensor that is called so, or that the node of this name computes. Raises InputError if there is none."""
        graph = self.proto.graph
        results = [name for node in graph.node for name in node.output if name]
        if label in results:
            return label
        named = [node for node in graph.node if node.name == label]
        if len(named) == 1 and len([name for name in named[0].output if name]) == 1:
            return str(named[0].output[0])
        what = "several results, or several nodes have that name" if named else "no node or result of that name"
        raise InputError(f"{self.path}: {label!r} is {what}; name the result of one node")

    def exposing(self, names: Sequence[str]) -> Runner:
        """Runs the model as far as these tensors."""
        return runner_of(self.proto, self.path, self.path if self.content is None else self.content, names)


@dataclass(frozen=True)
class Part:
    """A use of a model: the columns of its inputs, by name, among all inputs, and the tensors whose values count."""

    model: Model
    columns: Mapping[str, int]
    values: tuple[str, ...]


def joint(parts: Sequence[Part], places: Sequence[int], terms: Sequence[Factors]) -> tuple[Network, list[Given]]:
    """The network of several models, and what their values are.

    Args:
        parts: The models. Their values, flattened, are numbered one after the other.
        places: For each of all inputs the number of the network's input that it is.
        terms: What the network's outputs are: products of variables 2i, which is input i of all, and 2j + 1, value j.

    Raises:
        InputError: A model cannot be used.
        UnsupportedError: It has something that krelax does not model exactly.

    Sound: yes, as `krelax.network.onnx.load_onnx`.
    """
    builder, values, nodes = Builder((max(places) + 1,)), list[Given](), list[int]()
    for part in parts:
        for given, node in _values(builder, part, places):
            values.append(given)
            nodes.append(reshape(builder, node, (prod(given.shape),)))
    return _finished(builder, parts, places, terms, nodes), values


def apart(parts: Sequence[Part], places: Sequence[int], terms: Sequence[Factors]) -> Network | None:
    """As `joint`, of two models of one structure: the values of the first are those of the second, and what they are
    more (`krelax.network.difference`). So of the difference of two values nothing else is bounded. None for others.
    """
    if len(parts) != 2:
        return None
    one, other = (alone(part, places) for part in parts)
    if not alike(one, other):
        return None
    builder = Builder((max(places) + 1,))
    more, second = subtract(builder, one, other, (0, 0))
    return _finished(builder, parts, places, terms, [builder.add(Add((1, 1)), second, more), second])


def alone(part: Part, places: Sequence[int]) -> Network:
    """The network of the values of one model, in a row. It has no `replay`. Raises as `joint`."""
    builder = Builder((max(places) + 1,))
    nodes = [reshape(builder, node, (prod(given.shape),)) for given, node in _values(builder, part, places)]
    return fuse(builder.build(nodes[0] if len(nodes) == 1 else builder.add(Concat(0), *nodes)))


def _values(builder: Builder, part: Part, places: Sequence[int]) -> Iterator[tuple[Given, int]]:
    """Append the nodes of a model; what its values are, and their nodes."""
    known = _read(builder, part, places)
    for name in part.values:
        node = _value(builder, name, known, part.model.path)
        kind = known.constants[name].kind if name in known.constants else known.kinds[name]
        yield Given(name, builder.shape(node), kind), node


def _finished(
    builder: Builder, parts: Sequence[Part], places: Sequence[int], terms: Sequence[Factors], nodes: Sequence[int]
) -> Network:
    """The network of all terms over the inputs and nodes with all values, in order."""
    codes = sorted({code for term in terms for code in term})
    index = [code // 2 + builder.shape(0)[0] if code % 2 else places[code // 2] for code in codes]
    everything = builder.add(Concat(0), 0, *nodes)
    base = builder.add(Take(torch.tensor(index)), everything)
    place = {code: i for i, code in enumerate(codes)}
    output = monomials(builder, base, [tuple(place[code] for code in term) for term in terms])
    network = builder.build(output)
    check_shapes(network)
    result = replace(fuse(network), **_replay(parts, places))
    _check(builder.build(everything), result, builder.shape(0)[0])
    return result


def _read(builder: Builder, part: Part, places: Sequence[int]) -> Known:
    """Append the nodes of a model; what is known of its tensors."""
    model = part.model
    version, known = version_and_constants(model.proto, model.path)
    try:
        for given in model.inputs:
            if given.name in part.columns:
                start = part.columns[given.name]
                mine = list(places[start : start + prod(given.shape)])
                whole = mine == list(range(builder.shape(0)[0]))
                x = 0 if whole else builder.add(Take(torch.tensor(mine)), 0)
                known.values[given.name] = reshape(builder, x, given.shape)
                known.kinds[given.name] = given.kind
        nodes = {place: node for name in part.values for place, node in needed(model.proto.graph, name)}
        read_nodes(builder, sorted(nodes.items()), known, version, frozenset())
    except KrelaxError as error:
        raise type(error)(f"{model.path}: {error}") from error
    return known


def _value(builder: Builder, name: str, known: Known, path: Path) -> int:
    """The node of a tensor, which may be a constant."""
    if name in known.values:
        return known.values[name]
    literal = known.constants.get(name)
    if literal is None:
        raise InputError(f"{path}: {name!r} is not computed by any node; export the network again")
    if literal.kind not in FLOATS:
        raise UnsupportedError(f"{path}: {name!r} is a constant of type {kind_name(literal.kind)}; export it as floats")
    count, inputs = prod(literal.shape), builder.shape(0)[0]
    weight = Constant(torch.zeros(count, inputs, dtype=torch.float64))
    return reshape(builder, dense(builder, 0, weight, literal.floats.reshape(count)), literal.shape)


def _replay(parts: Sequence[Part], places: Sequence[int]) -> dict[str, Any]:
    """The fields of a network that evaluates the models themselves. Where types differ, inputs are float32, which all
    types hold."""
    kinds = {g.kind for part in parts for g in part.model.inputs if g.name in part.columns}
    dtype: Element = np.float64 if kinds == {Kind.DOUBLE} else np.float32
    runs = [part.model.exposing(part.values) for part in parts]

    def replay(x: NDArray[Any]) -> NDArray[Any]:
        every = as_element(x, dtype).flatten()[list(places)]
        values = []
        for part, run in zip(parts, runs, strict=True):
            feeds = {}
            for given in part.model.inputs:
                start = part.columns.get(given.name)
                flat = np.zeros(prod(given.shape)) if start is None else every[start : start + prod(given.shape)]
                feeds[given.name] = flat.astype(given.element).reshape(given.shape)
            values += [np.asarray(v, np.float64).flatten() for v in run(feeds)]
        return np.concatenate(values)

    return {"replay": replay, "replay_dtype": dtype}


def _check(everything: Network, network: Network, inputs: int) -> None:
    """Raises InputError where values differ from ONNX Runtime's at random inputs."""
    assert network.replay is not None
    generator = torch.Generator().manual_seed(0)
    own = torch.float64 if network.replay_dtype is np.float64 else torch.float32
    for x in torch.rand(3, inputs, generator=generator, dtype=own):
        ours, theirs = everything(x[None].double())[0, inputs:].numpy(), network.replay(x.numpy())
        scale = max(float(np.abs(theirs).max(initial=0)), 1e-30)
        worst = float(np.abs(ours - theirs).max(initial=0)) / scale if ours.shape == theirs.shape else np.inf
        if not worst <= _TOLERANCE:
            raise InputError(f"import check failed: values are off ONNX Runtime's by {worst:.2g} of the largest")
