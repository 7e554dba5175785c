"""Questions about small networks, decided in exact numbers: cells of inputs in which every activation is one piece.

Bounds of margins prove what is larger than zero, and floating-point counterexamples show what happens at the numbers of
a type. Between the two is what ends at exactly zero: a strict comparison of the largest value there is, an output that
equals a number. There, every cell is a system of linear inequalities with fractions, strict ones as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np

from krelax.activations import Activation, LeakyReLU, Max, ReLU
from krelax.network.graph import Network
from krelax.network.linear import Within
from krelax.problem.query import Case, Inequality, Specification
from krelax.search.affine import Forms, TooLarge, applied, inputs, matrices
from krelax.search.excluded import intervals
from krelax.search.simplex import Purse, Spent, System

_ZERO = Fraction(0)
# Inputs and neurons of networks that are tried.
_MOST_INPUTS, _MOST_NEURONS = 60, 400
# Neurons of a node that have both signs: there are too many cells where there are more.
_MOST_OPEN = 40
# How far from all edges a counterexample is looked for, so that it is one when it is rounded, too.
_DISTANCES = tuple(Fraction(1, 10**k) for k in (1, 2, 4, 6))
# What bounding the neurons over the box of a case counts for.
_PASS = 1000
Row = tuple[dict[int, Fraction], Fraction]


@dataclass(frozen=True, eq=False)
class Exact:
    """What is known of a case: that it is impossible if there are no `points`, else some points of it, those that are
    farthest from its edges first."""

    points: list[list[Fraction]]


def _is_small(network: Network) -> bool:
    """Whether a network is one that can be tried."""
    neurons = [prod(network.nodes[i].shape) for i in network.activations()]
    kinds = all(isinstance(network.nodes[i].op, ReLU | LeakyReLU | Max) for i in network.activations())
    return kinds and sum(neurons) <= _MOST_NEURONS and prod(network.input_shape) <= _MOST_INPUTS


class Cells:
    """The cells of a network of few ReLUs and maxima, one by one: depth first, node by node, neuron by neuron.

    What is in the purse is for all questions about the network. `check` is called now and then, and may raise. Raises
    TooLarge for a network that is none of these.
    """

    def __init__(self, network: Network, purse: Purse, check: Callable[[], None]) -> None:
        if not _is_small(network):
            raise TooLarge
        self._network, self._purse, self._check = network, purse, check
        self._matrices = {
            i: matrices(network, i) for i, node in enumerate(network.nodes) if i and not isinstance(node.op, Activation)
        }

    def decide(self, specification: Specification, case: Case) -> Exact | None:
        """Whether inputs satisfy a case of a specification, the network being a function of real numbers: None if what
        is in the purse does not suffice.

        Sound and complete: yes, in exact arithmetic.
        """
        try:
            self._purse.take(_PASS)
            return Exact(next(self._points(specification, case), []))
        except (TooLarge, Spent):
            return None

    def _points(self, specification: Specification, case: Case) -> Iterator[list[list[Fraction]]]:
        """Points of every cell in which inputs satisfy the case."""
        box = list(specification.box_of(case))
        for forms, cell in self.cells(specification, case, System(prod(self._network.input_shape), self._purse)):
            rows = [(*_compared(forms, h.coefficients, h.constant), h.strict) for h in case.halfspaces]
            inner = cell.copy()
            if all(cell.require(*row) for row in rows):
                yield [*_deeper(inner, [*box, *rows]), cell.solution()]

    def cells(self, specification: Specification, case: Case, system: System) -> Iterator[tuple[Forms, System]]:
        """The outputs as functions of the inputs, and the cell in which they are, over the box of a case. `system` is
        one without inequalities. Raises Spent, and TooLarge."""
        self._signs = self._stable(case)
        if all(system.require(*row) for row in specification.box_of(case)):
            yield from self._from(1, [inputs(prod(self._network.input_shape))], system)

    def _stable(self, case: Case) -> dict[int, list[int]]:
        """For every ReLU of a node its sign over the box of the case, 0 if it has both. Raises TooLarge where numbers
        may be too large for the model's types."""
        limited = [node for node in self._network.nodes if isinstance(node.op, Within)]
        if not case.is_bounded:
            if limited:
                raise TooLarge
            return {}
        bounds = intervals(self._network, case.lower, case.upper)
        for node in limited:
            assert isinstance(node.op, Within)
            if not max(float(np.abs(side).max()) for side in bounds[node.inputs[0]]) <= node.op.limit:
                raise TooLarge
        found = {}
        for i in self._network.activations():
            lower, upper = (side.flatten().tolist() for side in bounds[self._network.nodes[i].inputs[0]])
            found[i] = [1 if low >= 0 else -1 if high <= 0 else 0 for low, high in zip(lower, upper, strict=True)]
            if found[i].count(0) > _MOST_OPEN:
                raise TooLarge
        return found

    def _from(self, node: int, known: list[Forms], system: System) -> Iterator[tuple[Forms, System]]:
        """The outputs, and their cells, where nodes before this one are known."""
        nodes = self._network.nodes
        while node < len(nodes) and node in self._matrices:
            self._purse.take(sum(matrix.size for matrix, _ in self._matrices[node]) // 4)
            known = [*known, applied(self._matrices[node], [known[i] for i in nodes[node].inputs])]
            node += 1
        if node == len(nodes):
            yield known[-1], system
            return
        self._check()
        given, op = known[nodes[node].inputs[0]], nodes[node].op
        for rows, cell in _pieces(op, given, nodes[nodes[node].inputs[0]].shape, system, self._signs.get(node)):
            yield from self._from(node + 1, [*known, rows], cell)


def _deeper(cell: System, rows: Sequence[Inequality]) -> Iterator[list[Fraction]]:
    """Points of a cell at some distance from all edges; the first one that there is."""
    for distance in _DISTANCES:
        inner = cell.copy()
        if all(inner.require(factors, constant + distance, False) for factors, constant, _ in rows):
            yield inner.solution()
            return


def _pieces(
    op: object, given: Forms, shape: Sequence[int], system: System, signs: Sequence[int] | None
) -> Iterator[tuple[Forms, System]]:
    """The values of an activation, and their cells."""
    size = shape[-1] if isinstance(op, Max) else 1
    count = len(given.rows) // size
    stack: list[tuple[tuple[int, ...], System]] = [((), system)]
    while stack:
        chosen, cell = stack.pop()
        if len(chosen) == count:
            yield _chosen(op, given, chosen, size), cell
            continue
        place = len(chosen)
        if signs is not None and signs[place] and not isinstance(op, Max):
            stack.append(((*chosen, int(signs[place] > 0)), cell))
            continue
        for piece in range(size if isinstance(op, Max) else 2):
            inside = cell.copy()
            if all(inside.require(*row, False) for row in _conditions(op, given, place, piece, size)):
                stack.append(((*chosen, piece), inside))


def _conditions(op: object, given: Forms, place: int, piece: int, size: int) -> list[Row]:
    """What holds where neuron `place` has a piece: inactive or active, or the member that is largest."""
    if isinstance(op, Max):
        first, mine = place * size, given.row(place * size + piece)
        return [_minus(given.row(first + other), mine) for other in range(size) if other != piece]
    row = given.row(place)
    return [row if piece == 0 else _minus(({}, _ZERO), row)]


def _minus(one: Row, other: Row) -> Row:
    factors = dict(one[0])
    for i, factor in other[0].items():
        factors[i] = factors.get(i, _ZERO) - factor
    return factors, one[1] - other[1]


def _chosen(op: object, given: Forms, chosen: Sequence[int], size: int) -> Forms:
    """The values of an activation whose neurons have these pieces."""
    if isinstance(op, Max):
        return Forms(given.rows[[i * size + piece for i, piece in enumerate(chosen)]], given.exponent)
    slope = Fraction(op.negative_slope) if isinstance(op, LeakyReLU) else _ZERO
    by = slope.denominator.bit_length() - 1
    rows = given.rows.copy()
    for i, piece in enumerate(chosen):
        rows[i] = rows[i] * (slope.denominator if piece else slope.numerator)
    return Forms(rows, given.exponent - by)


def _compared(forms: Forms, factors: Mapping[int, Fraction], constant: Fraction) -> Row:
    """A linear form of outputs as one of inputs."""
    result: dict[int, Fraction] = {}
    for i, factor in factors.items():
        row, shift = forms.row(i)
        constant += factor * shift
        for j, part in row.items():
            result[j] = result.get(j, _ZERO) + factor * part
    return result, constant
