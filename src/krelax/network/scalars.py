"""Tensors without axes, as `ReduceSum` makes them and as some models take or return: vectors of one entry instead.

Bounding flattens what lies behind the axes of batch and queries, and so wants at least one axis. A network keeps the
model's shapes; whoever bounds it puts it into this form first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Self

import torch
from torch import Tensor

from krelax.activations import Activation
from krelax.network.graph import Builder, Network, Replay
from krelax.network.ops import Linear, Reshape
from krelax.op import Op, Shape


def axes_of(shape: Shape) -> Shape:
    """The shape, of one axis at least."""
    return shape or (1,)


@dataclass(frozen=True, eq=False)
class _Unchanged(Linear):
    """An affine operator on operands of the shapes `operands`, of which those without axes, and such a result, have one
    axis here."""

    op: Linear
    operands: tuple[Shape, ...]

    @property
    def moves_only(self) -> bool:
        return self.op.moves_only

    @property
    def terms(self) -> int:
        return self.op.terms

    def shape(self, *inputs: Shape) -> Shape:
        return axes_of(self.op.shape(*self.operands))

    def linear(self, *inputs: Tensor) -> Tensor:
        own = (x.reshape(len(x), *shape) for x, shape in zip(inputs, self.operands, strict=True))
        result = self.op.linear(*own)
        return result.reshape(len(result), *axes_of(tuple(result.shape[1:])))

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        parts = self.op.adjoint(coeff.reshape(len(coeff), *self.op.shape(*self.operands)), *self.operands)
        return tuple(part.reshape(len(part), *shape) for part, shape in zip(parts, inputs, strict=True))

    def constant(self) -> Tensor | None:
        return self.op.constant()

    def absolute(self) -> Linear:
        return replace(self, op=self.op.absolute())

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Self:
        return replace(self, op=self.op.to(dtype, device))

    def parameters(self) -> list[Tensor]:
        return self.op.parameters()


def with_axes(network: Network) -> Network:
    """The same function as a network all of whose nodes have an axis; the network itself if they have one already.

    Inputs and outputs without axes become vectors of one entry. Nodes may be numbered differently.
    """
    if all(node.shape for node in network.nodes):
        return network
    builder, place = Builder(axes_of(network.input_shape)), {0: 0}
    for i, node in enumerate(network.nodes[1:], start=1):
        shapes = tuple(network.nodes[j].shape for j in node.inputs)
        operands = tuple(place[j] for j in node.inputs)
        op: Op = node.op
        if () in (node.shape, *shapes):
            if isinstance(op, Linear):
                op = _Unchanged(op, shapes)
            elif isinstance(op, Activation) and prod(shapes[0]) != 1:  # a maximum of a whole vector
                operands = (builder.add(Reshape((1, *shapes[0])), *operands),)
        place[i] = builder.add(op, *operands, name=node.name)
    built = builder.build(place[len(network.nodes) - 1], _with_axes(network.replay, network.input_shape))
    return replace(built, converted=network.converted, elements=network.elements)


def _with_axes(replay: Replay | None, shape: Shape) -> Replay | None:
    """A replay of inputs that have an axis, of a model whose inputs have the given shape."""
    return replay if replay is None or shape else lambda x: replay(x.reshape(shape))
