"""Leaves of a branch and bound over activations, many at a time, each belonging to one of many queries.

A leaf is a query and a set of splits: neurons whose pre-activation is taken to be at least, or at most, zero. There the
relaxation is the activation itself over the interval cut at zero, a segment `a = t z`, and slopes `t A - side * beta`
cost nothing for any multiplier beta >= 0: their support `max -side * beta * z` over the cut interval is attained at
z = 0 (beta-CROWN, Wang et al. 2021). So a leaf is bounded by the same backward pass as any query; only its steps know
of splits. Leaves lie along the axis of queries: they share region, bounds and relaxations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from krelax.bounds.backward import Form, Trace, back_substitute, lower_bound
from krelax.bounds.instance import Instance
from krelax.bounds.intervals import Intervals
from krelax.bounds.optimise import Ascent, climb
from krelax.bounds.steps import Crossing, Parameter, Single, Step, Witness
from krelax.problem.region import dot
from krelax.relaxations import Rule
from krelax.relaxations.piecewise import Triangle

# Multipliers are of the size of coefficients, whose unit is that of the query: they move faster than slopes in [0, 1].
_MULTIPLIER_STEP = 1.0
# Share of a lower line's price that counts when a split is chosen.
_LOWER_LINE = 0.02


class Split(Step):
    """Triangles, some of them cut at zero: slopes of lower lines `(1, leaves, *shape)`, and for every split its place
    in that tensor, flattened, its side (+1 active, -1 inactive) and its multiplier, `(splits,)` each.

    Upper lines are chords. Sound for every leaf whatever slopes and multipliers are, if slopes lie inside
    `Triangle.slope_range` and multipliers are not negative.
    """

    relaxation: Triangle

    def __init__(self, relaxation: Triangle, slope: Tensor, place: Tensor, side: Tensor, multiplier: Tensor) -> None:
        lines = relaxation.lines_by(Rule.ADAPTIVE)
        low, high = (t.unsqueeze(1) for t in relaxation.slope_range())
        self.relaxation = relaxation
        self.place, self.side = place, side
        self._chord, self._above = lines.upper, lines.above
        # a = own * z at splits, in full precision: a `where` of two Python numbers would be single
        self._own = torch.full_like(side, relaxation.negative_slope).masked_fill_(side > 0, 1.0)
        self.slope = Parameter(slope, low, high, relaxation.step)
        zero = multiplier.new_zeros(())
        self.multiplier = Parameter(multiplier, zero, zero + torch.inf, _MULTIPLIER_STEP)

    def parameters(self) -> list[Parameter]:
        return [self.slope, self.multiplier] if len(self.place) else [self.slope]

    def over(self, known: Intervals, node: int) -> Self:
        relaxation = known.relaxations[node]
        assert isinstance(relaxation, Triangle)
        dtype = relaxation.lower.dtype
        low, high = (t.unsqueeze(1) for t in relaxation.slope_range())
        slope = self.slope.value.to(dtype).clamp(low, high)
        return type(self)(relaxation, slope, self.place, self.side.to(dtype), self.multiplier.value.to(dtype))

    def back(self, coeff: Tensor) -> Crossing:
        coeff = coeff.contiguous()
        positive = coeff.clamp(min=0)
        negative = coeff - positive
        slopes = torch.mul(positive, self.slope.value, out=positive)
        if len(self.place):
            negative.view(-1)[self.place] = 0
        price = -dot(negative, self._above)
        slopes.addcmul_(negative, self._chord)
        if len(self.place):
            at = coeff.view(-1)[self.place]
            slopes.view(-1)[self.place] = (self._own * at).addcmul_(self.side, self.multiplier.value, value=-1)
        return Crossing(slopes, price)

    def forth(self, coeff: Tensor, points: Mapping[int, Tensor], operand: int) -> Tensor:
        q = points[operand].contiguous()
        self.slope.gradient = coeff.clamp(min=0).mul_(q)
        positive = torch.gt(coeff, 0, out=torch.empty_like(coeff))
        line = torch.lerp(self._chord, self.slope.value, positive).mul_(q)
        positive.sub_(1)
        result = line.addcmul_(positive, self._above, value=-1)
        if len(self.place):
            at = q.view(-1)[self.place]
            self.multiplier.gradient = -self.side * at
            result.view(-1)[self.place] = self._own * at
        return result

    def prices(self, coeff: Tensor) -> Tensor:
        """What splitting each neuron is expected to be worth, `(leaves, neurons)`: not positive where it is worth
        nothing.

        The price of the upper line, which the split saves on both sides. What the lower line may lose is hardly
        counted: BaBSR (Bunel et al. 2020) gives it a larger share, which measures worse.
        """
        worth = self._above * self.relaxation.unstable().unsqueeze(1)
        score = torch.maximum(-coeff, _LOWER_LINE * coeff).mul_(worth)
        score.view(-1)[self.place] = -1
        return score[0].flatten(1)


@dataclass
class Leaves:
    """Leaves and what was found for them so far; every tensor has one row for each leaf.

    `query`: whose leaf it is. `neuron`, `side`, `multiplier`, `(leaves, depth)`: its splits; neurons are numbered
    through all splittable activations, and free columns hold -1. `value`: its bound as proposed. `floor`: a bound that
    has been proven, minus infinity if there is none. `branch`: the neuron to be split next, -1 if there is none.
    `slopes`: what is optimised besides, `(leaves, entries)` each: only of undecided neurons where neurons can be split.
    """

    query: Tensor
    neuron: Tensor
    side: Tensor
    multiplier: Tensor
    value: Tensor
    floor: Tensor
    branch: Tensor
    slopes: list[Tensor]

    def __len__(self) -> int:
        return len(self.query)

    def tensors(self) -> list[Tensor]:
        """All of them in a fixed order."""
        return [self.query, self.neuron, self.side, self.multiplier, self.value, self.floor, self.branch, *self.slopes]

    @classmethod
    def of(cls, tensors: list[Tensor]) -> Leaves:
        """From what `tensors` gives."""
        query, neuron, side, multiplier, value, floor, branch, *slopes = tensors
        return cls(query, neuron, side, multiplier, value, floor, branch, slopes)

    def select(self, rows: Tensor) -> Leaves:
        """Copies of some leaves."""
        return self.of([t.index_select(0, rows) for t in self.tensors()])

    def write(self, rows: Tensor, leaves: Leaves) -> None:
        """Put leaves in the place of those in `rows`."""
        for mine, new in zip(self.tensors(), leaves.tensors(), strict=True):
            mine.index_copy_(0, rows, new)

    def room(self, count: int) -> Leaves:
        """The same leaves with space for `count` in all."""
        return self.of([torch.cat([t, t.new_empty(count - len(t), *t.shape[1:])]) for t in self.tensors()])

    def depth(self) -> Tensor:
        """Number of splits of every leaf."""
        return (self.neuron >= 0).sum(1)

    def children(self) -> Leaves:
        """Both sides of every leaf's next split, the active ones first: `2 * len(self)` leaves."""
        both = self.of([torch.cat([t, t]) for t in self.tensors()])
        place = both.depth().unsqueeze(1)
        both.neuron.scatter_(1, place, both.branch.unsqueeze(1))
        side = both.side.new_ones(len(self), 1)
        both.floor.fill_(-torch.inf)
        both.side.scatter_(1, place, torch.cat([side, -side]))
        both.multiplier.scatter_(1, place, 0.0)
        return both


