"""Gradients through functions that jump: values are exact, gradients are those of jumps that are smeared.

Between jumps a function such as sign has no gradient, so descents see nothing. Estimators that go straight through
(Bengio et al. 2013) take the gradient of a ramp for that of a jump. How wide a ramp is follows from how far the numbers
before it vary over the region: what cannot come to its jump has no part in it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from krelax.activations import Activation
from krelax.network.graph import Network, visit
from krelax.network.ops import Linear
from krelax.op import Op
from krelax.problem.region import Region

# Ramps are so many deviations of random points wide to either side: descents get that much further than those. And
# deviations count for at least such a part of their mean.
_DEVIATIONS, _LEAST, _TINY, _SAMPLES = 16.0, 1e-3, 1e-6, 32

Widths = dict[int, Tensor]


def jumping(network: Network) -> list[int]:
    """The nodes of functions that jump."""
    ops = ((i, node.op) for i, node in enumerate(network.nodes))
    return [i for i, op in ops if isinstance(op, Activation) and op.jumps]


def steep(network: Network) -> list[int]:
    """The nodes of functions whose gradients descents do not take as they are."""
    ops = ((i, node.op) for i, node in enumerate(network.nodes))
    return [i for i, op in ops if isinstance(op, Activation) and (op.jumps or op.steep)]


def last(network: Network) -> set[int]:
    """The jumps behind which nothing sums any more but what leads to the outputs: the last one, and those whose results
    only go through it entry by entry."""
    found, i = set[int](), max(jumping(network), default=0)
    while i > 0:
        op = network.nodes[i].op
        jumps = isinstance(op, Activation) and op.jumps
        if jumps:
            found.add(i)
        elif not (isinstance(op, Linear) and op.terms <= 1 and len(network.nodes[i].inputs) == 1):
            break
        i = network.nodes[i].inputs[0]
    return found


def widths(network: Network, region: Region, seed: int) -> Widths:
    """How wide the ramps are, for random points of regions: tensors `(batch, 1, *shape)`, of the shapes of operands, by
    the nodes of functions that jump, or nearly do."""
    nodes, found = steep(network), Widths()
    if not nodes:
        return found
    lower, upper = region.lower.unsqueeze(1), region.upper.unsqueeze(1)
    shape = (len(region), _SAMPLES, *region.lower.shape[1:])
    share = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=lower.dtype).to(lower.device)
    x = region.project(lower + share * (upper - lower))
    values = network.values(x.flatten(0, 1))
    for i in nodes:
        z = values[network.nodes[i].inputs[0]].unflatten(0, x.shape[:2])
        deviation = z.std(1, keepdim=True, unbiased=False)
        mean = deviation.flatten(1).mean(1).reshape(-1, *[1] * (z.dim() - 1))
        found[i] = _DEVIATIONS * deviation + _LEAST * mean + _TINY
    return found


def evaluate(network: Network, x: Tensor, ramps: Widths) -> Tensor:
    """The outputs at points `(batch, points, *shape)`, with the gradients of ramps."""
    flat, values = x.flatten(0, 1), list[Tensor]()
    if not ramps:
        return network(flat).unflatten(0, x.shape[:2])
    values.append(flat)
    for i, node in enumerate(network.nodes[1:], start=1):
        visit(node.op, node.shape, len(flat))
        operands = [values[j] for j in node.inputs]
        if i in ramps:
            ramp = _ramp(node.op, operands[0], x, ramps[i])
            values.append(node.op.forward(operands[0]).detach() + (ramp - ramp.detach()))
        else:
            values.append(node.op.forward(*operands))
    return values[-1].unflatten(0, x.shape[:2])


def smeared(network: Network, x: Tensor, ramps: Widths) -> tuple[Tensor, Tensor]:
    """The outputs at points `(batch, points, *shape)`, and what they are with ramps instead of those jumps."""
    exact = network.values(x.flatten(0, 1))
    values, first = list(exact), min(ramps, default=len(exact))
    for i, node in enumerate(network.nodes[first:], start=first):
        visit(node.op, node.shape, len(exact[0]))
        operands = [values[j] for j in node.inputs]
        values[i] = _ramp(node.op, operands[0], x, ramps[i]) if i in ramps else node.op.forward(*operands)
    return exact[-1].unflatten(0, x.shape[:2]), values[-1].unflatten(0, x.shape[:2])


def _ramp(op: Op, z: Tensor, x: Tensor, width: Tensor) -> Tensor:
    """The ramp of a jump, of width `(batch, 1, *shape)`, for points `(batch, points, ...)`."""
    assert isinstance(op, Activation)
    return op.smeared(z, width.expand(-1, x.shape[1], *width.shape[2:]).flatten(0, 1))
