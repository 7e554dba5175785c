"""Unsafe cases that interval arithmetic excludes, or includes, exactly, strict comparisons included.

Bounds of margins are about the closure of an unsafe set, and are charged for rounding. So an output that is never below
zero, as behind a ReLU, cannot be shown to be safe from `y < 0` by any of them. Its interval can: the ends that interval
arithmetic gives are float64 numbers, and what a half-space says of a box of outputs is decided with fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.bounds.instance import Instance
from krelax.bounds.layers import advance, start
from krelax.network.graph import Network
from krelax.problem.query import Case, Halfspace, Specification
from krelax.problem.region import Box

Floats = NDArray[np.float64]


def without_excluded(network: Network, specification: Specification, check: Callable[[], None]) -> Specification:
    """The specification without the cases with a strict half-space that intervals of the outputs exclude.

    Sound: no input satisfies a case that is left out. `check` is called between cases, and may raise.
    """
    kept: list[Case] = []
    box, outputs = None, None
    for case in specification.cases:
        if case.is_bounded and any(h.strict for h in case.halfspaces):
            check()
            if box is None or outputs is None or case.lower is not box[0] or case.upper is not box[1]:
                box, outputs = (case.lower, case.upper), output_intervals(network, case.lower, case.upper)
            if any(_excludes(halfspace, *outputs) for halfspace in case.halfspaces):
                continue
        kept.append(case)
    return replace(specification, cases=tuple(kept))


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


def _excludes(halfspace: Halfspace, lower: Floats, upper: Floats) -> bool:
    """Whether no output in a box lies in a half-space."""
    ends = {i: float(lower[i] if factor > 0 else upper[i]) for i, factor in halfspace.coefficients.items()}
    if not np.isfinite(list(ends.values())).all():
        return False
    least = _value(halfspace, ends)
    return least > 0 or (halfspace.strict and least == 0)


def _value(halfspace: Halfspace, y: Mapping[int, float]) -> Fraction:
    """What a half-space has on its left at outputs, exactly."""
    return sum((factor * Fraction(y[i]) for i, factor in halfspace.coefficients.items()), halfspace.constant)
