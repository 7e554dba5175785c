"""Questions about inputs of element types that are not floating-point: whole numbers in a box, and truths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.problem.exact import Floats
from krelax.problem.query import Case, Specification
from krelax.search.rational import Settled
from krelax.search.verdict import Counterexample

Flags = NDArray[np.bool_]
# The lower and the upper end of every input, outward and inward.
Sides = tuple[Floats, Floats, Floats, Floats]
# Float64 has all whole numbers below, and those next to them.
_EXACT = 2.0**53
# So many cases are made of the values of whole inputs.
_MOST_LISTED = 256
# And where each of them is only run.
_MOST_RUN = 4096


def typed(network: Network, specification: Specification, check: Callable[[], None]) -> Settled:
    """The specification with boxes that end at whole numbers, and at the ends of their types, where inputs are such;
    with one value of these in each case, where there are few. Of a model of whole numbers those that it is run at are
    left out, or one of them is a counterexample.

    Sound: yes, the same inputs are unsafe. Counterexamples are judged by what is written.
    """
    count = prod(network.input_shape)
    whole = network.elements.whole(count)
    if not whole.any():
        return Settled(specification)
    limits, known = network.elements.ends(count), dict[tuple[int, ...], Sides | None]()
    cases = list[Case]()
    for case in specification.cases:
        sides = case.lower, case.upper, case.least, case.most
        key = tuple(map(id, sides))
        if key not in known:
            known[key] = _narrowed(sides, limits, whole)
        if (found := known[key]) is not None:
            exact = whole & (np.abs(found[0]) < _EXACT) & (np.abs(found[1]) < _EXACT)
            cases.append(replace(_with(case, found), integers=tuple(np.flatnonzero(exact).tolist())))
    if sum(map(_values, cases)) <= (_MOST_RUN if network.integral else _MOST_LISTED):
        cases = [one for case in cases for one in _each(case)]
    return _run(network, replace(specification, cases=tuple(cases)), check)


def _with(case: Case, sides: Sides) -> Case:
    lower, upper, least, most = sides
    return replace(case, lower=lower, upper=upper, least=least, most=most, source=case.whole)


def _narrowed(sides: Sides, limits: Sides, whole: Flags) -> Sides | None:
    """The sides of a box of which some inputs are whole numbers between limits: None if there are none.

    Where floats have all whole numbers, the first one that is not less than the first float inside is the first one.
    """
    lower, upper = np.maximum(sides[0], limits[0]), np.minimum(sides[1], limits[1])
    least, most = np.maximum(sides[2], limits[2]), np.minimum(sides[3], limits[3])
    first, last = np.ceil(least), np.floor(most)
    lower = np.where(whole & (np.abs(first) < _EXACT), first, lower)
    upper = np.where(whole & (np.abs(last) < _EXACT), last, upper)
    if bool((lower > upper).any()):
        return None
    return lower, upper, np.where(whole, first, least), np.where(whole, last, most)


def _values(case: Case) -> float:
    """How many values the whole inputs of a case have, of those whose values float64 all has."""
    places = list(case.integers)
    return float(np.prod(case.upper[places] - case.lower[places] + 1))


def _each(case: Case) -> Iterator[Case]:
    """The case with every value of these inputs."""
    places = [i for i in case.integers if case.lower[i] < case.upper[i]]
    if not places:
        yield case
        return
    for values in product(*(np.arange(case.lower[i], case.upper[i] + 1) for i in places)):
        lower, upper, least, most = (side.copy() for side in (case.lower, case.upper, case.least, case.most))
        for side in (lower, upper, least, most):
            side[places] = values
        yield _with(case, (lower, upper, least, most))


def _run(network: Network, specification: Specification, check: Callable[[], None]) -> Settled:
    """Of a model of whole numbers, which does not round, the specification without the cases about one input at which
    the model is not unsafe; and an input at which it is, if there is one. Nothing is said of an input at which float64
    does not have all outputs."""
    if not network.integral or network.replay is None:
        return Settled(specification)
    kept = list[Case]()
    for case in specification.cases:
        if len(case.integers) < len(case.lower) or bool((case.lower < case.upper).any()):
            kept.append(case)
            continue
        check()
        x = network.elements.nearest(case.lower).reshape(network.input_shape)
        try:
            y = network.replay(x)
        except InputError:  # such as an index beyond a table
            kept.append(case)
            continue
        if not np.isfinite(y).all():
            kept.append(case)
        elif specification.unsafe(case, x, y):
            return Settled(specification, Counterexample(x, y), True)
    return Settled(replace(specification, cases=tuple(kept)))
