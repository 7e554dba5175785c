"""Random tiny networks with adversarial numbers, regions and margins, and what is exactly true of them.

Networks have one to three inputs (a few more where they are images), up to three layers, and all operators of
`krelax.network`. Their numbers are ordinary ones, ties, numbers that cancel, or of any size between subnormal and the
largest. Truth is exact: piecewise-linear networks over boxes have a rational minimum (`tests.exact_cells`), and every
network has rational values at rational points, between bounds that 2300 bits keep apart where sigmoids are in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from math import isqrt, prod
from typing import Any, NamedTuple

import mpmath
import numpy as np
import torch
from numpy.typing import NDArray
from tests.activations.kit import ELEMENTWISE
from tests.exact_cells import Forms, affine, least_margin

from krelax.activations import LeakyReLU, Max, Product, ReLU
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Conv, ConvTranspose, Dense, Scale, Sum
from krelax.network.ops import Concat, Expand, Gather, Linear, Pad, Reshape, Take, Transpose
from krelax.op import Op
from krelax.problem.queries import Queries
from krelax.problem.region import Ball, Box, Region, ball

Array = NDArray[np.float64]
Shape = tuple[int, ...]
Point = tuple[Fraction, ...]
Enclosure = tuple[Fraction, Fraction]

_LARGEST, _SMALLEST, _NORMAL = 1.7976931348623157e308, 5e-324, 2.2250738585072014e-308
# The activations of the contract kit that are not piecewise linear.
# But only those that rise everywhere, and not faster than their operand, which may be of any size.
_STEADY = {"sigmoid", "tanh", "erf", "atan", "softsign", "softplus", "elu-0.5-1", "elu-1.5-1.5"}
CURVED = {entry.name: entry for entry in ELEMENTWISE if entry.name in _STEADY}
# No node has more entries, no network more entries that have a kink.
_MOST_ENTRIES, _MOST_KINKS = 6, 7


# --- numbers


def _normal(rng: np.random.Generator, shape: Shape) -> Array:
    return rng.normal(size=shape)


def _integers(rng: np.random.Generator, shape: Shape) -> Array:
    return rng.integers(-2, 3, size=shape).astype(float)


def _nearly_equal(rng: np.random.Generator, shape: Shape) -> Array:
    """One number up to its last bits, with either sign."""
    return rng.normal() * (1 + 2.0**-52 * rng.integers(-2, 3, size=shape)) * rng.choice([-1.0, 1.0], size=shape)


def _one_size(rng: np.random.Generator, shape: Shape) -> Array:
    return rng.normal(size=shape) * 10.0 ** rng.uniform(-300, 300)


def _all_sizes(rng: np.random.Generator, shape: Shape) -> Array:
    return rng.normal(size=shape) * 10.0 ** rng.uniform(-300, 300, size=shape)


def _single_sizes(rng: np.random.Generator, shape: Shape) -> Array:
    """Around the ends of single precision, inside and outside."""
    return rng.normal(size=shape) * 10.0 ** (rng.choice([-45, -38, -20, 0, 20, 38, 45], size=shape))


def _subnormal(rng: np.random.Generator, shape: Shape) -> Array:
    return np.asarray(rng.integers(-9, 10, size=shape) * _SMALLEST, np.float64)


def _ends(rng: np.random.Generator, shape: Shape) -> Array:
    """Numbers at which something ends."""
    ends = [0.0, 1.0, 2.0**-52, _SMALLEST, _NORMAL, 1e-160, 1e160, _LARGEST / 4, 3.4028235e38, 1e-45, 1e30]
    return rng.choice(ends, size=shape) * rng.choice([-1.0, 1.0], size=shape)


Numbers = Callable[[np.random.Generator, Shape], Array]
CALM: tuple[Numbers, ...] = (_normal, _integers, _nearly_equal)
WILD: tuple[Numbers, ...] = (_one_size, _all_sizes, _single_sizes, _subnormal, _ends)


class _Source:
    """Draws the numbers of one network: calm ones, wild ones, or of sizes that often cancel from layer to layer."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._mood = rng.choice(["calm", "scaled", "wild", "mixed"], p=[0.35, 0.25, 0.15, 0.25])
        self._exponent = 0.0

    def numbers(self, *shape: int) -> Array:
        """Numbers of a constant."""
        rng = self.rng
        kinds = CALM if self._mood in {"calm", "scaled"} or (self._mood == "mixed" and rng.random() < 0.5) else WILD
        found = kinds[rng.integers(len(kinds))](rng, shape)
        if rng.random() < 0.2:
            found = found * (rng.random(size=shape) < 0.7)
        if self._mood == "scaled":
            found = found * 10.0**self._exponent
        return np.nan_to_num(found, posinf=_LARGEST, neginf=-_LARGEST)

    def next_layer(self) -> None:
        """From here on numbers have another size."""
        wanted = -self._exponent if self._exponent and self.rng.random() < 0.6 else self.rng.uniform(-300, 300)
        self._exponent = float(np.clip(wanted, -300, 300)) if self._mood == "scaled" else 0.0

    def tensor(self, *shape: int) -> torch.Tensor:
        return torch.from_numpy(self.numbers(*shape))


