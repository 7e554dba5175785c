"""The network as it is around a point: an affine function, which linear programs can be made of.

A piecewise-linear network is affine as far as no activation changes its piece. Such an activation is the largest of its
pieces, so one condition says that it does not change to a certain other one. Curved activations are replaced by their
tangents. Nothing here is rounded with care: it proposes points, which are replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from krelax.activations import Activation
from krelax.network.graph import Network, visit
from krelax.network.ops import Linear


class Kink(NamedTuple):
    """Where an activation changes to another piece: its node, the place in that when flattened, and the slopes of the
    other piece, one for each member of the window."""

    node: int
    place: int
    other: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Linearised:
    """`network` around a point: the values of all nodes there, `(1, *shape)`, and the slopes of every activation,
    `(1, *shape of z)`."""

    network: Network
    values: list[Tensor]
    slopes: dict[int, Tensor]

    @classmethod
    def at(cls, network: Network, x: Tensor) -> Linearised:
        """Around the point `(1, *input_shape)`. On a kink it is one of the pieces."""
        values = network.values(x)
        operands = {i: values[network.nodes[i].inputs[0]] for i in network.activations()}
        return cls(network, values, {i: _slopes(network.activation(i), z) for i, z in operands.items()})

    def moved(self, x: Tensor) -> Linearised:
        """Around another point, but on the same pieces, which the point may lie on the border of."""
        there = Linearised.at(self.network, x)
        curved = {i: s for i, s in there.slopes.items() if self.network.activation(i).piece(s) is None}
        return replace(there, slopes={**self.slopes, **curved})

    def across(self, kinks: Sequence[Kink]) -> Linearised:
        """The same on the other side of kinks on which the point lies."""
        slopes = dict(self.slopes)
        for kink in kinks:
            changed = slopes[kink.node].reshape(-1, len(kink.other)).clone()
            changed[kink.place] = changed.new_tensor(kink.other)
            slopes[kink.node] = changed.view_as(slopes[kink.node])
        return replace(self, slopes=slopes)

    def crossed(self, x: Tensor, most: int) -> list[tuple[float, Kink]]:
        """Kinks between the point and another one, `(1, *input_shape)`, the first `most` of them, in order, each with
        the part of the way to it."""
        values, found = self._values(x), list[tuple[float, Kink]]()
        for i, slope in self.slopes.items():
            operand = self.network.nodes[i].inputs[0]
            piece = self.network.activation(i).piece(values[operand])
            if piece is None:
                continue
            here, there, change, other = (
                t.reshape(values[i].numel(), -1) for t in (self.values[operand], values[operand], piece - slope, piece)
            )
            before, after = (change * here).sum(1), (change * there).sum(1)
            place = (after > 0).nonzero()[:, 0]
            way = (1 - after[place] / (after - before)[place]).clamp(0, 1)
            way, order = way.sort()
            place = place[order[:most]]
            rows = zip(way.tolist(), place.tolist(), other[place].tolist(), strict=False)
            found += [(part, Kink(i, at, tuple(slopes))) for part, at, slopes in rows]
        return sorted(found)[:most]

    def conditions(self, kinks: Sequence[Kink]) -> tuple[Tensor, Tensor]:
        """By how much the pieces here are larger than those beyond kinks: gradients `(kinks, inputs)` with respect to
        the flattened input, and values at the point, `(kinks,)`."""
        gradients, values = list[Tensor](), list[Tensor]()
        for kink in kinks:
            operand = self.network.nodes[kink.node].inputs[0]
            slope = self.slopes[kink.node].reshape(-1, len(kink.other))
            coeff = torch.zeros_like(slope)
            coeff[kink.place] = slope[kink.place] - slope.new_tensor(kink.other)
            coeff = coeff.view_as(self.values[operand])
            gradients.append(self.gradients(operand, coeff))
            values.append((coeff * self.values[operand]).sum())
        return torch.cat(gradients), torch.stack(values)

    def gradients(self, node: int, coeff: Tensor) -> Tensor:
        """Gradients `(n, inputs)` of the forms `<coeff, node>`, `(n, *shape)`, with respect to the flattened input."""
        nodes, pending = self.network.nodes, {node: coeff}
        for i in range(node, 0, -1):
            if i not in pending:
                continue
            part, inner = pending.pop(i), nodes[i]
            visit(inner.op, inner.shape, len(part))
            if isinstance(inner.op, Linear):
                pulled = inner.op.adjoint(part, *(nodes[j].shape for j in inner.inputs))
            else:
                slope = self.slopes[i]
                pulled = (slope * (part.unsqueeze(-1) if slope.dim() > part.dim() else part),)
            for j, p in zip(inner.inputs, pulled, strict=True):
                pending[j] = pending[j] + p if j in pending else p
        return pending[0].flatten(1) if 0 in pending else coeff.new_zeros(len(coeff), self.values[0].numel())

    def _values(self, x: Tensor) -> list[Tensor]:
        """Values of the affine function's nodes at another point."""
        result = [x]
        for i, node in enumerate(self.network.nodes[1:], 1):
            visit(node.op, node.shape, len(x))
            operands = [result[j] for j in node.inputs]
            if isinstance(node.op, Linear):
                result.append(node.op.forward(*operands))
                continue
            change = self.slopes[i] * (operands[0] - self.values[node.inputs[0]])
            result.append(self.values[i] + (change.sum(-1) if change.dim() > self.values[i].dim() else change))
        return result


def _slopes(op: Activation, z: Tensor) -> Tensor:
    """The slopes of an activation at z: of its piece, or of its tangent."""
    piece = op.piece(z)
    if piece is not None:
        return piece
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        value = op.forward(z)
        if not value.requires_grad:  # comparisons, of which torch has no gradient: they are flat
            return torch.zeros_like(z)
        (slope,) = torch.autograd.grad(value.sum(), z)
    return slope
