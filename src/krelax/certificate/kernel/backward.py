"""The backward pass, from which every bound comes but those of interval arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.arithmetic import Array, Floats, Rows, gamma
from krelax.certificate.kernel.bounds import OVERHEAD, LayerBounds
from krelax.certificate.kernel.contraction import Shared, contractions, cross
from krelax.certificate.kernel.network import Activation, Affine


@dataclass(frozen=True, eq=False)
class Relaxed:
    """An activation in its relaxed form: coefficients before it, the price `(rows,)`, and for the rounding error a
    bound of the sums of the absolute values of the terms that they are made of, and how many terms there are. `empty`,
    `(rows,)`, says where nothing is left of its intervals."""

    slopes: Array
    price: Array
    terms: Array
    count: int
    empty: NDArray[np.bool_] | None = None


class Relax(Protocol):
    """Relaxes activations, by their numbers."""

    def __call__(self, j: int, coeff: Array | None, /) -> Relaxed | None:
        """For coefficients behind it, None for none; None if there is nothing to do."""

    def shared(self, j: int, /) -> Shared | None:
        """Its lines and interval, if they are the same for all rows, and nothing else is chosen."""


@dataclass(frozen=True, eq=False)
class InputForms:
    """Linear forms of the inputs: coefficients `(rows, inputs)` and constants `(rows,)`. What they bound is `empty`,
    `(rows,)`, in some rows."""

    coeff: Array
    constant: Array
    empty: NDArray[np.bool_]

    def minimum(self, bounds: LayerBounds, which: Rows = slice(None)) -> Floats:
        """Lower bounds `(rows,)` over the region, or over those that `which` names; infinity where it is empty."""
        value = self.constant + bounds.region.minimise(bounds.ar, self.coeff, which)
        return np.where(self.empty, np.inf, bounds.ar.down(value))


def over_inputs(
    bounds: LayerBounds, node: int, form: Array, constant: Array, relax: Relax, which: Rows = slice(None)
) -> InputForms:
    """Forms `<form, node> + constant`, `(rows, size)` and `(rows,)`, bounded from below by linear forms of the inputs.

    `which` names the region of each row. Sound: over its region, where it is not empty, each form is at least its
    linear form, whatever `relax` chooses: what rounds on the way is subtracted from the constant.
    """
    return carried(bounds, {node: form}, constant, relax, which)


def carried(
    bounds: LayerBounds, coeff: dict[int, Array], constant: Array, relax: Relax, which: Rows = slice(None)
) -> InputForms:
    """The same for forms of several nodes, of which each row is the sum; `coeff` is used up."""
    ar, network = bounds.ar, bounds.network
    count = len(network.nodes) + OVERHEAD
    number_of = {i: j for j, i in enumerate(network.activations)}
    total, error, empty = constant, gamma(count, ar.unit) * abs(constant), np.zeros(len(constant), bool)
    for i in range(len(network.nodes) - 1, 0, -1):
        here, c = network.nodes[i], coeff.pop(i, None)
        contraction = None if c is None else contractions(network, ar).get(i)
        shared = relax.shared(contraction.activation) if contraction else None
        if contraction and shared is not None and isinstance(here, Affine):
            crossed = cross(bounds, contraction, i, c, shared, count)
            for operand, part in zip(contraction.operands, crossed.coeff, strict=True):
                _give(coeff, operand.node, part)
            total, error = total - crossed.price, error + crossed.error + _charge(bounds, i, here, c, count, which)
        elif isinstance(here, Activation):
            relaxed = relax(number_of[i], c)
            if relaxed is None:
                continue
            _give(coeff, here.inputs[0], relaxed.slopes)
            total = total - relaxed.price
            error = error + relaxed.terms * gamma(count + relaxed.count, ar.unit) + ar.tiny * relaxed.count
            empty = empty if relaxed.empty is None else empty | relaxed.empty
        elif isinstance(here, Affine) and c is not None:
            for j, m in zip(here.inputs, here.maps, strict=True):
                _give(coeff, j, m.adjoint(ar, c))
            if here.bias is not None:
                total = total + ar.dot(c, here.bias.reshape(1, here.size))
            error = error + _charge(bounds, i, here, c, count, which)
    return InputForms(coeff[0], total - error, empty)  # every node is made of others, and these of the input


def _give(coeff: dict[int, Array], node: int, part: Array) -> None:
    coeff[node] = coeff[node] + part if node in coeff else part


def _charge(bounds: LayerBounds, i: int, node: Affine, c: Array, count: int, which: Rows) -> Array:
    """What rounding at an affine node can have changed, `(rows,)`."""
    ar = bounds.ar
    terms = node.terms + node.adjoint_terms + count
    slack = bounds.slack(node, terms)
    if not slack:
        return ar.number(np.zeros(()))
    charge = slack * ar.dot(abs(c), ar.number(bounds.magnitude[i][which]))
    if ar.tiny:
        reach = sum((bounds.largest(j).sum(1) for j in node.inputs), bounds.magnitude[i].sum(1))
        charge = charge + terms * ar.tiny * (1 + reach[which])
    return charge
