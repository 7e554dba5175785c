"""Two networks of one structure as one, in the coordinates of the second and of what the first differs by.

Bounded side by side, two nearly equal networks have bounds of their own, and the difference of their outputs is bounded
by how far both may be apart. Here every node has its value in the second network, g, and the difference d of its values
in both. Of an affine node, d is `W (d of its operand) + (W - V) (g of its operand)`, with the matrices W and V of both;
of a rectifier it is an activation of g and d (`krelax.activations.difference`). So what both have in common never
enters, and d stays as small as it is. A node of another kind is had in both networks, and subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.activations import Difference, LeakyReLU, ReLU
from krelax.elements import Elements
from krelax.errors import InputError
from krelax.network.compose import reshape
from krelax.network.constants import Constant
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Arithmetic, Conv, ConvTranspose, Dense, Scale
from krelax.network.ops import Concat, Linear
from krelax.op import Op

# The constants of affine operators that are added; others multiply. Either may be missing.
_SHIFT = {"bias", "shift"}


def alike(one: Network, other: Network) -> bool:
    """Whether nodes of two networks correspond: as many of them, joined in the same way, of the same kinds and
    shapes."""
    return len(one.nodes) == len(other.nodes) and all(
        type(m.op) is type(n.op) and m.inputs == n.inputs and m.shape == n.shape
        for m, n in zip(one.nodes, other.nodes, strict=True)
    )


def identical(one: Network, other: Network) -> bool:
    """Whether two networks compute the same, node by node, for sure."""
    return alike(one, other) and all(same(m.op, n.op) for m, n in zip(one.nodes, other.nodes, strict=True))


def subtract(builder: Builder, one: Network, other: Network, ends: tuple[int, int]) -> tuple[int, int]:
    """Append what the output of a network `one` is more than that of an `other` one, and the output of that.

    Args:
        builder: Where the nodes go.
        one: The first network.
        other: The second one, whose output has the same shape.
        ends: Their inputs, nodes of the builder; the same one for both if they are given the same.

    Returns:
        The nodes of the difference, and of the output of the other network.

    Sound: yes. The difference of the constants of both is enclosed (`krelax.network.constants`).
    """
    if not alike(one, other):
        first, second = (_append(builder, network, end) for network, end in zip((one, other), ends, strict=True))
        return builder.add(Add((1, -1)), first, second), second
    pair = _Pair(builder, one, other, {0: ends[0]}, {0: ends[1]})
    if ends[0] != ends[1]:
        pair.apart[0] = builder.add(Add((1, -1)), *ends)
    for node in range(1, len(one.nodes)):
        pair.follow(node)
    last = len(one.nodes) - 1
    return pair.difference(last), pair.second[last]


def _append(builder: Builder, network: Network, end: int) -> int:
    place = {0: end}
    for i, node in enumerate(network.nodes[1:], start=1):
        place[i] = builder.add(node.op, *(place[j] for j in node.inputs), name=node.name)
    return place[len(network.nodes) - 1]


@dataclass
class _Pair:
    """Corresponding nodes: those of the `first` network, as far as anybody asked for them, of the `second`, and how far
    the first is `apart` from that, of those that are no copies."""

    builder: Builder
    one: Network
    other: Network
    first: dict[int, int]
    second: dict[int, int]
    apart: dict[int, int] = field(default_factory=dict)

    def follow(self, node: int) -> None:
        """Append the next node of the second network, and the difference."""
        one, other = self.one.nodes[node], self.other.nodes[node]
        self.second[node] = self.builder.add(other.op, *(self.second[j] for j in other.inputs), name=other.name)
        equal = same(one.op, other.op)
        if equal and not any(j in self.apart for j in one.inputs):
            return
        found = None
        if isinstance(one.op, Linear) and isinstance(other.op, Linear):
            found = self._affine(one.op, other.op, one.inputs, equal)
        elif equal and isinstance(one.op, ReLU | LeakyReLU):
            found = self._rectified(one.op.leak, one.inputs[0])
        self.apart[node] = self._plainly(node) if found is None else found

    def difference(self, node: int) -> int:
        """How far a node is apart, zeros of copies."""
        if node not in self.apart:
            zero = Scale(torch.zeros((), dtype=torch.float64))
            self.apart[node] = self.builder.add(zero, self.second[node])
        return self.apart[node]

    def _affine(self, one: Linear, other: Linear, inputs: Sequence[int], equal: bool) -> int | None:
        """`(W - V) g + W d`, and the difference of what both add. None for operators that cannot be subtracted."""
        between = None if equal else _minus(one, other)
        without = homogeneous(one)
        if without is None or (between is None and not equal):
            return None
        parts = []
        if between is not None:
            parts.append(self.builder.add(between, *(self.second[j] for j in inputs)))
        if any(j in self.apart for j in inputs):
            parts.append(self.builder.add(without, *(self.difference(j) for j in inputs)))
        return parts[0] if len(parts) == 1 else self.builder.add(Add((1, 1)), *parts)

    def _rectified(self, leak: float, operand: int) -> int:
        g, d = self.second[operand], self.difference(operand)
        shape = self.builder.shape(g)
        pairs = [reshape(self.builder, x, (*shape, 1)) for x in (g, d)]
        return self.builder.add(Difference(leak), self.builder.add(Concat(len(shape)), *pairs))

    def _plainly(self, node: int) -> int:
        """The node in both networks, subtracted."""
        return self.builder.add(Add((1, -1)), self._copy(node), self.second[node])

    def _copy(self, node: int) -> int:
        """The node of the first network, with all that it needs."""
        todo, needed = [node], set[int]()
        while todo:
            i = todo.pop()
            if i not in self.first and i not in needed:
                needed.add(i)
                todo += self.one.nodes[i].inputs
        for i in sorted(needed):
            here = self.one.nodes[i]
            self.first[i] = self.builder.add(here.op, *(self.first[j] for j in here.inputs), name=here.name)
        return self.first[node]


def same(one: Op, other: Op) -> bool:
    """Whether two operators compute the same, for sure: equal enclosures may be of different constants."""
    if type(one) is not type(other) or (isinstance(one, Linear) and not one.is_exact):
        return False
    pairs = ((getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return all(
        isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
        if isinstance(a, Tensor) or isinstance(b, Tensor)
        else a == b
        for a, b in pairs
    )


def homogeneous(op: Linear) -> Linear | None:
    """The operator without what it adds; None if that is not known."""
    if isinstance(op, Dense | Conv | ConvTranspose):
        return replace(op, bias=None, bias_error=None)
    if isinstance(op, Scale):
        return replace(op, shift=None, shift_error=None)
    return op if op.constant() is None and op.is_exact else None


def _minus(one: Linear, other: Linear) -> Linear | None:
    """The operator with the differences of all constants of two; None if they differ in something else."""
    if not (isinstance(one, Arithmetic) and one._constants and type(one) is type(other)):
        return None
    names = {n for name in one._constants for n in (name, f"{name}_error")}
    rest = [f.name for f in fields(one) if f.name not in names]
    if any(getattr(one, name) != getattr(other, name) for name in rest):
        return None
    constants: dict[str, Tensor | None] = {}
    for name in one._constants:
        if getattr(one, name) is None and getattr(other, name) is None and name in _SHIFT:
            continue
        a, b = _constant(one, name), _constant(other, name)
        if a.dim() and b.dim() and a.shape != b.shape:
            return None
        between = (a - b).checked()
        constants |= {name: between.value, f"{name}_error": between.error}
    return replace(one, **constants)


def _constant(op: Arithmetic, name: str) -> Constant:
    value: Tensor | None = getattr(op, name)
    if value is None:
        return Constant.of(0.0 if name in _SHIFT else 1.0)
    return Constant(value, getattr(op, f"{name}_error"))


def difference(one: Network, other: Network, together: bool = True) -> Network:
    """The network whose output is that of `one` less that of an `other` one, entry by entry, at the same input; of
    nodes that correspond, if they are to be `together`, and else of both side by side.

    Its `replay` gives the outputs of both, those of `one` first, each computed by the model itself. Raises InputError
    for networks of other inputs, or of another number of outputs.
    """
    if one.input_shape != other.input_shape:
        given = f"{list(one.input_shape)} and {list(other.input_shape)}"
        raise InputError(f"the networks have inputs of shapes {given}; give two networks of the same inputs")
    counts = [prod(network.output_shape) for network in (one, other)]
    if counts[0] != counts[1]:
        raise InputError(
            f"the networks have {counts[0]} and {counts[1]} outputs; give two networks with as many outputs"
        )
    builder = Builder(one.input_shape)
    if together and one.output_shape == other.output_shape:
        end = subtract(builder, one, other, (0, 0))[0]
    else:
        ends = [reshape(builder, _append(builder, network, 0), (counts[0],)) for network in (one, other)]
        end = builder.add(Add((1, -1)), *ends)
    return replace(builder.build(end), **_replay(one, other))


def places(part: Network, whole: Network) -> dict[int, int]:
    """Where the nodes of a network are in another one, of the same input, that was built of it: those of them that are
    there, the first time if they are there twice."""
    every: dict[tuple[int, tuple[int, ...]], int] = {}
    for i, node in enumerate(whole.nodes):
        every.setdefault((id(node.op), node.inputs), i)
    found = {0: 0}
    for i, node in enumerate(part.nodes[1:], start=1):
        inputs = tuple(found.get(j, -1) for j in node.inputs)
        if (place := every.get((id(node.op), inputs))) is not None and -1 not in inputs:
            found[i] = place
    return found


def _replay(one: Network, other: Network) -> dict[str, Any]:
    """The fields of a network that evaluates both models. Where types differ, inputs are float32, which both hold."""
    first, second = one.replay, other.replay
    if first is None or second is None:
        return {}

    def replay(x: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([np.asarray(run(x), np.float64).flatten() for run in (first, second)])

    count = prod(one.input_shape)
    kinds = [kind for network in (one, other) for kind in network.elements.kinds(count)]
    return {"replay": replay, "elements": Elements.joined([(k, 1) for k in kinds]).merged([*range(count)] * 2)}
