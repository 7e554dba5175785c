"""Bounds of the leaves of a branch and bound.

A leaf is a query and a set of splits. Leaves lie along the axis of queries: they share region, bounds, relaxations and
groups of neurons, so all of them are bounded by one backward pass, whose steps know of the splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from krelax.bounds.backward import Form, Trace, back_substitute, least, over_inputs
from krelax.bounds.convex import convex_activations
from krelax.bounds.instance import Instance
from krelax.bounds.lanes import SHOWN, Gate
from krelax.bounds.layers import LayerBounds
from krelax.bounds.leaves import Leaves
from krelax.bounds.lp import solve_form
from krelax.bounds.optimise import Ascent, climb
from krelax.bounds.site_table import Sites
from krelax.bounds.sites import Anywhere, Fixed, alone
from krelax.bounds.steps import Witness
from krelax.problem.region import dot
from krelax.problem.region import middle as middle_of
from krelax.proof.choices import Choices, LeafTable
from krelax.watch import now


class Improved(NamedTuple):
    """Where the bounds of the first leaves are attained, `(points, *input_shape)`, and what affine bounds of all of
    their margins are at the centre of the region, `(leaves,)`, in the fast type."""

    points: Tensor
    middle: Tensor


class Evaluator:
    """Bounds leaves of the queries `form` (batch 1) over the intervals `bounds`, given in the type that decides and in
    the one that proposes, with the activations up to node `top` (None: up to the queries). Leaves are bounded by torch,
    and by compiled kernels (`krelax.bounds.lanes`) where those model the network and are worth it. `assumed` is an
    activation that leaves split though it may be decided. Leaves with `deepest` splits are not split any more (None:
    those whose columns are full). `sites` are what leaves choose at the activations, over the bounds `proposing`."""

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
        self.instance, self._exact, self.bounds = instance, exact, bounds
        self.proposing = bounds.to(instance.fast_network.dtype, instance.network)
        self.fast = fast
        top = max(exact.coeff) if top is None else top
        self.nodes = sorted(i for i in bounds.relaxations if i <= top)
        self.sites = Sites(instance.network, self.proposing, self.nodes)
        self._assumed, self._deepest = assumed, deepest
        self._gate = Gate(instance, bounds, exact, self.sites.every, assumed)
        convex = convex_activations(instance.fast_network, fast) if assumed is None else set()
        none = exact.constant.new_zeros(0, dtype=torch.bool)
        self._convex = torch.cat([none, *(none.new_full((s.count,), i in convex) for i, s in self.sites.splittable())])

    @property
    def splits_curves(self) -> bool:
        """Whether there are neurons that can be split anywhere."""
        return any(isinstance(site, Anywhere) for site in self.sites.every.values())

    @property
    def compiled(self) -> bool:
        """Whether leaves are bounded by compiled kernels now."""
        return self._gate.lanes(0) is not None

    def roots(self, query: Tensor, depth: int) -> Leaves:
        """Queries without any split, with CROWN's adaptive slopes; but for the only neuron of the activation that is
        assumed to be inactive, if there is one."""
        n, like = len(query), self.proposing.lower[0]
        slopes = [t for site in self.sites.every.values() for t in site.roots(n)]
        side = like.new_zeros(n, depth)
        value = like.new_full((n,), -torch.inf)
        neuron, branch = query.new_full((n, depth), -1), query.new_full((n,), -1)
        if self._assumed is not None:
            neuron[:, 0], side[:, 0] = dict(self.sites.splittable())[self._assumed].first, -1
        proof, clip, at = branch.clone(), branch.clone(), torch.zeros_like(value)
        point, multiplier = side.clone().zero_(), side.clone().zero_()
        return Leaves(query, value.double(), neuron, point, side, multiplier, value, proof, clip, branch, at, slopes)

    def settle(self, query: Tensor, ascent: Ascent) -> None:
        """Optimise the lines that are the same in all leaves for some queries together, before there are leaves."""
        fixed = {i: site for i, site in self.sites.every.items() if isinstance(site, Fixed)}
        if not fixed:
            return
        roots = self.roots(query, 1)
        free = {i: site.free() for i, site in fixed.items()}
        witness = self.sites.witness(roots, self.sites.splits(roots)) | free
        climb(self.instance, taken(self.fast, query), self.proposing, witness, ascent)
        for i, site in fixed.items():
            site.settle(*free[i].slopes)

    def improve(self, leaves: Leaves, ascent: Ascent) -> Improved:
        """Optimise what leaves can choose, in place, and set their values and next splits. A proposal.

        Raises OutOfTime at the instance's deadline, with nothing lost but the values.
        """
        lanes = self._gate.lanes(len(leaves) * (ascent.steps + 1))
        if lanes is not None and ascent.seconds is None:
            found = Improved(*lanes.improve(leaves, ascent))
            self._postpone(leaves)
            return found
        splits = self.sites.splits(leaves)
        witness = self.sites.witness(leaves, splits)
        form = taken(self.fast, leaves.query)
        climb(self.instance, form, self.proposing, witness, ascent)
        trace, region = Trace(), self.instance.fast_region
        result, _ = back_substitute(self.instance.fast_network, form, witness, self.proposing, trace)
        leaves.value.copy_((result.constant + region.minimise(result.coeff[0]))[0])
        self.sites.keep(leaves, witness, splits)
        self._choose(leaves, witness, trace)
        middle = dot(result.coeff[0], middle_of(region.lower, region.upper).unsqueeze(1)) + result.constant
        return Improved(region.minimiser(result.coeff[0][:, :SHOWN])[0], middle[0])

    def prove(self, leaves: Leaves) -> Tensor:
        """What the choices of leaves prove: rigorous lower bounds, `(leaves,)`."""
        lanes = self._gate.lanes(len(leaves))
        if lanes is not None:
            return lanes.prove(leaves)
        return least(self.instance.network, self.instance.region, *self.affine(leaves))[0]

    def affine(self, leaves: Leaves) -> tuple[Tensor | None, Tensor]:
        """Affine bounds of leaves in the inputs: coefficients `(1, leaves, *input_shape)`, None if there are none, and
        constants `(1, leaves)`. Rigorous."""
        lanes = self._gate.lanes(len(leaves))
        if lanes is not None:
            return lanes.over_inputs(leaves)
        proposed = self.sites.witness(leaves, self.sites.splits(leaves))
        witness = {i: step.over(self.bounds, i) for i, step in proposed.items()}
        form = taken(self._exact, leaves.query)
        return over_inputs(self.instance.network, form, witness, self.bounds)

    def noted(self, leaves: Leaves, absolute: Mapping[int, Tensor] | None = None) -> LeafTable:
        """What leaves chose, as `prove` evaluates it, or `absolute` slopes `(leaves, neurons)` in its place."""
        depth = int(leaves.depth().max()) if len(leaves) else 0
        neuron = leaves.neuron[:, :depth]
        node, entry = torch.full_like(neuron, -1), torch.zeros_like(neuron)
        for i, site in self.sites.splittable():
            here = (neuron >= site.first) & (neuron < site.first + site.count)
            node[here], entry[here] = i, neuron[here] - site.first
        if absolute is None:
            proving = self.bounds.relaxations
            splits, count = self.sites.splits(leaves), len(leaves)
            every = self.sites.rows(leaves)
            chosen = {i: site.choices(rows, splits[i], count, proving[i]) for i, site, rows in every}
        else:
            chosen = {i: Choices(absolute=slope.float().cpu().numpy()) for i, slope in absolute.items()}
        point, side, multiplier = (t[:, :depth] for t in (leaves.point, leaves.side, leaves.multiplier))
        multiplier = multiplier if absolute is None else torch.zeros_like(multiplier)
        splits_ = (node.to(torch.int32), entry.to(torch.int32), point.float(), side.to(torch.int8), multiplier.float())
        return LeafTable(chosen, *(t.cpu().numpy() for t in (*splits_, leaves.clip)))

    def solve(self, leaves: Leaves, until: float | None = None) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
        """The linear program of each leaf over its cut intervals, or of the first ones, at least one, until a reading
        of `krelax.watch.now`: rigorous bounds, `(leaves,)`, above zero where leaves are proven empty, minus infinity
        without a solution; where they are attained, `(leaves, *input_shape)`; and what slopes prove them."""
        value, points = torch.full_like(leaves.floor, -torch.inf), []
        slopes = {i: value.new_zeros(len(leaves), *self.bounds.relaxations[i].lower.shape[1:]) for i in self.nodes}
        for row, index in enumerate(leaves.rows().split(1)):
            if row and until is not None and now() > until:
                leaves = leaves.select(leaves.rows()[:row])
                break
            one = leaves.select(index)
            form = taken(self._exact, one.query)
            if len(form.coeff) == 1:
                value[row], point, found = solve_form(self.instance, self._cut(one), form)
                points.append(point)
                for i, slope in found.items():
                    slopes[i][row] = slope[0]
        empty = self.instance.region.lower[:0]
        slopes = {i: t[: len(leaves)] for i, t in slopes.items()}
        return value[: len(leaves)], torch.cat([empty, *points]).to(self.proposing.lower[0].dtype), slopes

    def split_any(self, leaves: Leaves) -> None:
        """Leaves split next the undecided neuron of the largest relaxation, if there is one. Convex ones come last."""
        found = self._widest(leaves, ~self._convex)
        leaves.branch = torch.where(found < 0, self._widest(leaves, self._convex), found)
        leaves.at = self.sites.points(leaves)

    def _widest(self, leaves: Leaves, among: Tensor) -> Tensor:
        count, splits = len(leaves), self.sites.splits(leaves)
        every = [s.worth(splits[i], count) for i, s in self.sites.splittable()]
        worth = torch.cat([leaves.value.new_zeros(count, 0), *every], 1) * among
        worth[self._is_deep(leaves)] = 0
        largest, place = torch.cat([worth.new_zeros(len(leaves), 1), worth], 1).max(1)
        return torch.where(largest > 0, place - 1, -1)

    def _cut(self, leaf: Leaves) -> LayerBounds:
        """What is known in one leaf: pre-activations cut at its splits."""
        bounds, network = self.bounds, self.instance.network
        cut = LayerBounds(bounds.lower, bounds.upper, bounds.magnitude)
        splits = self.sites.splits(leaf)
        for i, site in self.sites.splittable():
            own = site.cut(cut.relax(network, i), splits[i])
            cut.tighten(network.nodes[i].inputs[0], own.lower, own.upper, None)
        for i, _, narrowed in self.sites.own_intervals(leaf):
            shared, source = self.bounds.relaxations[i].triangle(), network.nodes[i].inputs[0]
            assert shared is not None
            cut.tighten(source, narrowed.over(shared).lower, narrowed.over(shared).upper, None)
        for i in self.nodes:
            cut.relax(network, i)
        for i, site in self.sites.splittable():
            cut.relaxations[i] = site.cut(cut.relaxations[i], splits[i])
        return cut

    def _choose(self, leaves: Leaves, witness: Witness, trace: Trace) -> None:
        """The neuron of the largest price is split next."""
        best = torch.zeros_like(leaves.value)
        leaves.branch.fill_(-1)
        for i, site in self.sites.splittable():
            coeff = trace.coeff.get(i)
            if coeff is not None:
                step = alone(witness[i])
                price, arg = step.prices(coeff).max(1)
                better = price > best
                best = torch.where(better, price, best)
                leaves.branch.copy_(torch.where(better, arg + site.first, leaves.branch))
                leaves.at.copy_(torch.where(better, step.points(coeff, arg), leaves.at))
        self._postpone(leaves)

    def _postpone(self, leaves: Leaves) -> None:
        """Deep leaves are not split any more, and convex neurons not before all others."""
        leaves.branch[self._is_deep(leaves)] = -1
        if bool(self._convex.any()):
            rows = ((leaves.branch >= 0) & self._convex[leaves.branch]).nonzero()[:, 0]
            others = leaves.select(rows)
            others.branch = self._widest(others, ~self._convex)
            leaves.branch[rows], leaves.at[rows] = others.branch, self.sites.points(others)

    def _is_deep(self, leaves: Leaves) -> Tensor:
        """Which leaves are not to be split any more."""
        return leaves.depth() >= (self._deepest or leaves.neuron.shape[1])


def taken(form: Form, query: Tensor) -> Form:
    """Forms of some queries, with repetition."""
    return Form({i: a[:, query] for i, a in form.coeff.items()}, form.constant[:, query])