# --- networks


class _Grower:
    """Adds operators to a network, each on a node chosen among those that are there."""

    def __init__(self, source: _Source) -> None:
        self.source, self.rng = source, source.rng
        shapes: list[Shape] = [(1,), (2,), (3,), (2,), (1, 1, 3), (1, 2, 2), (1, 1, 2, 2), (1, 3, 1, 1), (2, 1)]
        self.builder = Builder(shapes[self.rng.integers(len(shapes))])
        self.nodes, self.kinks = [0], 0

    def add(self, op: Op, *inputs: int) -> None:
        """One more node, the operand of most of the next ones; large ones are left out."""
        if prod(op.shape(*(self.builder.shape(i) for i in inputs))) <= _MOST_ENTRIES:
            self.nodes.append(self.builder.add(op, *inputs))

    def layer(self) -> None:
        """One affine operator with weights, perhaps others, and perhaps an activation."""
        self.source.next_layer()
        for grow in (self.weighted, *self.rng.choice([self.moving, self.joining, self.weighted], size=2)):
            if grow is self.weighted or self.rng.random() < 0.4:
                grow(self.nodes[-1])
        if self.rng.random() < 0.85:
            self.activation(self.nodes[-1])

    def weighted(self, node: int) -> None:
        """Dense, convolutions, elementwise scaling."""
        shape, numbers, rng = self.builder.shape(node), self.source.tensor, self.rng
        spatial = len(shape) - 2
        kind = rng.choice(["dense", "scale", "conv", "transposed"], p=[0.4, 0.2, 0.2, 0.2])
        if kind == "scale":
            factor, shift = (numbers(*shape) if rng.random() < 0.7 else None for _ in range(2))
            self.add(Scale(factor, shift), node)
        elif kind == "dense" or not (spatial in {1, 2} and shape[0] == 1):
            out = int(rng.integers(1, 4))
            self.add(Dense(numbers(out, shape[-1]), numbers(out) if rng.random() < 0.7 else None), node)
        else:
            self._convolution(node, kind == "transposed", shape)

    def _convolution(self, node: int, transposed: bool, shape: Shape) -> None:
        rng, spatial = self.rng, len(shape) - 2
        kernel = tuple(int(rng.integers(1, n + 1)) for n in shape[2:])
        out = int(rng.integers(1, 3))
        stride, padding = (tuple(int(rng.integers(low, 2 + low)) for _ in range(spatial)) for low in (1, 0))
        padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
        bias = self.source.tensor(out) if rng.random() < 0.7 else None
        ones = (1,) * spatial
        if transposed:
            weight, extra = self.source.tensor(shape[1], out, *kernel), (0,) * spatial
            op: Op = ConvTranspose(weight, bias, stride, padding, ones, extra)
        else:
            op = Conv(self.source.tensor(out, shape[1], *kernel), bias, stride, padding, ones)
        if min(op.shape(shape)) > 0:
            self.add(op, node)

    def moving(self, node: int) -> None:
        """Operators that only move entries, or add them up."""
        shape, rng = self.builder.shape(node), self.rng
        axis = int(rng.integers(len(shape)))
        choices: list[Op] = [
            Reshape((prod(shape),)),
            Reshape((1, prod(shape))),
            Transpose(tuple(rng.permutation(len(shape)).tolist())),
            Gather(axis, torch.from_numpy(rng.integers(shape[axis], size=int(rng.integers(1, 4))))),
            Sum((axis,), shape[axis]),
            Pad(*(tuple(int(i == axis and rng.random() < 0.5) for i in range(len(shape))) for _ in range(2))),
            Expand(tuple(int(rng.integers(1, 4)) if n == 1 else n for n in shape)),
        ]
        self.add(choices[rng.integers(len(choices))], node)

    def joining(self, node: int) -> None:
        """A second branch: the node and one of its shape."""
        shape, rng = self.builder.shape(node), self.rng
        other = int(rng.choice([i for i in self.nodes if self.builder.shape(i) == shape]))
        if rng.random() < 0.5:
            self.add(Add((int(rng.choice([1, -1])), int(rng.choice([1, -1])))), node, other)
        else:
            self.add(Concat(int(rng.integers(len(shape)))), node, other)

    def activation(self, node: int) -> None:
        rng, shape = self.rng, self.builder.shape(node)
        share = [0.2 / len(CURVED)] * len(CURVED)
        kind = rng.choice(["relu", "leaky", "max", "product", *CURVED], p=[0.4, 0.1, 0.2, 0.1, *share])
        if kind in CURVED:
            self.add(CURVED[kind].op, node)
            return
        count = prod(shape)
        if kind == "product":
            self._product(node, shape)
            return
        if self.kinks + count > _MOST_KINKS:
            return
        self.kinks += count
        if kind == "max":
            windows = rng.integers(count, size=(int(rng.integers(1, 3)), int(rng.integers(1, 4))))
            self.add(Take(torch.from_numpy(windows)), node)
            self.add(Max(), self.nodes[-1])
        else:
            slopes = [0.01, 0.5, 1.0, 1e-300, 1 - 2.0**-53]
            self.add(ReLU() if kind == "relu" else LeakyReLU(float(rng.choice(slopes))), node)

    def _product(self, node: int, shape: Shape) -> None:
        """With another node of its shape, or itself."""
        if 2 * prod(shape) > _MOST_ENTRIES:
            return
        other = int(self.rng.choice([i for i in self.nodes if self.builder.shape(i) == shape]))
        pair = [self.builder.add(Reshape((*shape, 1)), i) for i in (node, other)]
        self.add(Concat(len(shape)), *pair)
        self.add(Product(), self.nodes[-1])


