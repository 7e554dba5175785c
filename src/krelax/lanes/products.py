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

# Leaves in a register, and rows of a group.
LANES, ROWS = 16, 4

Reals = NDArray[np.float32] | NDArray[np.float64]


@intrinsic
def _group(
    typing: Any, val: Any, col: Any, x: Any, out: Any, place: Any, begin: Any, end: Any, first: Any
) -> Any:  # fmt: skip
    """`out[place[first + i]] = sum over t of val[ROWS t + i] x[col[t]]`, t from begin to end, with fused operations;
    rows of `x` and `out` are 16 numbers. One type for all reals.

    Where registers are many and wide, terms with odd and even numbers have sums of their own: a core can begin more
    fused operations than four while it waits for the first.
    """
    tools: Any = llvm_tools()
    ir, cgutils, types = tools
    chains = 2 if has_wide_registers() else 1

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        arrays = zip(signature.args[:5], given[:5], strict=True)
        va, ca, xa, oa, pa = (context.make_array(t)(context, builder, array).data for t, array in arrays)
        (begin, end, first), whole, small = given[5:], given[5].type, ir.IntType(32)
        double = signature.args[0].dtype == types.float64
        vector = ir.VectorType(ir.DoubleType() if double else ir.FloatType(), LANES)
        align, bits = (8, 64) if double else (4, 32)
        signature_ = ir.FunctionType(vector, [vector] * 3)
        fused = cgutils.get_or_insert_function(builder.module, signature_, f"llvm.fma.v{LANES}f{bits}")
        zero, nothing = ir.Constant(vector, [0.0] * LANES), ir.Constant(vector, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(small, LANES), [0] * LANES)

        def row(base: Any, number: Any) -> Any:
            place = builder.mul(number, ir.Constant(whole, LANES))
            return builder.bitcast(builder.gep(base, [place]), vector.as_pointer())

        def number(n: int) -> Any:
            return ir.Constant(whole, n)

        def add_term(t: Any, totals: list[Any]) -> None:
            v = builder.load(row(xa, builder.sext(builder.load(builder.gep(ca, [t])), whole)))
            v.align = align
            for i, total in enumerate(totals):
                at = builder.add(builder.mul(t, number(ROWS)), number(i))
                w = builder.insert_element(nothing, builder.load(builder.gep(va, [at])), small(0))
                w = builder.shuffle_vector(w, nothing, everywhere)
                builder.store(builder.call(fused, [w, v, builder.load(total)]), total)

        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(ROWS)] for _ in range(chains)]
        for total in (t for totals in sums for t in totals):
            builder.store(zero, total)
        rounds = builder.sdiv(builder.sub(end, begin), number(chains))
        middle = builder.add(begin, builder.mul(rounds, number(chains)))
        with cgutils.for_range_slice(builder, begin, middle, number(chains), whole) as (t, _):
            for n, totals in enumerate(sums):
                add_term(builder.add(t, number(n)), totals)
        with cgutils.for_range_slice(builder, middle, end, number(1), whole) as (t, _):
            add_term(t, sums[0])
        for i in range(ROWS):
            total = builder.load(sums[0][i])
            for totals in sums[1:]:
                total = builder.fadd(total, builder.load(totals[i]))
            at = builder.load(builder.gep(pa, [builder.add(first, number(i))]))
            builder.store(total, row(oa, at)).align = align
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
