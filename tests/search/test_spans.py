"""Intervals of exact numbers contain what they say, and what they exclude no number satisfies."""

from __future__ import annotations

from fractions import Fraction
from math import prod
from random import Random

from krelax.problem.query import Halfspace
from krelax.search.spans import Span, impossible

NUMBERS = [Fraction(n, d) for n in range(-3, 4) for d in (1, 2)]
BETWEEN = sorted({(a + b) / 2 for a in NUMBERS for b in NUMBERS} | {Fraction(-5), Fraction(5)})


def span(random: Random) -> Span:
    """One with some number in it."""
    while True:
        ends = sorted(random.choices(NUMBERS, k=2))
        low, high = ((at, random.random() < 0.5) if random.random() < 0.8 else None for at in ends)
        if not (found := Span.of(low, high)).empty:
            return found


def inside(number: Fraction, span: Span) -> bool:
    return not Span.of((number, False), (number, False)).meet(span).empty


def within(span: Span) -> list[Fraction]:
    """Numbers in it."""
    return [x for x in BETWEEN if inside(x, span)]


def test_products_and_powers_lie_in_theirs() -> None:
    random = Random(1)
    for _ in range(1500):
        one, other, exponent = span(random), span(random), random.randrange(1, 5)
        x, y = (random.choice(within(s)) for s in (one, other))
        assert inside(x * y, one.times(other))
        assert inside(x**exponent, one.power(exponent))
        factor = random.choice([f for f in NUMBERS if f])
        assert inside(x * factor, one.scaled(factor))
        assert not inside(x, one) or not inside(x, other) or inside(x, one.meet(other))


def test_ends_are_as_open_as_can_be() -> None:
    positive, closed = Span.of((Fraction(0), True), None), Span.of((Fraction(0), False), (Fraction(2), False))
    assert positive.times(positive).low == (0, True)
    assert positive.times(closed).low == (0, False)
    assert positive.scaled(Fraction(-1)).high == (0, True)
    assert Span.of((Fraction(-2), True), (Fraction(2), False)).power(2) == Span.of(
        (Fraction(0), False), (Fraction(4), False)
    )


def test_nothing_is_excluded_that_there_is() -> None:
    """Random half-spaces of products of two variables, which some numbers satisfy by half, and others rarely."""
    random, excluded, satisfied = Random(2), 0, 0
    terms = [(0,), (1,), (0, 1), (0, 0), (1, 1)]
    for _ in range(800):
        known = {code: span(random) for code in (0, 1)}
        rows = [
            Halfspace(
                {i: random.choice(NUMBERS) for i in random.sample(range(5), 2)},
                random.choice(NUMBERS),
                random.random() < 0.5,
            )
            for _ in range(3)
        ]
        asked = {i: Span.of(None, None) for row in rows for i in row.coefficients}
        out = impossible(rows, terms, known, asked)
        excluded += out
        choices = {code: within(s) for code, s in known.items()}
        for _ in range(20):
            x = {code: random.choice(numbers) for code, numbers in choices.items()}
            values = {i: Fraction(prod(x[code] for code in term)) for i, term in enumerate(terms)}
            there = all(row.holds_exactly(values) for row in rows)
            satisfied += there
            assert not (out and there)
    assert excluded > 100
    assert satisfied > 100