def _network(source: _Source) -> Network:
    grower = _Grower(source)
    if source.rng.random() < 0.1:  # affine: nothing hides what rounding does
        source.next_layer()
        grower.weighted(0)
    for _ in range(source.rng.integers(1, 4) if grower.nodes[-1] == 0 else 0):
        grower.layer()
    last = grower.nodes[-1]
    if not last:
        last = grower.builder.add(ReLU(), 0)
    return grower.builder.build(last)


# --- questions


def _region(source: _Source, shape: Shape) -> Region:
    rng = source.rng
    centre = source.numbers(1, *shape) / 4
    sizes = np.maximum(np.abs(centre), _SMALLEST)
    radii = [0 * sizes, sizes, sizes * 1e-9, sizes * 2.0**-52, np.ones_like(sizes), source.numbers(1, *shape) / 4]
    radius = np.abs(radii[rng.integers(len(radii))]) * (rng.random(size=centre.shape) < 0.85)
    norm = rng.choice(["box", "l2", "l1"], p=[0.6, 0.25, 0.15])
    if norm == "box":
        return Box(torch.from_numpy(centre - radius), torch.from_numpy(np.maximum(centre + radius, centre - radius)))
    eps = float(radius.max()) if rng.random() < 0.9 else 0.0
    clip = (float(centre.min()), float(centre.max() + eps / 2)) if rng.random() < 0.3 else None
    return ball(torch.from_numpy(centre), eps, str(norm), clip)


