"""Bounds of linear combinations of pre-activations: what a group of neurons knows beyond its members' intervals.

`c_a >= a . z` for normals a in {-1, 0, 1}^k is the negative of a lower bound of `-a . z`, so it is one more query of a
backward pass. A combination that several groups ask for is bounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from krelax.activations import Activation, ReLU
from krelax.activations.banded import together
from krelax.bounds.backward import Form, lower_bound
from krelax.bounds.groups import Groups
from krelax.bounds.instance import Instance, pieces, side_by_side
from krelax.bounds.layers import LayerBounds
from krelax.bounds.optimise import Ascent, ascend
from krelax.bounds.recording import chosen, record
from krelax.bounds.steps import Tapes, Witness, over
from krelax.proof.log import UNSTATED, Forms

# Combinations bounded at a time.
_QUERIES = 256


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
    fast_bounds = bounds.to(instance.fast_network.dtype, instance.network)

    lemmas = torch.zeros_like(value, dtype=torch.int64) if instance.logs else None

    def work(portion: Tensor) -> tuple[Tensor, Tensor | None]:
        instance.check()
        which = several[portion]
        row = lower.new_zeros(len(which), lower.shape[1]).scatter_add_(1, place[which], sign[which])
        found, witness, tapes = _bound(instance, bounds, fast_bounds, _form(instance, node, row), ascent)
        return found, record(instance, node, Forms.of(row), found, chosen(instance, witness, len(row), tapes))

    portions = list(pieces(len(several), _QUERIES, several.device))
    for portion, (found, proven) in zip(portions, side_by_side(work, portions, lower.device), strict=True):
        value[:, several[portion]] = found
        if lemmas is not None and proven is not None:
            lemmas[:, several[portion]] = proven
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
