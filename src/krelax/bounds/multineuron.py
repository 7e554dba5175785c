"""k-ReLU: groups of neurons bounded together, in every layer, from pre-activation bounds to certificates.

Layer by layer: tighten the pre-activations with the groups of the layers before; choose groups among those whose
relaxation costs the margins most; bound the linear combinations of their pre-activations; and let every later pass pay
the support of their exact hull. Everything is one backward pass with more to choose (Singh et al. 2019; Mueller et al.
2022 solve linear programs instead).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from krelax.activations import Relaxation, Rule
from krelax.activations.banded import most_members
from krelax.bounds.backward import Form, Trace, back_substitute, neurons
from krelax.bounds.branching import Effort
from krelax.bounds.groups import Groups
from krelax.bounds.instance import Instance, OutOfTime
from krelax.bounds.intermediate import tighten_by_ascent
from krelax.bounds.layers import LayerBounds, advance, start
from krelax.bounds.optimise import Ascent, ascend
from krelax.bounds.relational import bounded, bounded_operands
from krelax.bounds.steps import by_rule
from krelax.bounds.thrift import grouping_within, inner_within
from krelax.bounds.tightening import tighten_layer
from krelax.hull.grouping import Grouping, groups
from krelax.hull.polytope import octahedral_rows, pair_rows
from krelax.network.graph import Network


@dataclass(frozen=True)
class MultiNeuron:
    """Which groups, if any, and how long slopes are optimised: for members (`inner`; None leaves their bounds as they
    are), their combinations, and the query.

    With `splitting`, pre-activation bounds of every layer are also tightened by branching.
    """

    grouping: Grouping | None = field(default_factory=Grouping)
    inner: Ascent | None = field(default_factory=lambda: Ascent(24, 0.5, 0.88))
    combinations: Ascent = field(default_factory=lambda: Ascent(12, 0.5, 0.85))
    outer: Ascent = field(default_factory=lambda: Ascent(100, 0.3, 0.97))
    splitting: Effort | None = None


# Larger groups know their pairs only: 3^k - 1 combinations are too many to bound.
_OCTAHEDRAL = 4
# Squares of sums of both operands must be finite.
_MARGIN = 8
# Share of a round that goes to a neuron no margin needs, against the average one.
_LEAST_WEIGHT = 0.3
# For finding out what the margins need.
_SHORT = Ascent(30, 0.5, 0.92)


def neuron_scores(instance: Instance, form: Form, bounds: LayerBounds, curves: bool = False) -> dict[int, Tensor]:
    """How much the single-neuron relaxations cost the given forms: at each activation `|coeff| * height`, `(n,)`.

    One region; forms in the fast type, with slopes optimised shortly. The height is that of the triangle; neurons that
    no form needs keep a small part of it, because other neurons may need them. With `curves` other activations of one
    number have a score, too: by how far the best line may be from them, on the side that the coefficient needs.
    """
    fast, trace = bounds.to(instance.fast_network.dtype, instance.network), Trace()
    witness = ascend(instance, form, fast, _SHORT)
    back_substitute(instance.fast_network, form, witness, fast, trace)
    scores = {}
    for i, coeff in trace.coeff.items():
        relaxation = bounds.relaxations[i]
        if relaxation.triangle() is not None or (curves and (relaxation.op.paired or not relaxation.reduces)):
            scores[i] = _scores(relaxation, coeff)
    return scores


def _scores(relaxation: Relaxation, coeff: Tensor) -> Tensor:
    """What a relaxation costs forms with these coefficients, `(1, forms, *shape)`, at each neuron, `(n,)`."""
    every = coeff[0].abs().sum(0).flatten().to(relaxation.lower)
    least = 1e-3 * every.mean()
    if (triangle := relaxation.triangle()) is not None:
        return (every + least) * triangle.height()[0].flatten()
    losses = [loss[0] for loss in relaxation.losses()[0]]
    below, above = ((loss[..., 0] if relaxation.reduces else loss).flatten() for loss in losses)
    positive = coeff[0].clamp(min=0).sum(0).flatten().to(relaxation.lower)
    return (positive + least) * below + (every - positive + least) * above


def affinity(instance: Instance, bounds: LayerBounds, node: int, index: Tensor) -> Tensor:
    """How much two pre-activations have in common, `(m, m)` numbers in [0, 1], for entries `index` of `node`.

    As linear forms of the input (with parallel slopes), by how much the narrower of `z_i + z_j` and `z_i - z_j` falls
    short of the sum of their widths. One region; a heuristic.
    """
    fast = bounds.to(instance.fast_network.dtype, instance.network)
    form = neurons(instance.fast_network, node, index[None])
    result, _ = back_substitute(instance.fast_network, form, by_rule(fast, Rule.PARALLEL), fast, Trace())
    region = instance.fast_region
    rows = (result.coeff[0] * (region.upper - region.lower).unsqueeze(1))[0].flatten(1)
    width = rows.abs().sum(1)
    both = width[:, None] + width
    narrower = torch.minimum(torch.cdist(rows, rows, p=1), torch.cdist(rows, -rows, p=1))
    return (both - narrower) / both.clamp(min=torch.finfo(both.dtype).tiny)


def choose(
    instance: Instance, bounds: LayerBounds, node: int, score: Tensor, grouping: Grouping, ascent: Ascent
) -> Groups | None:
    """Groups of a layer of one region, with everything that is known of them; None if there is nothing to group, or if
    its activation cannot be in groups."""
    source, relaxation = instance.network.nodes[node].inputs[0], bounds.relaxations[node]
    if relaxation.op.paired:
        return _operands(instance, bounds, node, score, grouping, ascent)
    if relaxation.reduces:
        return None
    most = most_members(relaxation.op)
    grouping = replace(grouping, size=min(grouping.size, most or grouping.size))
    best = score.argsort(descending=True, stable=True)[: grouping.neurons]
    # what may be infinite, perhaps in single precision only, has no polytope around it
    size = relaxation.magnitude[0].flatten()[best].to(instance.fast_network.dtype)
    best = best[(score[best] > 0) & (score[best] < torch.inf) & (2 * grouping.size * size < torch.inf)]
    if len(best) < grouping.size:
        return None
    related = affinity(instance, bounds, source, best).to(score)
    members = best[groups(score[best], grouping, related)]
    normals = octahedral_rows if grouping.size <= _OCTAHEDRAL else pair_rows
    rows = torch.from_numpy(normals(grouping.size)).to(score)
    return bounded(instance, bounds, source, members[None], rows, ascent, relaxation.op)


def _operands(
    instance: Instance, bounds: LayerBounds, node: int, score: Tensor, grouping: Grouping, ascent: Ascent
) -> Groups | None:
    """The operands of the products with the highest scores, as many as other layers have groups; None if there are none
    of which anything is lost."""
    best = score.argsort(descending=True, stable=True)[: grouping.neurons * grouping.overlap]
    size = bounds.relaxations[node].magnitude[0].flatten(0, -2)[best].to(instance.fast_network.dtype)
    best = best[(score[best] > 0) & (score[best] < torch.inf) & (_MARGIN * size.square().sum(1) < torch.inf)]
    if not len(best):
        return None
    members = torch.stack([2 * best, 2 * best + 1], 1)
    return bounded_operands(instance, bounds, instance.network.nodes[node].inputs[0], members, ascent)


def bound_weights(score: Tensor) -> Tensor:
    """What lower and upper bounds of neurons are worth, `(2, n)`, from their `neuron_scores`."""
    weight = (score / score.mean().clamp(min=torch.finfo(score.dtype).tiny)).sqrt() + _LEAST_WEIGHT
    return weight.expand(2, -1)


def _tighten(
    instance: Instance, bounds: LayerBounds, node: int, score: Tensor | None, multi_neuron: MultiNeuron
) -> None:
    """Better bounds of the pre-activation of `node`, with all that is known of the layers before."""
    source = instance.network.nodes[node].inputs[0]
    if multi_neuron.inner is not None and (bounds.groups or multi_neuron.splitting is not None):
        tighten_by_ascent(instance, bounds, source, multi_neuron.inner)
    if multi_neuron.splitting is not None and score is not None:
        tighten_layer(instance, bounds, source, multi_neuron.splitting, bound_weights(score))


def _within(network: Network, scores: dict[int, Tensor], multi_neuron: MultiNeuron) -> MultiNeuron:
    """What the network affords of it."""
    grouping, inner = multi_neuron.grouping, multi_neuron.inner
    if grouping is None:
        return multi_neuron
    candidates = {i: int((score > 0).sum()) for i, score in scores.items()}
    grouping = grouping_within(network, candidates, grouping, inner, multi_neuron.combinations)
    return replace(multi_neuron, grouping=grouping, inner=inner and inner_within(network, inner))


def bound_layers(
    instance: Instance, found: LayerBounds, scores: dict[int, Tensor], multi_neuron: MultiNeuron
) -> LayerBounds:
    """Bounds of every node of one region, with groups in every layer that has a score; never looser than `found`.

    Every layer gets its share of the time until the deadline of the instance; what there is no time for is left out.
    Where groups would cost far more than everything without them, there are fewer of them.
    """
    network = instance.network
    multi_neuron = _within(network, scores, multi_neuron)
    bounds = start(instance.region, bool(instance.logs))
    activations = network.activations()
    for i, node in enumerate(network.nodes[1:], start=1):
        share = instance.share(len([j for j in activations if j >= i]))
        if i in activations:
            source = node.inputs[0]
            bounds.meet(found, source)
            piecewise = network.activation(i).leak is not None  # others are not tightened by branching
            with suppress(OutOfTime):
                _tighten(share, bounds, i, scores.get(i) if piecewise else None, multi_neuron)
        advance(network, bounds)
        bounds.meet(found, i)
        if i in scores and multi_neuron.grouping is not None:
            with suppress(OutOfTime):
                chosen = choose(share, bounds, i, scores[i], multi_neuron.grouping, multi_neuron.combinations)
                if chosen is not None:
                    bounds.groups[i] = (chosen,)
    return bounds