def _queries(source: _Source, outputs: int) -> Queries:
    rng, count = source.rng, int(source.rng.integers(1, 4))
    rows = source.numbers(count, outputs) if rng.random() < 0.6 else _integers(rng, (count, outputs))
    offsets = source.numbers(count) if rng.random() < 0.5 else np.zeros(count)
    clauses = int(rng.integers(1, count + 1))
    clause = torch.arange(count).clamp(max=clauses - 1)
    return Queries(torch.from_numpy(rows)[None], torch.from_numpy(offsets)[None], clause[None], clauses)


# --- truth


@dataclass(frozen=True, eq=False)
class Case:
    """A network with one region and margins.

    `limits` are numbers that the minima of the margins are not above, one for each margin, and `worst` that of the
    whole property: exact minima where the network is piecewise linear and the region a box, else values at points.
    `seen` holds, for some inputs, exact enclosures of all entries of all nodes.
    """

    network: Network
    region: Region
    queries: Queries
    limits: tuple[Fraction, ...]
    worst: Fraction
    seen: tuple[tuple[list[Enclosure], ...], ...]


class Drawn(NamedTuple):
    """What a case is about, before anything is known of it, and where its other random choices come from."""

    network: Network
    region: Region
    queries: Queries
    source: _Source


def draw(seed: int) -> Drawn:
    """What the case of a seed is about; its offsets may yet change."""
    source = _Source(np.random.default_rng(seed))
    network = _network(source)
    return Drawn(network, _region(source, network.input_shape), _queries(source, prod(network.output_shape)), source)


def random_case(seed: int) -> Case:
    """The case of a seed."""
    return known(draw(seed))


def known(drawn: Drawn) -> Case:
    """The case with what is exactly true of it, which takes most of the time."""
    network, region, queries, source = drawn
    points = _points(network, region, queries, source.rng)
    few = _is_piecewise(network) and isinstance(region, Box)  # whose minimum is known without them
    seen = tuple(_values(network, point) for point in islice(points, 2 if few else None))
    case = _judged(network, region, queries, seen)
    if source.rng.random() < 0.5:  # the margins are nearly zero at their minima
        limits = [float(np.clip(float(min(max(v, -(2**1023)), 2**1023)), -1e300, 1e300)) for v in case.limits]
        shift = -np.array(limits) * (1 + 2.0**-52 * source.rng.integers(-1, 2, size=len(limits)))
        offsets = queries.offsets.numpy()[0] + shift
        if np.isfinite(offsets).all():
            case = _judged(network, region, replace(queries, offsets=torch.from_numpy(offsets)[None]), seen)
    return case


def _is_piecewise(network: Network) -> bool:
    curved = {Product, *(type(entry.op) for entry in CURVED.values())}
    return not any(type(node.op) in curved for node in network.nodes)


