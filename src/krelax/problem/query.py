"""The question put to the verifier: input boxes and the outputs that would be unsafe on them.

A specification lists the ways in which a network can go wrong. Each way is a :class:`Case`: an input box together with
a conjunction of linear inequalities over the outputs. The property holds if and only if no input satisfies any case.
Inequalities are kept as exact fractions, and boxes with the float64 numbers that lie in them, so that a counterexample
can be judged without rounding; :attr:`Case.lower`, :attr:`Case.upper` and :meth:`Case.matrix` are for bound
computations. They close what is strict, and contain every point of the exact case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from krelax.errors import InputError

Shape = tuple[int, ...]
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
        if not np.isfinite(values).all():
            return False
        terms = (factor * Fraction(float(values[i])) for i, factor in self.coefficients.items())
        value = sum(terms, self.constant)
        return value < 0 if self.strict else value <= 0


@dataclass(frozen=True, eq=False, slots=True)
class Case:
    """One disjunct of the unsafe set: an input in a box whose output lies in every half-space.

    The box as it is written lies in ``lower <= x <= upper``, and the float64 numbers in it are those of
    ``least <= x <= most``, which may be none at all: float64 arrays of shape (n_in,). Without ``least`` and ``most``
    the box is ``lower <= x <= upper``. Cases may share their arrays, so treat them as read-only. Without half-spaces
    every input of the box is unsafe. Where the box has numbers, but none in float64, ``between`` names one of them, by
    the entry.
    """

    lower: Floats
    upper: Floats
    halfspaces: tuple[Halfspace, ...]
    least: Floats = field(default_factory=lambda: _SAME)
    most: Floats = field(default_factory=lambda: _SAME)
    between: Mapping[int, Fraction | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.least is _SAME:
            object.__setattr__(self, "least", self.lower)
        if self.most is _SAME:
            object.__setattr__(self, "most", self.upper)

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
        point = np.asarray(x, dtype=np.float64)
        inside = bool(np.all(np.isfinite(point) & (self.least <= point) & (point <= self.most)))
        return inside and all(halfspace.holds(y) for halfspace in self.halfspaces)


@dataclass(frozen=True, eq=False)
class Specification:
    """A property of a network with ``inputs`` inputs and ``outputs`` outputs, both flattened row-major.

    The property holds if and only if no case is satisfiable. Names and shapes are those that the specification
    declares; a shape is None where the format knows only numbered scalars. ``element`` is the type that the input is
    declared to have, ``float32`` or ``float64``, ``labels`` what the network's file is said to call its input and
    output, and ``network`` the network's name; they are None where nothing is said. ``warnings`` are sentences about
    what is well-formed but probably not meant.
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

    @property
    def compares(self) -> bool:
        """Whether nothing but the order of outputs matters."""
        return all(h.compares for case in self.cases for h in case.halfspaces)


def element_name(name: str, shape: Shape | None, index: int) -> str:
    """How a specification spells element ``index`` of a flattened tensor: ``X_7``, or ``X[0,7]``."""
    if shape is None:
        return f"{name}_{index}"
    subscript = ",".join(str(int(i)) for i in np.unravel_index(index, shape)) if shape else ""
    return f"{name}[{subscript}]" if shape else name


def fits(declared: Shape | None, own: Sequence[Any]) -> bool:
    """Whether a declared shape is that of a network's tensor, up to axes of size one, wherever they are.

    Axes of size one change no element's place in row-major order; anything else would be a reshape."""
    return declared is None or [n for n in declared if n != 1] == [n for n in own if n != 1]


def check_fit(specification: Specification, inputs: Sequence[int], outputs: Sequence[int], element: str) -> None:
    """Raises InputError for a specification of another network than one with an input and an output of these shapes,
    whose numbers are of type `element`."""
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
    if specification.element not in {None, element}:
        raise InputError(
            f"the specification declares {specification.input_name} as {specification.element}, the network takes "
            f"{element}; correct the declaration, or write Real"
        )
