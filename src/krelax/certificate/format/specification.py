"""Does a certificate answer a specification? Its questions are compared with the unsafe cases, exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.errors import Rejected
from krelax.certificate.format.schema import Certificate, Question

Floats = NDArray[np.float64]
# Exact row and constant of a half-space, and the floats nearest to them.
Row = tuple[tuple[float, ...], float]


class Halfspace(Protocol):
    """The outputs with `sum coefficients[i] y[i] + constant <= 0`."""

    @property
    def coefficients(self) -> Mapping[int, Fraction]: ...
    @property
    def constant(self) -> Fraction: ...


class Case(Protocol):
    """Inputs `lower <= x <= upper` whose outputs lie in every half-space are unsafe."""

    @property
    def lower(self) -> Floats: ...
    @property
    def upper(self) -> Floats: ...
    @property
    def halfspaces(self) -> Sequence[Halfspace]: ...


def match(certificate: Certificate, cases: Sequence[Case]) -> list[Floats]:
    """For every question, `(margins, outputs + 1)`: how far the exact coefficients and constants of the half-spaces can
    be from the question's rows and offsets.

    A case is answered by a question about its box, one of whose clauses consists of margins outside its half-spaces.
    Raises Rejected if there is none.
    """
    errors = [np.zeros((q.rows.shape[0], q.rows.shape[1] + 1)) for q in certificate.questions]
    by_box: dict[tuple[bytes, bytes], list[int]] = {}
    for number, q in enumerate(certificate.questions):
        if q.region.kind == "box":
            by_box.setdefault(_box(q.region.lower, q.region.upper), []).append(number)
    for place, case in enumerate(cases):
        here = by_box.get(_box(case.lower, case.upper), [])
        if not any(_answers(certificate.questions[number], case, errors[number]) for number in here):
            raise Rejected(f"the certificate does not speak of unsafe case {place} of the specification")
    return errors


def _box(lower: Floats, upper: Floats) -> tuple[bytes, bytes]:
    """A box as a key; zeros have no sign."""
    return (lower + 0.0).tobytes(), (upper + 0.0).tobytes()


def _answers(question: Question, case: Case, errors: Floats) -> bool:
    """Whether a clause of the question excludes the case; enlarges the errors of the margins that are compared."""
    outputs = question.rows.shape[1]
    known = {_rounded(h, outputs): h for h in case.halfspaces if all(0 <= i < outputs for i in h.coefficients)}
    rows = zip(question.rows.tolist(), question.offsets.tolist(), strict=True)
    mine = [known.get((tuple(row), offset)) for row, offset in rows]
    for i, halfspace in enumerate(mine):
        if halfspace is not None:
            errors[i] = np.maximum(errors[i], _error(halfspace, outputs))
    outside = np.array([halfspace is not None for halfspace in mine])
    return any(outside[question.clause == n].all() for n in set(question.clause.tolist()))


def _rounded(halfspace: Halfspace, outputs: int) -> Row:
    row = tuple(_near(halfspace.coefficients.get(i, Fraction(0))) for i in range(outputs))
    return row, _near(halfspace.constant)


def _near(value: Fraction) -> float:
    """The float nearest to a number; infinite, which no row is, for numbers too large."""
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _error(halfspace: Halfspace, outputs: int) -> Floats:
    """Bounds of the rounding errors of a half-space's coefficients and constant, `(outputs + 1,)`."""
    exact = [*(halfspace.coefficients.get(i, Fraction(0)) for i in range(outputs)), halfspace.constant]
    return np.array([np.nextafter(float(d), np.inf) if (d := abs(v - Fraction(float(v)))) else 0.0 for v in exact])