def _judged(network: Network, region: Region, queries: Queries, seen: Any) -> Case:
    rows, offsets, clause = (t[0].tolist() for t in (queries.rows, queries.offsets, queries.clause))
    values = [[_margin(row, offset, nodes[-1]) for row, offset in zip(rows, offsets, strict=True)] for nodes in seen]
    limits = [min(v[q] for v in values) for q in range(len(rows))]
    worst = min(min(max(v[q] for q in range(len(rows)) if clause[q] == c) for c in set(clause)) for v in values)
    if _is_piecewise(network) and isinstance(region, Box):
        lower, upper = (t[0].numpy() for t in (region.lower, region.upper))
        parts = [([row], [offset]) for row, offset in zip(rows, offsets, strict=True)]
        limits = [least_margin(network, lower, upper, [part]).value for part in parts]
        members = [[q for q in range(len(rows)) if clause[q] == c] for c in sorted(set(clause))]
        whole = [([rows[q] for q in m], [offsets[q] for q in m]) for m in members]
        worst = least_margin(network, lower, upper, whole).value
    return Case(network, region, queries, tuple(limits), worst, seen)


def _margin(row: list[float], offset: float, output: list[Enclosure]) -> Fraction:
    """The largest that `row . y + offset` may be."""
    ends = (Fraction(w) * y[1 if w > 0 else 0] for w, y in zip(row, output, strict=True))
    return sum(ends, Fraction(offset))


def _points(network: Network, region: Region, queries: Queries, rng: np.random.Generator) -> Iterator[Point]:
    """Inputs inside the region: corners, others between, and where margins seem to be small; dyadic."""
    lower, upper = ([Fraction(v) for v in t.flatten().tolist()] for t in (region.lower, region.upper))
    shares = [rng.random(len(lower)).round(3), *rng.integers(2, size=(4, len(lower)))]
    box = [
        tuple(l + Fraction(t) * (u - l) for t, l, u in zip(share.tolist(), lower, upper, strict=True))
        for share in shares
    ]
    if isinstance(region, Ball):
        row = queries.rows[0, int(rng.integers(queries.rows.shape[1]))].tolist()
        yield from _in_ball(network, region, row, box[:3], lower, upper)
    else:
        yield from box


def _in_ball(
    network: Network, region: Ball, row: list[float], box: list[Point], lower: list[Fraction], upper: list[Fraction]
) -> Iterator[Point]:
    """Points of the box drawn into the ball, and the point of the ball against the gradient of a margin."""
    centre, eps = [Fraction(v) for v in region.centre.flatten().tolist()], Fraction(region.eps)
    steps = [[a - c for a, c in zip(x, centre, strict=True)] for x in box]
    step = max(eps, Fraction(1, 2**1074)) / 2**20
    at = [_middle(row, network, [*centre[:i], c + step, *centre[i + 1 :]]) for i, c in enumerate(centre)]
    here = _middle(row, network, centre)
    slope = [here - v for v in at]
    largest = max(slope, key=abs)
    steps.append([s if region.p == 2 or s is largest else Fraction(0) for s in slope])
    yield tuple(centre)
    for direction in steps:
        size = _length(direction, region.p)
        share = [_down(d * eps / size) if size else Fraction(0) for d in direction]
        x = [min(max(c + s, l), u) for c, s, l, u in zip(centre, share, lower, upper, strict=True)]
        yield tuple(x)


def _middle(row: list[float], network: Network, x: list[Fraction]) -> Fraction:
    terms = zip(row, _values(network, tuple(x))[-1], strict=True)
    return sum((Fraction(w) * (a + b) for w, (a, b) in terms), Fraction(0))


