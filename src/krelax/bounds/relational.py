"""Bounds of linear combinations of pre-activations: what a group of neurons knows beyond its members' intervals.

`c_a >= a . z` for normals a in {-1, 0, 1}^k is the negative of a lower bound of `-a . z`, so it is one more query of a
backward pass. A combination that several groups ask for is bounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from krelax.activations import Activation, ReLU
from krelax.activations.banded import together
from krelax.activations.operands import Operands, powers
from krelax.bounds.backward import Form, lower_bound
from krelax.bounds.groups import Groups
from krelax.bounds.instance import Instance, pieces, side_by_side
from krelax.bounds.layers import LayerBounds
from krelax.bounds.optimise import Ascent, ascend
from krelax.bounds.recording import chosen, record
from krelax.bounds.steps import Tapes, Witness, over
from krelax.hull import octagon
from krelax.proof.log import UNSTATED, Forms

# Combinations bounded at a time.
_QUERIES = 256
# Exponents of powers of two that second operands are multiplied by.
_MOST_LEVELS = 60


def bounded(
    instance: Instance,
    layers: LayerBounds,
    node: int,
    members: Tensor,
    rows: Tensor,
    ascent: Ascent,
    op: Activation | None = None,
) -> Groups:
    """Groups of entries `members`, `(batch, groups, k)`, of the pre-activation `node` with everything known of them.

    `rows`, `(m, k)`, are the normals, closed under negation; those of one member are taken from the intervals, the
    others are bounded by backward passes with optimised slopes. Rigorous. The activation is a ReLU unless it is given.
    """
    codes, inverse = _combinations(members, rows)
    value, lemmas = _lower_bounds(instance, layers, node, codes, ascent)
    # `rows` is the mirror image of the normals that were asked for
    bounds = -value.gather(1, inverse.flatten(1)).reshape(inverse.shape)
    lemmas = None if lemmas is None else lemmas.gather(1, inverse.flatten(1)).reshape(inverse.shape)
    return Groups(members, together(op or ReLU(), rows.to(bounds), bounds), lemmas)


def bounded_operands(instance: Instance, layers: LayerBounds, node: int, members: Tensor, ascent: Ascent) -> Groups:
    """The operands `members`, `(groups, 2)` entries of the pre-activation `node`, of products of one region with
    octagons around them. The second ones are multiplied by powers of two, so that sums and differences are of numbers
    of about the same width. Rigorous."""
    lower, upper = (side[node].flatten(1)[0, members] for side in (layers.lower, layers.upper))
    exponents = _levelling(upper - lower)
    scale = torch.stack([torch.ones(len(members)), powers(exponents)], 1).to(lower).unsqueeze(1)
    rows = lower.new_tensor(octagon.ROWS)
    ends = torch.where(rows > 0, upper.unsqueeze(1), lower.unsqueeze(1))
    bounds = (rows * scale * ends).sum(-1)
    diagonal = rows.abs().sum(1) == 2
    factors = -rows[diagonal] * scale
    places = members.unsqueeze(1).expand_as(factors)
    value, proven = _sums(instance, layers, node, places.flatten(0, 1), factors.flatten(0, 1), ascent)
    bounds[:, diagonal] = -value[0].view(len(members), -1)
    lemmas = None if proven is None else torch.zeros_like(bounds, dtype=torch.int64)
    if lemmas is not None and proven is not None:
        lemmas[:, diagonal] = proven[0].view(len(members), -1)
    joint = Operands(rows, bounds[None], exponents)
    return Groups(members[None], joint, None if lemmas is None else lemmas[None])


def _levelling(width: Tensor) -> Tensor:
    """By which powers of two to multiply second operands with these widths, `(n, 2)`, to make them as wide as the
    first."""
    exponent = (width[:, 0].log2() - width[:, 1].log2()).round().nan_to_num(0.0, _MOST_LEVELS, -_MOST_LEVELS)
    return exponent.clamp(-_MOST_LEVELS, _MOST_LEVELS).to(torch.int64)


def _combinations(members: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The different `-a . z` of all groups as codes `(all, k)` of signed places (from one, zeros behind), and which
    of them each normal of each group is, `(batch, groups, m)`."""
    codes = -rows.to(torch.long) * (members.unsqueeze(-2) + 1)
    order = codes.abs().argsort(-1, descending=True)
    every, inverse = codes.gather(-1, order).flatten(0, -2).unique(dim=0, return_inverse=True)
    return every, inverse.reshape(codes.shape[:-1])


