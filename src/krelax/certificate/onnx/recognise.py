"""Functions of one number that exporters write as products, quotients and sums of others.

They are recognised where krelax recognises them, so that a certificate's activations have the same numbers. Each rule
is an identity of real numbers, whatever the constants of the file are; factors that are computed here have a `fuzz`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from math import inf, nan, prod, sqrt

import numpy as np

from krelax.certificate.kernel.activations import (
    GELU,
    HardSwish,
    Mish,
    Power,
    ReLU,
    Rule,
    SiLU,
    Square,
    Step,
    Tanh,
    TanhGELU,
)
from krelax.certificate.kernel.activations.bounded import Erf, Softsign
from krelax.certificate.kernel.activations.exponential import Exp, Softplus
from krelax.certificate.kernel.activations.sigmoid import Sigmoid
from krelax.certificate.kernel.linear import Map, Scale
from krelax.certificate.kernel.network import Activation, Affine
from krelax.certificate.onnx.operator import Context, Value
from krelax.errors import UnsupportedError

# Of factors that are computed from three lines of so many nodes, each of which may be off so much.
_FUZZ, _MOST, _EACH = 2.0**-44, 4, 2.0**-48
# Factors, and what they are computed by: rounding is relative there.
_LEAST, _LARGEST = 2.0**-400, 2.0**400
_SMALLEST, _GREATEST = 2.0**-1000, 2.0**1000


class Line:
    """What a node is of another one: `factor * x + shift`, for all entries alike. It is `exact` if the numbers are. A
    shift that is zero is so exactly; one that may be something else is no number."""

    def __init__(self, x: int, factor: float, shift: float, exact: bool) -> None:
        self.x, self.factor, self.shift, self.exact = x, factor, shift, exact


def line_of(c: Context, x: int) -> Line:
    factor, shift, exact = 1.0, 0.0, True
    for _ in range(_MOST):
        node = c.builder.node(x)
        own = _scaling(c, node)
        if own is None or not isinstance(node, Affine):
            break
        by, more = own
        if node.fuzz > _EACH or (by and not _LEAST <= abs(factor * by) <= _LARGEST):
            break
        exact = exact and not node.fuzz and _exactly(factor, by, more, shift)
        shift = factor * more + shift if exact or not more else nan
        factor = factor * by
        x = node.inputs[0]
    return Line(x, factor, shift, exact)


def _exactly(factor: float, by: float, more: float, shift: float) -> bool:
    """Whether `factor * by` and `factor * more + shift` are what floats say."""
    if not np.isfinite([factor, by, more, shift, factor * by, factor * more + shift]).all():
        return False
    exact = Fraction(factor) * Fraction(more) + Fraction(shift)
    return Fraction(factor) * Fraction(by) == Fraction(factor * by) and exact == Fraction(factor * more + shift)


def _scaling(c: Context, node: Affine | Activation | None) -> tuple[float, float] | None:
    """The one factor and the one shift of a node that scales another one, entry by entry. The factor may be off as
    `line_of` says; a shift that may be off is no number."""
    if not isinstance(node, Affine) or len(node.maps) != 1 or c.builder.size(node.inputs[0]) != node.size:
        return None
    inner, bias = node.maps[0], node.bias
    if not isinstance(inner, Scale) or node.within != np.inf:
        return None
    numbers = np.asarray(inner.factor).reshape(-1)
    shifts = np.zeros(1) if bias is None else np.asarray(bias).reshape(-1)
    if (numbers != numbers[0]).any() or (shifts != shifts[0]).any() or any(_is_vague(inner, m) for m in node.sizes):
        return None
    known = bias is None or np.array_equal(np.abs(bias), np.asarray(node.bias_size))
    return float(numbers[0]), float(shifts[0]) if known else nan


def _is_vague(factor: Scale, size: Map) -> bool:
    """Whether a factor, whose `size` is the larger the wider it is enclosed, may be off by more than `_EACH`."""
    return not isinstance(size, Scale) or bool((np.abs(size.factor) > 2 * np.abs(factor.factor)).any())


def _inside(c: Context, node: int, rule: type[Rule]) -> int | None:
    """The operand of a node that is such an activation."""
    there = c.builder.node(node)
    return there.inputs[0] if isinstance(there, Activation) and isinstance(there.rule, rule) else None


def _ratio(exact: bool, above: Sequence[float], below: Sequence[float] = ()) -> tuple[float, bool]:
    """A quotient of products, infinite where one may be too small or too large, and whether it is exact: of `exact`
    numbers that can be told."""
    products = [list(accumulate(numbers, operator.mul, initial=1.0)) for numbers in (above, below)]
    if not all(_SMALLEST <= abs(p) <= _GREATEST for part in products for p in part):
        return inf, False
    factor = products[0][-1] / products[1][-1]
    exact = (
        exact and np.isfinite(factor) and prod(map(Fraction, above)) == Fraction(factor) * prod(map(Fraction, below))
    )
    return factor, bool(exact)


def _scaled(c: Context, x: int, factor: float, size: int, exact: bool) -> int:
    """A node times a factor, which may be off as the fuzz says unless it is exact."""
    if exact:
        return x if factor == 1 else c.builder.add(Affine((x,), (Scale(np.array([factor])),), size))
    if not _LEAST <= abs(factor) <= _LARGEST:
        raise UnsupportedError("a function of one number, scaled by what is too small or too large")
    return c.builder.add(Affine((x,), (Scale(np.array([factor])),), size, fuzz=_FUZZ, made_of=abs(factor)))


_ONE, _MINUS_ONE = (1.0, True), (-1.0, True)


def _made(c: Context, rule: Rule, x: int, inner: tuple[float, bool], outer: tuple[float, bool], like: Value) -> Value:
    """`outer * rule(inner * x)`, of factors each with whether it is exact."""
    size = prod(like.shape)
    c.builder.only_real()
    node = c.builder.add(Activation((_scaled(c, x, inner[0], size, inner[1]),), rule, size))
    return Value(_scaled(c, node, outer[0], size, outer[1]), like.shape, like.dtype)


def gated(c: Context, a: Value, b: Value) -> Value | None:
    """The product of two values as a function of one number, None if it is none that is known."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return None
    one, two = line_of(c, a.node), line_of(c, b.node)
    if one.x == two.x:
        return _quadratic(c, one, two, a)
    for z, gate in ((one, two), (two, one)):
        if z.shift or c.builder.size(z.x) != c.builder.size(gate.x):
            continue
        for rule in (_logistic, _half, _mish, _hard_swish, _cubic, _stepped):
            found = rule(c, z, gate, a)
            if found is not None:
                return found
    return None


