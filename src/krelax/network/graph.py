"""The network: an immutable list of operators in evaluation order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.activations import Activation
from krelax.elements import FLOAT32, Elements
from krelax.errors import InputError, UnsupportedError
from krelax.network.copies import with_copies
from krelax.network.ops import Linear, Source
from krelax.op import Op, Shape
from krelax.watch import counts_work, tick

# More numbers in one evaluation are a damaged file, not a network.
MOST_NUMBERS = 10**8
# More axes than any network has, and still few enough for what lays out windows, which doubles them.
MOST_AXES = 16
# Moving an entry takes as long as so many products, and the many small steps of crossing an activation as so many.
_MOVED, _CROSSING = 4, 2e6
Replay = Callable[[NDArray[Any]], NDArray[Any]]


def as_elements(x: NDArray[Any], elements: Elements) -> NDArray[Any]:
    """The numbers of `x` in a type that holds those of a model's input. Raises ValueError for others than these."""
    given = x.astype(np.float64)
    if not (np.array_equal(given, x) and np.array_equal(elements.rounded(given, "nearest"), given)):
        raise ValueError(f"the input has numbers that {elements.title} does not hold")
    return np.asarray(given, elements.holder)


@dataclass(frozen=True, eq=False)
class Node:
    """An operator in its place: `inputs` are indices of earlier nodes, `shape` is without the batch axis."""

    op: Op
    inputs: tuple[int, ...]
    shape: Shape
    name: str = ""


@dataclass(frozen=True, eq=False)
class Network:
    """A function from `(batch, *input_shape)` to `(batch, *output_shape)`.

    Node 0 is the input, the last node is the output, and every node's inputs come before it. `replay`, where there
    is one, evaluates the model this network was read from in the model's own types, one input of `input_shape` at a
    time. Those are `elements`; the input must hold numbers of them, in whatever type they are given.
    `converted` is the type that `to` gave it. `notes` say what of the model the network is, where that is not
    plain, `output` what the model calls its output, where it has names, and `result` the output's element type, where
    the model says. An `integral` model computes in whole numbers alone, so that its `replay` does not round.
    """

    nodes: tuple[Node, ...]
    replay: Replay | None = field(default=None, repr=False)
    elements: Elements = FLOAT32
    converted: torch.dtype | None = field(default=None, repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)
    output: str = field(default="", repr=False)
    result: str = field(default="", repr=False)
    integral: bool = False

    @property
    def input_shape(self) -> Shape:
        return self.nodes[0].shape

    @property
    def output_shape(self) -> Shape:
        return self.nodes[-1].shape

    @property
    def dtype(self) -> torch.dtype:
        """Type of the constants: float64 as read, which holds a model's float32 exactly.

        A network without constants has one, too: its inputs and coefficients are of that type.
        """
        if self.converted is not None:
            return self.converted
        tensors = (t for node in self.nodes for t in node.op.parameters() if t.is_floating_point())
        return next((t.dtype for t in tensors), torch.float64)

    def activations(self) -> list[int]:
        """Indices of the non-linear nodes."""
        return [i for i, node in enumerate(self.nodes) if isinstance(node.op, Activation)]

    def activation(self, node: int) -> Activation:
        """The operator of a non-linear node."""
        op = self.nodes[node].op
        assert isinstance(op, Activation)
        return op

    def __call__(self, x: Tensor) -> Tensor:
        values = self.values(x)
        return values[-1]

    def values(self, x: Tensor) -> list[Tensor]:
        """Value of every node for inputs `(batch, *input_shape)`."""
        result = [x]
        for node in self.nodes[1:]:
            visit(node.op, node.shape, len(x))
            result.append(node.op.forward(*(result[i] for i in node.inputs)))
        return result

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Network:
        """The same network with its constants in another type or on another device."""
        nodes = tuple(replace(node, op=node.op.to(dtype, device)) for node in self.nodes)
        return replace(self, nodes=nodes, converted=dtype)


