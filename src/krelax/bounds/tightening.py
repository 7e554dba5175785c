"""Bounds of layers by branching: pre-activations tightened one entry at a time, all of a layer together."""

from __future__ import annotations

import torch
from torch import Tensor

from krelax.bounds.backward import neurons, signed
from krelax.bounds.branching import Branching, Effort
from krelax.bounds.copies import shared
from krelax.bounds.instance import Instance
from krelax.bounds.intermediate import interval_is_exact, undecided
from krelax.bounds.layers import LayerBounds, Lemmas
from krelax.proof.log import Forms

# By how much, relatively, bounds that contradict each other are apart: others may have to see it, too.
_CLEARLY = 1e-6


def tighten_layer(
    instance: Instance,
    bounds: LayerBounds,
    node: int,
    effort: Effort,
    weight: Tensor | None = None,
    assumed: int | None = None,
    beyond: Tensor | None = None,
) -> bool:
    """Tighten both bounds of every undecided entry of the pre-activation `node`, in place, until it is decided, or
    `beyond` so much on either side of zero, `(entries of the node,)`. Says whether they contradict each other.

    `weight`, `(2, entries of the node)`: what lower and upper bounds are worth; entries of weight 0 are left alone.
    With `assumed` (see `Branching`) bounds hold where that is inactive, and may contradict each other.
    Raises InputError for more than one region.
    """
    exact = interval_is_exact(instance.network, instance.region, node)
    if assumed is None and (exact or not bounds.relaxations):
        return False
    index = undecided(instance, bounds, node, beyond)[:1].nonzero()[:, 1][None]
    if not index.numel():
        return False
    forms = tuple(signed(neurons(n, node, index)) for n in (instance.network, instance.fast_network))
    lower, upper = (t[node].flatten(1) for t in (bounds.lower, bounds.upper))
    start = torch.cat([lower[0, index[0]], -upper[0, index[0]]])
    target = torch.zeros_like(start) if beyond is None else beyond[index[0]].repeat(2)
    task = torch.arange(index.numel(), device=index.device).repeat(2)
    share = _urgency(start) if weight is None else _urgency(start) * weight[:, index[0]].flatten()
    names = node, Forms.both(index[0].cpu().numpy())
    search = Branching(instance, bounds, (forms[0], forms[1]), effort, start, target, share, task, None, names, assumed)
    found = search.run(effort.seconds)
    below, above = found.value.chunk(2)
    size = 1 + torch.maximum(lower[0, index[0]].abs(), upper[0, index[0]].abs())
    lower, upper = lower.index_copy(1, index[0], below[None]), upper.index_copy(1, index[0], -above[None])
    lemmas = None if found.lemmas is None else _among(bounds, node, index[0], found.lemmas)
    sides = (t.view_as(bounds.lower[node]) for t in (lower, upper))
    everywhere = [shared(instance.network, node, t) for t in (*sides, *(lemmas or ()))]
    bounds.tighten(node, everywhere[0], everywhere[1], (everywhere[2], everywhere[3]) if lemmas else None)
    return bool((below + above > _CLEARLY * size).any())


def _among(bounds: LayerBounds, node: int, index: Tensor, lemmas: Tensor) -> Lemmas:
    """Lemmas about entries, `(m,)`, of a node, and then about their negatives, among those that prove its bounds."""
    pairs = zip(bounds.lemmas_of(node), lemmas.chunk(2), strict=True)
    below, above = (old.flatten(1).index_copy(1, index, new[None]).view_as(old) for old, new in pairs)
    return below, above


def _urgency(start: Tensor) -> Tensor:
    """What bounds are worth, from `start` of `tighten_layer`: the steeper the chord falls with a bound, the more. The
    bound nearer to zero decides the neuron, and takes more off its triangle."""
    below, above = (-start).chunk(2)
    width = (below + above).clamp(min=torch.finfo(start.dtype).tiny)
    return torch.cat([above / width, below / width]).clamp(min=0)
