"""What a certificate says when it is accepted: its questions in words, with every number that matters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.format.schema import Certificate, Question
from krelax.certificate.format.semantics import named

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