def _factor(c: Context, z: Line, node: int | None) -> Line | None:
    """The line of a node that is `factor * z.x`."""
    if node is None:
        return None
    inner = line_of(c, node)
    return inner if inner.x == z.x and not inner.shift and inner.factor else None


def _side(gate: Line) -> int:
    """1 where the factor of a gate is its shift, -1 where it is its opposite, else 0."""
    if not gate.exact or not gate.shift or abs(gate.factor) != abs(gate.shift):
        return 0
    return 1 if gate.factor == gate.shift else -1


def _logistic(c: Context, z: Line, gate: Line, like: Value) -> Value | None:
    k, side = _factor(c, z, _inside(c, gate.x, Sigmoid)), _side(gate)
    if k is None or not (gate.shift == 0 or side == -1):
        return None
    inner, outer = (k.factor, gate.factor) if gate.shift == 0 else (-k.factor, gate.shift)
    return _gated(c, SiLU(), z, k, inner, (outer, gate.exact), like)


def _gated(c: Context, rule: Rule, z: Line, k: Line, inner: float, outer: tuple[float, bool], like: Value) -> Value:
    """`z * outer * g(inner * z.x)` where `rule(z) = z g(z)`; k is the line that the inner factor is made of."""
    factor = _ratio(z.exact and k.exact and outer[1], (z.factor, outer[0]), (inner,))
    return _made(c, rule, z.x, _ratio(k.exact, (inner,)), factor, like)


