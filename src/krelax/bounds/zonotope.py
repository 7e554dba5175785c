"""The forward mode with one slope for both sides: zonotopes (DeepZ, Singh et al. 2018).

Every node is an affine form of the input plus noise: `centre + <inputs, x> + sum noise_g e_g`, with `|e_g| <= 1`, up to
`error`. Affine operators act on the parts; an activation multiplies by the slope of its parallel band and adds one
noise symbol for each neuron that is not exact. Bounds come out for free, without a backward pass, and the input part
is concretised by the region itself, so every norm is exact in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from krelax.activations import Activation, Rule
from krelax.bounds.layers import LayerBounds
from krelax.bounds.rounding import bounding, gamma, underflow
from krelax.network.graph import Network, visit
from krelax.network.ops import Linear
from krelax.problem.queries import Queries
from krelax.problem.region import Region
from krelax.watch import tick

# Numbers that an operator makes at a time: there are hundreds of times as many for a large network.
_AT_ONCE = 1 << 22
# Tensors as large as a zonotope that are held while one is made and bounded.
COPIES = 4


@dataclass
class Zonotope:
    """One node: `centre`, `error` and `magnitude` are `(batch, *shape)`, `inputs` is `(batch, input entries, *shape)`,
    `noise` is `(batch, symbols, *shape)`. The magnitude bounds the sum of the absolute values of all parts."""

    centre: Tensor
    inputs: Tensor
    noise: Tensor
    error: Tensor
    magnitude: Tensor

    def bounds(self, region: Region) -> tuple[Tensor, Tensor]:
        """Lower and upper bound of the node, `(batch, *shape)`, rounding included."""
        tick((self.inputs.numel() + self.noise.numel()) * 2)
        if len(parts := self._parts()) > 1:
            found = [part.bounds(region) for part in parts]
            lower, upper = (torch.cat(t, dim=1).reshape(self.centre.shape) for t in zip(*found, strict=True))
            return lower, upper
        form = self.inputs.flatten(2).transpose(1, 2).unflatten(-1, region.lower.shape[1:])
        terms = 2 * self.inputs.shape[1] + self.noise.shape[1]
        slack = gamma(terms, self.centre.dtype)
        radius = (self.noise.abs().sum(1) + self.error + slack * self.magnitude).flatten(1)
        radius = radius + underflow(terms, region.magnitude)
        centre = self.centre.flatten(1)
        lower = bounding(centre - radius + region.minimise(form, slack))
        upper = -bounding(region.minimise(-form, slack) - centre - radius)
        return lower.reshape(self.centre.shape), upper.reshape(self.centre.shape)

    def _parts(self) -> list[Zonotope]:
        """The entries in portions that take not too long to bound."""
        terms = self.inputs.shape[1] + self.noise.shape[1]
        rows, count = max(1, _AT_ONCE // max(1, terms)), prod(self.centre.shape[1:])
        if count <= rows:
            return [self]
        centre, error, magnitude = (t.flatten(1) for t in (self.centre, self.error, self.magnitude))
        flat = centre, self.inputs.flatten(2), self.noise.flatten(2), error, magnitude
        return [Zonotope(*(t[..., i : i + rows] for t in flat)) for i in range(0, count, rows)]


def identity(region: Region) -> Zonotope:
    """The input itself."""
    batch, *shape = region.lower.shape
    size, zero = prod(shape), torch.zeros_like(region.lower)
    unit = torch.eye(size, dtype=zero.dtype, device=zero.device).reshape(1, size, *shape)
    return Zonotope(zero, unit.expand(batch, -1, *[-1] * len(shape)), zero[:, None][:, :0], zero, region.magnitude)


def follow(network: Network, forms: list[Zonotope], bounds: LayerBounds) -> Zonotope:
    """The zonotope of the next node, from those before it; an activation needs its relaxation in `bounds`."""
    node = network.nodes[len(forms)]
    operands = [forms[j] for j in node.inputs]
    if isinstance(node.op, Linear):
        return _affine(node.op, operands, bounds.magnitude[0])
    symbols = max(z.noise.shape[1] for z in forms)
    return _activate(operands[0], bounds, len(forms), symbols)


def size(network: Network, forms: list[Zonotope], bounds: LayerBounds) -> int:
    """Bytes of the coefficients of the next node's zonotope; an activation needs its relaxation in `bounds`."""
    node, first = network.nodes[len(forms)], forms[0].inputs
    if isinstance(node.op, Activation):
        fresh = int(bounds.relaxations[len(forms)].unstable().any(0).sum())
        symbols = max(z.noise.shape[1] for z in forms) + fresh
    else:
        symbols = max(forms[j].noise.shape[1] for j in node.inputs)
    return first.element_size() * len(first) * prod(node.shape) * (first.shape[1] + symbols)


def _lost(terms: int, symbols: int, reach: Tensor, operands: list[Zonotope], like: Tensor) -> Tensor:
    """What products lose that underflow, where `terms` are added up for the centre, the error, and the coefficients of
    every symbol and every input, which are as large as `reach`."""
    sizes = torch.cat([t.flatten(1) for t in (reach, *(z.magnitude for z in operands))], dim=1)
    return underflow(terms * (1 + symbols), sizes).reshape(-1, *[1] * (like.dim() - 1))


