"""Functions of one number that exporters write as products, quotients and sums of others.

They are recognised where krelax recognises them, so that a certificate's activations have the same numbers. Each rule
is an identity of real numbers, whatever the constants of the file are; factors that are computed here have a `fuzz`.
"""

from __future__ import annotations

from fractions import Fraction
from math import nan, prod, sqrt

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
from krelax.certificate.kernel.linear import Scale
from krelax.certificate.kernel.network import Activation, Affine
from krelax.certificate.onnx.operator import Context, Value
from krelax.errors import UnsupportedError

# Of factors that are computed from three lines of so many nodes, each of which may be off by 2**-48.
_FUZZ, _MOST = 2.0**-44, 4
_LEAST, _LARGEST = 2.0**-400, 2.0**400


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
    """The one factor and the one shift of a node that scales another one, entry by entry."""
    if not isinstance(node, Affine) or len(node.maps) != 1 or c.builder.size(node.inputs[0]) != node.size:
        return None
    inner, bias = node.maps[0], node.bias
    if not isinstance(inner, Scale) or node.within != np.inf:
        return None
    numbers = np.asarray(inner.factor).reshape(-1)
    shifts = np.zeros(1) if bias is None else np.asarray(bias).reshape(-1)
    if (numbers != numbers[0]).any() or (shifts != shifts[0]).any():
        return None
    return float(numbers[0]), float(shifts[0])


def _inside(c: Context, node: int, rule: type[Rule]) -> int | None:
    """The operand of a node that is such an activation."""
    there = c.builder.node(node)
    return there.inputs[0] if isinstance(there, Activation) and isinstance(there.rule, rule) else None


def _scaled(c: Context, x: int, factor: float, size: int) -> int:
    if factor == 1:
        return x
    if not _LEAST <= abs(factor) <= _LARGEST:
        raise UnsupportedError("a function of one number, scaled by what is too small or too large")
    return c.builder.add(Affine((x,), (Scale(np.array([factor])),), size, fuzz=_FUZZ, made_of=abs(factor)))


def _made(c: Context, rule: Rule, x: int, inner: float, outer: float, like: Value) -> Value:
    """`outer * rule(inner * x)`."""
    size = prod(like.shape)
    c.builder.only_real()
    node = c.builder.add(Activation((_scaled(c, x, inner, size),), rule, size))
    return Value(_scaled(c, node, outer, size), like.shape, like.dtype)


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


def _factor(c: Context, z: Line, node: int | None) -> float | None:
    """k where a node is `k * z.x`."""
    if node is None:
        return None
    inner = line_of(c, node)
    return inner.factor if inner.x == z.x and not inner.shift and inner.factor else None


def _side(gate: Line) -> int:
    """1 where the factor of a gate is its shift, -1 where it is its opposite, else 0."""
    if not gate.exact or not gate.shift or abs(gate.factor) != abs(gate.shift):
        return 0
    return 1 if gate.factor == gate.shift else -1


def _logistic(c: Context, z: Line, gate: Line, like: Value) -> Value | None:
    k, side = _factor(c, z, _inside(c, gate.x, Sigmoid)), _side(gate)
    if k is None or not (gate.shift == 0 or side == -1):
        return None
    k, outer = (k, gate.factor) if gate.shift == 0 else (-k, gate.shift)
    return _made(c, SiLU(), z.x, k, z.factor * outer / k, like)


def _half(c: Context, z: Line, gate: Line, like: Value) -> Value | None:
    """`z (1 + erf(k z))` or `z (1 + tanh(k z))`, or with the cube of z in it."""
    side = _side(gate)
    if not side:
        return None
    outer = z.factor * gate.shift
    if (k := _factor(c, z, _inside(c, gate.x, Erf))) is not None:
        return _made(c, GELU(), z.x, sqrt(2.0) * side * k, outer * sqrt(2.0) / (side * k), like)
    inside = _inside(c, gate.x, Tanh)
    if (k := _factor(c, z, inside)) is not None:
        return _made(c, SiLU(), z.x, 2 * side * k, outer / (side * k), like)
    if side > 0 and inside is not None and (form := _tanh_form(c, z, inside)) is not None:
        return _made(c, form, z.x, 1.0, 2 * outer, like)
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
    return None if k is None or gate.shift else _made(c, Mish(), z.x, k, z.factor * gate.factor / k, like)


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
    k = 6 * start.factor / height
    return _made(c, HardSwish(), z.x, k, -gate.factor * height * z.factor / k, like)


