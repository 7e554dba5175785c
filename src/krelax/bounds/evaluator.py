"""Bounds of the leaves of a branch and bound.

A leaf is a query and a set of splits. Leaves lie along the axis of queries: they share region, bounds, relaxations and
groups of neurons, so all of them are bounded by one backward pass, whose steps know of the splits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.bounds.backward import Form, Trace, back_substitute, least, neurons, over_inputs, signed
from krelax.bounds.convex import convex_activations
from krelax.bounds.instance import Instance, pieces
from krelax.bounds.intermediate import interval_is_exact
from krelax.bounds.lanes import SHOWN, Gate
from krelax.bounds.layers import LayerBounds
from krelax.bounds.leaves import Leaves
from krelax.bounds.lp import solve_form
from krelax.bounds.optimise import Ascent, ascend, climb
from krelax.bounds.rounding import below
from krelax.bounds.sites import Site, Splits, Splittable, Unsplit, alone
from krelax.bounds.split import Narrowed
from krelax.bounds.steps import Witness, choices, over
from krelax.problem.region import dot
from krelax.problem.region import middle as middle_of
from krelax.proof.choices import AffineBounds, Choices, LeafTable

if TYPE_CHECKING:
    from krelax.bounds.clipping import Lines


# Pre-activations whose intervals clips narrow, at most; how their affine bounds are found, and how many at a time.
_NARROWED = 256
_STRAIGHT, _FORMS = Ascent(24, 0.5, 0.88), 128


class Improved(NamedTuple):
    """Where the bounds of the first leaves are attained, `(points, *input_shape)`, and what affine bounds of all of
    their margins are at the centre of the region, `(leaves,)`, in the fast type."""

    points: Tensor
    middle: Tensor


class Clipped(NamedTuple):
    """What leaves prove, `(leaves,)`; the leaves with narrower intervals, which of them have any, and which have
    nothing left; and the multipliers of the lines, `(leaves, lines)`, by the nodes of pre-activations."""

    value: Tensor
    leaves: Leaves
    narrowed: Tensor
    empty: Tensor
    multipliers: dict[int, NDArray[np.uint8]]


class Evaluator:
    """Bounds leaves of the queries `form` (batch 1) over the intervals `bounds`, given in the type that decides and in
    the one that proposes, with the activations up to node `top` (None: up to the queries). Leaves are bounded by torch,
    and by compiled kernels (`krelax.bounds.lanes`) where those model the network and are worth it. `assumed` is an
    activation that leaves split though it may be decided. Leaves with `deepest` splits are not split any more (None:
    those whose columns are full)."""

    def __init__(
        self,
        instance: Instance,
        bounds: LayerBounds,
        exact: Form,
        fast: Form,
        top: int | None = None,
        assumed: int | None = None,
        deepest: int | None = None,
    ) -> None:
        self._instance, self._exact, self._bounds = instance, exact, bounds
        self._proposing = bounds.to(instance.fast_network.dtype, instance.network)
        self._fast = fast
        top = max(exact.coeff) if top is None else top
        self.nodes = sorted(i for i in bounds.relaxations if i <= top)
        self._sites = self._all_sites()
        self._lines: dict[int, Lines] = {}
        self._assumed, self._deepest = assumed, deepest
        self._gate = Gate(instance, bounds, exact, self._sites, assumed)
        convex = convex_activations(instance.fast_network, fast) if assumed is None else set()
        none = exact.constant.new_zeros(0, dtype=torch.bool)
        self._convex = torch.cat([none, *(none.new_full((s.count,), i in convex) for i, s in self._splittable())])

    @property
    def compiled(self) -> bool:
        """Whether leaves are bounded by compiled kernels now."""
        return self._gate.lanes(0) is not None

    def _all_sites(self) -> dict[int, Site]:
        sites: dict[int, Site] = {}
        first = 0
        for i in self.nodes:
            relaxation = self._proposing.relaxations[i]
            triangle = relaxation.triangle()
            if triangle is not None:
                site = Splittable(triangle, self._proposing.groups.get(i, ()), first)
                sites[i], first = site, first + site.count
            else:
                sites[i] = Unsplit(relaxation)
        return sites

    def _splittable(self) -> Iterator[tuple[int, Splittable]]:
        return ((i, s) for i, s in self._sites.items() if isinstance(s, Splittable))

    def roots(self, query: Tensor, depth: int) -> Leaves:
        """Queries without any split, with CROWN's adaptive slopes; but for the only neuron of the activation that is
        assumed to be inactive, if there is one."""
        n, like = len(query), self._proposing.lower[0]
        slopes = [t for site in self._sites.values() for t in site.roots(n)]
        side = like.new_zeros(n, depth)
        value = like.new_full((n,), -torch.inf)
        neuron, branch = query.new_full((n, depth), -1), query.new_full((n,), -1)
        if self._assumed is not None:
            neuron[:, 0], side[:, 0] = dict(self._splittable())[self._assumed].first, -1
        proof, clip = branch.clone(), branch.clone()
        return Leaves(query, value.double(), neuron, side, side.clone(), value, proof, clip, branch, slopes)

    def improve(self, leaves: Leaves, ascent: Ascent) -> Improved:
        """Optimise what leaves can choose, in place, and set their values and next splits. A proposal.

        Raises OutOfTime at the instance's deadline, with nothing lost but the values.
        """
        lanes = self._gate.lanes(len(leaves) * (ascent.steps + 1))
        if lanes is not None and ascent.seconds is None:
            found = Improved(*lanes.improve(leaves, ascent))
            self._postpone(leaves)
            return found
        splits = self._splits(leaves)
        witness = self._witness(leaves, splits)
        form = _taken(self._fast, leaves.query)
        climb(self._instance, form, self._proposing, witness, ascent)
        trace, region = Trace(), self._instance.fast_region
        result, _ = back_substitute(self._instance.fast_network, form, witness, self._proposing, trace)
        leaves.value.copy_((result.constant + region.minimise(result.coeff[0]))[0])
        self._keep(leaves, witness, splits)
        self._choose(leaves, witness, trace)
        middle = dot(result.coeff[0], middle_of(region.lower, region.upper).unsqueeze(1)) + result.constant
        return Improved(region.minimiser(result.coeff[0][:, :SHOWN])[0], middle[0])

    def prove(self, leaves: Leaves) -> Tensor:
        """What the choices of leaves prove: rigorous lower bounds, `(leaves,)`."""
        lanes = self._gate.lanes(len(leaves))
        if lanes is not None:
            return lanes.prove(leaves)
        return least(self._instance.network, self._instance.region, *self._over_inputs(leaves))[0]

    def _over_inputs(self, leaves: Leaves) -> tuple[Tensor | None, Tensor]:
        lanes = self._gate.lanes(len(leaves))
        if lanes is not None:
            return lanes.over_inputs(leaves)
        proposed = self._witness(leaves, self._splits(leaves))
        witness = {i: step.over(self._bounds, i) for i, step in proposed.items()}
        form = _taken(self._exact, leaves.query)
        return over_inputs(self._instance.network, form, witness, self._bounds)

    def begin_clips(self, leaves: Leaves) -> dict[int, AffineBounds]:
        """Find affine bounds of the pre-activations whose relaxations cost these leaves most, for clips: the choices
        that prove them, by the nodes of the pre-activations. Other leaves are to be `widened` then."""
        from krelax.bounds.clipping import AVAILABLE  # numba takes a while to import

        if not AVAILABLE:
            return {}
        splits = self._splits(leaves)
        witness, trace = self._witness(leaves, splits), Trace()
        form = _taken(self._fast, leaves.query)
        back_substitute(self._instance.fast_network, form, witness, self._proposing, trace)
        network, region = self._instance.network, self._instance.region
        costs = {
            i: alone(witness[i]).prices(trace.coeff[i]).clamp(min=0).mean(0)
            for i, _ in self._splittable()
            if i in trace.coeff and not interval_is_exact(network, region, network.nodes[i].inputs[0])
        }
        if not costs:
            return {}
        every = torch.cat(list(costs.values()))
        least_cost = every.topk(min(_NARROWED, len(every))).values[-1].clamp(min=torch.finfo(every.dtype).tiny)
        found = {}
        for i, site in self._splittable():
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
            witness = over(ascend(instance, fast, self._proposing, ascent), self._bounds)
            coeff, constant = over_inputs(instance.network, exact, witness, self._bounds)
            none = constant.new_zeros(len(rows), instance.region.lower[0].numel())
            coeffs.append(none if coeff is None else coeff[0].flatten(1))
            constants.append(constant[0])
            noted.append(LeafTable.unsplit(choices(witness), len(rows)))
        self._lines[activation] = Lines(instance.region, torch.cat(coeffs), torch.cat(constants))
        return AffineBounds(entries.to(torch.int32).cpu().numpy(), LeafTable.join(noted))

    def widened(self, leaves: Leaves) -> Leaves:
        """Leaves from before `begin_clips` with intervals of their own, which are those that all share."""
        rows = iter(leaves.slopes)
        slopes: list[Tensor] = []
        for i, site in self._sites.items():
            narrowed = site.narrowed if isinstance(site, Splittable) else None
            slopes += islice(rows, site.tensors if narrowed is None else site.tensors - 2)
            if narrowed is not None:
                source = self._instance.network.nodes[i].inputs[0]
                lower, upper = (t[source].flatten()[narrowed] for t in (self._bounds.lower, self._bounds.upper))
                slopes += [t.expand(len(leaves), -1).clone() for t in (below(lower), -below(-upper))]
        return replace(leaves, slopes=slopes)

    def contradict(self, leaves: Leaves) -> Tensor:
        """Which leaves have splits that contradict their own intervals."""
        wrong, splits = torch.zeros_like(leaves.value, dtype=torch.bool), self._splits(leaves)
        for i, site, own in self._own_intervals(leaves):
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
        coeff, constant = self._over_inputs(leaves)
        value = least(self._instance.network, self._instance.region, coeff, constant)[0]
        none = torch.zeros_like(value, dtype=torch.bool)
        found = Clipped(value, leaves.select(leaves.rows()), none, none.clone(), {})
        if coeff is None:
            return found
        g, h, splits = coeff[0].flatten(1), constant[0] - level, self._splits(leaves)
        for i, site, own in self._own_intervals(found.leaves):
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

    def noted(self, leaves: Leaves, absolute: Mapping[int, Tensor] | None = None) -> LeafTable:
        """What leaves chose, as `prove` evaluates it, or `absolute` slopes `(leaves, neurons)` in its place."""
        depth = int(leaves.depth().max()) if len(leaves) else 0
        neuron = leaves.neuron[:, :depth]
        node, entry = torch.full_like(neuron, -1), torch.zeros_like(neuron)
        for i, site in self._splittable():
            here = (neuron >= site.first) & (neuron < site.first + site.count)
            node[here], entry[here] = i, neuron[here] - site.first
        if absolute is None:
            proving = self._bounds.relaxations
            chosen = {i: site.choices(rows, len(leaves), proving[i]) for i, site, rows in self._rows(leaves)}
        else:
            chosen = {i: Choices(absolute=slope.float().cpu().numpy()) for i, slope in absolute.items()}
        side, multiplier = leaves.side[:, :depth], leaves.multiplier[:, :depth]
        multiplier = multiplier if absolute is None else torch.zeros_like(multiplier)
        tables = (node.to(torch.int32), entry.to(torch.int32), side.to(torch.int8), multiplier.float(), leaves.clip)
        return LeafTable(chosen, *(t.cpu().numpy() for t in tables))

    def solve(self, leaves: Leaves, until: float | None = None) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
        """The linear program of each leaf over its cut intervals, or of the first ones, at least one, until a reading
        of `time.perf_counter()`: rigorous bounds, `(leaves,)`, above zero where leaves are proven empty, minus infinity
        without a solution; where they are attained, `(leaves, *input_shape)`; and what slopes prove them."""
        value, points = torch.full_like(leaves.floor, -torch.inf), []
        slopes = {i: value.new_zeros(len(leaves), *self._bounds.relaxations[i].lower.shape[1:]) for i in self.nodes}
        for row, index in enumerate(leaves.rows().split(1)):
            if row and until is not None and time.perf_counter() > until:
                leaves = leaves.select(leaves.rows()[:row])
                break
            one = leaves.select(index)
            form = _taken(self._exact, one.query)
            if len(form.coeff) == 1:
                value[row], point, found = solve_form(self._instance, self._cut(one), form)
                points.append(point)
                for i, slope in found.items():
                    slopes[i][row] = slope[0]
        empty = self._instance.region.lower[:0]
        slopes = {i: t[: len(leaves)] for i, t in slopes.items()}
        return value[: len(leaves)], torch.cat([empty, *points]).to(self._proposing.lower[0].dtype), slopes

    def any_undecided(self, leaves: Leaves) -> Tensor:
        """For each leaf the undecided neuron of the largest relaxation that it has not split, -1 if there is none.
        Convex ones come last."""
        found = self._widest(leaves, ~self._convex)
        return torch.where(found < 0, self._widest(leaves, self._convex), found)

    def _widest(self, leaves: Leaves, among: Tensor) -> Tensor:
        heights = [s.relaxation.height().flatten() for _, s in self._splittable()]
        height = (torch.cat([leaves.value[:0], *heights]) * among).repeat(len(leaves), 1)
        row, column = (leaves.neuron >= 0).nonzero(as_tuple=True)
        height[row, leaves.neuron[row, column]] = 0
        height[self._is_deep(leaves)] = 0
        largest, place = torch.cat([height.new_zeros(len(leaves), 1), height], 1).max(1)
        return torch.where(largest > 0, place - 1, -1)

    def _cut(self, leaf: Leaves) -> LayerBounds:
        """What is known in one leaf: pre-activations cut at its splits."""
        bounds, network = self._bounds, self._instance.network
        cut = LayerBounds(bounds.lower, bounds.upper, bounds.magnitude)
        splits = self._splits(leaf)
        for i, site in self._splittable():
            here, source = splits[i], network.nodes[i].inputs[0]
            sides = cut.lower[source].new_zeros(site.count)
            sides[here.neuron - site.first] = here.side.to(sides)
            sides = sides.view_as(cut.lower[source])
            cut.tighten(source, *cut.relax(network, i).cut(sides), None)
        for i, _, own in self._own_intervals(leaf):
            shared, source = self._bounds.relaxations[i].triangle(), network.nodes[i].inputs[0]
            assert shared is not None
            cut.tighten(source, own.over(shared).lower, own.over(shared).upper, None)
        for i in self.nodes:
            cut.relax(network, i)
        return cut

    def _own_intervals(self, leaves: Leaves) -> Iterator[tuple[int, Splittable, Narrowed]]:
        """The activations before which leaves have intervals of their own."""
        for i, site, rows in self._rows(leaves):
            own = site.intervals(rows) if isinstance(site, Splittable) else None
            if own is not None and isinstance(site, Splittable):
                yield i, site, own

    def _rows(self, leaves: Leaves) -> Iterator[tuple[int, Site, list[Tensor]]]:
        """The activations with what leaves can choose there."""
        slopes = iter(leaves.slopes)
        for i, site in self._sites.items():
            yield i, site, list(islice(slopes, site.tensors))

    def _witness(self, leaves: Leaves, splits: Mapping[int, Splits]) -> Witness:
        return {i: site.step(rows, splits[i]) for i, site, rows in self._rows(leaves)}

    def _splits(self, leaves: Leaves) -> dict[int, Splits]:
        """The splits of leaves at each activation."""
        row, column = (leaves.neuron >= 0).nonzero(as_tuple=True)
        neuron = leaves.neuron[row, column]
        every = Splits(row, column, neuron, leaves.side[row, column], leaves.multiplier[row, column])
        ends = neuron.new_tensor([s.first + s.count for _, s in self._splittable()])
        place = torch.bucketize(neuron, ends, right=True)
        counts, order = torch.bincount(place, minlength=len(ends)).tolist(), place.argsort(stable=True)
        parts = zip(*(t[order].split(counts) for t in every), strict=True)
        found = {i: Splits(*part) for (i, _), part in zip(self._splittable(), parts, strict=True)}
        nothing = Splits(*(t[:0] for t in every))
        return {i: found.get(i, nothing) for i in self._sites}

    def _keep(self, leaves: Leaves, witness: Witness, splits: Mapping[int, Splits]) -> None:
        for i, site, rows in self._rows(leaves):
            site.keep(witness[i], rows)
            if isinstance(site, Splittable):
                leaves.multiplier[splits[i].row, splits[i].column] = alone(witness[i]).multiplier.value

    def _choose(self, leaves: Leaves, witness: Witness, trace: Trace) -> None:
        """The neuron of the largest price is split next."""
        best = torch.zeros_like(leaves.value)
        leaves.branch.fill_(-1)
        for i, site in self._splittable():
            coeff = trace.coeff.get(i)
            if coeff is not None:
                price, arg = alone(witness[i]).prices(coeff).max(1)
                better = price > best
                best = torch.where(better, price, best)
                leaves.branch.copy_(torch.where(better, arg + site.first, leaves.branch))
        self._postpone(leaves)

    def _postpone(self, leaves: Leaves) -> None:
        """Deep leaves are not split any more, and convex neurons not before all others."""
        leaves.branch[self._is_deep(leaves)] = -1
        if bool(self._convex.any()):
            rows = ((leaves.branch >= 0) & self._convex[leaves.branch]).nonzero()[:, 0]
            leaves.branch[rows] = self._widest(leaves.select(rows), ~self._convex)

    def _is_deep(self, leaves: Leaves) -> Tensor:
        """Which leaves are not to be split any more."""
        return leaves.depth() >= (self._deepest or leaves.neuron.shape[1])


def _taken(form: Form, query: Tensor) -> Form:
    """Forms of some queries, with repetition."""
    return Form({i: a[:, query] for i, a in form.coeff.items()}, form.constant[:, query])