def products(nodes: Sequence[Node]) -> int:
    """Products of two numbers in one pass through some nodes."""
    return sum(prod(n.shape) * n.op.terms for n in nodes if isinstance(n.op, Linear) and not n.op.moves_only)


def visit(op: Op, shape: Shape, rows: int) -> None:
    """Tell the clock that an operator, whose result has a shape, works on so many rows."""
    if not counts_work():
        tick()
        return
    if isinstance(op, Activation):
        tick(rows * prod(shape) * op.work + _CROSSING)
    else:
        assert isinstance(op, Linear)
        tick(rows * prod(shape) * (_MOVED if op.moves_only else op.terms))


def _check_axes(shape: Shape) -> None:
    if len(shape) > MOST_AXES:
        raise InputError(f"a tensor of {len(shape)} axes; reshape it to at most {MOST_AXES}")


class Builder:
    """Collects nodes in evaluation order; importers and tests write networks with it.

    Raises InputError before a network takes more numbers than `MOST_NUMBERS` for one evaluation, or more axes than
    `MOST_AXES` for one tensor. `shares` are nodes whose entries add up to one along the last axis, wherever they are
    defined.
    """

    def __init__(self, input_shape: Shape) -> None:
        self.shares = set[int]()
        self._nodes = [Node(Source(), (), tuple(input_shape), "input")]
        self._numbers = 0
        self._hidden: dict[int, tuple[int, NDArray[np.bool_]]] = {}
        _check_axes(input_shape)
        self._take(prod(input_shape))

    def add(self, op: Op, *inputs: int, name: str = "") -> int:
        """Append `op` applied to earlier nodes and return its index."""
        self._require_shown(inputs)
        shape = op.shape(*(self.shape(i) for i in inputs))
        _check_axes(shape)
        self._take(prod(shape))
        self._nodes.append(Node(op, inputs, shape, name))
        return len(self._nodes) - 1

    def hide(self, x: int, kept: NDArray[np.bool_]) -> int:
        """A node that is x where `kept`, and minus infinity elsewhere: only a softmax takes it, by `shown`."""
        self._nodes.append(self._nodes[x])
        self._hidden[len(self._nodes) - 1] = x, kept
        return len(self._nodes) - 1

    def shown(self, x: int) -> tuple[int, NDArray[np.bool_] | None]:
        """A node of numbers, and where it stands for a node that has minus infinities elsewhere."""
        return self._hidden.get(x, (x, None))

    def _require_shown(self, nodes: Sequence[int]) -> None:
        if any(i in self._hidden for i in nodes):
            raise UnsupportedError("minus infinity, which only a softmax that follows at once takes away")

    def _take(self, count: int) -> None:
        self.require(count)
        self._numbers += count

    def require(self, count: int) -> None:
        """Raises InputError if there is no room for so many more numbers: to be asked before they are made."""
        if self._numbers + count > MOST_NUMBERS:
            raise InputError(f"the network takes more than {MOST_NUMBERS} numbers for one evaluation")

    def replace(self, index: int, op: Op) -> int:
        """Put another operator of the same shape in the place of one already added."""
        self._nodes[index] = replace(self._nodes[index], op=op)
        return index

    def node(self, index: int) -> Node:
        """A node already added."""
        return self._nodes[index]

    def shape(self, index: int) -> Shape:
        """Shape of a node already added."""
        return self._nodes[index].shape

    def build(self, output: int, replay: Replay | None = None) -> Network:
        """The network whose output is node `output`; nodes it does not need are dropped."""
        self._require_shown([output])
        needed = {0, output}
        for i in range(output, 0, -1):
            if i in needed:
                needed.update(self._nodes[i].inputs)
        kept = sorted(needed)
        place = {old: new for new, old in enumerate(kept)}
        nodes = tuple(replace(self._nodes[i], inputs=tuple(place[j] for j in self._nodes[i].inputs)) for i in kept)
        return Network(with_copies(nodes), replay)
