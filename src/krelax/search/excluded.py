"""Unsafe cases that interval arithmetic excludes, or includes, exactly, strict comparisons included.

Bounds of margins are about the closure of an unsafe set, and are charged for rounding. So an output that is never below
zero, as behind a ReLU, cannot be shown to be safe from `y < 0` by any of them; nor can `0 < y` and `x y <= 0`, where x
is positive. Intervals can: the ends that interval arithmetic gives of outputs are float64 numbers, those of inputs are
as they are written, and what half-spaces say of them is decided with fractions (`krelax.search.spans`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.bounds.instance import Instance
from krelax.bounds.layers import advance, start
from krelax.network.graph import Network
from krelax.problem.query import Case, Halfspace, Monomial, Specification
from krelax.problem.region import Box
from krelax.search.spans import Span, impossible

Floats = NDArray[np.float64]


def without_excluded(network: Network, specification: Specification, check: Callable[[], None]) -> Specification:
    """The specification without the cases with a strict half-space, or with products, that intervals exclude.

    Sound: no input satisfies a case that is left out. `check` is called between cases, and may raise.
    """
    kept: list[Case] = []
    box, outputs = None, None
    terms = specification.terms or tuple((2 * i + 1,) for i in range(specification.outputs))
    curved = any(len(term) > 1 for term in terms)
    for case in specification.cases:
        if case.is_bounded and (curved or any(h.strict for h in case.halfspaces)):
            check()
            if box is None or outputs is None or case.lower is not box[0] or case.upper is not box[1]:
                box, outputs = (case.lower, case.upper), output_intervals(network, case.lower, case.upper)
            if _excluded(specification, case, terms, *outputs):
                continue
        kept.append(case)
    return replace(specification, cases=tuple(kept))


def _excluded(
    specification: Specification, case: Case, terms: Sequence[Monomial], lower: Floats, upper: Floats
) -> bool:
    """Whether half-spaces exclude all that is known of inputs and of the values of terms."""
    asked = {i for halfspace in case.halfspaces for i in halfspace.coefficients}
    products = {i: Span.closed(float(lower[i]), float(upper[i])) for i in asked}
    inputs = {code for i in asked for code in terms[i] if code % 2 == 0} if specification.terms is not None else set()
    known = {code: _input(case.whole, code // 2) for code in inputs}
    return impossible(case.halfspaces, terms, known, products)


def _input(case: Case, entry: int) -> Span:
    """The interval of an input as it is written."""
    if case.ends is not None:
        return Span.of(*case.ends(entry))
    return Span.closed(float(case.least[entry]), float(case.most[entry]))


def output_intervals(network: Network, lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
    """Lower and upper bounds of the flattened outputs over a box of flattened inputs, rigorous."""
    least, most = intervals(network, lower, upper)[-1]
    return least.flatten(), most.flatten()


def intervals(network: Network, lower: Floats, upper: Floats) -> list[tuple[Floats, Floats]]:
    """As `output_intervals`, of every node in its shape."""
    sides = (torch.from_numpy(np.array(side)).reshape(1, *network.input_shape) for side in (lower, upper))
    instance = Instance.of(network, Box(*sides), torch.float64)
    bounds = start(instance.region)
    for _ in instance.network.nodes[1:]:
        advance(instance.network, bounds)
    return [(low[0].numpy(), high[0].numpy()) for low, high in zip(bounds.lower, bounds.upper, strict=True)]


def includes(halfspace: Halfspace, lower: Floats, upper: Floats) -> bool:
    """Whether all outputs in a box lie in a half-space, as it is written."""
    ends = {i: float(upper[i] if factor > 0 else lower[i]) for i, factor in halfspace.coefficients.items()}
    if not np.isfinite(list(ends.values())).all():
        return False
    most = _value(halfspace, ends)
    return most < 0 or (not halfspace.strict and most == 0)


def _value(halfspace: Halfspace, y: Mapping[int, float]) -> Fraction:
    """What a half-space has on its left at outputs, exactly."""
    return sum((factor * Fraction(y[i]) for i, factor in halfspace.coefficients.items()), halfspace.constant)
