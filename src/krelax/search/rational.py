"""What exact numbers settle of a specification, and the counterexamples that they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

import numpy as np

from krelax.network.graph import Network
from krelax.problem.query import Case, Specification
from krelax.search.affine import TooLarge
from krelax.search.exactly import Cells
from krelax.search.polynomial import Factors, Polynomials
from krelax.search.replay import replay
from krelax.search.simplex import Purse
from krelax.search.verdict import Counterexample

# How far the model may be off what it computes in exact numbers, in units of the last place of the largest term.
_ROUNDED = 1000


@dataclass(frozen=True, eq=False)
class Settled:
    """The specification without the cases that are impossible, and a counterexample, if there is one.

    It is `certain` if the original model, run on it, breaks the property; otherwise only the function of real numbers
    does, at a point that is no number of the model's type or where the model's own arithmetic rounds.
    """

    specification: Specification
    found: Counterexample | None = None
    certain: bool = False


def settled(
    network: Network, specification: Specification, work: int, check: Callable[[], None], factors: Factors | None = None
) -> Settled:
    """Decide cases of a small network exactly, as long as the work granted lasts. `factors` are those of the products
    that the network ends with.

    Sound: yes. What is left out is impossible for the function of real numbers that the network is.
    """
    kept, candidate = list[Case](), None
    try:
        cells = Cells(network, Purse(work), check) if factors is None else Polynomials(factors, Purse(work), check)
    except TooLarge:
        return Settled(specification)
    for case in specification.cases:
        check()
        exact = cells.decide(specification, case)
        if exact is None:
            kept.append(case)
        elif exact.points:
            kept.append(case)
            for point in exact.points:
                found, certain = _counterexample(network, specification, case, point)
                if certain:
                    return Settled(specification, found, certain)
                if case.around is None or factors is not None:  # others do not know of balls
                    candidate = candidate or found
    real = all(v.element is None for n in specification.networks for v in n.variables)
    return Settled(replace(specification, cases=tuple(kept)), candidate if real else None)


def _counterexample(
    network: Network, specification: Specification, case: Case, point: Sequence[Fraction]
) -> tuple[Counterexample | None, bool]:
    """The point as a counterexample, and whether the original model confirms it."""
    if network.replay is None:
        return None, False
    near = network.elements.nearest(np.array([float(v) for v in point])).reshape(network.input_shape)
    found = replay(network, near, lambda x, y: specification.unsafe(case, x, y))
    if found is not None:
        return found, True
    off = {i: text(v) for i, v in enumerate(point) if Fraction(float(near.flat[i])) != v}
    if not np.isfinite(near).all() or network.elements.whole(near.size)[list(off)].any():
        return None, False
    y = network.replay(near)
    close = specification.nearly_satisfies(case, near, y, _ROUNDED * network.elements.precision)
    return (Counterexample(near, y, off) if close else None), False


def text(exact: Fraction) -> str:
    """An exact number as a decimal where it is one, and else as a fraction."""
    twos, fives, rest = 0, 0, exact.denominator
    while rest % 2 == 0:
        twos, rest = twos + 1, rest // 2
    while rest % 5 == 0:
        fives, rest = fives + 1, rest // 5
    if rest != 1:
        return str(exact)
    places = max(twos, fives)
    return str(Decimal(exact.numerator * 10**places // exact.denominator).scaleb(-places)) if places else str(exact)
