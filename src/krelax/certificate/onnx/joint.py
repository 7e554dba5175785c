"""Several files, or several tensors of one, as a single network over one vector of inputs.

Every use of a file is read by itself, even if it is the same file at the same inputs. The network's outputs are
*terms*: products of variables, which are the inputs of all files, one after the other, and the values of all files.
They are made as krelax makes them, so that a certificate's activations have the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from krelax.certificate.errors import Malformed
from krelax.certificate.kernel.activations import Product, Square
from krelax.certificate.kernel.linear import Index, Pick
from krelax.certificate.kernel.network import Activation, Affine, Network
from krelax.certificate.onnx.apart import subtracted
from krelax.certificate.onnx.builder import Builder
from krelax.certificate.onnx.graph import Ends, parse_values
from krelax.certificate.onnx.model import Model
from krelax.certificate.onnx.operator import Everything, Value
from krelax.certificate.onnx.reader import read_into
from krelax.certificate.onnx.tensors import Shape
from krelax.errors import InputError, UnsupportedError, one_line

# Factors of one term.
_MOST_FACTORS = 32

Term = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """A use of a file: for every input that is given the network's inputs that its entries, flattened, are; and the
    tensors whose values count."""

    model: Model
    places: Mapping[str, Index]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file, with the name of its element type."""

    name: str
    shape: Shape
    element: str


@dataclass(frozen=True)
class Used:
    """What a use of a file was found to be: the inputs that are given, the values, and what the file calls its ends."""

    inputs: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    ends: Ends


def read_joint(
    sources: Sequence[Source], terms: Sequence[Term], inputs: int, apart: bool = False
) -> tuple[Network, tuple[Used, ...]]:
    """The network of several uses of files over so many inputs, and what they are.

    Args:
        sources: The uses.
        terms: The variables whose product each output is, at least one, by their numbers: 2i is entry i of all inputs
            of all sources, one after the other, and 2j + 1 is entry j of all their values.
        inputs: How many inputs the network has.
        apart: Whether the values of two sources are made of those of the second, and of what the first ones are more.

    Raises InputError for what cannot be used, UnsupportedError for what is not read exactly, and Malformed for places
    and terms that do not fit. The network says nothing of executions in float32.
    """
    if apart and (len(sources) != 2 or not all(source.values for source in sources)):
        raise Malformed("other than two networks with values that are to be subtracted")
    builder, used, nodes, alone = Builder(inputs), list[Used](), list[int](), list[Network]()
    for number, source in enumerate(sources):
        own = Builder(inputs) if apart else builder
        try:
            one, values = _read(own, source, inputs)
        except InputError as error:  # names in a file may hold anything, messages are one line
            kind = "not supported by the checker: " if isinstance(error, UnsupportedError) else ""
            raise type(error)(one_line(f"network {number}: {kind}{error}")) from error
        used.append(one)
        if apart:
            alone.append(own.build(_row(own, values), False))
        nodes += values
    if apart:
        nodes = list(subtracted(builder, *alone))
    given = [np.asarray(index) for source in sources for index in source.places.values()]
    places = np.concatenate(given) if given else np.zeros(0, np.int64)
    return builder.build(_outputs(builder, places, nodes, terms), False), tuple(used)


def _read(builder: Builder, source: Source, inputs: int) -> tuple[Used, list[int]]:
    """Append what a use of a file computes; what it is, and the nodes of its values."""
    graph, ends = parse_values(source.model, list(source.places), source.values)
    nodes = []
    for given in graph.inputs:
        index = source.places[given.name]
        if index.shape != (prod(given.shape),) or not ((index >= 0) & (index < inputs)).all():
            raise Malformed(f"places that do not fit the input {given.name!r} of shape {list(given.shape)}")
        nodes.append(builder.pick(0, index))
    tensors, _ = read_into(builder, graph, nodes)
    found = [_value(builder, name, tensors.get(name)) for name in source.values]
    takes = tuple(Tensor(given.name, given.shape, given.dtype.name) for given in graph.inputs)
    gives = tuple(Tensor(n, x.shape, x.dtype.name) for n, x in zip(source.values, found, strict=True))
    return Used(takes, gives, ends), [x.node for x in found]


