"""Outputs that are whole numbers, or whole multiples of a power of two, and conditions on them with a margin.

Bounds prove what is larger than zero. That a class is below 3 is, of whole numbers, that it is below two and a half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor, gcd, lcm, prod

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.activations import (
    Ceil,
    Floor,
    LeakyReLU,
    Max,
    Product,
    Quantise,
    ReLU,
    Round,
    Sign,
    Square,
    Step,
    Threshold,
)
from krelax.network.copies import moves
from krelax.network.graph import Network
from krelax.network.linear import Within
from krelax.network.ops import Linear
from krelax.problem.query import Halfspace, Specification
from krelax.search.affine import TooLarge, matrices

# Of entries that are whole multiples of a power of two its exponent, minus infinity for others; what is always zero is
# a multiple of all.
Grid = NDArray[np.float64]
# Whole factors of outputs without a common divisor, the most that their sum may be, and the half-space of both.
_Form = tuple[tuple[int, int], ...]
_Closed = tuple[_Form, int, Halfspace]
_JUMPS = (Ceil, Floor, Quantise, Round, Sign, Step)
# Margins are no better than what bounds lose in rounding.
_FINEST = -40.0


def closed(network: Network, specification: Specification) -> Specification:
    """The specification with half-spaces of such numbers that end between two of them: `y < 3` is `y <= 5/2`.

    Sound: yes, the same outputs are unsafe. Counterexamples are judged by what is written.
    """
    if not (network.elements.any_whole or any(isinstance(node.op, _JUMPS) for node in network.nodes)):
        return specification
    grid = outputs(network)
    if not (grid >= _FINEST).any():
        return specification
    known: dict[int, _Closed] = {}
    cases = []
    for case in specification.cases:
        found = [known.setdefault(id(h), _closed(h, grid)) for h in case.halfspaces]
        most: dict[_Form, int] = {}
        for form, limit, _ in found:
            most[form] = min(limit, most.get(form, limit))
        if any(most[form] + most.get(_minus(form), -most[form]) < 0 for form in most if form):
            continue  # no whole number lies between
        own = tuple(halfspace for _, _, halfspace in found)
        cases.append(case if own == case.halfspaces else replace(case, halfspaces=own, source=case.whole))
    return replace(specification, cases=tuple(cases))


def _minus(form: _Form) -> _Form:
    return tuple((i, -factor) for i, factor in form)


def _closed(halfspace: Halfspace, grid: Grid) -> _Closed:
    used: Mapping[int, Fraction] = {i: factor for i, factor in halfspace.coefficients.items() if factor}
    if not used or not all(_FINEST <= grid[i] < np.inf for i in used):
        return (), 0, halfspace
    units = {i: Fraction(2) ** int(grid[i]) for i in used}
    scale = Fraction(lcm(*((factor * units[i]).denominator for i, factor in used.items())))
    scale /= gcd(*(int(factor * units[i] * scale) for i, factor in used.items()))
    form = tuple((i, int(used[i] * units[i] * scale)) for i in sorted(used))
    limit = -halfspace.constant * scale
    most = ceil(limit) - 1 if halfspace.strict else floor(limit)
    return form, most, Halfspace({i: factor / units[i] for i, factor in form}, Fraction(-1 - 2 * most, 2))


def outputs(network: Network) -> Grid:
    """The grid of the flattened outputs, whatever the input is."""
    shape = network.nodes[0].shape
    grids: list[Grid] = [np.where(network.elements.whole(prod(shape)), 0.0, -np.inf).reshape(shape)]
    for i, node in enumerate(network.nodes[1:], start=1):
        given = [grids[j] for j in node.inputs]
        if isinstance(node.op, _JUMPS):
            grids.append(np.zeros(node.shape))
        elif isinstance(node.op, ReLU | Within):
            grids.append(given[0])
        elif isinstance(node.op, LeakyReLU):
            grids.append(np.minimum(given[0], given[0] + _exponent(node.op.negative_slope)))
        elif isinstance(node.op, Threshold):
            grids.append(np.minimum(given[0], _exponent(node.op.otherwise)))
        elif isinstance(node.op, Square):
            grids.append(2 * given[0])
        elif isinstance(node.op, Product | Max):
            grids.append(_multiplied(given[0]) if isinstance(node.op, Product) else given[0].min(-1))
        elif not isinstance(node.op, Linear) or not any((g > -np.inf).any() for g in given):
            grids.append(np.full(node.shape, -np.inf))
        elif moves(node):
            grids.append(_moved(node.op, given))
        else:
            grids.append(_combined(network, i, given))
    return grids[-1].flatten()


def _multiplied(grid: Grid) -> Grid:
    """Of products along the last axis; zero times anything is zero."""
    with np.errstate(invalid="ignore"):
        return np.where((grid == np.inf).any(-1), np.inf, grid.sum(-1))


def _moved(op: Linear, given: Sequence[Grid]) -> Grid:
    """Grids where entries go to; zeros are on any grid."""
    double = op.to(torch.float64, "cpu")
    assert isinstance(double, Linear)
    # numbers of entries, which come from all operands; none is zero
    numbers, every, start = list[torch.Tensor](), [np.array([np.inf])], 1
    for g in given:
        numbers.append(torch.arange(start, start + g.size, dtype=torch.float64).reshape(1, *g.shape))
        every.append(g.flatten())
        start += g.size
    places = double.linear(*numbers)[0].numpy().astype(np.int64)
    return np.concatenate(every)[places]


def _combined(network: Network, i: int, given: Sequence[Grid]) -> Grid:
    """The grid of an affine node: sums are on the coarsest that has all terms."""
    shape = network.nodes[i].shape
    try:
        *parts, (shift, exponent) = matrices(network, i)
    except TooLarge:
        return np.full(shape, -np.inf)
    grid = _grids(shift, exponent).min(1)
    for (part, exponent), g in zip(parts, given, strict=True):
        with np.errstate(invalid="ignore"):
            own = np.where(part == 0, np.inf, _grids(part, exponent) + g.flatten())
        grid = np.minimum(grid, own.min(1))
    return grid.reshape(shape)


def _grids(numbers: NDArray[np.object_], exponent: int) -> Grid:
    """The largest powers of two, by their exponents, that numbers times such a power are multiples of."""
    found = [_power_in(int(n)) + exponent for n in numbers.reshape(-1).tolist()]
    return np.array(found).reshape(numbers.shape)


def _power_in(number: int) -> float:
    return float((number & -number).bit_length() - 1) if number else np.inf


def _exponent(number: float) -> float:
    """The same of a float."""
    numerator, denominator = number.as_integer_ratio()
    return _power_in(numerator) - _power_in(denominator)
