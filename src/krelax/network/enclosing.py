"""Operators on constants that have no line of their own among those that are folded: read as if they depended on an
input, which is the constant, and enclosed by interval arithmetic at that point.

So whatever is read of activations is read of constants, too. Every rounding is charged as in bounds.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from krelax.activations import Activation
from krelax.errors import UnsupportedError
from krelax.network.constants import SHARE, TINY, UNIT, Constant
from krelax.network.graph import Network, Node
from krelax.network.ops import Linear

# Products in the evaluation of one operator on constants.
_MOST_WORK = 10**9
_REMEDY = "compute it before the network is exported"


def enclosed(network: Network, at: Constant) -> Constant:
    """A network's value at an input of its shape that is known up to an error.

    Raises UnsupportedError for a value that is not bounded, such as the logarithm of what may be zero.

    Sound: yes, rounding included.
    """
    if sum(prod(n.shape) * n.op.terms for n in network.nodes if isinstance(n.op, Linear)) > _MOST_WORK:
        raise UnsupportedError(f"a computation of constants that is too large; {_REMEDY}")
    error = at.errors()
    exact = at.error is None
    low, high = (at.value, at.value) if exact else (_down(at.value - error), -_down(-(at.value + error)))
    sides: list[tuple[Tensor, Tensor]] = [(low[None], high[None])]
    for node in network.nodes[1:]:
        operands = [sides[i] for i in node.inputs]
        sides.append(_linear(node.op, operands) if isinstance(node.op, Linear) else _activation(node, operands[0]))
    lower, upper = (side[0] for side in sides[-1])
    if not bool((lower.isfinite() & upper.isfinite()).all()):
        raise UnsupportedError(f"a computation of constants that leaves its domain, or overflows; {_REMEDY}")
    if torch.equal(lower, upper):
        return Constant(lower)
    middle = (lower + upper) / 2
    return Constant(middle, _up(torch.maximum(upper - middle, middle - lower)))


def _activation(node: Node, operand: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    assert isinstance(node.op, Activation)
    return node.op.relax(*operand).interval()


def _linear(op: Linear, operands: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if op.moves_only:
        lower, upper = (op.linear(*side) for side in zip(*operands, strict=True))
        return lower, upper
    centre = [(a + b) / 2 for a, b in operands]
    radius = [_up(torch.maximum(b - c, c - a)) for c, (a, b) in zip(centre, operands, strict=True)]
    size = op.sizes().forward(*(torch.maximum(a.abs(), b.abs()) for a, b in operands))
    share = max((op.terms + 64) * UNIT, 0.0 if op.is_exact else 2 * SHARE)
    spread = op.absolute().linear(*radius) + 1.01 * share * size + (op.terms + 1) * 2 * TINY
    middle = op.forward(*centre)
    return _down(middle - spread), -_down(-(middle + spread))


def _up(error: Tensor) -> Tensor:
    return torch.where(error == 0, error, error * (1 + 2.0**-40) + TINY)


def _down(x: Tensor) -> Tensor:
    return torch.nextafter(x, x.new_tensor(-torch.inf))