def _value(builder: Builder, name: str, x: Everything | None) -> Value:
    """A tensor, which may be a constant."""
    if isinstance(x, Value):
        return x
    if not isinstance(x, np.ndarray) or x.dtype not in {np.dtype(np.float32), np.dtype(np.float64)}:
        raise UnsupportedError(f"{name!r}, which depends on no input and is no plain constant")
    size, numbers = builder.size(0), x.astype(np.float64).reshape(-1)
    none = Pick(np.full(numbers.size, -1), size)
    return Value(builder.add(Affine((0,), (none,), numbers.size, numbers, abs(numbers))), x.shape, x.dtype)


def _outputs(builder: Builder, places: Index, nodes: Sequence[int], terms: Sequence[Term]) -> int:
    """The node of all terms. First come their variables, then products of two of them, of three, and so on: those of a
    degree at once, squares before others."""
    sizes = [builder.size(x) for x in nodes]
    counts = len(places), sum(sizes)
    codes = sorted({code for term in terms for code in term})
    if not terms or not all(0 < len(term) <= _MOST_FACTORS for term in terms):
        raise Malformed(f"no terms, or terms of no variable or of more than {_MOST_FACTORS}")
    if any(code < 0 or code // 2 >= counts[code % 2] for code in codes):
        raise Malformed("terms of variables that are not there")
    numbers = np.array(codes, np.int64)
    own = np.full(len(codes), -1)
    own[numbers % 2 == 0] = places[numbers[numbers % 2 == 0] // 2]
    picks, begin = [(0, own)], 0
    for node, size in zip(nodes, sizes, strict=True):
        entry = numbers // 2 - begin
        picks.append((node, np.where((numbers % 2 == 1) & (entry >= 0) & (entry < size), entry, -1)))
        begin += size
    x = _picked(builder, [pick for pick in picks if (pick[1] >= 0).any()])
    known: dict[Term, int] = {(code,): i for i, code in enumerate(codes)}
    for degree in range(2, max(map(len, terms)) + 1):
        wanted = sorted({term[:degree] for term in terms if len(term) >= degree})
        # those that are squares of one variable come first
        wanted.sort(key=lambda term: not (degree == 2 and term[0] == term[1]))
        first = np.array([known[term[:-1]] for term in wanted])
        second = np.array([known[term[-1:]] for term in wanted])
        squares = sum(degree == 2 and term[0] == term[1] for term in wanted)
        size, made = builder.size(x), list[int]()
        if squares:
            before = builder.pick(x, first[:squares])
            made.append(builder.add(Activation((before,), Square(), squares)))
        if squares < len(wanted):
            pairs = np.stack([first[squares:], second[squares:]], 1)
            made.append(builder.add(Activation((builder.pick(x, pairs),), Product(), len(pairs))))
        known |= {term: size + k for k, term in enumerate(wanted)}
        x = _row(builder, [x, *made])
    return builder.pick(x, np.array([known[term] for term in terms]))


def _row(builder: Builder, nodes: Sequence[int]) -> int:
    """All entries of several nodes, one after the other."""
    sizes = [builder.size(x) for x in nodes]
    places, begin, picks = np.arange(sum(sizes)), 0, []
    for node, size in zip(nodes, sizes, strict=True):
        here = places - begin
        picks.append((node, np.where((here >= 0) & (here < size), here, -1)))
        begin += size
    return _picked(builder, picks)


def _picked(builder: Builder, picks: Sequence[tuple[int, Index]]) -> int:
    """Entries of several nodes in one vector; -1 where an entry is of another one."""
    if len(picks) == 1:
        return builder.pick(*picks[0])
    maps = tuple(Pick(index, builder.size(node)) for node, index in picks)
    return builder.add(Affine(tuple(node for node, _ in picks), maps, len(picks[0][1])))
