"""Counterexamples that no number of the model's type is.

A box may hold real numbers and none of the type that the model computes with: an input that is fixed to 0.1 has no
float32. The property is about real numbers all the same. Where a point of the box, exact as it is written, provably
breaks it, with outputs enclosed by interval arithmetic, and the model itself breaks it at the nearest numbers it has,
both together are a counterexample.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np

from krelax.elements import Elements
from krelax.network.graph import Network
from krelax.problem.exact import Floats, Numbers
from krelax.problem.query import Case, Specification
from krelax.search.excluded import includes, output_intervals
from krelax.search.verdict import Counterexample


def real_counterexample(
    network: Network, specification: Specification, cases: Sequence[Case], x: Floats
) -> Counterexample | None:
    """A point of the box that all of these cases have, near `x`, `(*input_shape)`, as a counterexample: None if it is
    not proven that the network, as a function of real numbers, is unsafe there, or the model is not unsafe nearby.

    Sound: the outputs of the exact point lie in intervals that do not leave the half-spaces as they are written.
    """
    if network.replay is None or not np.isfinite(x).all():
        return None
    point = _Point(cases[0], x.flatten(), network.elements)
    if point.misses_whole:
        return None
    outputs = output_intervals(network, point.lower, point.upper)
    y = network.replay(point.near.reshape(network.input_shape))
    for case in cases:
        proven = case.around is None and all(includes(halfspace, *outputs) for halfspace in case.halfspaces)
        if proven and specification.satisfies(case, point.near, y):
            return Counterexample(point.near.reshape(network.input_shape), y, point.exact(case))
    return None


class _Point:
    """A point of a case's box near `x`: it lies in `lower <= x <= upper`, and `near` has the nearest numbers of the
    model's type."""

    def __init__(self, case: Case, x: Floats, elements: Elements) -> None:
        exists, numbers = case.least <= case.most, Numbers.of(case.least, case.most, elements)
        self._typed = numbers.first <= numbers.last
        self._double = np.where(exists, np.clip(x, case.least, case.most), case.lower / 2 + case.upper / 2)
        np.clip(self._double, numbers.first, numbers.last, where=self._typed, out=self._double)
        self.near = elements.nearest(self._double)
        np.copyto(self._double, self.near, where=self._typed)
        self.lower, self.upper = (np.where(exists, self._double, side) for side in (case.lower, case.upper))
        self.misses_whole = bool((elements.whole(x.size) & ~self._typed).any())

    def exact(self, case: Case) -> dict[int, str]:
        """The entries that are no numbers of the model's type, as they are."""
        return {
            i: _text(case.between.get(i, Fraction(float(self._double[i]))))
            for i in np.flatnonzero(~self._typed).tolist()
        }


def _text(exact: Fraction | str) -> str:
    """An exact number as it is written, or as a decimal where it is one.

    All digits are there: the shortest decimal next to a float64 number need not lie in the box.
    """
    if isinstance(exact, str):
        return exact
    near = Decimal(float(exact))
    return str(near) if Fraction(near) == exact else str(exact)
