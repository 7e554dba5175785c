"""Builds the network of a file, node by node."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from krelax.certificate.kernel.arithmetic import Floats
from krelax.certificate.kernel.linear import Index, Pick, Scale
from krelax.certificate.kernel.network import Activation, Affine, Network
from krelax.errors import UnsupportedError

# Of all nodes together.
_MOST_NUMBERS = 10**8


@dataclass(frozen=True)
class Interface:
    """What a file calls its input and its output, their shapes, and the type of the input's numbers; and the operators
    of a head that was left out, because questions only compare what it keeps the order of."""

    names: tuple[str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    element: str
    head: tuple[str, ...] = ()


class Builder:
    """Collects nodes in order."""

    def __init__(self, input_size: int) -> None:
        self._nodes: list[Affine | Activation | None] = [None]
        self._input_size, self._room = input_size, _MOST_NUMBERS
        self._only_real = False
        # sums of values along the last axis, by their nodes; and nodes whose entries add up to one along it
        self.sums, self.shares = dict[int, tuple[int, tuple[int, ...]]](), set[tuple[int, int]]()

    def only_real(self) -> None:
        """Say that nothing is known of what executions in float32 compute."""
        self._only_real = True

    @property
    def count(self) -> int:
        return len(self._nodes)

    def check_composed(self, first: int, operands: Collection[int]) -> None:
        """Where nodes from `first` on are of one operator, and a function is among several that compute something, or
        is of something else than entries of the `operands`, nothing is known of what executions in float32 compute:
        they need not go the same way."""
        made = [n for n in self._nodes[first:] if isinstance(n, Activation) or (n and not n.moves_only)]
        functions = [n for n in made if isinstance(n, Activation) and n.rule.vouched]
        given = {self._moved_from(x) for x in operands}
        if functions and (len(made) > 1 or self._moved_from(functions[0].inputs[0]) not in given):
            self.only_real()

    def check_gated(self, a: int, b: int) -> None:
        """Where two nodes that are multiplied are functions of one number, entry by entry, a runtime may know their
        product as one function, with other constants than the file's (GELU's, to within 1e-5)."""
        (one, first), (two, second) = (self._made_of(x) for x in (a, b))
        if one & two and (first or second):
            self.only_real()

    def _moved_from(self, x: int) -> int:
        """The node that a node takes entries of, if that is all that it does."""
        while isinstance(node := self._nodes[x], Affine) and node.moves_only and len(node.inputs) == 1:
            x = node.inputs[0]
        return x

    def _made_of(self, x: int) -> tuple[set[int], bool]:
        """The nodes that a node is made of entry by entry, and whether a function is on the way to them."""
        found, waiting, functions = set[int](), {x}, False
        while waiting:
            found.add(x := waiting.pop())
            node = self._nodes[x]
            if isinstance(node, Activation) and node.rule.elementwise:
                functions |= node.rule.vouched
                waiting |= {*node.inputs} - found
            elif isinstance(node, Affine) and all(isinstance(m, Scale) for m in node.maps):
                waiting |= {*node.inputs} - found
        return found, functions

    def add(self, node: Affine | Activation) -> int:
        """The number of a node. Raises UnsupportedError for a network of too many numbers."""
        self._room -= node.size
        if self._room < 0:
            raise UnsupportedError(f"more than {_MOST_NUMBERS} numbers in one evaluation")
        self._nodes.append(node)
        return len(self._nodes) - 1

    def node(self, node: int) -> Affine | Activation | None:
        """A node; None for the input."""
        return self._nodes[node]

    def size(self, node: int) -> int:
        there = self._nodes[node]
        return self._input_size if there is None else there.size

    def pick(self, x: int, index: Index) -> int:
        """Entries of a node; picks of picks are one."""
        flat, before = index.reshape(-1), self._nodes[x]
        if np.array_equal(flat, np.arange(self.size(x))):
            return x
        alone = isinstance(before, Affine) and before.bias is None and len(before.maps) == 1
        if alone and isinstance(before, Affine) and isinstance(inner := before.maps[0], Pick):
            return self.pick(before.inputs[0], np.where(flat < 0, -1, inner.index[flat]))
        return self.add(Affine((x,), (Pick(flat, self.size(x)),), flat.size))

    def build(self, output: int, single: bool) -> Network:
        """The network up to a node, without what it does not need."""
        needed = {0, output}
        for i in range(output, 0, -1):
            node = self._nodes[i]
            if i in needed and node is not None:
                needed.update(node.inputs)
        place = {old: new for new, old in enumerate(sorted(needed))}
        nodes = (self._nodes[i] for i in sorted(needed))
        moved = (n and replace(n, inputs=tuple(place[j] for j in n.inputs)) for n in nodes)
        return Network(tuple(moved), self._input_size, single and not self._only_real)


def full(constant: Floats, shape: tuple[int, ...]) -> Floats:
    """A constant broadcast to a shape, flattened."""
    return np.ascontiguousarray(np.broadcast_to(constant, shape)).reshape(prod(shape))