def _half(c: Context, z: Line, gate: Line, like: Value) -> Value | None:
    """`z (1 + erf(k z))` or `z (1 + tanh(k z))`, or with the cube of z in it."""
    side = _side(gate)
    if not side:
        return None
    if (k := _factor(c, z, _inside(c, gate.x, Erf))) is not None:
        inner = _ratio(False, (sqrt(2.0), side * k.factor))  # roots are never exact
        return _made(c, GELU(), z.x, inner, _ratio(False, (z.factor, gate.shift, sqrt(2.0)), (side * k.factor,)), like)
    inside = _inside(c, gate.x, Tanh)
    if (k := _factor(c, z, inside)) is not None:
        return _gated(c, SiLU(), z, k, 2 * side * k.factor, (2 * gate.shift, True), like)
    if side > 0 and inside is not None and (form := _tanh_form(c, z, inside)) is not None:
        return _made(c, form, z.x, _ONE, _ratio(z.exact, (2.0, z.factor, gate.shift)), like)
    return None


def _tanh_form(c: Context, z: Line, inside: int) -> TanhGELU | None:
    total = line_of(c, inside)
    node = c.builder.node(total.x)
    if not isinstance(node, Affine) or len(node.maps) != 2 or total.shift or node.bias is not None or node.fuzz:
        return None
    if not all(isinstance(m, Scale) and (np.asarray(m.factor) == 1).all() for m in node.maps):
        return None
    parts = [line_of(c, x) for x in node.inputs]
    linear, cubic = parts if parts[0].x == z.x else parts[::-1]
    there = c.builder.node(cubic.x)
    if linear.x != z.x or linear.shift or cubic.shift or not isinstance(there, Activation):
        return None
    if not isinstance(there.rule, Power) or there.rule.exponent != 3 or there.inputs[0] != z.x:
        return None
    if not (total.exact and linear.exact and cubic.exact) or linear.factor != 1:
        return None
    return TanhGELU.near(total.factor, cubic.factor)


def _mish(c: Context, z: Line, gate: Line, like: Value) -> Value | None:
    soft = _inside(c, gate.x, Tanh)
    k = None if soft is None else _factor(c, z, _inside(c, soft, Softplus))
    return None if k is None or gate.shift else _gated(c, Mish(), z, k, k.factor, (gate.factor, gate.exact), like)


def _hard_swish(c: Context, z: Line, gate: Line, like: Value) -> Value | None:
    outer = _inside(c, gate.x, ReLU)
    middle = None if outer is None else line_of(c, outer)
    inner = None if middle is None else _inside(c, middle.x, ReLU)
    if middle is None or inner is None:
        return None
    start, height = line_of(c, inner), middle.shift
    exact = gate.exact and middle.exact and start.exact
    if start.x != z.x or middle.factor != -1 or not exact or start.factor <= 0 or height <= 0:
        return None
    if Fraction(gate.shift) != -Fraction(gate.factor) * Fraction(height) or 2 * start.shift != height:
        return None
    scale = _ratio(z.exact, (-gate.factor, height, height, z.factor), (6.0, start.factor))
    return _made(c, HardSwish(), z.x, _ratio(True, (6.0, start.factor), (height,)), scale, like)


def _quadratic(c: Context, a: Line, b: Line, like: Value) -> Value | None:
    """`f x * g x = f g x ** 2`."""
    if a.shift or b.shift:
        return None
    size = prod(like.shape)
    square = c.builder.add(Activation((a.x,), Square(), size))
    exact = a.exact and b.exact and _exactly(a.factor, b.factor, 0.0, 0.0)
    node = _scaled(c, square, a.factor * b.factor, size, exact)
    c.builder.only_real()
    return Value(node, like.shape, like.dtype)


def _cubic(c: Context, z: Line, gate: Line, like: Value) -> Value | None:
    """`z (s + f z ** 2) = s (z + f / s z ** 3)`."""
    if _inside(c, gate.x, Square) != z.x:
        return None
    size = prod(like.shape)
    cube = c.builder.add(Activation((z.x,), Power(3.0), size))
    c.builder.only_real()
    if not gate.shift:
        factor, exact = _ratio(gate.exact and z.exact, (gate.factor, z.factor))
        return Value(_scaled(c, cube, factor, size, exact), like.shape, like.dtype)
    ratio = gate.factor / gate.shift
    part = _scaled(c, cube, ratio, size, gate.exact and gate.shift == 1)
    one = Scale(np.ones(1))
    total = c.builder.add(Affine((z.x, part), (one, one), size))
    outer = gate.shift * z.factor
    exact = z.exact and gate.exact and _exactly(gate.shift, z.factor, 0.0, 0.0)
    return Value(_scaled(c, total, outer, size, exact), like.shape, like.dtype)


