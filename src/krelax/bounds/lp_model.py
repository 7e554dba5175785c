"""The triangle linear program of a network over one box, as arrays (Ehlers 2017, PLANET; Salman et al. 2019).

Columns are the inputs, the pre-activations z and the post-activations a of every activation. A row defines every z as
an affine function of inputs and earlier a; whatever is affine in between is substituted and has no columns. The other
rows are the relaxation: lines below and above each activation. A neuron whose activation is linear on its interval has
one column for z and a, and one that is constantly zero has none. Nothing here is rounded with care: the program
proposes witnesses, and `krelax.bounds.lp.value_of` says what they prove.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.activations import Relaxation, Rule
from krelax.bounds.layers import LayerBounds
from krelax.network.graph import Network
from krelax.network.ops import Linear, one_hot
from krelax.problem.region import Region

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

# Bytes of coefficients pulled back at a time.
_CHUNK = 32 << 20
_NO_COLUMN = -1
# HiGHS takes larger bounds for infinite, and no larger coefficients.
_INFINITE, LARGE = 1e20, 1e15


@dataclass(frozen=True)
class Entries:
    """Values of a flattened node in terms of columns: `scale * x[column]`, or zero where `column` is -1."""

    column: Places
    scale: Floats


@dataclass(frozen=True)
class Rows:
    """Sparse rows `lower <= sum value * x[index] <= upper`; row i holds the terms from `start[i]` to `start[i + 1]`."""

    start: Places
    index: Places
    value: Floats
    lower: Floats
    upper: Floats

    @classmethod
    def of(cls, row: Places, index: Places, value: Floats, lower: Floats, upper: Floats) -> Rows:
        """Rows from terms sorted by `row`."""
        start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(lower)))])
        return cls(start.astype(np.int64), index, value, lower, upper)

    def __len__(self) -> int:
        return len(self.lower)

    def within_range(self) -> Rows:
        """The same, but rows with numbers that the solver does not take say nothing. On some it would never end, or end
        the process."""
        wrong = np.isnan(self.lower) | np.isnan(self.upper) | _beyond(self.lower) | _beyond(self.upper)
        wrong |= (self.lower == np.inf) | (self.upper == -np.inf)
        row = np.repeat(np.arange(len(self)), np.diff(self.start))
        wrong[row[~(np.abs(self.value) < LARGE)]] = True
        lower, upper = np.where(wrong, -np.inf, self.lower), np.where(wrong, np.inf, self.upper)
        return Rows(self.start, self.index, np.where(wrong[row], 0.0, self.value), lower, upper)


def within_range(lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
    """Bounds of columns that the solver takes: none for those that it does not."""
    return np.where(np.abs(lower) < _INFINITE, lower, -np.inf), np.where(np.abs(upper) < _INFINITE, upper, np.inf)


def _beyond(bound: Floats) -> NDArray[np.bool_]:
    """Numbers so large that the solver takes them for infinite, which they are not."""
    return np.isfinite(bound) & (np.abs(bound) >= _INFINITE)


def joined(parts: list[Rows]) -> Rows:
    """All rows, in order."""
    parts = [Rows.of(*(np.empty(0, dtype) for dtype in (np.int64, np.int64, float, float, float))), *parts]
    sizes = [len(p.index) for p in parts]
    before = np.cumsum([0, *sizes])
    start = np.concatenate([p.start[:-1] + b for p, b in zip(parts, before, strict=False)] + [before[-1:]])
    columns = (np.concatenate([getattr(p, name) for p in parts]) for name in ("index", "value", "lower", "upper"))
    return Rows(start.astype(np.int64), *columns)


@dataclass
class Model:
    """The linear program of everything the node `last` depends on, over one region.

    `lower <= x <= upper` are the columns' bounds. `after` says where the input (node 0) and the post-activations are;
    `before` holds the columns of the flattened pre-activations of every activation (-1: none), and `defining` the rows
    that define them.
    """

    network: Network
    last: int
    lower: Floats = field(default_factory=lambda: np.empty(0))
    upper: Floats = field(default_factory=lambda: np.empty(0))
    after: dict[int, Entries] = field(default_factory=dict)
    before: dict[int, Places] = field(default_factory=dict)
    defining: dict[int, Places] = field(default_factory=dict)
    parts: list[Rows] = field(default_factory=list)
    rows: int = 0

    def columns(self, lower: Tensor | Floats, upper: Tensor | Floats) -> Places:
        """Add columns with the given bounds."""
        first = len(self.lower)
        self.lower = np.concatenate([self.lower, np.asarray(lower).ravel()])
        self.upper = np.concatenate([self.upper, np.asarray(upper).ravel()])
        return np.arange(first, len(self.lower))

    def add(self, rows: Rows) -> Places:
        """Add rows."""
        self.parts.append(rows)
        self.rows += len(rows)
        return np.arange(self.rows - len(rows), self.rows)

    def form(self, node: int, coeff: Tensor) -> tuple[Rows, Floats]:
        """The forms `<coeff, node>`, `(n, *shape)`, as unbounded rows over the columns, and their constants `(n,)`."""
        sources, constant = pull_back(self.network, node, coeff)
        terms = [self._terms(i, part) for i, part in sorted(sources.items())]
        row, index, value = (np.concatenate([t[k] for t in terms]) for k in range(3))
        order = np.argsort(row, kind="stable")
        free = np.full(len(coeff), np.inf)
        return Rows.of(row[order], index[order], value[order], -free, free), constant.numpy()

    def _terms(self, source: int, coeff: Tensor) -> tuple[Places, Places, Floats]:
        entries, flat = self.after[source], coeff.flatten(1).numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # the solver gives up on what is not finite
            value = np.where(entries.column == _NO_COLUMN, 0.0, flat * entries.scale)
        row, place = np.nonzero(value)
        return row, entries.column[place], value[row, place]


def pull_back(network: Network, node: int, coeff: Tensor) -> tuple[dict[int, Tensor], Tensor]:
    """The forms `<coeff, node>`, `(n, *shape)`, over the input and the activations behind affine nodes only.

    Returns coefficients `(n, *shape)` of node 0 and of activations, and constants `(n,)`.
    """
    pending, sources = {node: coeff}, {}
    constant = coeff.new_zeros(len(coeff))
    for i in range(node, -1, -1):
        if i not in pending:
            continue
        part, inner = pending.pop(i), network.nodes[i]
        if not isinstance(inner.op, Linear):
            sources[i] = part
            continue
        bias = inner.op.constant()
        if bias is not None:
            constant = constant + (part * bias).flatten(1).sum(1)
        pulled = inner.op.adjoint(part, *(network.nodes[j].shape for j in inner.inputs))
        for j, p in zip(inner.inputs, pulled, strict=True):
            pending[j] = pending[j] + p if j in pending else p
    return sources, constant


def needed(network: Network, last: int) -> list[int]:
    """The activations that the node `last` depends on, in evaluation order."""
    cone = {last}
    for i in range(last, 0, -1):
        if i in cone:
            cone.update(network.nodes[i].inputs)
    return [i for i in network.activations() if i in cone]


def build(
    network: Network, region: Region, bounds: LayerBounds, image: int, last: int, inactive: bool = False
) -> Model:
    """The triangle linear program of what the node `last` depends on, over region `image` of the batch.

    `bounds` bounds every pre-activation up to there. With `inactive`, neurons that are constantly zero keep the column
    and the row of their pre-activation, so that its bounds cut; that matters where bounds are tighter than what the
    program itself implies, as after splits. Of regions that are not boxes the program knows the bounding box.
    """
    network = network.to(torch.float64)
    model = Model(network, last)
    inputs = model.columns(region.lower[image].cpu(), region.upper[image].cpu())
    model.after[0] = Entries(inputs, np.ones(len(inputs)))
    for i in needed(network, last):
        operand = network.nodes[i].inputs[0]
        lower, upper = (side[operand][image, None].cpu() for side in (bounds.lower, bounds.upper))
        _activation(model, i, bounds.relaxations[i].over(lower, upper), inactive)
    return model


def _activation(model: Model, node: int, relaxation: Relaxation, inactive: bool) -> None:
    """Columns and rows of one activation."""
    width = relaxation.lower.shape[-1] if relaxation.reduces else 1
    slope, used = _pieces(relaxation)
    z = _pre_activations(model, node, relaxation, used | inactive).reshape(-1, width)
    low, high = (t.flatten().numpy() for t in relaxation.interval())
    # the one member of a window that matters, or the pre-activation itself
    column, free = z[np.arange(len(z)), slope.argmax(1)], np.isnan(slope).any(1)
    scale = np.where(free, 1.0, np.where(np.isnan(slope), 0.0, slope).sum(1))
    column = np.where(scale == 0, _NO_COLUMN, column)
    column[free] = model.columns(low[free], high[free])
    model.after[node] = Entries(column, scale)
    for lower, slopes, offset in _lines(relaxation, used.reshape(-1, width)):
        model.add(_line_rows(column[free], z[free], slopes[free], offset[free], lower))


def _pieces(relaxation: Relaxation) -> tuple[Floats, NDArray[np.bool_]]:
    """Slopes `(entries, width)` of activations that are linear on their interval, NaN for others, and which flattened
    pre-activations matter at all."""
    lines = relaxation.lines_by(Rule.ADAPTIVE)
    slope, other = (t[0, 0].numpy() for t in torch.broadcast_tensors(lines.lower, lines.upper))
    shape = (-1, relaxation.lower.shape[-1] if relaxation.reduces else 1)
    gap = lines.above if lines.below is None else lines.above.abs() + lines.below.abs()
    linear = (slope == other).reshape(shape).all(1) & (gap[0, 0].flatten().numpy() == 0)
    slopes = np.where(linear[:, None], slope.reshape(shape), np.nan)
    used = np.isnan(slopes) | (slopes != 0)
    used &= relaxation.matters().numpy().reshape(shape) | linear[:, None]
    return slopes, used.ravel()


def _pre_activations(model: Model, node: int, relaxation: Relaxation, used: NDArray[np.bool_]) -> Places:
    """Columns of the used pre-activations of an activation, -1 for the others, each defined by a row."""
    operand = model.network.nodes[node].inputs[0]
    place = np.flatnonzero(used)
    column = np.full(used.shape, _NO_COLUMN)
    column[place] = model.columns(*(t.flatten().numpy()[place] for t in (relaxation.lower, relaxation.upper)))
    defining = np.full(used.shape, -1)
    for piece in _portions(model.network, operand, place):
        unit = one_hot(torch.from_numpy(piece), model.network.nodes[operand].shape, model.network.dtype)
        defining[piece] = model.add(_definitions(column[piece], *model.form(operand, unit)))
    model.before[node], model.defining[node] = column, defining
    return column


def _portions(network: Network, node: int, place: Places) -> Iterator[Places]:
    """Entries of a node, as many at a time as their coefficients fit memory."""
    widest = max(prod(n.shape) for n in network.nodes[: node + 1])
    count = max(1, _CHUNK // (8 * widest))
    return (place[first : first + count] for first in range(0, len(place), count))


def _definitions(column: Places, form: Rows, constant: Floats) -> Rows:
    """The rows `z - form = constant`, with z in its column."""
    start = form.start + np.arange(len(column) + 1)
    index, value = np.insert(form.index, form.start[:-1], column), np.insert(-form.value, form.start[:-1], 1.0)
    return Rows(start, index, value, constant, constant)


Lined = tuple[bool, Floats, Floats]


def _lines(relaxation: Relaxation, used: NDArray[np.bool_]) -> Iterator[Lined]:
    """Lines around an activation of the pre-activations that are `used`, `(entries, width)`: is it a lower one, slopes
    `(entries, width)` and intercepts `(entries,)`.

    Lines that repeat an earlier one have slopes of zero, as have those that only repeat the interval of a.
    """
    seen: dict[bool, list[Floats]] = {True: [], False: []}
    for lower, slope in relaxation.facets():
        slopes: Floats = slope.numpy().reshape(used.shape) * used
        offset = _intercept(relaxation, torch.from_numpy(slopes).view_as(slope), lower)
        repeated = [np.isclose(slopes, s, rtol=1e-9, atol=0).all(1, keepdims=True) for s in seen[lower]]
        seen[lower].append(slopes)
        yield lower, np.where(np.any(repeated, axis=0), 0.0, slopes) if repeated else slopes, offset


def _intercept(relaxation: Relaxation, slope: Tensor, lower: bool) -> Floats:
    """What makes a line of the given slope sound: `slope * z - intercept <= a`, or `a <= slope * z + intercept`."""
    sign = 1.0 if lower else -1.0
    slope = sign * slope.unsqueeze(1)
    coeff = torch.full_like(slope[..., 0] if relaxation.reduces else slope, sign)
    offset: Floats = relaxation.support(slope, coeff).value.flatten().numpy()
    return offset


def _line_rows(a: Places, z: Places, slopes: Floats, offset: Floats, lower: bool) -> Rows:
    """The rows `a - slopes z >= -offset`, or `<= offset`; slopes of zero say nothing, nor does what is not finite."""
    keep = (slopes != 0).any(1) & np.isfinite(slopes).all(1) & np.isfinite(offset)
    value = np.concatenate([np.ones((len(a), 1)), -slopes], axis=1)[keep]
    index = np.concatenate([a[:, None], z], axis=1)[keep]
    row, term = np.nonzero(value)
    far = np.full(keep.sum(), np.inf)
    bounds = (-offset[keep], far) if lower else (-far, offset[keep])
    return Rows.of(row, index[row, term], value[row, term], *bounds)