def _affine(op: Linear, operands: list[Zonotope], reach: Tensor) -> Zonotope:
    symbols = max(z.noise.shape[1] for z in operands)
    absolute = op.absolute()
    # what the errors of constants multiply is the node itself, its error included
    sizes = absolute if op.is_exact else op.sizes()
    magnitude = sizes.forward(*(z.magnitude if op.is_exact else z.magnitude + z.error for z in operands))
    centre = op.forward(*(z.centre for z in operands))
    magnitude = magnitude.expand_as(centre)
    error = absolute.linear(*(z.error for z in operands)).expand_as(centre)
    if not op.moves_only:
        error = error + gamma(op.terms, centre.dtype) * magnitude + _lost(op.terms, symbols, reach, operands, centre)
    return Zonotope(
        centre,
        _each(op, [z.inputs for z in operands]),
        _each(op, [_padded(z.noise, symbols) for z in operands]),
        error,
        magnitude,
    )


def _each(op: Linear, parts: list[Tensor]) -> Tensor:
    """The linear part of an operator on every symbol."""
    shape, result = parts[0].shape[:2], op.shape(*(tuple(p.shape[2:]) for p in parts))
    if prod(shape) == 0:
        return parts[0].new_zeros(*shape, *result)
    rows = max(1, _AT_ONCE // prod(result))
    if prod(shape) <= rows:
        visit(op, result, prod(shape))
        return op.linear(*(p.flatten(0, 1) for p in parts)).unflatten(0, shape)
    found = parts[0].new_empty(prod(shape), *result)
    for i in range(0, len(found), rows):
        visit(op, result, rows)
        found[i : i + rows] = op.linear(*(p.flatten(0, 1)[i : i + rows] for p in parts))
    return found.unflatten(0, shape)


def _padded(noise: Tensor, symbols: int) -> Tensor:
    missing = noise.new_zeros(len(noise), symbols - noise.shape[1], *noise.shape[2:])
    return torch.cat([noise, missing], dim=1)


def _activate(z: Zonotope, bounds: LayerBounds, node: int, symbols: int) -> Zonotope:
    """Replace an activation by the band between two parallel lines. New noise symbols are numbered behind the `symbols`
    of all nodes so far: another branch may not share them."""
    relaxation = bounds.relaxations[node]
    slope = relaxation.slopes(Rule.PARALLEL)[1]
    band = relaxation.lines(slope.unsqueeze(1), slope.unsqueeze(1))
    above = band.above[:, 0]
    below = torch.zeros_like(above) if band.below is None else band.below[:, 0]

    def summed(t: Tensor) -> Tensor:
        return t.sum(-1) if relaxation.reduces else t

    scaled = summed(slope.abs() * z.magnitude)
    magnitude = scaled + above.abs() + below.abs()
    terms = slope.shape[-1] if relaxation.reduces else 1
    rounding = gamma(terms, slope.dtype) * magnitude
    lost = _lost(terms, symbols, bounds.magnitude[0], [z], magnitude)
    wide = slope.unsqueeze(1)
    return Zonotope(
        summed(slope * z.centre) + (above - below) / 2,
        summed(wide * z.inputs),
        torch.cat([_padded(summed(wide * z.noise), symbols), _fresh((above + below) / 2)], dim=1),
        summed(slope.abs() * z.error) + rounding + lost,
        magnitude,
    )


def _fresh(radius: Tensor) -> Tensor:
    """New noise symbols, one for each entry whose radius is not zero in every item of the batch."""
    flat = radius.flatten(1).clamp(min=0)
    entries = (flat > 0).any(0).nonzero().flatten()
    noise = flat.new_zeros(len(flat), len(entries), flat.shape[1])
    noise[:, torch.arange(len(entries), device=entries.device), entries] = flat[:, entries]
    return noise.unflatten(2, radius.shape[1:])


def margins(output: Zonotope, queries: Queries, region: Region) -> Tensor:
    """Lower bounds of margins of the output, `(batch, queries)`."""
    rows = queries.rows
    size = rows.abs() @ output.magnitude.flatten(1).unsqueeze(-1)
    error = rows.abs() @ output.error.flatten(1).unsqueeze(-1)
    rounding = gamma(rows.shape[-1], rows.dtype) * (size.squeeze(-1) + queries.offsets.abs())
    form = Zonotope(
        (rows @ output.centre.flatten(1).unsqueeze(-1)).squeeze(-1) + queries.offsets,
        output.inputs.flatten(2) @ rows.transpose(1, 2),
        output.noise.flatten(2) @ rows.transpose(1, 2),
        error.squeeze(-1) + rounding,
        size.squeeze(-1) + queries.offsets.abs(),
    )
    symbols = output.noise.shape[1]
    lost = _lost(rows.shape[-1], symbols, region.magnitude, [output], size)
    return bounding(form.bounds(region)[0] - lost.reshape(-1, 1))
