"""Outputs that are whole numbers, such as the number of the largest score, and conditions on them with a margin.

Bounds prove what is larger than zero. That a class is below 3 is, of whole numbers, that it is below two and a half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor, gcd, lcm

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.activations import Ceil, Floor, ReLU, Round, Sign, Step
from krelax.network.copies import moves
from krelax.network.graph import Network
from krelax.network.ops import Linear
from krelax.problem.query import Halfspace, Specification
from krelax.search.affine import TooLarge, matrices

Flags = NDArray[np.bool_]
# Whole factors of outputs without a common divisor, the most that their sum may be, and the half-space of both.
_Form = tuple[tuple[int, int], ...]
_Closed = tuple[_Form, int, Halfspace]
_JUMPS = (Ceil, Floor, Round, Sign, Step)


def closed(network: Network, specification: Specification) -> Specification:
    """The specification with half-spaces of whole numbers that end between two of them: `y < 3` is `y <= 5/2`.

    Sound: yes, the same outputs are unsafe. Counterexamples are judged by what is written.
    """
    if not any(isinstance(node.op, _JUMPS) for node in network.nodes):
        return specification
    whole = outputs(network)
    if not whole.any():
        return specification
    known: dict[int, _Closed] = {}
    cases = []
    for case in specification.cases:
        found = [known.setdefault(id(h), _closed(h, whole)) for h in case.halfspaces]
        most: dict[_Form, int] = {}
        for form, limit, _ in found:
            most[form] = min(limit, most.get(form, limit))
        if any(most[form] + most.get(_minus(form), -most[form]) < 0 for form in most if form):
            continue  # no whole number lies between
        own = tuple(halfspace for _, _, halfspace in found)
        cases.append(case if own == case.halfspaces else replace(case, halfspaces=own, source=case.whole))
    return replace(specification, cases=tuple(cases))


def _minus(form: _Form) -> _Form:
    return tuple((i, -factor) for i, factor in form)


def _closed(halfspace: Halfspace, whole: Flags) -> _Closed:
    used: Mapping[int, Fraction] = {i: factor for i, factor in halfspace.coefficients.items() if factor}
    if not used or not all(whole[i] for i in used):
        return (), 0, halfspace
    scale = Fraction(lcm(*(factor.denominator for factor in used.values())))
    scale /= gcd(*(int(factor * scale) for factor in used.values()))
    form = tuple((i, int(used[i] * scale)) for i in sorted(used))
    limit = -halfspace.constant * scale
    most = ceil(limit) - 1 if halfspace.strict else floor(limit)
    return form, most, Halfspace({i: Fraction(factor) for i, factor in form}, Fraction(-1 - 2 * most, 2))


def outputs(network: Network) -> Flags:
    """Which of the flattened outputs are whole numbers whatever the input is."""
    flags: list[Flags] = [np.zeros(network.nodes[0].shape, dtype=bool)]
    for i, node in enumerate(network.nodes[1:], start=1):
        given = [flags[j] for j in node.inputs]
        if isinstance(node.op, _JUMPS):
            flags.append(np.ones(node.shape, dtype=bool))
        elif isinstance(node.op, ReLU):
            flags.append(given[0])
        elif not any(flag.any() for flag in given) or not isinstance(node.op, Linear):
            flags.append(np.zeros(node.shape, dtype=bool))
        elif moves(node):
            moved = node.op.to(torch.float64, "cpu").linear(*(torch.from_numpy(f[None].astype(float)) for f in given))
            flags.append(moved[0].numpy() > 0)
        else:
            flags.append(_combined(network, i, given))
    return flags[-1].flatten()


def _combined(network: Network, i: int, given: Sequence[Flags]) -> Flags:
    """Which entries of an affine node are sums of whole multiples of whole numbers."""
    shape = network.nodes[i].shape
    try:
        *parts, (shift, exponent) = matrices(network, i)
    except TooLarge:
        return np.zeros(shape, dtype=bool)
    fine = _is_whole(shift, exponent).all(1)
    for (part, exponent), flag in zip(parts, given, strict=True):
        fine &= ((part == 0) | (_is_whole(part, exponent) & flag.flatten())).all(1)
    return fine.reshape(shape)


def _is_whole(numbers: NDArray[np.object_], exponent: int) -> Flags:
    """Which of the numbers, times a power of two, are whole."""
    if exponent >= 0:
        return np.ones(numbers.shape, dtype=bool)
    return np.asarray(numbers % (1 << -exponent) == 0, dtype=bool)
