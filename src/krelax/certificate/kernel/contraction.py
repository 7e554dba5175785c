"""Sums of products of two nodes' entries, as a product of matrices makes them, crossed without laying the products out.

Where all rows share their lines, a product `z0 z1` with the coefficient c behind it pays `|c|` times the price of its
line, and gives `c` times the line's slopes to both operands. Over sums, that is a matrix of slopes for every set of
sums whose products take the same entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from krelax.certificate.kernel.activations import Ends, Product, Rule
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats, gamma
from krelax.certificate.kernel.bounds import OVERHEAD, LayerBounds
from krelax.certificate.kernel.linear import Dense, Index, Pick
from krelax.certificate.kernel.network import Activation, Affine, Network

# Networks whose contractions are remembered.
_REMEMBERED = 8


@dataclass(frozen=True, eq=False)
class Shared:
    """The slopes of lower and upper lines of an activation that all rows share, and its interval, `(1, entries)`."""

    lower: Floats
    upper: Floats
    ends: Ends


@dataclass(frozen=True, eq=False)
class Operand:
    """A node that products take entries of. The products of the sums `sums`, `(groups, members)`, take the same ones,
    which `picks` picks, group by group."""

    node: int
    sums: Index
    picks: Pick

    def adjoint(self, ar: Arithmetic, c: Array, slopes: Array) -> Array:
        """Coefficients of the node, from those of sums, `(rows, sums)`, and slopes of all products, `(sums, terms)`."""
        made = ar.product(_multiply, slopes[self.sums], c[:, self.sums], self.sums.shape[1])
        return self.picks.adjoint(ar, made.reshape(len(c), len(self.picks.index)))


def _multiply(slopes: Floats, c: Floats) -> Floats:
    """`(groups, members, terms)` and `(rows, groups, members)` to `(rows, groups, terms)`."""
    return np.asarray((c.swapaxes(0, 1) @ slopes).swapaxes(0, 1))


@dataclass(frozen=True, eq=False)
class Contraction:
    """Sums of so many `terms` each, of an activation that multiplies, whose pre-activation nothing else reads."""

    activation: int
    terms: int
    operands: tuple[Operand, Operand]


@dataclass(frozen=True, eq=False)
class Crossed:
    """Coefficients of both operands, `(rows, size)`, the price, and what rounding may have taken, `(rows,)`."""

    coeff: tuple[Array, Array]
    price: Array
    error: Array


@lru_cache(_REMEMBERED)
def contractions(network: Network, ar: Arithmetic) -> Mapping[int, Contraction]:
    """The contractions of a network with numbers of an arithmetic, by the nodes of their sums."""
    readers = np.zeros(len(network.nodes), np.int64)
    for node in network.nodes:
        np.add.at(readers, [] if node is None else list(node.inputs), 1)
    found = {}
    for i, node in enumerate(network.nodes):
        if isinstance(node, Affine) and (contraction := _contraction(network, ar, node, readers)):
            found[i] = contraction
    return found


def _contraction(network: Network, ar: Arithmetic, node: Affine, readers: Index) -> Contraction | None:
    if len(node.maps) != 1 or node.bias is not None or node.sizes or node.fuzz:
        return None
    (summed,), (product,) = node.maps, node.inputs
    if not isinstance(summed, Dense) or summed.images != node.size or summed.weight.shape[:3] != (1, 1, 1):
        return None
    multiplied = network.nodes[product]
    if not isinstance(multiplied, Activation) or not isinstance(multiplied.rule, Product) or readers[product] > 1:
        return None
    pairs = network.nodes[multiplied.inputs[0]]
    if readers[multiplied.inputs[0]] > 1 or not isinstance(pairs, Affine) or len(pairs.maps) != 2:
        return None
    if not (ar.floats(summed.weight) == 1).all():
        return None
    terms, operands = summed.terms, [_operand(pairs, k, summed.terms) for k in (0, 1)]
    first, second = operands
    number = network.activations.index(product)
    return None if first is None or second is None else Contraction(number, terms, (first, second))


def _operand(pairs: Affine, k: int, terms: int) -> Operand | None:
    """The operand at every second entry from the k-th, if sums come in sets of one size."""
    picks = pairs.maps[k]
    if not isinstance(picks, Pick) or (picks.index[k::2] < 0).any() or (picks.index[1 - k :: 2] >= 0).any():
        return None
    rows, inverse = np.unique(picks.index[k::2].reshape(-1, terms), axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    if len(set(np.bincount(inverse).tolist())) > 1:
        return None
    sums = np.argsort(inverse, kind="stable").reshape(len(rows), -1)
    return Operand(pairs.inputs[k], sums, Pick(rows.reshape(-1), picks.size))


def cross(bounds: LayerBounds, contraction: Contraction, node: int, c: Array, shared: Shared, count: int) -> Crossed:
    """Cross the products that node sums up, with coefficients c behind it, `(rows, sums)`, over one region.

    `count` is how many terms are charged for elsewhere. What the sums themselves round is not in the error.
    """
    ar, rule = bounds.ar, bounds.network.activation(contraction.activation).rule
    sums, size = c.shape[1], shared.ends[0].shape[1]
    coeff, price = [ar.number(np.zeros(())), ar.number(np.zeros(()))], ar.number(np.zeros(()))
    for sign, line in ((1.0, shared.lower), (-1.0, shared.upper)):
        slope, factor = ar.choice(line), ar.number(np.full((1, size), sign))
        part = ar.maximum(c * sign, ar.number(np.zeros(())))
        each = rule.price(ar, factor, slope * sign, shared.ends)
        if bounds.float32:
            each = each + ar.number(_executed(rule, shared.ends))
        price = price + ar.dot(part, each.reshape(sums, contraction.terms).sum(1).reshape(1, sums))
        for k, operand in enumerate(contraction.operands):
            slopes = slope[:, k::2].reshape(sums, contraction.terms) * sign
            coeff[k] = coeff[k] + operand.adjoint(ar, part, slopes)
    error = _error(bounds, contraction, node, c, shared, count)
    return Crossed((coeff[0], coeff[1]), price, error)


def _executed(rule: Rule, ends: Ends) -> Floats:
    error = rule.executed(ends)
    assert error is not None  # as of every product
    return error


def _error(bounds: LayerBounds, contraction: Contraction, node: int, c: Array, shared: Shared, count: int) -> Array:
    """What rounding may have taken: of the products of coefficients with slopes, of sums of them, and of prices. Terms
    are no larger than coefficients times the steepest slopes times operands, or times products."""
    ar, network = bounds.ar, bounds.network
    if not ar.unit:
        return ar.number(np.zeros(()))
    activation = network.activation(contraction.activation)
    largest = bounds.largest(activation.inputs[0])
    steepest = np.maximum(abs(shared.lower), abs(shared.upper)) * largest
    reach = steepest[:, 0::2] + steepest[:, 1::2] + activation.rule.reach(shared.ends)
    reach = reach.reshape(c.shape[1], contraction.terms).sum(1)
    terms = count + OVERHEAD + 2 * largest.shape[1]
    within = 1 + largest.sum() + reach.sum() + bounds.magnitude[node].sum()
    return gamma(terms, ar.unit) * ar.dot(abs(c), reach[None]) + ar.tiny * terms * within
