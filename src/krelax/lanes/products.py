"""Sparse matrices times 16 columns at once: the one loop that is written down as machine vectors.

A register holds one number of each of 16 leaves, the *lanes*. A matrix lies in groups of four rows that share their
columns, so one load of 16 numbers serves four fused products. LLVM makes scalar code of the loop, 20 times slower,
because it cannot tell that arrays do not overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.hull.jit import has_wide_registers, intrinsic, kernel_with_fused_products, llvm_tools
from krelax.lanes.vectors import Code, Vector

# Rows of a group.
ROWS = 4

Reals = NDArray[np.float32] | NDArray[np.float64]


def _sum_rows(code: Code) -> None:
    """The code of `_group`.

    Where registers are many and wide, terms with odd and even numbers have sums of their own: a core can begin more
    fused operations than four while it waits for the first.
    """
    val, col, x, out, place, begin, end, first = code.given
    builder, chains = code.builder, 2 if has_wide_registers() else 1
    sums = [[code.begun(0.0) for _ in range(ROWS)] for _ in range(chains)]

    def add_term(t: Any, totals: list[Any]) -> None:
        v = code.load(x, code.whole(col, t))
        for i, total in enumerate(totals):
            w = code.shared(val, code.place(t, ROWS, i))
            builder.store(w.times_plus(v, Vector(code, builder.load(total))).value, total)

    rounds = builder.sdiv(builder.sub(end, begin), code.number(chains))
    middle = builder.add(begin, builder.mul(rounds, code.number(chains)))
    with code.loop(begin, middle, chains) as t:
        for n, totals in enumerate(sums):
            add_term(builder.add(t, code.number(n)), totals)
    with code.loop(middle, end, 1) as t:
        add_term(t, sums[0])
    for i in range(ROWS):
        total = Vector(code, builder.load(sums[0][i]))
        for totals in sums[1:]:
            total = total + Vector(code, builder.load(totals[i]))
        code.store(out, code.whole(place, builder.add(first, code.number(i))), total)


@intrinsic
def _group(
    typing: Any, val: Any, col: Any, x: Any, out: Any, place: Any, begin: Any, end: Any, first: Any
) -> Any:  # fmt: skip
    """`out[place[first + i]] = sum over t of val[ROWS t + i] x[col[t]]`, t from begin to end, with fused operations;
    rows of `x` and `out` are 16 numbers. One type for all reals."""
    _, _, types = llvm_tools()

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        _sum_rows(Code(context, builder, signature, given))
        return context.get_dummy_value()

    return types.void(val, col, x, out, place, *[types.intp] * 3), generate


@kernel_with_fused_products
def multiply(
    first: NDArray[np.int64],
    start: NDArray[np.int64],
    col: NDArray[np.int32],
    place: NDArray[np.int64],
    val: Reals,
    number: int,
    x: Reals,
    out: Reals,
) -> None:
    """`out = matrix x` for matrix `number` of several; `x` and `out` may be one array, if the rows that are written
    are none that are read. Groups that are not full write their last rows to the row behind all others."""
    for g in range(first[number], first[number + 1]):
        _group(val, col, x, out, place, start[g], start[g + 1], ROWS * g)