def _quadratic(c: Context, a: Line, b: Line, like: Value) -> Value | None:
    """`f x * g x = f g x ** 2`."""
    if a.shift or b.shift:
        return None
    size = prod(like.shape)
    square = c.builder.add(Activation((a.x,), Square(), size))
    exact = a.exact and b.exact and _exactly(a.factor, b.factor, 0.0, 0.0)
    node = (_plainly if exact else _scaled)(c, square, a.factor * b.factor, size)
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
        return Value(_scaled(c, cube, gate.factor * z.factor, size), like.shape, like.dtype)
    ratio = gate.factor / gate.shift
    part = _plainly(c, cube, ratio, size) if gate.exact and gate.shift == 1 else _scaled(c, cube, ratio, size)
    one = Scale(np.ones(1))
    total = c.builder.add(Affine((z.x, part), (one, one), size))
    outer = gate.shift * z.factor
    exact = z.exact and gate.exact and _exactly(gate.shift, z.factor, 0.0, 0.0)
    node = _plainly(c, total, outer, size) if exact else _scaled(c, total, outer, size)
    return Value(node, like.shape, like.dtype)


def _plainly(c: Context, x: int, factor: float, size: int) -> int:
    """Scaled by a number that is exact."""
    return x if factor == 1 else c.builder.add(Affine((x,), (Scale(np.array([factor])),), size))


def _stepped(c: Context, z: Line, gate: Line, like: Value) -> Value | None:
    """`z (s + f step(k z))` is `s z + f relu(z)`, and for negative k `(s + f) z - f relu(z)`."""
    k = _factor(c, z, _inside(c, gate.x, Step))
    if k is None or not gate.exact:
        return None
    return bent(c, z, (gate.shift, gate.factor) if k > 0 else (gate.shift + gate.factor, -gate.factor), like)


def bent(c: Context, z: Line, slopes: tuple[float, float], like: Value) -> Value:
    """The first slope times z, and the second one times relu(z.x): both are right but for one rounding."""
    slope, bend = slopes
    if not np.isfinite([slope, bend]).all():
        raise UnsupportedError("a bend whose slopes overflow")
    size = prod(like.shape)
    c.builder.only_real()
    y = _scaled(c, c.builder.add(Activation((z.x,), ReLU(), size)), bend * z.factor, size)
    if slope:
        one = Scale(np.ones(1))
        y = c.builder.add(Affine((_scaled(c, z.x, slope * z.factor, size), y), (one, one), size))
    return Value(y, like.shape, like.dtype)


def reciprocal(c: Context, x: Value) -> Value | None:
    """`1 / (f (1 + exp(z))) = sigmoid(-z) / f`."""
    below = line_of(c, x.node)
    z = _inside(c, below.x, Exp)
    if z is None or _side(below) != 1:
        return None
    return _made(c, Sigmoid(), z, -1.0, 1 / below.factor, x)


def quotient(c: Context, a: Value, b: Value) -> Value | None:
    """`z / (1 + k |z|)`: softsign of `k z`, divided by k."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return None
    above, below = line_of(c, a.node), line_of(c, b.node)
    inside = _of_absolute(c, below.x)
    k = None if inside is None else _factor(c, above, inside)
    if k is None or above.shift or below.shift != 1 or not below.exact or below.factor <= 0:
        return None
    size = below.factor * abs(k)
    return _made(c, Softsign(), above.x, size, above.factor / size, a)


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
        return _made(c, Softplus(), z, 1.0, 1.0, x)
    z = _inside(c, x.node, Sigmoid)
    return None if z is None else _made(c, Softplus(), z, -1.0, -1.0, x)