def _length(x: list[Fraction], p: int) -> Fraction:
    """The norm, or a little more."""
    if p == 1:
        return sum(map(abs, x), Fraction(0))
    square = sum((v * v for v in x), Fraction(0))
    if not square:
        return square
    # numerator and denominator to about 2000 bits
    shift = 4000 + square.denominator.bit_length()
    return Fraction(isqrt((square.numerator << 2 * shift) // square.denominator) + 1, 1 << shift)


def _down(x: Fraction) -> Fraction:
    """A dyadic number nearer to zero, within 2**-1400 of it."""
    return Fraction(abs(x.numerator) * 2**1400 // x.denominator, 2**1400) * (1 if x >= 0 else -1)


def _values(network: Network, point: Point) -> tuple[list[Enclosure], ...]:
    """Enclosures of all entries of all nodes at a dyadic input."""
    zero = Forms(np.zeros((1, *network.input_shape), dtype=object), 0)
    values = [(_forms(list(point), network.input_shape), zero)]
    for node in network.nodes[1:]:
        operands = [values[j] for j in node.inputs]
        if isinstance(node.op, Linear):
            absolute = _without_bias(node.op)
            values.append((affine(node.op, [v for v, _ in operands]), affine(absolute, [r for _, r in operands])))
        else:
            values.append(_activated(node.op, *operands[0], node.shape))
    return tuple(list(_ends_of(*value)) for value in values)


def _forms(values: list[Fraction], shape: Shape) -> Forms:
    shift = max((v.denominator.bit_length() - 1 for v in values), default=0)
    digits = np.array([(v.numerator << shift) // v.denominator for v in values], dtype=object)
    return Forms(digits.reshape(1, *shape), shift)


def _ends_of(middle: Forms, radius: Forms) -> Iterator[Enclosure]:
    for m, r in zip(middle.digits.flatten(), radius.digits.flatten(), strict=True):
        a = Fraction(int(m), 1 << middle.shift)
        b = Fraction(int(r), 1 << radius.shift) if r else 0
        yield (a - b, a + b) if b else (a, a)


def _without_bias(op: Linear) -> Linear:
    """The absolute linear part."""
    match op:
        case Dense() | Conv() | ConvTranspose():
            return replace(op, weight=op.weight.abs(), bias=None)
        case Scale():
            return Scale(None if op.factor is None else op.factor.abs())
        case Add():
            return Add((1,) * len(op.signs))
    return op


def _activated(op: Op, middle: Forms, radius: Forms, shape: Shape) -> tuple[Forms, Forms]:
    ends = list(_ends_of(middle, radius))
    if isinstance(op, Max):
        width = middle.digits.shape[-1]
        windows = [ends[i : i + width] for i in range(0, len(ends), width)]
        found = [(max(a for a, _ in w), max(b for _, b in w)) for w in windows]
    elif isinstance(op, Product):
        corners = [[a * b for a in one for b in two] for one, two in zip(ends[::2], ends[1::2], strict=True)]
        found = [(min(c), max(c)) for c in corners]
    else:
        found = [_increasing(op, a, b) for a, b in ends]
    if all(a == b for a, b in found):
        middles, radii = [a for a, _ in found], [Fraction(0)] * len(found)
    else:
        middles, radii = [(a + b) / 2 for a, b in found], [(b - a) / 2 for a, b in found]
    return _forms(middles, shape), _forms(radii, shape)


def _increasing(op: Op, low: Fraction, high: Fraction) -> Enclosure:
    match op:
        case ReLU():
            return max(low, Fraction(0)), max(high, Fraction(0))
        case LeakyReLU():
            slope = Fraction(op.negative_slope)
            return max(low, slope * low), max(high, slope * high)
    ends = [_smooth(op, v) for v in ((low,) if low == high else (low, high))]
    return ends[0][0], ends[-1][1]


_BITS = 2400
_SLACK = Fraction(1, 2 ** (_BITS - 40))


def _smooth(op: Op, z: Fraction) -> Enclosure:
    """A curved activation between two dyadic numbers."""
    (entry,) = (e for e in CURVED.values() if e.op is op)
    with mpmath.workprec(_BITS):
        value = entry.act(mpmath.mpf(z.numerator) / z.denominator)
        digits = int(mpmath.floor(mpmath.ldexp(value, _BITS)))
    found = Fraction(digits, 2**_BITS)
    slack = _SLACK * max(1, abs(found))
    return found - slack, found + slack
