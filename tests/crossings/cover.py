"""Few rows that have every pair of values of any two factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

Pair = tuple[tuple[str, str], tuple[str, str]]


def pairs_of(row: Mapping[str, str]) -> set[Pair]:
    """The pairs of values that a row has."""
    return set(combinations(sorted(row.items()), 2))


def every_pair(factors: Mapping[str, Sequence[str]]) -> set[Pair]:
    """All pairs of values of two factors."""
    found: set[Pair] = set()
    for one, other in combinations(sorted(factors), 2):
        found |= {((one, a), (other, b)) for a, b in product(factors[one], factors[other])}
    return found


def pairwise(factors: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Rows that have every pair: all values of the two largest factors with each other, and others as they are needed
    most. Always the same."""
    wanted = every_pair(factors)
    first, second = sorted(factors, key=lambda name: -len(factors[name]))[:2]
    rows = []
    for number, (a, b) in enumerate(product(factors[first], factors[second])):
        rows.append(_filled({first: a, second: b}, factors, wanted, number))
        wanted -= pairs_of(rows[-1])
    while wanted:
        rows.append(_filled(dict(min(wanted)), factors, wanted, len(rows)))
        wanted -= pairs_of(rows[-1])
    return rows


def _filled(
    row: dict[str, str], factors: Mapping[str, Sequence[str]], wanted: set[Pair], number: int
) -> dict[str, str]:
    """The row with a value of every factor, each chosen for the pairs still wanted, and otherwise in turns."""
    for name in (n for n in factors if n not in row):
        values = list(_turned(factors[name], number))
        row[name] = max(values, key=lambda v: len(pairs_of({**row, name: v}) & wanted))
    return row


def _turned(values: Sequence[str], number: int) -> Iterator[str]:
    return (values[(number + i) % len(values)] for i in range(len(values)))
