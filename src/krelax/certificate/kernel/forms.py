"""Bounds of pre-activations in many boxes at a time, by the rule "parallel": affine forms, pushed forward.

Every entry of a node is `centre + sum_s symbols[s] e_s` up to `error`, with all e_s between -1 and 1: one for each
input that varies, and one for each neuron whose lines leave a gap (zonotopes, Singh et al. 2018). Symbols are packed
box by box: a number stands for one neuron in one box, and for another one in the next. Backward passes by the same rule
say as much, but there is one for each entry, and far fewer symbols.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.kernel.activations import Ends
from krelax.certificate.kernel.arithmetic import Arithmetic, Array, Floats, gamma
from krelax.certificate.kernel.bounds import OVERHEAD, LayerBounds
from krelax.certificate.kernel.linear import Index, Map, Pick
from krelax.certificate.kernel.network import Activation, Affine
from krelax.certificate.kernel.quadratic import MOST, Beyond, lowest

Mask = NDArray[np.bool_]

# Numbers of the symbols of one node, at most; exact ones take so many times the memory. The smallest gaps for which
# there are no more symbols are errors.
_MOST_NUMBERS, _EXACT = 1 << 26, 8
# So are gaps so small relative to the largest intercepts of an activation's lines: they are little more than rounding.
_NARROW = 2.0**-40


@dataclass(frozen=True, eq=False)
class Forms:
    """Forms of a node's entries in some boxes: `centre` and `error`, `(boxes, size)`, and `symbols`, `(symbols, boxes,
    size)`. Sound: whatever rounds is part of the error."""

    centre: Array
    symbols: Array
    error: Array

    @classmethod
    def of(cls, bounds: LayerBounds, free: int | None) -> Forms:
        """The inputs of boxes; all but the first `free` ones are errors, if that is given."""
        ar, lower, upper = bounds.ar, bounds.lower[0], bounds.upper[0]
        varied = lower < upper
        centre = np.where(varied, lower / 2 + upper / 2, lower)
        radius = np.where(varied, np.nextafter(np.maximum(upper - centre, centre - lower), np.inf), 0.0)
        places = np.flatnonzero(varied[:, :free].any(0))
        every = np.broadcast_to(places, (len(lower), len(places)))
        error = radius.copy()
        error[:, places] = 0
        none = ar.number(np.zeros((0, *radius.shape)))
        symbols = _apart(ar, none, 0, ar.number(radius), every, varied[:, places])
        return cls(ar.number(centre), symbols, ar.number(error))

    @cached_property
    def spread(self) -> Array:
        """The sums of the absolute symbols of each entry."""
        return abs(self.symbols).sum(0)

    def largest(self) -> Array:
        """The sums of the absolute terms of each entry."""
        return abs(self.centre) + self.spread + self.error

    def interval(self, ar: Arithmetic) -> Ends:
        """What the forms say of each entry; infinite where that is nothing."""
        spread = self.spread + self.error
        if ar.unit:
            spread = spread + gamma(len(self.symbols) + OVERHEAD, ar.unit) * self.largest()
        return ar.down(self.centre - spread), -ar.down(-(self.centre + spread))


class PushedForms:
    """The forms of the nodes of a network over boxes, node by node; of those that are still to be read. Symbols are
    numbered through all nodes, box by box. Only the first `free` inputs have any, if that is given."""

    def __init__(self, bounds: LayerBounds, free: int | None = None) -> None:
        inputs = Forms.of(bounds, free)
        self._known: dict[int, Forms] | None = {0: inputs}
        self._inputs = self._count = len(inputs.symbols)
        self._products: list[Beyond] = []
        nodes = bounds.network.nodes
        self._last = {j: i for i, node in enumerate(nodes) if node is not None for j in node.inputs}
        self._last[len(nodes) - 1] = len(nodes)
        largest = max(bounds.network.size(i) for i in range(len(nodes)))
        most = _MOST_NUMBERS // (1 if bounds.ar.unit else _EXACT)
        self._most = most // (max(1, len(bounds.lower[0])) * largest)
        if self._inputs > self._most:
            self._known = None

    @property
    def count(self) -> int:
        """How many symbols there are so far."""
        return self._count

    def interval(self, ar: Arithmetic, node: int) -> Ends | None:
        """What is known of the entries of a node; None if forms would take too much memory."""
        return None if self._known is None else self._known[node].interval(ar)

    def lowest(self, ar: Arithmetic, rows: Floats, offsets: Floats, boxes: Index) -> Floats:
        """Lower bounds of forms of the last node, each over one of the boxes; minus infinity where nothing is known."""
        form = self._behind(ar, rows, offsets, boxes)
        if form is None:
            return np.full(len(rows), -np.inf)
        centre, symbols, error = form
        spread = abs(symbols).sum(1) + error
        if ar.unit:
            spread = spread + gamma(len(symbols[0]) + OVERHEAD, ar.unit) * (abs(centre) + spread)
        return ar.down(centre - spread)

    def to_second_order(self, ar: Arithmetic, rows: Floats, offsets: Floats, boxes: Index) -> Floats:
        """The same to second order; minus infinity where nothing is known of products."""
        form = self._behind(ar, rows, offsets, boxes) if self._products else None
        if form is None:
            return np.full(len(rows), -np.inf)
        return lowest(ar, *form, self._inputs, [p.select(boxes) for p in self._products])

    def _behind(self, ar: Arithmetic, rows: Floats, offsets: Floats, boxes: Index) -> tuple[Array, Array, Array] | None:
        """Centres `(rows,)`, symbols `(rows, symbols)` and errors of forms of the last node."""
        last, known = max(self._last), self._known
        if known is None or last not in known:
            return None
        form, coeff, offset = known[last], ar.number(rows), ar.number(offsets)
        centre, count = (form.centre[boxes] * coeff).sum(1) + offset, len(form.symbols)
        symbols = (form.symbols[:, boxes] * coeff).sum(2).swapaxes(0, 1)
        error = (form.error[boxes] * abs(coeff)).sum(1)
        if ar.unit:
            size = (form.largest()[boxes] * abs(coeff)).sum(1) + abs(offset)
            error = error + gamma(rows.shape[1] + OVERHEAD, ar.unit) * size
            error = error + rows.shape[1] * (count + 2) * ar.tiny
        return centre, symbols, error

    def push(self, bounds: LayerBounds, i: int) -> None:
        """Go on to node i, the last one that has bounds."""
        node, known = bounds.network.nodes[i], self._known
        if known is None or i not in self._last:
            return
        if isinstance(node, Activation):
            counts = self._count, self._inputs, self._most
            made, beyond = activated(bounds, node, known[node.inputs[0]], *counts)
            self._count = len(made.symbols)
            self._products += [] if beyond is None else [beyond]
        else:
            assert isinstance(node, Affine)
            made = affine(bounds, i, node, [known[j] for j in node.inputs])
        known |= {i: made}
        for j in node.inputs:
            if self._last[j] == i:
                known.pop(j, None)


def affine(bounds: LayerBounds, i: int, node: Affine, operands: Sequence[Forms]) -> Forms:
    """The forms of affine node i, of which the magnitude is known."""
    ar, count = bounds.ar, max(len(form.symbols) for form in operands)
    centre = node.forward(ar, [form.centre for form in operands])
    symbols = _summed(_each(ar, m, form) for m, form in zip(node.maps, operands, strict=True))
    error = node.spread(ar, [form.error for form in operands])
    if ar.unit:
        magnitude = node.magnitude(ar, [form.largest() for form in operands])
        error = error + gamma(node.terms + OVERHEAD, ar.unit) * magnitude + node.terms * (count + 2) * ar.tiny
    if slack := bounds.slack(node, node.terms):
        error = error + slack * ar.number(bounds.magnitude[i])
    return Forms(centre, symbols, error)


def _each(ar: Arithmetic, m: Map, form: Forms) -> Array:
    """What a map makes of each symbol of a form."""
    made = m.forward(ar, form.symbols.reshape(-1, form.centre.shape[1]))
    return made.reshape(len(form.symbols), len(form.centre), made.shape[1])


def _summed(parts: Iterable[Array]) -> Array:
    """The sum of symbols of several forms, whose arrays it may use: those that came later are zero in some."""
    result, *others = sorted(parts, key=len, reverse=True)
    for other in others:
        result[: len(other)] = result[: len(other)] + other
    return result


def activated(
    bounds: LayerBounds, node: Activation, form: Forms, count: int, inputs: int, allowed: int
) -> tuple[Forms, Beyond | None]:
    """The forms of an activation, of which the pre-activation's bounds are known: between two lines of one slope, which
    may be any. Half of the gap is a symbol of its own, behind the `count` symbols that there are, so many of which are
    `allowed`. Also what these stand for, if that is known."""
    ar, rule, z = bounds.ar, node.rule, node.inputs[0]
    ends = bounds.lower[z], bounds.upper[z]
    members = Pick(rule.behind(np.arange(node.size)[None])[0], node.size)  # whose coefficients come from which entry
    slope = ar.choice(rule.lines(ends, True)[0])
    one = ar.number(np.ones(ends[0].shape))
    below, above = (rule.price(ar, side * one, side * slope, ends) for side in (1.0, -1.0))
    shift, radius = 0.5 * (above - below), 0.5 * (above + below)
    error = members.adjoint(ar, abs(slope) * form.error)
    if ar.unit:
        terms = members.adjoint(ar, abs(slope) * (form.largest() + bounds.largest(z))) + rule.reach(ends)
        most = OVERHEAD + ends[0].shape[1]
        error = error + gamma(most, ar.unit) * terms + most * (count + 2) * ar.tiny
    executed = rule.executed(ends) if bounds.float32 else None
    if executed is not None:
        error = error + ar.number(executed)
    symbols = members.adjoint(ar, (form.symbols * slope).reshape(-1, ends[0].shape[1]))
    symbols = symbols.reshape(len(form.symbols), *radius.shape)
    entries, kept, rest = _largest(ar, radius, abs(above) + abs(below), max(0, allowed - count))
    error = error if rest is None else error + abs(rest)
    symbols = _apart(ar, symbols, count, radius, entries, kept)
    beyond = _beyond(ar, node, form, slope, (shift, radius), entries, (inputs, count))
    return Forms(members.adjoint(ar, form.centre * slope) + shift, symbols, error), beyond


def _beyond(
    ar: Arithmetic,
    node: Activation,
    form: Forms,
    slope: Array,
    band: tuple[Array, Array],
    entries: Index,
    counts: tuple[int, int],
) -> Beyond | None:
    """What entries of an activation, `(boxes, entries)`, are beyond lines of a slope and the middle of a `band`, if it
    is of degree two."""
    points, (inputs, count) = node.rule.factors(slope), counts
    if points is None or inputs**2 * (inputs + entries.shape[1]) > MOST:
        return None
    place, box = np.arange(form.centre.shape[1]), np.arange(len(entries))[:, None]
    operands = [place[i::2] for i in (0, 1)] if form.centre.shape[1] > node.size else [place, place]
    own, others = list[Array](), list[Array]()
    for operand, point in zip(operands, points, strict=True):
        at = operand[entries]
        symbols = form.symbols[:, box, at]
        here, rest = symbols[: min(inputs, len(symbols))], symbols[min(inputs, len(symbols)) :]
        own.append(_padded(ar, here, inputs).swapaxes(0, 1))
        others.append(abs(rest).sum(0) + abs(form.centre[box, at] - point[box, entries]) + form.error[box, at])
    shift, radius = (b[box, entries] for b in band)
    x, y = (abs(t).sum(1) for t in own)
    p, q = (t[box, entries] for t in points)
    rest = others[0] * y + others[1] * x + others[0] * others[1] + abs(p * q + shift)
    if ar.unit:
        size = (x + others[0] + abs(p)) * (y + others[1] + abs(q)) + abs(shift)
        rest = rest + gamma(4 * (count + OVERHEAD), ar.unit) * size + 16 * count * ar.tiny
    return Beyond(count, radius, own[0], own[1], rest)


def _largest(ar: Arithmetic, radius: Array, intercepts: Array, room: int) -> tuple[Index, Mask, Array | None]:
    """Entries whose gaps get symbols, the largest ones of each box, `(boxes, entries)`, whether they do, where others
    have more, and what is left."""
    known, gaps = np.nan_to_num(ar.floats(intercepts), posinf=0.0), np.abs(ar.floats(radius))
    wide = gaps > _NARROW * known.max(1, keepdims=True, initial=0.0)
    count = min(room, int(wide.sum(1).max(initial=0)))
    entries = np.argsort(np.where(wide, -np.nan_to_num(gaps), 1.0), 1, "stable")[:, :count]
    box = np.arange(len(gaps))[:, None]
    kept = wide[box, entries]
    others = np.ones(radius.shape)
    others[box, entries] = ~kept
    rest = radius * ar.number(others)
    return entries, kept, rest if ar.positive(abs(rest)).any() or np.isnan(gaps).any() else None


def _apart(ar: Arithmetic, known: Array, count: int, radius: Array, entries: Index, kept: Mask) -> Array:
    """The `known` symbols, and behind `count` ones a symbol for each of some entries, `(symbols, boxes, size)`, with
    the radii `(boxes, size)` where it is kept."""
    symbols = ar.number(np.zeros((count + entries.shape[1], *radius.shape)))
    symbols[: len(known)] = known
    if entries.size:
        box = np.arange(len(entries))
        given = ar.where(kept, radius[box[:, None], entries], ar.number(np.zeros(())))
        symbols[count + np.arange(entries.shape[1])[:, None], box, entries.T] = given.swapaxes(0, 1)
    return symbols


def _padded(ar: Arithmetic, symbols: Array, count: int) -> Array:
    """At least so many symbols: those that came later are zero."""
    missing = count - len(symbols)
    return ar.join([symbols, ar.number(np.zeros((missing, *symbols.shape[1:])))]) if missing > 0 else symbols
