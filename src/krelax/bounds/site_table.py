"""What leaves chose, activation by activation: their columns as rows of sites, as splits, and as a witness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

from krelax.activations import Relaxation
from krelax.bounds.contracted import contractions
from krelax.bounds.groups import Groups
from krelax.bounds.layers import LayerBounds
from krelax.bounds.leaves import Leaves
from krelax.bounds.sites import Anywhere, Fixed, Kinked, Site, Splits, Splittable, Unsplit, Windows, alone
from krelax.bounds.split import Narrowed
from krelax.bounds.steps import Witness
from krelax.network.graph import Network


def _site(relaxation: Relaxation, groups: Sequence[Groups], first: int, fixed: bool, kinks: bool) -> Site:
    """What an activation can be: split at a kink, compared in windows, split anywhere, or not at all, and with lines
    that are fixed."""
    triangle, window = relaxation.triangle(), relaxation.window()
    if triangle is not None:
        return Kinked(triangle, groups, first)
    if window is not None:
        return Windows(window, first)
    if fixed:
        return Fixed(relaxation)
    return Unsplit(relaxation) if kinks or relaxation.splits() is None else Anywhere(relaxation, first)


class Sites:
    """The sites of the activations `nodes`, in order, over the relaxations that propose. `every` has them by node.

    Products of matrices are crossed at once where all leaves share their lines, which takes a small part of the time.
    So beside such products only kinks are split, as long as neurons at them are undecided.
    """

    def __init__(self, network: Network, proposing: LayerBounds, nodes: Sequence[int]) -> None:
        self.every: dict[int, Site] = {}
        every = {i: proposing.relaxations[i] for i in nodes}
        triangles = [t for t in (r.triangle() for r in every.values()) if t is not None]
        products = {sums.product for sums in contractions(network).values()} & set(nodes)
        kinks = bool(products) and any(bool(t.unstable().any()) for t in triangles)
        first = 0
        for i, relaxation in every.items():
            fixed = kinks and i in products
            site = self.every[i] = _site(relaxation, proposing.groups.get(i, ()), first, fixed, kinks)
            first += site.count if isinstance(site, Splittable) else 0

    def splittable(self) -> Iterator[tuple[int, Splittable]]:
        """The activations whose neurons can be split."""
        return ((i, s) for i, s in self.every.items() if isinstance(s, Splittable))

    def kinked(self) -> Iterator[tuple[int, Kinked]]:
        """Those whose neurons are split at their kinks."""
        return ((i, s) for i, s in self.every.items() if isinstance(s, Kinked))

    def fixed(self) -> Witness:
        """The steps of the activations whose lines are fixed."""
        return {i: site.fixed for i, site in self.every.items() if isinstance(site, Fixed)}

    def rows(self, leaves: Leaves) -> Iterator[tuple[int, Site, list[Tensor]]]:
        """The activations with what leaves can choose there."""
        slopes = iter(leaves.slopes)
        for i, site in self.every.items():
            yield i, site, list(islice(slopes, site.tensors))

    def splits(self, leaves: Leaves) -> dict[int, Splits]:
        """The splits of leaves at each activation."""
        row, column = (leaves.neuron >= 0).nonzero(as_tuple=True)
        neuron = leaves.neuron[row, column]
        columns = (leaves.point, leaves.side, leaves.multiplier)
        every = Splits(row, column, neuron, *(t[row, column] for t in columns))
        ends = neuron.new_tensor([s.first + s.count for _, s in self.splittable()])
        place = torch.bucketize(neuron, ends, right=True)
        counts, order = torch.bincount(place, minlength=len(ends)).tolist(), place.argsort(stable=True)
        parts = zip(*(t[order].split(counts) for t in every), strict=True)
        found = {i: Splits(*part) for (i, _), part in zip(self.splittable(), parts, strict=True)}
        nothing = Splits(*(t[:0] for t in every))
        return {i: found.get(i, nothing) for i in self.every}

    def witness(self, leaves: Leaves, splits: Mapping[int, Splits]) -> Witness:
        """The steps that leaves with these splits make."""
        return {i: site.step(rows, splits[i], len(leaves)) for i, site, rows in self.rows(leaves)}

    def keep(self, leaves: Leaves, witness: Witness, splits: Mapping[int, Splits]) -> None:
        """Write what has been optimised back into the columns of leaves."""
        for i, site, rows in self.rows(leaves):
            site.keep(witness[i], rows)
            if isinstance(site, Splittable):
                leaves.multiplier[splits[i].row, splits[i].column] = alone(witness[i]).multiplier.value

    def points(self, leaves: Leaves) -> Tensor:
        """Where leaves split their next neurons, `(leaves,)`, if nothing is known of coefficients."""
        found, asked = torch.zeros_like(leaves.at), [(i, s) for i, s in self.splittable() if not isinstance(s, Kinked)]
        splits = self.splits(leaves) if asked else {}
        for i, site in asked:
            rows = ((leaves.branch >= site.first) & (leaves.branch < site.first + site.count)).nonzero()[:, 0]
            found[rows] = site.points(leaves.branch[rows], rows, splits[i], len(leaves))
        return found

    def own_intervals(self, leaves: Leaves) -> Iterator[tuple[int, Kinked, Narrowed]]:
        """The activations before which clips have narrowed the leaves' intervals."""
        for i, site, rows in self.rows(leaves):
            own = site.intervals(rows) if isinstance(site, Kinked) else None
            if own is not None and isinstance(site, Kinked):
                yield i, site, own
