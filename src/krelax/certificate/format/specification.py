"""Does a certificate answer a specification? Its questions are compared with the unsafe cases, exactly.

A system of networks is compared, too: which file each network is, what its inputs are, and what is said of them and of
values. Inputs may be one where a case says that they are equal, and only there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.errors import Rejected
from krelax.certificate.format.declared import Network, check_networks, same_values
from krelax.certificate.format.schema import Certificate, Question
from krelax.certificate.format.systems import Term, places_of, terms_of

Floats = NDArray[np.float64]
# Exact row and constant of a half-space, and the floats nearest to them.
Row = tuple[tuple[float, ...], float]


class Halfspace(Protocol):
    """The outputs with `sum coefficients[i] y[i] + constant <= 0`."""

    @property
    def coefficients(self) -> Mapping[int, Fraction]: ...
    @property
    def constant(self) -> Fraction: ...
    @property
    def strict(self) -> bool: ...


class Case(Protocol):
    """Inputs `lower <= x <= upper` whose outputs lie in every half-space are unsafe."""

    @property
    def lower(self) -> Floats: ...
    @property
    def upper(self) -> Floats: ...
    @property
    def halfspaces(self) -> Sequence[Halfspace]: ...


class Specification(Protocol):
    """What is declared, and the unsafe cases: about the outputs of one network, or else about `terms`, as a system has
    them."""

    @property
    def networks(self) -> Sequence[Network]: ...
    @property
    def terms(self) -> tuple[Term, ...] | None: ...
    @property
    def cases(self) -> Sequence[Case]: ...


def match(certificate: Certificate, asked: Specification) -> list[Floats]:
    """For every question, `(margins, outputs + 1)`: how far the exact coefficients and constants of the half-spaces can
    be from the question's rows and offsets.

    A case is answered by a question about its box, one of whose clauses consists of margins outside its half-spaces.
    Raises Rejected if there is none, and where a system is none of the networks that are declared. What the files call
    their tensors is not looked at.
    """
    system = certificate.system
    seen: Seen = _as_it_is
    if system is None and asked.terms is not None:
        raise Rejected("the specification is about several tensors or networks; the certificate is not")
    if system is not None:
        if asked.terms is None:
            raise Rejected("the certificate is about several tensors or networks; the specification is not")
        if tuple(terms_of(system)) != asked.terms:
            raise Rejected("outputs of the system are other products than those that the specification is about")
        check_networks(system, asked.networks)
        seen = _Joined(places_of(system).tolist(), same_values(system, asked.networks), asked.terms).seen
    errors = [np.zeros((q.rows.shape[0], q.rows.shape[1] + 1)) for q in certificate.questions]
    by_box: dict[tuple[bytes, bytes], list[int]] = {}
    for number, q in enumerate(certificate.questions):
        if q.region.kind == "box":
            by_box.setdefault(_box(q.region.lower, q.region.upper), []).append(number)
    for place, case in enumerate(asked.cases):
        box = seen(case, place)
        here = [] if box is None else by_box.get(_box(*box), [])
        if box is not None and not any(_answers(certificate.questions[n], case, errors[n]) for n in here):
            raise Rejected(f"the certificate does not speak of unsafe case {place} of the specification")
    return errors


# The box of a case, `(inputs,)`, as regions have it; None if nothing is in the case. The number of it is for messages.
Seen = Callable[[Case, int], tuple[Floats, Floats] | None]


def _as_it_is(case: Case, place: int) -> tuple[Floats, Floats]:
    return case.lower, case.upper


@dataclass(frozen=True)
class _Joined:
    """For every input of a system the input of the region that it is, for every value the first one that is the same,
    and the outputs."""

    places: list[int]
    values: list[int]
    terms: tuple[Term, ...]

    def seen(self, case: Case, place: int) -> tuple[Floats, Floats] | None:
        """As `Seen`. Raises Rejected where inputs are one, and the case does not say that they are equal."""
        if len(case.lower) != len(self.places):
            raise Rejected(f"the system has {len(self.places)} inputs, the specification {len(case.lower)}")
        equal, first = self._equal(case), dict[int, int]()
        for i, here in enumerate(self.places):
            if equal(i) != equal(first.setdefault(here, i)):
                raise Rejected(f"inputs {first[here]} and {i} are one, but need not be equal in unsafe case {place}")
        lower, upper = np.full(max(self.places) + 1, -np.inf), np.full(max(self.places) + 1, np.inf)
        np.maximum.at(lower, self.places, case.lower)
        np.minimum.at(upper, self.places, case.upper)
        return None if (lower > upper).any() or any(map(self._never, case.halfspaces)) else (lower, upper)

    def _equal(self, case: Case) -> Callable[[int], int]:
        """Names one of the inputs that an input equals, the same one for all of them: half-spaces say of two that
        neither is larger."""
        at_most, above = set[tuple[int, int]](), list(range(len(self.places)))

        def root(i: int) -> int:
            while above[i] != i:
                above[i] = i = above[above[i]]
            return i

        for halfspace in case.halfspaces:
            factors = _sums(halfspace, lambda i: self.terms[i])
            single = all(len(term) == 1 and term[0] % 2 == 0 for term in factors)
            if single and len(factors) == 2 and not sum(factors.values()) and halfspace.constant == 0:
                small, large = sorted(factors, key=lambda term: -factors[term])
                at_most.add((small[0] // 2, large[0] // 2))
        for one, other in at_most:
            if (other, one) in at_most:
                above[root(one)] = root(other)
        return root

    def _never(self, halfspace: Halfspace) -> bool:
        """Whether a half-space is about nothing, once what is the same is one, and does not hold."""
        constant = halfspace.constant
        return not _sums(halfspace, self._same) and not (constant < 0 if halfspace.strict else constant <= 0)

    def _same(self, output: int) -> Term:
        """An output with the same for all variables that are the same."""
        codes = self.terms[output]
        return tuple(sorted(2 * (self.values if c % 2 else self.places)[c // 2] + c % 2 for c in codes))


def _sums(halfspace: Halfspace, term: Callable[[int], Term]) -> dict[Term, Fraction]:
    """The factors of products that do not cancel."""
    sums: dict[Term, Fraction] = {}
    for i, factor in halfspace.coefficients.items():
        sums[term(i)] = sums.get(term(i), Fraction(0)) + factor
    return {name: factor for name, factor in sums.items() if factor}


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
