"""Intervals of pre-activations that are the leaves' own: what clips narrow (`krelax.bounds.clipping`)."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.bounds.backward import Form, Trace, back_substitute, least, neurons, over_inputs, signed
from krelax.bounds.evaluator import Evaluator, taken
from krelax.bounds.instance import pieces
from krelax.bounds.intermediate import interval_is_exact
from krelax.bounds.leaves import Leaves
from krelax.bounds.optimise import Ascent, climb, initial
from krelax.bounds.rounding import below
from krelax.bounds.sites import Kinked, alone
from krelax.bounds.steps import Witness, choices, over
from krelax.proof.choices import AffineBounds, LeafTable

if TYPE_CHECKING:
    from krelax.bounds.clipping import Lines

# Pre-activations whose intervals clips narrow, at most; how their affine bounds are found, and how many at a time.
_NARROWED = 256
_STRAIGHT, _FORMS = Ascent(24, 0.5, 0.88), 128


class Clipped(NamedTuple):
    """What leaves prove, `(leaves,)`; the leaves with narrower intervals, which of them have any, and which have
    nothing left; and the multipliers of the lines, `(leaves, lines)`, by the nodes of pre-activations."""

    value: Tensor
    leaves: Leaves
    narrowed: Tensor
    empty: Tensor
    multipliers: dict[int, NDArray[np.uint8]]


class Narrowing:
    """Narrows the intervals of an evaluator's leaves, of the neurons for which `begin` has found affine bounds."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator, self._instance, self._sites = evaluator, evaluator.instance, evaluator.sites
        self._lines: dict[int, Lines] = {}

    def begin(self, leaves: Leaves) -> dict[int, AffineBounds]:
        """Find affine bounds of the pre-activations whose relaxations cost these leaves most, for clips: the choices
        that prove them, by the nodes of the pre-activations. Other leaves are to be `widened` then."""
        from krelax.bounds.clipping import AVAILABLE  # numba takes a while to import

        if not AVAILABLE:
            return {}
        splits = self._sites.splits(leaves)
        witness, trace = self._sites.witness(leaves, splits), Trace()
        form = taken(self._evaluator.fast, leaves.query)
        back_substitute(self._instance.fast_network, form, witness, self._evaluator.proposing, trace)
        network, region = self._instance.network, self._instance.region
        costs = {
            i: alone(witness[i]).prices(trace.coeff[i]).clamp(min=0).mean(0)
            for i, _ in self._sites.kinked()
            if i in trace.coeff and not interval_is_exact(network, region, network.nodes[i].inputs[0])
        }
        if not costs:
            return {}
        every = torch.cat(list(costs.values()))
        least_cost = every.topk(min(_NARROWED, len(every))).values[-1].clamp(min=torch.finfo(every.dtype).tiny)
        found = {}
        for i, site in self._sites.kinked():
            if i in costs and bool((costs[i] >= least_cost).any()):
                neurons = (costs[i] >= least_cost).nonzero()[:, 0]
                site.narrow(neurons)
                found[network.nodes[i].inputs[0]] = self._straight(i, neurons)
        return found

    def _straight(self, activation: int, entries: Tensor) -> AffineBounds:
        """Affine bounds of some entries of a pre-activation, and of their negatives."""
        from krelax.bounds.clipping import Lines

        instance, source = self._instance, self._instance.network.nodes[activation].inputs[0]
        parts = [signed(neurons(n, source, entries[None])) for n in (instance.network, instance.fast_network)]
        coeffs, constants, noted = [], [], []
        ascent, count = _STRAIGHT.affordable(instance.network), 2 * len(entries)
        for rows in pieces(count, _FORMS, entries.device):
            instance.check()
            exact, fast = (Form({i: a[:, rows] for i, a in f.coeff.items()}, f.constant[:, rows]) for f in parts)
            witness = over(self._ascended(fast, ascent), self._evaluator.bounds)
            coeff, constant = over_inputs(instance.network, exact, witness, self._evaluator.bounds)
            none = constant.new_zeros(len(rows), instance.region.lower[0].numel())
            coeffs.append(none if coeff is None else coeff[0].flatten(1))
            constants.append(constant[0])
            noted.append(LeafTable.unsplit(choices(witness), len(rows)))
        self._lines[activation] = Lines(instance.region, torch.cat(coeffs), torch.cat(constants))
        return AffineBounds(entries.to(torch.int32).cpu().numpy(), LeafTable.join(noted))

    def _ascended(self, form: Form, ascent: Ascent) -> Witness:
        """Slopes optimised for forms, but of activations whose lines are fixed."""
        proposing, nodes = self._evaluator.proposing, range(max(form.coeff) + 1)
        fixed = {i: step for i, step in self._sites.fixed().items() if i in nodes}
        free = [i for i in proposing.relaxations if i in nodes and i not in fixed]
        witness = initial(proposing, free, form.constant.shape[1]) | fixed
        climb(self._instance, form, proposing, witness, ascent)
        return witness

    def widened(self, leaves: Leaves) -> Leaves:
        """Leaves from before `begin` with intervals of their own, which are those that all share."""
        rows = iter(leaves.slopes)
        slopes: list[Tensor] = []
        for i, site in self._sites.every.items():
            narrowed = site.narrowed if isinstance(site, Kinked) else None
            slopes += islice(rows, site.tensors if narrowed is None else site.tensors - 2)
            if narrowed is not None:
                source = self._instance.network.nodes[i].inputs[0]
                lower, upper = (
                    t[source].flatten()[narrowed] for t in (self._evaluator.bounds.lower, self._evaluator.bounds.upper)
                )
                slopes += [t.expand(len(leaves), -1).clone() for t in (below(lower), -below(-upper))]
        return replace(leaves, slopes=slopes)

    def contradict(self, leaves: Leaves) -> Tensor:
        """Which leaves have splits that contradict their own intervals."""
        wrong, splits = torch.zeros_like(leaves.value, dtype=torch.bool), self._sites.splits(leaves)
        for i, site, own in self._sites.own_intervals(leaves):
            side = leaves.side.new_zeros(len(leaves), site.count)
            side[splits[i].row, splits[i].neuron - site.first] = splits[i].side
            side = side[:, own.entries]
            wrong |= (((side > 0) & (own.upper < 0)) | ((side < 0) & (own.lower > 0))).any(1)
        return wrong

    def clip(self, leaves: Leaves, level: float) -> Clipped:
        """Copies of leaves whose own intervals are narrowed to what they are where the margin is at most `level`.

        Rigorous, if they are right there to begin with. Raises OutOfTime at the instance's deadline.
        """
        self._instance.check()
        coeff, constant = self._evaluator.affine(leaves)
        value = least(self._instance.network, self._instance.region, coeff, constant)[0]
        none = torch.zeros_like(value, dtype=torch.bool)
        found = Clipped(value, leaves.select(leaves.rows()), none, none.clone(), {})
        if coeff is None:
            return found
        g, h, splits = coeff[0].flatten(1), constant[0] - level, self._sites.splits(leaves)
        for i, site, own in self._sites.own_intervals(found.leaves):
            free = torch.ones(len(leaves), site.count, dtype=torch.bool, device=value.device)
            free[splits[i].row, splits[i].neuron - site.first] = False
            wanted = (own.lower < 0) & (own.upper > 0) & free[:, own.entries]
            both, lines = torch.cat([own.lower, -own.upper], 1).double(), self._lines[i]
            codes = lines.propose(g, h, both, torch.cat([wanted, wanted], 1))
            low, high = below(torch.maximum(both, lines.bounds(g, h, codes))).chunk(2, 1)
            found.empty.logical_or_((low > -high).any(1))
            found.narrowed.logical_or_(torch.from_numpy(codes.any(1)).to(value.device))
            found.multipliers[self._instance.network.nodes[i].inputs[0]] = codes
            own.lower.copy_(low)
            own.upper.copy_(torch.maximum(low, -high))
        return found
