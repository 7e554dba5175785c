"""What a certificate says when it is accepted: its questions in words, with every number that matters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.format.schema import Certificate, Question, System
from krelax.certificate.format.semantics import named
from krelax.certificate.format.systems import places_of, terms_of
from krelax.errors import one_line

Floats = NDArray[np.float64]

# Numbers of a list and clauses of a question that are shown unless all are asked for.
_MOST_NUMBERS, _MOST_CLAUSES = 1000, 100
_SEMANTICS = {
    "real": "the function of real numbers that the file's operators define",
    "float32": "every execution of the file in float32 that docs/certificates.md lists",
}
_UNITS = ", if it computes functions to within {} units in the last place of one or of their value"


def semantics(certificate: Certificate) -> str:
    """What the network is taken to be."""
    units = "" if certificate.units is None else _UNITS.format(certificate.units)
    name = named(certificate.semantics, certificate.units)
    return f"semantics {name}: {_SEMANTICS[certificate.semantics]}{units}"


def parts(system: System, shapes: Sequence[Sequence[tuple[int, ...]]], full: bool) -> Iterator[str]:
    """A system in lines: its networks, what their inputs are, and what its outputs are made of. `shapes` are those of
    the values of each network."""
    first, places = 0, places_of(system)
    for number, (part, own) in enumerate(zip(system.parts, shapes, strict=True)):
        yield one_line(f"network {number if part.name is None else part.name} {part.network}")
        for given in part.inputs:
            yield f"  of its input {one_line(repr(given.name))} the entries are {_numbered('x', given.places, full)}"
        for name, shape in zip(part.values, own, strict=True):
            values = np.arange(first, first + prod(shape))
            yield f"  {_numbered('v', values, full)} are the entries of its {one_line(repr(name))}"
            first += len(values)
    terms = terms_of(system)
    for number, term in enumerate(terms if full else terms[:_MOST_NUMBERS]):
        factors = [f"v[{code // 2}]" if code % 2 else f"x[{places[code // 2]}]" for code in term]
        yield f"  y[{number}] = {' '.join(factors)}"
    if not full and len(terms) > _MOST_NUMBERS:
        yield f"  ... {len(terms) - _MOST_NUMBERS} more outputs; --full shows them"


def _numbered(name: str, numbers: NDArray[np.signedinteger], full: bool) -> str:
    """Entries of a vector; several in a row by their ends."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    runs = [run for run in np.split(numbers, breaks) if len(run)]
    shown = runs if full else runs[:_MOST_NUMBERS]
    text = [f"{name}[{run[0]}]" + (f" to {name}[{run[-1]}]" if len(run) > 1 else "") for run in shown]
    return ", ".join([*text, *(["..., --full shows more"] if len(runs) > len(shown) else [])])


def is_vacuous(question: Question) -> bool:
    """Whether every clause holds whatever the network computes: then nothing is said of it."""
    free = ~question.rows.any(1) & (question.offsets > 0)
    return all(free[question.clause == n].any() for n in set(question.clause.tolist()))


def statement(question: Question, full: bool) -> Iterator[str]:
    """The question in lines: its region, and what holds all over it."""
    region = question.region
    where = "" if region.kind == "box" else f", and within a distance of {region.eps!r} of the centre ({region.kind})"
    yield f"every input x with lower <= x <= upper{where}:"
    for name, numbers in (("lower", region.lower), ("upper", region.upper), ("centre", region.centre)):
        if numbers is not None:
            yield f"  {name} {listed(numbers, full)}"
    yield f"has outputs y, {question.rows.shape[1]} of them, with"
    yield from (f"  {line}" for line in _property(question, full))
    if is_vacuous(question):
        yield "VACUOUS: this holds whatever the network computes, and says nothing of it"


def listed(numbers: Floats, full: bool) -> str:
    """Numbers as they are; `n*x` is x, n times."""
    shown = numbers if full else numbers[:_MOST_NUMBERS]
    starts = np.flatnonzero(np.append(True, shown[1:] != shown[:-1])) if len(shown) else np.zeros(0, int)
    counts = np.diff(np.append(starts, len(shown)))
    runs = [f"{n}*{x!r}" if n > 1 else repr(x) for n, x in zip(counts.tolist(), shown[starts].tolist(), strict=True)]
    if len(numbers) > len(shown):
        runs.append(f"... {len(numbers) - len(shown)} more; --full shows them")
    return " ".join(runs)


def _property(question: Question, full: bool) -> Iterator[str]:
    label = _label(question)
    if label is not None:
        yield f"y[{label}] > y[j] for every other j: the label is {label}"
        return
    clauses = int(question.clause.max()) + 1
    for n in range(clauses if full else min(clauses, _MOST_CLAUSES)):
        members = np.flatnonzero(question.clause == n)
        yield " or ".join(_margin(question.rows[i], float(question.offsets[i])) for i in members)
    if not full and clauses > _MOST_CLAUSES:
        yield f"... {clauses - _MOST_CLAUSES} more clauses; --full shows them"


def _margin(row: Floats, offset: float) -> str:
    terms: list[tuple[float, str]] = [(float(row[i]), f"y[{i}]") for i in np.flatnonzero(row)]
    text = ""
    for coefficient, name in terms:
        sign = ("-" if coefficient < 0 else "") if not text else (" - " if coefficient < 0 else " + ")
        text += f"{sign}{name if abs(coefficient) == 1 else f'{abs(coefficient)!r} {name}'}"
    if not text:
        return f"{offset!r} > 0, whatever y is"
    return f"{text}{_shift(offset)} > 0"


def _shift(offset: float) -> str:
    return "" if offset == 0 else f" {'-' if offset < 0 else '+'} {abs(offset)!r}"


def _label(question: Question) -> int | None:
    """The output that is larger than all others, if that is what the clauses say."""
    rows, outputs = question.rows, question.rows.shape[1]
    plain = not question.offsets.any() and len(set(question.clause.tolist())) == len(rows) == outputs - 1
    if not plain or not _each((rows == 1).sum(1), 1) or not _each((rows != 0).sum(1), 2) or not len(rows):
        return None
    labels, others = rows.argmax(1), rows.argmin(1)
    if not _each(rows[np.arange(len(rows)), others], -1) or len(set(labels.tolist())) > 1:
        return None
    return int(labels[0]) if len(set(others.tolist())) == outputs - 1 else None


def _each(values: NDArray[np.generic] | Sequence[float], wanted: float) -> bool:
    return bool((np.asarray(values) == wanted).all())