class Evaluator:
    """Bounds leaves of the queries `form` (batch 1) over the intervals `known`, given in the type that decides and in
    the one that proposes."""

    def __init__(self, instance: Instance, known: Intervals, exact: Form, fast: Form) -> None:
        self._instance, self._exact, self._known = instance, exact, known
        self.nodes = sorted(i for i in known.relaxations if i <= max(exact.coeff))
        self._proposing = known.to(instance.fast_network.dtype, instance.network)
        self._first = self._numbering()
        self._undecided = {i: known.relaxations[i].unstable().flatten().nonzero()[:, 0] for i in self._first}
        self._fast = fast

    def _numbering(self) -> dict[int, int]:
        """Number of the first neuron of every activation that can be split."""
        first, count = {}, 0
        for i in self.nodes:
            relaxation = self._known.relaxations[i]
            if isinstance(relaxation, Triangle):
                first[i] = count
                count += relaxation.lower[0].numel()
        return first

    def roots(self, query: Tensor, depth: int) -> Leaves:
        """Queries without any split, with CROWN's adaptive slopes."""
        n, dtype = len(query), self._proposing.lower[0].dtype
        slopes = [s.expand(n, *s.shape[1:]).clone() for i in self.nodes for s in self._free_slopes(i)]
        side = torch.zeros(n, depth, dtype=dtype)
        value = torch.full((n,), -torch.inf, dtype=dtype)
        neuron, branch = torch.full((n, depth), -1), torch.full((n,), -1)
        return Leaves(query, neuron, side, side.clone(), value, value.double(), branch, slopes)

    def _free_slopes(self, node: int) -> list[Tensor]:
        relaxation = self._proposing.relaxations[node]
        pair = zip(relaxation.slopes(Rule.ADAPTIVE), relaxation.optimised, strict=True)
        slopes = [s for s, free in pair if free]
        return [s.flatten(1)[:, self._undecided[node]] for s in slopes] if node in self._first else slopes

    def improve(self, leaves: Leaves, ascent: Ascent) -> Tensor:
        """Optimise slopes and multipliers of leaves in place, set their values and next splits, and return the inputs
        at which the bounds are attained, `(leaves, *input_shape)`, in the fast type.

        Raises OutOfTime at the instance's deadline, with nothing lost but the values.
        """
        witness, splits = self._witness(leaves)
        form = _taken(self._fast, leaves.query)
        climb(self._instance, form, self._proposing, witness, ascent)
        trace = Trace()
        result, _ = back_substitute(self._instance.fast_network, form, witness, self._proposing, trace)
        value = result.constant + self._instance.fast_region.minimise(result.coeff[0])
        leaves.value.copy_(value[0])
        for node, (row, column) in splits.items():
            step = witness[node]
            assert isinstance(step, Split)
            leaves.multiplier[row, column] = step.multiplier.value
            self._slopes_of(leaves, node).copy_(step.slope.value[0].flatten(1)[:, self._undecided[node]])
        self._choose(leaves, witness, trace)
        return self._instance.fast_region.minimiser(result.coeff[0])[0]

    def _slopes_of(self, leaves: Leaves, node: int) -> Tensor:
        """The slopes of leaves at an activation that can be split."""
        before = [i for i in self.nodes if i < node]
        return leaves.slopes[sum(sum(self._proposing.relaxations[i].optimised) for i in before)]

    def prove(self, leaves: Leaves) -> Tensor:
        """Rigorous lower bounds of leaves, `(leaves,)`, never below their floors."""
        witness = {i: step.over(self._known, i) for i, step in self._witness(leaves)[0].items()}
        form = _taken(self._exact, leaves.query)
        value = lower_bound(self._instance.network, self._instance.region, form, witness, self._known)[0]
        return torch.maximum(value, leaves.floor)

    def _witness(self, leaves: Leaves) -> tuple[Witness, dict[int, tuple[Tensor, Tensor]]]:
        """Steps of the leaves, and where in `leaves.multiplier` theirs are from. Activations that cannot be split share
        the memory of the leaves' slopes."""
        deepest = int(leaves.depth().max())
        neuron = leaves.neuron[:, :deepest]
        slopes = iter(leaves.slopes)
        witness: Witness = {}
        splits = {}
        for i in self.nodes:
            relaxation = self._proposing.relaxations[i]
            if not isinstance(relaxation, Triangle):
                pair = zip(relaxation.slopes(Rule.ADAPTIVE), relaxation.optimised, strict=True)
                lower, upper = (next(slopes).unsqueeze(0) if free else s.unsqueeze(1) for s, free in pair)
                witness[i] = Single(relaxation, lower, upper)
                continue
            first, count = self._first[i], relaxation.lower[0].numel()
            row, column = ((neuron >= first) & (neuron < first + count)).nonzero(as_tuple=True)
            place = row * count + neuron[row, column] - first
            side, multiplier = leaves.side[row, column], leaves.multiplier[row, column]
            witness[i] = Split(relaxation, self._spread(next(slopes), i), place, side, multiplier)
            splits[i] = (row, column)
        return witness, splits

    def _spread(self, slopes: Tensor, node: int) -> Tensor:
        """Slopes of undecided neurons among those of all, `(1, leaves, *shape)`."""
        every = self._proposing.relaxations[node].slopes(Rule.ADAPTIVE)[0]
        spread = every.flatten(1).repeat(len(slopes), 1)
        spread.index_copy_(1, self._undecided[node], slopes)
        return spread.reshape(1, len(slopes), *every.shape[1:])

    def _choose(self, leaves: Leaves, witness: Witness, trace: Trace) -> None:
        """The neuron of the largest price is split next."""
        best = torch.zeros_like(leaves.value)
        leaves.branch.fill_(-1)
        for i, first in self._first.items():
            step, coeff = witness[i], trace.coeff.get(i)
            if coeff is not None:
                assert isinstance(step, Split)
                price, arg = step.prices(coeff).max(1)
                better = price > best
                best = torch.where(better, price, best)
                leaves.branch.copy_(torch.where(better, arg + first, leaves.branch))
        leaves.branch[leaves.depth() == leaves.neuron.shape[1]] = -1


def _taken(form: Form, query: Tensor) -> Form:
    """Forms of some queries, with repetition."""
    return Form({i: a[:, query] for i, a in form.coeff.items()}, form.constant[:, query])