def _stepped(c: Context, z: Line, gate: Line, like: Value) -> Value | None:
    """`z (s + f step(k z))` is `s z + f relu(z)`, and for negative k `(s + f) z - f relu(z)`."""
    k = _factor(c, z, _inside(c, gate.x, Step))
    if k is None or not gate.exact:
        return None
    if k.factor > 0:
        return bent(c, z, (gate.shift,), (gate.factor,), like)
    return bent(c, z, (gate.shift, gate.factor), (-gate.factor,), like)


def bent(c: Context, z: Line, slope: Sequence[float], bend: Sequence[float], like: Value) -> Value:
    """A slope times z, and a bend times `z.factor * relu(z.x)`: each the sum of exact numbers, two at most."""
    size = prod(like.shape)
    c.builder.only_real()
    y = _scaled(c, c.builder.add(Activation((z.x,), ReLU(), size)), *_times(z, bend, size))
    if sum(slope):
        one = Scale(np.ones(1))
        y = c.builder.add(Affine((_scaled(c, z.x, *_times(z, slope, size)), y), (one, one), size))
    return Value(y, like.shape, like.dtype)


def _times(z: Line, terms: Sequence[float], size: int) -> tuple[float, int, bool]:
    """The sum of some terms times a line's factor, and whether that is exact."""
    exact = z.exact and sum(map(Fraction, terms)) == Fraction(sum(terms))
    factor, exact = _ratio(exact, (sum(terms), z.factor))
    return factor, size, exact


def reciprocal(c: Context, x: Value) -> Value | None:
    """`1 / (f (1 + exp(z))) = sigmoid(-z) / f`."""
    below = line_of(c, x.node)
    z = _inside(c, below.x, Exp)
    if z is None or _side(below) != 1:
        return None
    return _made(c, Sigmoid(), z, _MINUS_ONE, _ratio(True, (1.0,), (below.factor,)), x)


def quotient(c: Context, a: Value, b: Value) -> Value | None:
    """`z / (1 + k |z|)`: softsign of `k z`, divided by k."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return None
    above, below = line_of(c, a.node), line_of(c, b.node)
    inside = _of_absolute(c, below.x)
    k = None if inside is None else _factor(c, above, inside)
    if k is None or above.shift or below.shift != 1 or not below.exact or below.factor <= 0:
        return None
    exact, size = above.exact and k.exact, (below.factor, abs(k.factor))
    return _made(c, Softsign(), above.x, _ratio(exact, size), _ratio(exact, (above.factor,), size), a)


def _of_absolute(c: Context, x: int) -> int | None:
    """z where a node is `relu(z) + relu(-z)`."""
    node = c.builder.node(x)
    if not isinstance(node, Affine) or len(node.maps) != 2 or node.bias is not None:
        return None
    if not all(isinstance(m, Scale) and (np.asarray(m.factor) == 1).all() for m in node.maps):
        return None
    first, second = (_inside(c, i, ReLU) for i in node.inputs)
    if first is None or second is None:
        return None
    turned = c.builder.node(second)
    same = isinstance(turned, Affine) and turned.inputs == (first,) and _scaling(c, turned) == (-1.0, 0.0)
    return first if same else None


def logarithm(c: Context, x: Value) -> Value | None:
    """`log(1 + exp(z))` is softplus, and `log(sigmoid(z))` is minus softplus of `-z`."""
    inside = line_of(c, x.node)
    z = _inside(c, inside.x, Exp)
    if z is not None and inside.exact and (inside.factor, inside.shift) == (1.0, 1.0):
        return _made(c, Softplus(), z, _ONE, _ONE, x)
    z = _inside(c, x.node, Sigmoid)
    return None if z is None else _made(c, Softplus(), z, _MINUS_ONE, _MINUS_ONE, x)