def _lower_bounds(
    instance: Instance, bounds: LayerBounds, node: int, codes: Tensor, ascent: Ascent
) -> tuple[Tensor, Tensor | None]:
    """Lower bounds of the combinations in every region, `(batch, all)`, and their lemmas."""
    lower, upper = (side[node].flatten(1) for side in (bounds.lower, bounds.upper))
    place, sign = codes.abs().sub(1).clamp(min=0), codes.sign().to(lower.dtype)
    # one member: its interval, exactly; several: start there
    ends = torch.where(sign > 0, lower[:, place], -upper[:, place])
    alone = (sign != 0).sum(1) == 1
    value = torch.where(alone, ends[..., 0], torch.full_like(ends[..., 0], -torch.inf))
    several = (~alone).nonzero()[:, 0]
    lemmas = torch.zeros_like(value, dtype=torch.int64) if instance.logs else None
    value[:, several], proven = _sums(instance, bounds, node, place[several], sign[several], ascent)
    if lemmas is not None and proven is not None:
        lemmas[:, several] = proven
    return value, lemmas


def _sums(
    instance: Instance, bounds: LayerBounds, node: int, places: Tensor, factors: Tensor, ascent: Ascent
) -> tuple[Tensor, Tensor | None]:
    """Lower bounds of sums of entries of a pre-activation times factors, `(n, k)` both, in every region, `(batch, n)`,
    and their lemmas."""
    size, fast_bounds = bounds.lower[node][0].numel(), bounds.to(instance.fast_network.dtype, instance.network)
    value = factors.new_full((len(instance.region), len(places)), -torch.inf)
    lemmas = torch.zeros_like(value, dtype=torch.int64) if instance.logs else None

    def work(portion: Tensor) -> tuple[Tensor, Tensor | None]:
        instance.check()
        row = factors.new_zeros(len(portion), size).scatter_add_(1, places[portion], factors[portion])
        found, witness, tapes = _bound(instance, bounds, fast_bounds, _form(instance, node, row), ascent)
        return found, record(instance, node, Forms.of(row), found, chosen(instance, witness, len(row), tapes))

    portions = list(pieces(len(places), _QUERIES, places.device))
    for portion, (found, proven) in zip(portions, side_by_side(work, portions, places.device), strict=True):
        value[:, portion] = found
        if lemmas is not None and proven is not None:
            lemmas[:, portion] = proven
            value[lemmas == UNSTATED] = -torch.inf
    return value, lemmas


def _form(instance: Instance, node: int, rows: Tensor) -> Form:
    """Rows over a flattened node as forms."""
    return Form({node: rows.reshape(1, -1, *instance.network.nodes[node].shape)}, rows.new_zeros(1, len(rows)))


def _bound(
    instance: Instance, bounds: LayerBounds, fast_bounds: LayerBounds, form: Form, ascent: Ascent
) -> tuple[Tensor, Witness, Tapes]:
    """Rigorous bounds of forms, `(batch, queries)`, with slopes optimised in the fast type; witness and tapes."""
    form = Form(form.coeff, form.constant.expand(len(instance.region), -1))
    fast = instance.fast_network.dtype
    proposal = Form({i: a.to(fast) for i, a in form.coeff.items()}, form.constant.to(fast))
    witness = over(ascend(instance, proposal, fast_bounds, ascent), bounds)
    tapes: Tapes = {}
    return lower_bound(instance.network, instance.region, form, witness, bounds, tapes), witness, tapes
