"""k-ReLU: groups of neurons bounded together, in every layer, from pre-activation bounds to certificates.

Layer by layer: tighten the pre-activations with the groups of the layers before; choose groups among those whose
relaxation costs the margins most; bound the linear combinations of their pre-activations; and let every later pass pay
the support of their exact hull. Everything is one backward pass with more to choose (Singh et al. 2019; Mueller et al.
2022 solve linear programs instead).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from krelax.bounds.backward import Form, Trace, back_substitute, neurons
from krelax.bounds.groups import Groups
from krelax.bounds.instance import Instance
from krelax.bounds.intermediate import tighten_by_ascent
from krelax.bounds.intervals import Intervals, advance, start
from krelax.bounds.optimise import Ascent, ascend
from krelax.bounds.relational import bounded
from krelax.bounds.steps import by_rule
from krelax.hull.grouping import Grouping, groups
from krelax.hull.polytope import octahedral_rows
from krelax.relaxations import Rule
from krelax.relaxations.piecewise import Triangle


@dataclass(frozen=True)
class Joining:
    """Which groups, and how long slopes are optimised: for their members, their combinations, and the query."""

    grouping: Grouping = field(default_factory=Grouping)
    inner: Ascent = field(default_factory=lambda: Ascent(24, 0.5, 0.88))
    combinations: Ascent = field(default_factory=lambda: Ascent(12, 0.5, 0.85))
    outer: Ascent = field(default_factory=lambda: Ascent(100, 0.3, 0.97))


_SHORT = Ascent(30, 0.5, 0.92)


def influence(instance: Instance, form: Form, known: Intervals) -> dict[int, Tensor]:
    """How much the single-neuron relaxations cost the given forms: at each activation `|coeff| * height`, `(n,)`.

    One region; forms in the fast type, with slopes optimised shortly. The height is that of the triangle; neurons that
    no form needs keep a small part of it, because other neurons may need them.
    """
    fast, trace = known.to(instance.fast_network.dtype, instance.network), Trace()
    witness = ascend(instance, form, fast, _SHORT)
    back_substitute(instance.fast_network, form, witness, fast, trace)
    scores = {}
    for i, coeff in trace.coeff.items():
        relaxation = known.relaxations[i]
        if isinstance(relaxation, Triangle):
            size = coeff[0].abs().sum(0).flatten().to(relaxation.lower)
            scores[i] = (size + 1e-3 * size.mean()) * relaxation.height()[0].flatten()
    return scores


def affinity(instance: Instance, known: Intervals, node: int, index: Tensor) -> Tensor:
    """How much two pre-activations have in common, `(m, m)` numbers in [0, 1], for entries `index` of `node`.

    As linear forms of the input (with parallel slopes), by how much the narrower of `z_i + z_j` and `z_i - z_j` falls
    short of the sum of their widths. One region; a heuristic.
    """
    fast = known.to(instance.fast_network.dtype, instance.network)
    form = neurons(instance.fast_network, node, index[None])
    result, _ = back_substitute(instance.fast_network, form, by_rule(fast, Rule.PARALLEL), fast, Trace())
    region = instance.fast_region
    rows = (result.coeff[0] * (region.upper - region.lower).unsqueeze(1))[0].flatten(1)
    width = rows.abs().sum(1)
    both = width[:, None] + width
    narrower = torch.minimum(torch.cdist(rows, rows, p=1), torch.cdist(rows, -rows, p=1))
    return (both - narrower) / both.clamp(min=torch.finfo(both.dtype).tiny)


def choose(instance: Instance, known: Intervals, node: int, score: Tensor, joining: Joining) -> Groups | None:
    """Groups of a layer of one region, with everything that is known of them; None if there is nothing to group."""
    source, relaxation = instance.network.nodes[node].inputs[0], known.relaxations[node]
    assert isinstance(relaxation, Triangle)
    best = score.argsort(descending=True, stable=True)[: joining.grouping.neurons]
    best = best[score[best] > 0]
    if len(best) < joining.grouping.size:
        return None
    related = affinity(instance, known, source, best).to(score)
    members = best[groups(score[best], joining.grouping, related)]
    rows = torch.from_numpy(octahedral_rows(joining.grouping.size)).to(score)
    return bounded(instance, known, source, members[None], rows, joining.combinations, relaxation.negative_slope)


def bound_layers(instance: Instance, found: Intervals, scores: dict[int, Tensor], joining: Joining) -> Intervals:
    """Bounds of every node of one region, with groups in every layer that has a score; never looser than `found`."""
    network = instance.network
    known = start(instance.region)
    activations = set(network.activations())
    for i, node in enumerate(network.nodes[1:], start=1):
        if i in activations:
            source = node.inputs[0]
            known.tighten(source, found.lower[source], found.upper[source])
            if known.groups:
                tighten_by_ascent(instance, known, source, joining.inner)
        advance(network, known)
        known.tighten(i, found.lower[i], found.upper[i])
        if i in scores:
            chosen = choose(instance, known, i, scores[i], joining)
            if chosen is not None:
                known.groups[i] = (chosen,)
    return known
