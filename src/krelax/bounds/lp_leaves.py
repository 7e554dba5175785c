"""Leaves of a branch and bound as linear programs over all rows: the relaxations of all neurons, splits and the margin.

One program serves all leaves. A split changes bounds of a column and of two rows, and the simplex method goes on from
the basis of the leaf before. The condition that the form is not positive is a row, too, so a leaf is closed when its
program has no solution, and the multipliers that say so show which of its splits they rest on. As in
`krelax.bounds.lp`, the solver proposes slopes, and the backward pass says what they prove.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.bounds.backward import Form, lower_bound
from krelax.bounds.convex import convex_neurons
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.lp import Cut, Program, Solution, Status, witness_of
from krelax.bounds.lp_model import Floats, Places, joined
from krelax.bounds.rounding import written
from krelax.proof.choices import Choices, LeafTable

# A split on the way to a leaf: the number of a neuron, and the side of zero.
Split = tuple[int, int]
Slopes = dict[int, Tensor]
# Multipliers that count as zero, where the largest is one; and how far a point may lie above an activation.
_UNUSED, _EXACT = 1e-9, 1e-6


@dataclass(frozen=True, eq=False)
class Infeasible:
    """A leaf without a solution: slopes that prove the form, `(1, *shape)`, and which neurons' splits they rest on."""

    slopes: Slopes
    used: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Feasible:
    """A solution of a leaf: the input, `(1, *shape)`, for each neuron its pre-activation and how far its
    post-activation is above the activation, `(neurons,)`; zeros where the solver gave up."""

    point: Tensor | None
    z: Floats
    above: Floats


