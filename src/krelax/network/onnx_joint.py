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

from krelax.elements import Elements
from krelax.errors import InputError, KrelaxError
from krelax.network.check import samples, within
from krelax.network.compose import dense, reshape
from krelax.network.constants import Constant
from krelax.network.difference import alike, subtract
from krelax.network.graph import Builder, Network, as_elements
from krelax.network.linear import Add
from krelax.network.onnx import check_shapes, inlined, integral, read_nodes, tolerance_of, version_and_constants
from krelax.network.onnx_branches import operands
from krelax.network.onnx_file import read_model
from krelax.network.onnx_inputs import array_type, check_element, declared_input, element_name
from krelax.network.onnx_outputs import needed
from krelax.network.onnx_quantised import whole_numbers
from krelax.network.onnx_reader import Known
from krelax.network.onnx_replay import Runner, runner_of
from krelax.network.ops import Concat, Take
from krelax.network.polynomials import Factors, monomials
from krelax.network.simplify import fuse
from krelax.op import Shape

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
        return element_name(self.kind)


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
                check_element(value, self.path)
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
    builder, values, nodes, every = Builder((max(places) + 1,)), list[Given](), list[int](), list[Known]()
    for part in parts:
        found, known = _values(builder, part, places)
        values += [given for given, _ in found]
        nodes += [reshape(builder, node, (prod(given.shape),)) for given, node in found]
        every.append(known)
    return _finished(builder, parts, places, terms, nodes, every), values


def apart(parts: Sequence[Part], places: Sequence[int], terms: Sequence[Factors]) -> Network | None:
    """As `joint`, of two models of one structure: the values of the first are those of the second, and what they are
    more (`krelax.network.difference`). So of the difference of two values nothing else is bounded. None for others.
    """
    if len(parts) != 2:
        return None
    one, known = _alone(parts[0], places)
    other, _ = _alone(parts[1], places)
    if not alike(one, other):
        return None
    builder = Builder((max(places) + 1,))
    more, second = subtract(builder, one, other, (0, 0))
    return _finished(builder, parts, places, terms, [builder.add(Add((1, 1)), second, more), second], [known])


def alone(part: Part, places: Sequence[int]) -> Network:
    """The network of the values of one model, in a row. It has no `replay`. Raises as `joint`."""
    return _alone(part, places)[0]


def _alone(part: Part, places: Sequence[int]) -> tuple[Network, Known]:
    """The same, and what is known of the model."""
    builder = Builder((max(places) + 1,))
    found, known = _values(builder, part, places)
    nodes = [reshape(builder, node, (prod(given.shape),)) for given, node in found]
    return fuse(builder.build(nodes[0] if len(nodes) == 1 else builder.add(Concat(0), *nodes))), known


def _values(builder: Builder, part: Part, places: Sequence[int]) -> tuple[list[tuple[Given, int]], Known]:
    """Append the nodes of a model; what its values are, and their nodes, and what is known of it."""
    known, found = _read(builder, part, places), list[tuple[Given, int]]()
    for name in part.values:
        node = _value(builder, name, known, part.model.path)
        kind = known.constants[name].kind if name in known.constants else known.kinds[name]
        found.append((Given(name, builder.shape(node), kind), node))
    return found, known


def _finished(
    builder: Builder, parts: Sequence[Part], places: Sequence[int], terms: Sequence[Factors], nodes: Sequence[int],
    known: Sequence[Known],
) -> Network:  # fmt: skip
    """The network of all terms over the inputs and nodes with all values, in order, of models of which this is known;
    values of no term are left out."""
    codes = sorted({code for term in terms for code in term})
    everything = builder.add(Concat(0), 0, *nodes)
    base = _variables(builder, codes, places, nodes)
    place = {code: i for i, code in enumerate(codes)}
    output = monomials(builder, base, [tuple(place[code] for code in term) for term in terms])
    network = builder.build(output)
    check_shapes(network)
    result = replace(fuse(network), **_replay(parts, places), integral=all(map(integral, known)))
    _check(builder.build(everything), result, builder.shape(0)[0], max(map(tolerance_of, known)))
    return result


def _variables(builder: Builder, codes: Sequence[int], places: Sequence[int], nodes: Sequence[int]) -> int:
    """The node of variables, of what they are entries of alone: inputs by their places, and values of nodes."""
    sources = [0] if any(code % 2 == 0 for code in codes) else []
    index, begin = {code: places[code // 2] for code in codes if code % 2 == 0}, 0
    size = sum(builder.shape(node)[0] for node in sources)
    for node in nodes:
        end = begin + builder.shape(node)[0]
        mine = [code for code in codes if code % 2 and begin <= code // 2 < end]
        if mine:
            index |= {code: size + code // 2 - begin for code in mine}
            size += end - begin
            sources.append(node)
        begin = end
    x = builder.add(Concat(0), *sources) if len(sources) > 1 else sources[0]
    return builder.add(Take(torch.tensor([index[code] for code in codes])), x)


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
    numbers = literal.data if isinstance(literal.data, Constant) else whole_numbers(literal)
    count, inputs = prod(literal.shape), builder.shape(0)[0]
    weight = Constant(torch.zeros(count, inputs, dtype=torch.float64))
    return reshape(builder, dense(builder, 0, weight, numbers.reshape(count)), literal.shape)


def _replay(parts: Sequence[Part], places: Sequence[int]) -> dict[str, Any]:
    """The fields of a network that evaluates the models themselves."""
    runs = [part.model.exposing(part.values) for part in parts]
    kinds = ["float64"] * len(places)
    for part in parts:
        for given in part.model.inputs:
            if (start := part.columns.get(given.name)) is not None:
                kinds[start : start + prod(given.shape)] = [given.element] * prod(given.shape)
    elements = Elements.joined([(kind, 1) for kind in kinds]).merged(places)

    def replay(x: NDArray[Any]) -> NDArray[Any]:
        every = as_elements(x.reshape(-1), elements)[list(places)]
        values = []
        for part, run in zip(parts, runs, strict=True):
            feeds = {}
            for given in part.model.inputs:
                start = part.columns.get(given.name)
                flat = np.zeros(prod(given.shape)) if start is None else every[start : start + prod(given.shape)]
                feeds[given.name] = flat.astype(array_type(given.kind)).reshape(given.shape)
            values += [np.asarray(v).astype(np.float64).flatten() for v in run(feeds)]
        return np.concatenate(values)

    return {"replay": replay, "elements": elements}


def _check(everything: Network, network: Network, inputs: int, most: float) -> None:
    """Raises InputError where values differ from ONNX Runtime's at random inputs by more than this part."""
    assert network.replay is not None
    x = samples(network, 3)
    every = everything.values(torch.from_numpy(x.astype(np.float64)))
    for ours, sample, kept in zip(every[-1][:, inputs:].numpy(), x, within(everything, every), strict=True):
        theirs = network.replay(sample)
        scale = max(float(np.abs(theirs).max(initial=0)), 1e-30)
        worst = float(np.abs(ours - theirs).max(initial=0)) / scale if ours.shape == theirs.shape else np.inf
        if kept and not worst <= most:
            raise InputError(f"import check failed: values are off ONNX Runtime's by {worst:.2g} of the largest")
