"""Bounds of leaves by compiled kernels, 16 leaves at a time: the same as `krelax.bounds.evaluator` finds with torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from krelax.bounds.backward import Form
from krelax.bounds.instance import Instance
from krelax.bounds.lane_tables import Tables, tables_of
from krelax.bounds.layers import LayerBounds
from krelax.bounds.leaves import Leaves
from krelax.bounds.optimise import Ascent
from krelax.bounds.rounding import bounding
from krelax.bounds.sites import Kinked, Site
from krelax.lanes.plan import Climb, Own, Table
from krelax.lanes.ready import kernels
from krelax.watch import tick

# So many points are found at which bounds are attained: some more than anybody looks at.
SHOWN = 64
# Leaves of one call: between calls the clock is looked at.
_PORTION = 256
# Passes over one leaf, down and up, that take about as long as building the tables.
_BUILD = 400


class Gate:
    """The kernels for the queries `exact` over the intervals `bounds`, from when they are worth it."""

    def __init__(
        self, instance: Instance, bounds: LayerBounds, exact: Form, sites: Mapping[int, Site], assumed: int | None
    ) -> None:
        self._instance, self._bounds, self._exact, self._assumed = instance, bounds, exact, assumed
        self._sites = {i: s for i, s in sites.items() if isinstance(s, Kinked)}
        paired = all(_is_pairs(site) for site in self._sites.values())
        modelled = len(self._sites) == len(sites) > 0 and paired and exact.constant.numel() > 0
        self._open = modelled and instance.region.lower.device.type == "cpu"
        self._passes, self._lock = 0, Lock()
        self._lanes: Lanes | None = None

    def lanes(self, passes: int) -> Lanes | None:
        """The kernels, if they are there when so many more passes over leaves are to be made."""
        if not self._open:
            return self._lanes
        with self._lock:
            self._passes += passes
            if self._open and (kernels().forced or self._passes >= _BUILD) and kernels().ready(self._passes):
                tables = tables_of(self._instance, self._bounds, self._exact, self._sites, self._assumed)
                self._lanes = None if tables is None else Lanes(self._instance, self._bounds, self._sites, tables)
                self._open = False
            return self._lanes


def _is_pairs(site: Kinked) -> bool:
    """Whether all of its groups are pairs of undecided neurons."""
    sets = [g for g in site.groups if g.members.shape[1]]
    small = all(g.members.shape[2] == 2 for g in sets)
    return small and all(bool(torch.isin(g.members, site.undecided).all()) for g in sets)


class Lanes:
    """Bounds leaves of the queries that the tables are of. Threads may bound different leaves side by side."""

    def __init__(self, instance: Instance, bounds: LayerBounds, sites: Mapping[int, Kinked], tables: Tables) -> None:
        self._instance, self._bounds, self._sites, self._tables = instance, bounds, sites, tables

    def improve(self, leaves: Leaves, ascent: Ascent) -> tuple[Tensor, Tensor]:
        """Optimise what leaves can choose, in place, and set their values and next splits: a proposal. Where the bounds
        of the first leaves are attained, `(points, *input_shape)`, and what affine bounds of the forms are at the
        centre, `(leaves,)`.

        Raises OutOfTime at the instance's deadline, with nothing lost but what was optimised.
        """
        from krelax.lanes.kernels import improve  # not without numba

        t, count, inputs = self._tables, len(leaves), len(self._tables.proving.centre)
        table, own = self._table(leaves), self._own(leaves)
        climb = Climb(ascent.steps, float(ascent.rate), float(ascent.decay))
        value, middle = np.empty(count, np.float32), np.empty(count, np.float32)
        branch, points = np.empty(count, np.int64), np.empty((min(count, SHOWN), inputs), np.float32)
        for begin, end in self._portions(count, 2 * ascent.steps + 1):
            self._instance.check()
            improve(t.layers, t.down, t.up, t.proposing, t.pairs, t.fast, own, table, climb, begin, end,
                    value, middle, branch, points)  # fmt: skip
        leaves.value.copy_(torch.from_numpy(value))
        leaves.multiplier.copy_(torch.from_numpy(table.multiplier))
        leaves.branch.copy_(torch.from_numpy(t.neuron_of[branch]))
        for kind, column in enumerate((table.slope, table.share, table.tilt)):
            first = 0
            for row in self._rows(leaves, kind):
                row.copy_(torch.from_numpy(column[:, first : first + row.shape[1]]))
                first += row.shape[1]
        region = self._instance.fast_region
        shape = region.lower.shape[1:]
        centre, radius = region.halves  # type: ignore[attr-defined]
        found = torch.from_numpy(points).reshape(-1, *shape).mul_(radius).add_(centre)
        return found, torch.from_numpy(middle)

    def prove(self, leaves: Leaves) -> Tensor:
        """What the choices of leaves prove: rigorous lower bounds, `(leaves,)`."""
        return self._proven(leaves, 0)[0]

    def over_inputs(self, leaves: Leaves) -> tuple[Tensor, Tensor]:
        """Affine bounds of the forms, as `backward.over_inputs`: coefficients `(1, leaves, *input_shape)` and constants
        `(1, leaves)`."""
        _, constant, affine = self._proven(leaves, len(leaves))
        return affine.reshape(1, len(leaves), *self._instance.region.lower.shape[1:]), constant[None]

    def _proven(self, leaves: Leaves, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        from krelax.lanes.kernels import prove

        t, count = self._tables, len(leaves)
        table, own = self._table(leaves), self._own(leaves)
        value, constant = np.empty(count), np.empty(rows)
        affine = np.empty((rows, len(t.proving.centre)))
        for begin, end in self._portions(count, 1):
            prove(t.layers, t.down, t.proving, t.pairs, t.exact, own, table, begin, end, value, constant, affine)
        return bounding(torch.from_numpy(value)), torch.from_numpy(constant), torch.from_numpy(affine)

    def _portions(self, count: int, passes: int) -> Iterator[tuple[int, int]]:
        each = passes * (len(self._tables.proposing.down) + 4 * len(self._tables.neuron_of))
        for begin in range(0, count, _PORTION):
            end = min(begin + _PORTION, count)
            tick((end - begin) * each)
            yield begin, end

    def _table(self, leaves: Leaves) -> Table:
        none = leaves.value.new_zeros(len(leaves), 0)
        slope, share, tilt = (torch.cat([none, *self._rows(leaves, kind)], 1).numpy() for kind in range(3))
        slot = self._tables.slot_of[leaves.neuron.numpy()]
        # kernels are compiled for rows that follow each other in memory
        side, multiplier = (t.contiguous().numpy() for t in (leaves.side, leaves.multiplier))
        return Table(leaves.query.numpy(), slot, side, multiplier, slope, share, tilt)

    def _rows(self, leaves: Leaves, kind: int) -> Iterator[Tensor]:
        """Of each activation slopes of undecided neurons (kind 0), shares of each set of pairs (1), or tilts (2)."""
        first = 0
        for site in self._sites.values():
            sets = range(first + 1, first + 1 + 2 * len(site.groups), 2)
            yield from (leaves.slopes[n] for n in ([first] if kind == 0 else [s + kind - 1 for s in sets]))
            first += site.tensors

    def _own(self, leaves: Leaves) -> Own:
        """The lines over the intervals that are the leaves' own."""
        t, first, parts = self._tables, 0, []
        free, count = [np.zeros(0, np.int64)], [0] * len(t.layers.slot)
        layer = {i: n for n, i in enumerate(self._tables.nodes)}
        for i, site in self._sites.items():
            own = site.intervals(leaves.slopes[first : first + site.tensors])
            first += site.tensors
            if own is not None:
                place = torch.searchsorted(site.undecided, own.entries).numpy()
                free.append(t.layers.free[layer[i]] + place)
                count[layer[i] + 1] = len(place)
                shared = self._bounds.relaxations[i].triangle()
                assert shared is not None
                parts.append(own.alone(shared))
        lines = [[np.zeros((len(leaves), 0))] for _ in range(4)]
        for relaxation in parts:
            for into, t_ in zip(
                lines, (*relaxation.slope_range(), relaxation.chord(), relaxation.height()), strict=True
            ):
                into.append(t_.numpy())
        return Own(np.concatenate(free), np.cumsum(count), *(np.concatenate(x, 1) for x in lines))
