"""Products of entries of a vector, as nodes of a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from krelax.activations import Product, Square
from krelax.network.compose import reshape
from krelax.network.graph import Builder
from krelax.network.ops import Concat, Take

Factors = tuple[int, ...]


def monomials(builder: Builder, x: int, wanted: Sequence[Factors]) -> int:
    """The node with the products of entries of the vector `x` that are wanted, each at least one entry, in order."""
    known: dict[Factors, int] = {(i,): i for i in range(builder.shape(x)[0])}
    for degree in range(2, max(map(len, wanted)) + 1):
        new = sorted({m[:degree] for m in wanted if len(m) >= degree})
        if new:
            first = _take(builder, x, [known[m[:-1]] for m in new])
            second = _take(builder, x, [known[(m[-1],)] for m in new])
            known.update({m: len(known) + k for k, m in enumerate(new)})
            product = _products(builder, first, second, [degree == 2 and m[0] == m[1] for m in new])
            x = builder.add(Concat(0), x, product)
    return _take(builder, x, [known[m] for m in wanted])


def _products(builder: Builder, first: int, second: int, squares: Sequence[bool]) -> int:
    """Products of two vectors, entry by entry; of some entries it is known that both are the same."""
    same = [i for i, square in enumerate(squares) if square]
    other = [i for i, square in enumerate(squares) if not square]
    parts = []
    if same:
        parts.append(builder.add(Square(), _take(builder, first, same)))
    if other:
        pair = (reshape(builder, _take(builder, x, other), (len(other), 1)) for x in (first, second))
        parts.append(builder.add(Product(), builder.add(Concat(1), *pair)))
    both = builder.add(Concat(0), *parts) if len(parts) > 1 else parts[0]
    order = [*same, *other]
    return _take(builder, both, sorted(range(len(order)), key=order.__getitem__))


def _take(builder: Builder, x: int, index: Sequence[int]) -> int:
    """Entries of a vector; no node if that is all of them in order."""
    if list(index) == list(range(builder.shape(x)[0])):
        return x
    return builder.add(Take(torch.tensor(index)), x)