class LeafPrograms:
    """The leaves of one form `<coeff, output> + constant` over one region, with coefficients `(outputs,)`.

    `nodes` and `entries`, `(neurons,)`, are those that may be split: undecided ones that the form is not convex in.
    `prices`, `(neurons,)`, say what their relaxations cost the form where nothing is split.
    """

    def __init__(self, instance: Instance, bounds: LayerBounds, coeff: Tensor, constant: float) -> None:
        self._instance, self._bounds, self._coeff, self._constant = instance, bounds, coeff, constant
        self._program = Program(instance, bounds)
        self._shapes = {i: r.lower.shape[1:] for i, r in bounds.relaxations.items()}
        self.nodes, self.entries, leak = self._splittable()
        model = self._program.model
        pairs = list(zip(self.nodes.tolist(), self.entries.tolist(), strict=True))
        self._z = np.array([model.before[i][e] for i, e in pairs], np.int64)
        self._a = np.array([model.after[i].column[e] for i, e in pairs], np.int64)
        self._leak = leak
        self._rows = joined(model.parts)
        self.prices = self._price()
        self._cuts = [*self._pieces(), self._condition()]
        self._handles = self._program.add_rows(self._cuts)
        self._sides = np.zeros(len(pairs), np.int64)
        self._program.minimise(torch.zeros_like(coeff))

    def _splittable(self) -> tuple[Places, Places, Floats]:
        network, bounds = self._instance.network, self._bounds
        form = Form({self._program.last: self._shaped(self._coeff)[None, None]}, torch.zeros(1, 1))
        convex = convex_neurons(network, form, bounds)
        nodes, entries, leaks = [], [], []
        for i in sorted(self._program.model.before):
            triangle = bounds.relaxations[i].triangle()
            if triangle is not None:
                every = triangle.unstable()[0].flatten() & ~convex.get(i, torch.ones(()).bool())
                found = every.nonzero()[:, 0].cpu().numpy()
                nodes.append(np.full(len(found), i))
                entries.append(found)
                leaks.append(np.full(len(found), triangle.negative_slope))
        none: list[Places] = [np.zeros(0, np.int64)]
        return np.concatenate(none + nodes), np.concatenate(none + entries), np.concatenate([np.zeros(0), *leaks])

    def _shaped(self, coeff: Tensor) -> Tensor:
        return coeff.reshape(self._instance.network.nodes[self._program.last].shape)

    def _price(self) -> Floats:
        """What the upper lines cost, by their multipliers where the form is least."""
        duals = self._program.minimise(self._coeff, self._constant).duals
        rows = self._rows
        upper = np.isinf(rows.lower) & np.isfinite(rows.upper) & (np.diff(rows.start) > 0)
        price = np.zeros(len(self._program.model.lower))
        column = rows.index[rows.start[:-1][upper]]
        np.add.at(price, column, np.abs(duals[: len(rows)][upper] * rows.upper[upper]))
        return price[self._a]

    def _pieces(self) -> list[Cut]:
        """For each neuron `a <= z`, and then for each `a <= leak * z`, which hold once a split says so."""
        pairs = [np.array(pair) for pair in zip(self._a, self._z, strict=True)]
        active = [Cut(pair, np.array([1.0, -1.0]), np.inf) for pair in pairs]
        return active + [
            Cut(pair, np.array([1.0, -leak]), np.inf) for pair, leak in zip(pairs, self._leak, strict=True)
        ]

    def _condition(self) -> Cut:
        """That the form is not positive."""
        rows, offset = self._program.model.form(self._program.last, self._shaped(self._coeff)[None].cpu())
        return Cut(rows.index, rows.value, -float(offset[0]) - self._constant)

    def solve(self, path: Sequence[Split]) -> Infeasible | Feasible:
        """The program of the leaf behind some splits. Raises OutOfTime at the instance's deadline."""
        self._take(path)
        solution = self._program.go_on()
        if solution.status is Status.INFEASIBLE:
            return Infeasible(*self._refuted(solution))
        if solution.status is not Status.OPTIMAL:
            return Feasible(None, np.zeros(len(self._z)), np.zeros(len(self._z)))
        z = solution.x[self._z]
        above = solution.x[self._a] - np.where(z > 0, z, self._leak * z)
        return Feasible(self._program.point(solution), z, np.where(above > _EXACT, above, 0.0))

    def _take(self, path: Sequence[Split]) -> None:
        """Change what differs from the leaf before."""
        sides = np.zeros_like(self._sides)
        for neuron, side in path:
            sides[neuron] = side
        model, count = self._program.model, len(sides)
        for neuron in np.flatnonzero(sides != self._sides).tolist():
            side, column = int(sides[neuron]), int(self._z[neuron])
            lower = 0.0 if side > 0 else float(model.lower[column])
            upper = 0.0 if side < 0 else float(model.upper[column])
            self._program.bound(column, lower, upper)
            for row, holds in ((neuron, side > 0), (count + neuron, side < 0)):
                self._program.bound_row(self._handles[row], 0.0 if holds else np.inf)
        self._sides = sides

    def _refuted(self, solution: Solution) -> tuple[Slopes, NDArray[np.bool_]]:
        """Slopes for the form itself: multipliers are divided by that of its row. Without that, splits contradict each
        other, and their multipliers outweigh whatever the form is."""
        duals, count = solution.duals, len(self._z)
        mine = duals[len(self._rows) :]
        weight = max(-float(mine[-1]), 0.0)
        reduced = np.abs(self._columns_of(duals))[self._z] if weight or np.any(duals) else np.ones(count)
        used = (reduced > _UNUSED) | (np.abs(mine[:count]) > _UNUSED) | (np.abs(mine[count : 2 * count]) > _UNUSED)
        return {i: slope / max(weight, _UNUSED) for i, slope in solution.slopes.items()}, used

    def _columns_of(self, duals: Floats) -> Floats:
        """What multipliers of rows make of the columns."""
        rows = self._rows
        weight = np.repeat(duals[: len(rows)], np.diff(rows.start)) * rows.value
        total: Floats = np.bincount(rows.index, weights=weight, minlength=len(self._program.model.lower)).astype(float)
        for cut, dual in zip(self._cuts, duals[len(rows) :], strict=True):
            if dual:
                np.add.at(total, np.asarray(cut.columns), np.asarray(cut.values) * dual)
        return total

    def prove(self, paths: Sequence[Sequence[Split]], slopes: Sequence[Slopes]) -> Tensor:
        """What slopes prove of the form behind some splits each: rigorous lower bounds, `(leaves,)`."""
        instance, every = self._instance, torch.zeros(len(paths), dtype=torch.int64)
        network, region = instance.network, instance.region.select(every)
        bounds = self._cut(paths)
        coeff = self._shaped(self._coeff).expand(len(paths), 1, *self._shaped(self._coeff).shape)
        form = Form(
            {self._program.last: coeff.to(region.lower)}, region.lower.new_full((len(paths), 1), self._constant)
        )
        stacked = {i: torch.stack([s[i] for s in slopes]).to(region.lower) for i in slopes[0]}
        witness = witness_of(bounds, 1, {i: written(s) for i, s in stacked.items()})
        return lower_bound(network, region, form, witness, bounds)[:, 0]

    def _cut(self, paths: Sequence[Sequence[Split]]) -> LayerBounds:
        """What is known behind some splits each: pre-activations cut at these."""
        network, every = self._instance.network, torch.zeros(len(paths), dtype=torch.int64)
        shared = self._bounds.select(every, network)
        cut, table = LayerBounds(shared.lower, shared.upper, shared.magnitude), self.sides(paths)
        for i in shared.relaxations:
            here = np.flatnonzero(self.nodes == i)
            cut.relax(network, i)
            if len(here):
                source = network.nodes[i].inputs[0]
                sides = cut.lower[source].new_zeros(len(paths), cut.lower[source][0].numel())
                sides[:, torch.from_numpy(self.entries[here])] = torch.from_numpy(table[:, here]).to(sides)
                side, lower, upper = sides.view_as(cut.lower[source]), cut.lower[source], cut.upper[source]
                above, below = torch.where(side > 0, 0.0, lower), torch.where(side < 0, 0.0, upper)
                cut.tighten(source, above, below, None)
                cut.relax(network, i)
        return cut

    def sides(self, paths: Sequence[Sequence[Split]]) -> NDArray[np.int64]:
        """The sides that leaves take, `(leaves, neurons)`; zero where they are not split."""
        table = np.zeros((len(paths), len(self._z)), np.int64)
        for row, path in enumerate(paths):
            for neuron, side in path:
                table[row, neuron] = side
        return table

    def noted(self, paths: Sequence[Sequence[Split]], slopes: Sequence[Slopes]) -> LeafTable:
        """What leaves chose, as `prove` evaluates it."""
        depth = max(len(path) for path in paths)
        node, entry = np.full((len(paths), depth), -1, np.int32), np.zeros((len(paths), depth), np.int32)
        side = np.zeros((len(paths), depth), np.int8)
        for row, path in enumerate(paths):
            for column, (neuron, way) in enumerate(path):
                node[row, column], entry[row, column] = self.nodes[neuron], self.entries[neuron]
                side[row, column] = way
        chosen = {}
        for i, shape in self._shapes.items():
            none = torch.zeros(1, *shape)
            table = torch.stack([s.get(i, none)[0].flatten() for s in slopes])
            chosen[i] = Choices(absolute=table.float().cpu().numpy())
        zero = np.zeros(node.shape, np.float32)
        return LeafTable(chosen, node, entry, zero, side, zero)
