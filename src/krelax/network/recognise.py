"""Functions of one number that exporters write as products, quotients and sums of others.

Products are relaxed over boxes of their operands, which forget that both depend on one number. So what is a known
function is read as that: a product of z and a gate is SiLU, GELU, mish or hard swish, `z / (1 + |z|)` is softsign,
`log(1 + exp(z))` is softplus, and so on. Each rule is an identity of real numbers for whatever constants the file has:
those that stand at the places of `1 / sqrt(2)` or `1 / 6` only scale the operand of the function and its result. The
tanh form of GELU has two constants inside and takes them as its parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from krelax.activations import (
    GELU,
    Activation,
    Erf,
    Exp,
    HardSwish,
    Mish,
    Power,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Softsign,
    Square,
    Step,
    Tanh,
    TanhGELU,
)
from krelax.network import compose
from krelax.network.constants import Constant
from krelax.network.graph import Builder
from krelax.network.linear import Add, Scale
from krelax.network.ops import Linear

_ZERO, _ONE = Constant.of(0.0), Constant.of(1.0)


@dataclass(frozen=True)
class Line:
    """`factor * x + shift` for all entries of node x alike."""

    x: int
    factor: Constant
    shift: Constant

    @property
    def through_zero(self) -> bool:
        return _is(self.shift, 0.0)


def _is(constant: Constant, value: float) -> bool:
    return constant.error is None and constant.value.item() == value


def plain(builder: Builder, x: int) -> int:
    """The node whose entries, in their order, are those of `x`: an earlier one if those between only move entries, and
    in the end do not."""
    return _origin(builder, x)[0]


def _origin(builder: Builder, x: int) -> tuple[int, int, Tensor]:
    """The same, a node that no longer moves entries, and which of its entries there are, -1 for zero."""
    node = builder.node(x)
    if not (isinstance(node.op, Linear) and node.op.moves_only and len(node.inputs) == 1):
        return x, x, torch.arange(prod(node.shape))
    (before,) = node.inputs
    own, root, places = _origin(builder, before)
    given = torch.arange(1, len(places) + 1).reshape(1, *builder.shape(before))
    moved = node.op.linear(given).flatten() - 1
    if torch.equal(moved, torch.arange(len(places))):
        return own, root, places
    found = torch.where(moved < 0, -1, places[moved.clamp(min=0)])
    same = torch.equal(found, torch.arange(prod(builder.shape(root))))
    return root if same else x, root, found


def line(builder: Builder, x: int) -> Line:
    """What a node is of the last one before it that is more than scaled, shifted and moved in order."""
    x, factor, shift = plain(builder, x), _ONE, _ZERO
    while True:
        node = builder.node(x)
        if not isinstance(node.op, Scale) or prod(node.shape) != prod(builder.shape(node.inputs[0])):
            return Line(x, factor, shift)
        own = [_uniform(getattr(node.op, name), getattr(node.op, f"{name}_error")) for name in ("factor", "shift")]
        if own[0] is None or own[1] is None:
            return Line(x, factor, shift)
        by = _ONE if node.op.factor is None else own[0]
        factor, shift = factor * by, factor * own[1] + shift
        x = plain(builder, node.inputs[0])


def _uniform(value: Tensor | None, error: Tensor | None) -> Constant | None:
    """A constant whose entries are all the same, as one number; 0 if there is none, None if they are not."""
    if value is None:
        return _ZERO
    numbers = [t.reshape(-1) for t in (value, error) if t is not None]
    if any(bool((t != t[0]).any()) for t in numbers):
        return None
    return Constant(*(t[0] for t in numbers))


def _operand(builder: Builder, x: int, kind: type[Activation]) -> int | None:
    """The operand of node x, if that is such an activation."""
    node = builder.node(x)
    return node.inputs[0] if isinstance(node.op, kind) else None


def _made(builder: Builder, op: Activation, x: int, inner: Constant, outer: Constant, shape: tuple[int, ...]) -> int:
    """`outer * op(inner * x)`, in a shape."""
    scaled = x if _is(inner, 1.0) else compose.scale_shift(builder, x, inner, None)
    y = compose.reshape(builder, builder.add(op, scaled), shape)
    return y if _is(outer, 1.0) else compose.scale_shift(builder, y, outer, None)


def gated(builder: Builder, a: int, b: int) -> int | None:
    """The product of two nodes as a function of one number; None if it is none that is known."""
    if builder.shape(a) != builder.shape(b):
        return None
    one, two, shape = line(builder, a), line(builder, b), builder.shape(a)
    if one.x == two.x:
        if not (one.through_zero and two.through_zero):
            return None
        return _made(builder, Square(), one.x, _ONE, one.factor * two.factor, shape)
    for z, gate in ((one, two), (two, one)):
        if not z.through_zero or prod(builder.shape(z.x)) != prod(builder.shape(gate.x)):
            continue
        for rule in (_logistic, _half, _of_mish, _of_hard_swish, _cubic, _stepped):
            found = rule(builder, z, gate, shape)
            if found is not None:
                return found
    return None


def _same(builder: Builder, z: Line, x: int) -> Constant | None:
    """The factor k where node x is `k * z.x`, which is not zero."""
    inner = line(builder, x)
    if inner.x != z.x or not inner.through_zero or not bool(inner.factor.value.abs() > inner.factor.errors()):
        return None
    return inner.factor


def _sign(gate: Line) -> int:
    """1 where the factor of a gate is its shift, -1 where it is its opposite, else 0."""
    if gate.factor.error is not None or gate.shift.error is not None or _is(gate.shift, 0.0):
        return 0
    factor, shift = gate.factor.value.item(), gate.shift.value.item()
    return 1 if factor == shift else -1 if factor == -shift else 0


def _logistic(builder: Builder, z: Line, gate: Line, shape: tuple[int, ...]) -> int | None:
    """`z sigmoid(k z) = SiLU(k z) / k`, and `1 - sigmoid(k z) = sigmoid(-k z)`."""
    inside = _operand(builder, gate.x, Sigmoid)
    k = None if inside is None else _same(builder, z, inside)
    if k is None or not (gate.through_zero or _sign(gate) == -1):
        return None
    k, outer = (k, gate.factor) if gate.through_zero else (-k, gate.shift)
    return _made(builder, SiLU(), z.x, k, z.factor * outer / k, shape)


def _half(builder: Builder, z: Line, gate: Line, shape: tuple[int, ...]) -> int | None:
    """`z (1 + erf(k z)) = sqrt(2) / k GELU(sqrt(2) k z)`; with a tanh, SiLU or the tanh form of GELU."""
    sign = _sign(gate)
    if not sign:
        return None
    outer, side = z.factor * gate.shift, Constant.of(float(sign))
    if (inside := _operand(builder, gate.x, Erf)) is not None and (k := _same(builder, z, inside)) is not None:
        k, root = k * side, Constant.of(2.0).sqrt()
        return _made(builder, GELU(), z.x, root * k, outer * root / k, shape)
    if (inside := _operand(builder, gate.x, Tanh)) is None:
        return None
    if (k := _same(builder, z, inside)) is not None:
        k = Constant.of(2.0) * side * k
        return _made(builder, SiLU(), z.x, k, Constant.of(2.0) * outer / k, shape)
    if sign > 0 and (form := _cubic_tanh(builder, z, inside)) is not None:
        return _made(builder, form, z.x, _ONE, Constant.of(2.0) * outer, shape)
    return None


def _cubic_tanh(builder: Builder, z: Line, inside: int) -> TanhGELU | None:
    """The tanh form with the constants of `gain * (z + cube * z ** 3)`, which must be numbers of the file."""
    total = line(builder, inside)
    node = builder.node(total.x)
    if not (isinstance(node.op, Add) and node.op.signs == (1, 1) and total.through_zero):
        return None
    parts = [line(builder, x) for x in node.inputs]
    parts = parts if parts[0].x == z.x else parts[::-1]
    linear, cubic = parts
    cubed = _operand(builder, cubic.x, Power)
    if linear.x != z.x or not (linear.through_zero and cubic.through_zero) or cubed is None:
        return None
    op = builder.node(cubic.x).op
    assert isinstance(op, Power)
    if op.exponent != 3 or plain(builder, cubed) != z.x or not _is(linear.factor, 1.0):
        return None
    gain, cube = total.factor, cubic.factor
    if gain.error is not None or cube.error is not None:
        return None
    return TanhGELU.near(float(gain.value), float(cube.value))


def _of_mish(builder: Builder, z: Line, gate: Line, shape: tuple[int, ...]) -> int | None:
    """`z tanh(softplus(k z)) = mish(k z) / k`."""
    soft = _operand(builder, gate.x, Tanh)
    inside = None if soft is None else _operand(builder, plain(builder, soft), Softplus)
    k = None if inside is None else _same(builder, z, inside)
    if k is None or not gate.through_zero:
        return None
    return _made(builder, Mish(), z.x, k, z.factor * gate.factor / k, shape)


def _of_hard_swish(builder: Builder, z: Line, gate: Line, shape: tuple[int, ...]) -> int | None:
    """A product of z and `f (h - relu(h - relu(d z + h / 2)))`, which is `h f` times a hard sigmoid of `6 d z / h`."""
    outer = _operand(builder, gate.x, ReLU)
    if outer is None:
        return None
    middle = line(builder, outer)
    inner = _operand(builder, middle.x, ReLU)
    if inner is None:
        return None
    start = line(builder, inner)
    height, exact = middle.shift, all(c.error is None for c in (gate.shift, gate.factor, middle.shift, start.shift))
    if (
        start.x != z.x
        or not _is(middle.factor, -1.0)
        or not exact
        or not bool(start.factor.value > start.factor.errors())
    ):
        return None
    top = gate.factor * height
    if top.error is not None or gate.shift.value != -top.value or start.shift.value * 2 != height.value:
        return None
    if not bool(height.value > 0):
        return None
    k = Constant.of(6.0) * start.factor / height
    return _made(builder, HardSwish(), z.x, k, -gate.factor * height * z.factor / k, shape)


def _cubic(builder: Builder, z: Line, gate: Line, shape: tuple[int, ...]) -> int | None:
    """`z (s + f z ** 2) = s (z + f / s z ** 3)`."""
    inside = _operand(builder, gate.x, Square)
    if inside is None or plain(builder, inside) != z.x:
        return None
    x = compose.reshape(builder, z.x, shape)
    cube = builder.add(Power(3.0), x)
    if gate.through_zero:
        return compose.scale_shift(builder, cube, gate.factor * z.factor, None)
    if not bool(gate.shift.value.abs() > gate.shift.errors()):
        return None
    total = compose.add(builder, x, compose.scale_shift(builder, cube, gate.factor / gate.shift, None))
    return compose.scale_shift(builder, total, gate.shift * z.factor, None)


def _stepped(builder: Builder, z: Line, gate: Line, shape: tuple[int, ...]) -> int | None:
    """`z (s + f step(k z))` is `s z + f relu(z)`, and for negative k `(s + f) z - f relu(z)`."""
    k = None if (inside := _operand(builder, gate.x, Step)) is None else _same(builder, z, inside)
    return None if k is None else bent(builder, z, gate.shift, gate.factor, float(k.value) > 0, shape)


def bent(builder: Builder, z: Line, base: Constant, more: Constant, above: bool, shape: tuple[int, ...]) -> int:
    """`base * z`, and `more * z` besides where z.x is positive (for `above`), or negative; `z` is without a shift."""
    slope, bend = (base, more) if above else (base + more, -more)
    x = compose.reshape(builder, z.x, shape)
    y = compose.scale_shift(builder, builder.add(ReLU(), x), bend * z.factor, None)
    linear = slope * z.factor
    return y if _is(linear, 0.0) else compose.add(builder, compose.scale_shift(builder, x, linear, None), y)


def reciprocal(builder: Builder, x: int) -> int | None:
    """`1 / x` where that is a function: `1 / (f (1 + exp(z))) = sigmoid(-z) / f`."""
    below = line(builder, x)
    z = _operand(builder, below.x, Exp)
    if z is None or _sign(below) != 1:
        return None
    turned = compose.reshape(builder, compose.negate(builder, z), builder.shape(x))
    return compose.scale_shift(builder, builder.add(Sigmoid(), turned), below.factor.reciprocal(), None)


def quotient(builder: Builder, a: int, b: int) -> int | None:
    """`z / (1 + k |z|)`, which is softsign of `k z`, divided by k."""
    if builder.shape(a) != builder.shape(b):
        return None
    above, below = line(builder, a), line(builder, b)
    inside = compose.of_absolute(builder, below.x)
    if inside is None or not above.through_zero or not _is(below.shift, 1.0):
        return None
    k = _same(builder, above, inside)
    if k is None or not bool(below.factor.value > below.factor.errors()):
        return None
    size = below.factor * abs(k)
    return _made(builder, Softsign(), above.x, size, above.factor / size, builder.shape(a))


def logarithm(builder: Builder, x: int) -> int | None:
    """`log(1 + exp(z))` is softplus, and `log(sigmoid(z))` is minus softplus of `-z`."""
    inside = line(builder, x)
    shape = builder.shape(x)
    if (z := _operand(builder, inside.x, Exp)) is not None and _is(inside.factor, 1.0) and _is(inside.shift, 1.0):
        return compose.reshape(builder, builder.add(Softplus(), z), shape)
    z = _operand(builder, plain(builder, x), Sigmoid)
    if z is None:
        return None
    soft = builder.add(Softplus(), compose.negate(builder, z))
    return compose.reshape(builder, compose.negate(builder, soft), shape)
