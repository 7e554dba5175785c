"""The question put to the verifier: input boxes and the outputs that would be unsafe on them.

A specification lists the ways in which a network can go wrong. Each way is a :class:`Case`: an input box together with
a conjunction of linear inequalities over the outputs. The property holds if and only if no input satisfies any case.
Inequalities are kept as exact fractions, and boxes with the float64 numbers that lie in them, so that a counterexample
can be judged without rounding; :attr:`Case.lower`, :attr:`Case.upper` and :meth:`Case.matrix` are for bound
computations. They close what is strict, and contain every point of the exact case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from krelax.errors import InputError
from krelax.problem.exact import End, Ends
from krelax.problem.interface import Declared, Kind, Shape, fits

# Variables that are multiplied, by their codes in increasing order: 2i for input i, 2j + 1 for value j of a network.
Monomial = tuple[int, ...]
# Factors of variables, a constant, and whether the sum is less than zero, or at most.
Inequality = tuple[dict[int, Fraction], Fraction, bool]
Floats = NDArray[np.float64]

# Stands for the outer side of a box where its inner one is not given.
_SAME: Floats = np.empty(0)


@dataclass(frozen=True)
class Halfspace:
    """The outputs y with ``sum_i coefficients[i] * y[i] + constant <= 0``, in exact arithmetic; ``< 0`` if strict."""

    coefficients: Mapping[int, Fraction]
    constant: Fraction
    strict: bool = False

    @property
    def compares(self) -> bool:
        """Whether it says nothing but which of two outputs is larger."""
        factors = list(self.coefficients.values())
        if not any(factors):
            return True  # which is nothing about outputs at all
        return self.constant == 0 and len(factors) == 2 and factors[0] == -factors[1] != 0

    def holds(self, y: Sequence[float] | NDArray[np.floating]) -> bool:
        """Whether ``y``, shape (n_out,), lies in the half-space, decided without rounding.

        A ``y`` with a NaN or an infinity anywhere is never inside: it is no evidence of anything.
        """
        values = np.asarray(y, dtype=np.float64)
        return bool(np.isfinite(values).all()) and self.holds_exactly({i: _exact(values[i]) for i in self.coefficients})

    def holds_exactly(self, values: Mapping[int, Fraction]) -> bool:
        """As `holds`, for exact values of those outputs that have a coefficient."""
        value = sum((factor * values[i] for i, factor in self.coefficients.items()), self.constant)
        return value < 0 if self.strict else value <= 0


def _exact(number: np.floating[Any]) -> Fraction:
    return Fraction(float(number))


def _closed(end: np.floating[Any]) -> End | None:
    return (_exact(end), False) if np.isfinite(end) else None


@dataclass(frozen=True, eq=False, slots=True)
class Case:
    """One disjunct of the unsafe set: an input in a box whose output lies in every half-space.

    Every unsafe input lies in ``lower <= x <= upper``, and the float64 numbers in it are those of
    ``least <= x <= most``, which may be none at all: float64 arrays of shape (n_in,). Without ``least`` and ``most``
    the box is ``lower <= x <= upper``. Cases may share their arrays, so treat them as read-only. Without half-spaces
    every input of the box is unsafe. Where the box has numbers, but none in float64, ``between`` names one of them, by
    the entry. ``equal`` has for every input the first one that it equals, where some are equal; ``source`` is the case
    that this one was derived from, as it is written: by leaving out the others, or by what whole numbers cannot be.
    ``ends`` are the bounds of the box as they are written.
    Of the inputs ``integers``, which are whole numbers, ``lower`` and ``upper`` are the first and the last one.
    ``lower`` and ``upper`` leave out what half-spaces of the inputs exclude anyway. All inputs lie in the ball
    ``around`` a point, in the Euclidean norm, if that is given, as its centre, `(n_in,)`, and its radius.
    """

    lower: Floats
    upper: Floats
    halfspaces: tuple[Halfspace, ...]
    least: Floats = field(default_factory=lambda: _SAME)
    most: Floats = field(default_factory=lambda: _SAME)
    between: Mapping[int, Fraction | str] = field(default_factory=dict)
    equal: tuple[int, ...] | None = None
    source: Case | None = None
    ends: Ends | None = None
    around: tuple[Floats, float] | None = None
    integers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.least is _SAME:
            object.__setattr__(self, "least", self.lower)
        if self.most is _SAME:
            object.__setattr__(self, "most", self.upper)

    @property
    def whole(self) -> Case:
        """The case about all inputs."""
        return self if self.source is None else self.source

    @property
    def is_bounded(self) -> bool:
        """Whether every input has a bound on both sides."""
        return bool(np.isfinite(self.lower).all() and np.isfinite(self.upper).all())

    def matrix(self, n_out: int) -> tuple[Floats, Floats]:
        """Rows (m, n_out) and offsets (m,) such that y is unsafe only where ``rows @ y + offsets <= 0``.

        Every entry is the float64 nearest to the exact one, so a rigorous bound has to allow for a relative error of
        2**-53 in each entry; :attr:`halfspaces` has the exact values, and says what is strict.
        """
        rows = np.zeros((len(self.halfspaces), n_out))
        offsets = np.zeros(len(self.halfspaces))
        for row, halfspace in enumerate(self.halfspaces):
            offsets[row] = float(halfspace.constant)
            for column, factor in halfspace.coefficients.items():
                rows[row, column] = float(factor)
        return rows, offsets

    def contains(self, x: ArrayLike, y: Sequence[float] | NDArray[np.floating]) -> bool:
        """Whether input ``x`` (n_in,) lies in the box and its output ``y`` (n_out,) in every half-space, as written.

        Exact: float64 holds every float32, and comparing with ``least`` and ``most`` decides about every float64.
        """
        return self.surrounds(x) and all(halfspace.holds(y) for halfspace in self.halfspaces)

    def surrounds(self, x: ArrayLike) -> bool:
        """Whether input ``x`` (n_in,) lies in the box, decided exactly."""
        point = np.asarray(x, dtype=np.float64)
        return bool(np.all(np.isfinite(point) & (self.least <= point) & (point <= self.most)))


@dataclass(frozen=True, eq=False)
class Specification:
    """A property of a network with ``inputs`` inputs and ``outputs`` outputs, both flattened row-major.

    The property holds if and only if no case is satisfiable. Names and shapes are those that the specification
    declares; a shape is None where the format knows only numbered scalars. ``element`` is the type that the input is
    declared to have, ``float32`` or ``float64``, ``labels`` what the network's file is said to call its input and
    output, and ``network`` the network's name; they are None where nothing is said. ``warnings`` are sentences about
    what is well-formed but probably not meant.

    Where several networks, several of their tensors, or their inputs are related, half-spaces are about ``terms``
    instead of the outputs of one network, and ``outputs`` counts these. ``networks`` says what all variables are. The
    inputs are those of all networks, or one for each that are equal, if ``places`` has the number among them of every
    input that is declared.
    """

    inputs: int
    outputs: int
    cases: tuple[Case, ...]
    input_name: str = "X"
    output_name: str = "Y"
    input_shape: Shape | None = None
    output_shape: Shape | None = None
    network: str | None = None
    element: str | None = None
    labels: tuple[str | None, str | None] = (None, None)
    warnings: tuple[str, ...] = ()
    networks: tuple[Declared, ...] = ()
    terms: tuple[Monomial, ...] | None = None
    places: tuple[int, ...] | None = None

    @property
    def compares(self) -> bool:
        """Whether nothing but the order of outputs matters."""
        return all(h.compares for case in self.cases for h in case.halfspaces)

    def unsafe(self, case: Case, x: NDArray[Any], y: NDArray[Any]) -> bool:
        """Whether inputs ``x`` and the outputs, or values, ``y`` that networks answered lie in a case, as written."""
        return case.whole.surrounds(self.given(x)) and self.satisfies(case, x, y)

    def nearly_satisfies(self, case: Case, x: NDArray[Any], y: NDArray[Any], share: float) -> bool:
        """As `satisfies`, where sides may differ by a share of the largest term of a half-space."""
        given, values = self.given(x), y.flatten()
        if not np.isfinite(values).all():
            return False
        terms = self.terms or tuple((2 * i + 1,) for i in range(len(values)))
        for halfspace in case.whole.halfspaces:
            parts = [factor * self._value(terms[i], given, values) for i, factor in halfspace.coefficients.items()]
            parts.append(halfspace.constant)
            if float(sum(parts)) > share * float(max(map(abs, parts))):
                return False
        return True

    def satisfies(self, case: Case, x: NDArray[Any], y: NDArray[Any]) -> bool:
        """Whether they lie in its half-spaces, wherever ``x`` lies."""
        values = y.flatten()
        if self.terms is None:
            return all(halfspace.holds(values) for halfspace in case.whole.halfspaces)
        if not np.isfinite(values).all():
            return False
        given = self.given(x)
        needed = {i for halfspace in case.whole.halfspaces for i in halfspace.coefficients}
        exact = {i: self._value(self.terms[i], given, values) for i in needed}
        return all(halfspace.holds_exactly(exact) for halfspace in case.whole.halfspaces)

    def given(self, x: NDArray[Any]) -> NDArray[Any]:
        """All inputs that are declared, of which ``x`` has one for each of those that are equal."""
        return x.flatten() if self.places is None else x.flatten()[list(self.places)]

    def box_of(self, case: Case) -> Iterator[Inequality]:
        """The bounds of a case's inputs as they are written: `sum factors[i] x[i] + constant <= 0`, or `< 0`; and those
        of its integers."""
        whole = case.whole
        for place in case.integers:
            yield {place: Fraction(-1)}, _exact(case.lower[place]), False
            yield {place: Fraction(1)}, -_exact(case.upper[place]), False
        for entry in range(len(whole.lower)):
            place = entry if self.places is None else self.places[entry]
            if whole.ends is not None:
                low, high = whole.ends(entry)
            else:
                low, high = (
                    (_exact(s[entry]), False) if np.isfinite(s[entry]) else None for s in (whole.least, whole.most)
                )
            if low is not None:
                yield {place: Fraction(-1)}, low[0], low[1]
            if high is not None:
                yield {place: Fraction(1)}, -high[0], high[1]

    def unbounded(self, case: Case) -> str:
        """What is wrong with a case some input of which has no bound."""
        whole = case.whole
        index = int((np.isinf(whole.lower) | np.isinf(whole.upper)).argmax())
        side = "lower" if np.isinf(whole.lower[index]) else "upper"
        inputs = [v for network in self.networks for v in network.of(Kind.INPUT) if v.start <= index]
        name = inputs[-1].element_name(index - inputs[-1].start) if inputs else f"input {index}"
        return f"{name} has no {side} bound; bound every input on both sides"

    def _value(self, monomial: Monomial, x: NDArray[Any], y: NDArray[Any]) -> Fraction:
        value = Fraction(1)
        for code in monomial:
            value *= _exact((y if code % 2 else x)[code // 2])
        return value


def check_fit(
    specification: Specification, inputs: Sequence[int], outputs: Sequence[int], elements: tuple[str, str]
) -> None:
    """Raises InputError for a specification of another network than one with an input and an output of these shapes and
    element types; that of the output may be empty, if nobody says."""
    counts = int(np.prod(inputs)), int(np.prod(outputs))
    if (specification.inputs, specification.outputs) != counts:
        raise InputError(
            f"the specification is about {specification.inputs} inputs and {specification.outputs} outputs, "
            f"the network has {counts[0]} and {counts[1]}"
        )
    for name, declared, own in (
        (specification.input_name, specification.input_shape, inputs),
        (specification.output_name, specification.output_shape, outputs),
    ):
        if not fits(declared, own):
            raise InputError(
                f"the specification declares {name} of shape {list(declared or ())}, the network has {list(own)}; "
                "correct the declaration (axes of size one may differ)"
            )
    results = [v.element for network in specification.networks for v in network.of(Kind.OUTPUT)]
    for name, kind, element, does in (
        (specification.input_name, specification.element, elements[0], "takes"),
        (specification.output_name, results[0] if results else None, elements[1], "gives"),
    ):
        if element and kind not in {None, element}:
            raise InputError(
                f"the specification declares {name} as {kind}, the network {does} {element}; "
                "correct the declaration, or write Real"
            )


def merged(case: Case) -> tuple[Case, list[int]] | None:
    """The case about one of every few inputs that are equal, and the number of it for each input: None if they differ
    after all."""
    equal = list(range(len(case.lower))) if case.equal is None else list(case.equal)
    kept = sorted(set(equal))
    number = {first: k for k, first in enumerate(kept)}
    places = [number[first] for first in equal]
    if case.equal is None:
        return replace(case, source=case), places
    lower, least = (np.full(len(kept), -np.inf) for _ in range(2))
    upper, most = (np.full(len(kept), np.inf) for _ in range(2))
    for ends, sides, tighten in (
        (lower, case.lower, np.maximum), (least, case.least, np.maximum),
        (upper, case.upper, np.minimum), (most, case.most, np.minimum),
    ):  # fmt: skip
        tighten.at(ends, places, sides)
    if bool((lower > upper).any()):
        return None
    between = {places[i]: exact for i, exact in case.between.items()}
    return Case(lower, upper, case.halfspaces, least, most, between, None, case), places
