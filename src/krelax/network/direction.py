"""Which way the entries of a network go when its inputs do: which may rise, and which may fall.

Signs of weights say it, through whatever never falls when its operand rises, as most activations do not. Nothing is
rounded, so it also says that an entry does not fall where it may stay the same, as behind a ReLU. Of that no bound of a
slope is a proof, because that is never quite zero (`krelax.network.slope`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from krelax.activations import Activation, Product
from krelax.network.graph import Network, Node
from krelax.network.linear import Add, Arithmetic, Sum, Within
from krelax.network.ops import Linear

# The constants of affine operators that are added.
_SHIFT = {"bias", "shift"}


@dataclass(frozen=True, eq=False)
class Moves:
    """Which entries of a node `may_rise`, and which `may_fall`: `(*shape)`, booleans. Others do not."""

    may_rise: Tensor
    may_fall: Tensor

    @property
    def either(self) -> Moves:
        """Both ways, for entries that move at all."""
        moves = self.may_rise | self.may_fall
        return Moves(moves, moves)

    @property
    def turned(self) -> Moves:
        """The other way around."""
        return Moves(self.may_fall, self.may_rise)

    def __or__(self, other: Moves) -> Moves:
        return Moves(self.may_rise | other.may_rise, self.may_fall | other.may_fall)

    def where(self, mask: Tensor) -> Moves:
        """Of some entries alone."""
        return Moves(self.may_rise & mask, self.may_fall & mask)


def directions(network: Network, inputs: Moves, lower: Sequence[Tensor], upper: Sequence[Tensor]) -> Moves:
    """Which outputs may rise, and which may fall, between two points.

    Args:
        network: The network.
        inputs: Which inputs may be larger at the second point, and which smaller.
        lower: Bounds of every node in a box with both points, `(*shape)`.
        upper: The same from above.

    Sound: yes. An output that may not fall does not fall, of the function of real numbers.
    """
    found = [Moves(*(t.reshape(network.nodes[0].shape) for t in (inputs.may_rise, inputs.may_fall)))]
    for i, node in enumerate(network.nodes[1:], start=1):
        operands = [found[j] for j in node.inputs]
        if isinstance(node.op, Linear):
            moves = _linear(node.op, operands, [torch.maximum(lower[j].abs(), upper[j].abs()) for j in node.inputs])
        else:
            (j,) = node.inputs
            moves = _activation(node, operands[0], lower[j], upper[j])
        found.append(moves.where(~(lower[i] >= upper[i])))  # what is constant stays
    return found[-1]


def _linear(op: Linear, operands: Sequence[Moves], sizes: Sequence[Tensor]) -> Moves:
    if isinstance(op, Within):
        inside = sizes[0] <= op.limit
        return operands[0].where(inside) | operands[0].either.where(~inside)
    if isinstance(op, Add):
        found = operands[0] if op.signs[0] > 0 else operands[0].turned
        for sign, moves in zip(op.signs[1:], operands[1:], strict=True):
            found |= moves if sign > 0 else moves.turned
        return found
    rise, fall = ([getattr(m, side).double()[None] for m in operands] for side in ("may_rise", "may_fall"))
    if op.moves_only or isinstance(op, Sum):
        return Moves(*(op.linear(*flags)[0] > 0 for flags in (rise, fall)))
    if not isinstance(op, Arithmetic) or not op._constants:
        anything = torch.stack([flags.any() for flags in (*rise, *fall)]).any()
        shape = op.shape(*(m.may_rise.shape for m in operands))
        return Moves(*(anything.expand(shape) for _ in range(2)))
    positive, negative = _marked(op)
    both = (rise, fall), (fall, rise)
    return Moves(*((positive.linear(*along) + negative.linear(*against))[0] > 0 for along, against in both))


def _marked(op: Arithmetic) -> tuple[Linear, Linear]:
    """The operator with ones for weights that may be positive, and that may be negative. Sums of these are exact."""
    above: dict[str, Tensor | None] = {}
    below: dict[str, Tensor | None] = {}
    for name in op._constants:
        value, error = getattr(op, name), getattr(op, f"{name}_error")
        if name in _SHIFT:
            value = None
        elif value is None:
            value = torch.ones((), dtype=torch.float64)
        away = torch.zeros((), dtype=torch.float64) if error is None else error
        above[name] = None if value is None else (value + away > 0).double()
        below[name] = None if value is None else (value - away < 0).double()
    return op._with(above), op._with(below)


def _activation(node: Node, operand: Moves, lower: Tensor, upper: Tensor) -> Moves:
    op = node.op
    if isinstance(op, Product):
        rises = falls = torch.zeros(node.shape, dtype=torch.bool)
        for factor, other in ((0, 1), (1, 0)):
            rise, fall = operand.may_rise[..., factor], operand.may_fall[..., factor]
            positive, negative = upper[..., other] > 0, lower[..., other] < 0
            rises, falls = (
                rises | (rise & positive) | (fall & negative),
                falls | (fall & positive) | (rise & negative),
            )
        return Moves(rises, falls)
    if not (isinstance(op, Activation) and op.rising):
        operand = operand.either
    if operand.may_rise.shape == node.shape:
        return operand
    if operand.may_rise.shape[:-1] == node.shape:  # of windows
        return Moves(operand.may_rise.any(-1), operand.may_fall.any(-1))
    anything = operand.either.may_rise.any().expand(node.shape)
    return Moves(anything, anything)
