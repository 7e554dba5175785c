"""Comparisons, and what is chosen by them, built as in `krelax.network.compose`.

A truth is a node of zeros and ones: a step of a difference. What is chosen is `b + truth * (a - b)`, a product, unless
both are functions of the number that is compared, and so is the choice: a leaky ReLU, a threshold, an ELU.
"""

from __future__ import annotations

from math import prod

from krelax.activations import ELU, Exp, ReLU, Step, Threshold
from krelax.network.compose import Operand, add, broadcast, joint_shape, negate, reshape, scale_shift
from krelax.network.constants import Constant
from krelax.network.graph import Builder
from krelax.network.products import multiply
from krelax.network.recognise import Line, bent, line

_ONE = Constant.of(1.0)


def greater(builder: Builder, a: Operand, b: Operand, strictly: bool = True) -> int:
    """Whether `a > b`, or `a >= b`."""
    return builder.add(Step(0.0 if strictly else 1.0), add(builder, a, b, -1))


def is_not_zero(builder: Builder, x: int, margin: float = 0.0) -> int:
    """Whether a number is not zero: above it or below, by more than a margin."""
    sides = [x, negate(builder, x)]
    if margin:
        sides = [scale_shift(builder, t, None, Constant.of(-margin)) for t in sides]
    above, below = (builder.add(Step(0.0), t) for t in sides)
    return add(builder, above, below)


def compare(builder: Builder, name: str, a: Operand, b: Operand) -> int:
    """Whether `a` is "gt", "ge", "lt" or "le" `b`."""
    first, second = (a, b) if name[0] == "g" else (b, a)
    return greater(builder, first, second, name[1] == "t")


def opposite(builder: Builder, a: int) -> int:
    """Whether a truth is none."""
    return scale_shift(builder, a, Constant.of(-1.0), _ONE)


def both(builder: Builder, a: Operand, b: Operand) -> int:
    """Whether two truths are: `relu(a + b - 1)`."""
    return builder.add(ReLU(), scale_shift(builder, add(builder, a, b), None, Constant.of(-1.0)))


def either(builder: Builder, a: Operand, b: Operand) -> int:
    """Whether one of two truths is: `1 - relu(1 - a - b)`."""
    neither = scale_shift(builder, add(builder, a, b), Constant.of(-1.0), _ONE)
    return opposite(builder, builder.add(ReLU(), neither))


def choose(builder: Builder, truth: int, a: Operand, b: Operand) -> int:
    """`a` where a truth is one, else `b`."""
    shapes = [builder.shape(truth), *(o.shape if isinstance(o, Constant) else builder.shape(o) for o in (a, b))]
    shape = joint_shape(*shapes)
    if (known := _known(builder, truth, a, b, shape)) is not None:
        return known
    if isinstance(a, Constant) and isinstance(b, Constant):
        return scale_shift(builder, broadcast(builder, truth, shape), a - b, b)
    return add(builder, multiply(builder, truth, add(builder, a, b, -1)), b)


def _known(builder: Builder, truth: int, a: Operand, b: Operand, shape: tuple[int, ...]) -> int | None:
    """The choice as a function of the number that is compared; None if it is none that is known."""
    side = line(builder, truth)
    step = builder.node(side.x)
    numbers = side.factor.value.item(), side.shift.value.item()
    if not isinstance(step.op, Step) or numbers not in {(1.0, 0.0), (-1.0, 1.0)}:
        return None
    a, b = (a, b) if numbers[0] > 0 else (b, a)
    z = line(builder, step.inputs[0])
    if prod(builder.shape(z.x)) != prod(shape) or z.factor.error is not None or z.shift.error is not None:
        return None
    first, second = (_of(builder, o, z.x) for o in (a, b))
    if z.through_zero and first is not None and second is not None:
        return _bend(builder, z, first, second, shape)
    if isinstance(a, int) and first is not None and z.factor.value == 1:
        x = reshape(builder, z.x, shape)
        if step.op.at == 0 and isinstance(b, Constant) and _plainly(first):
            return _threshold(builder, x, -z.shift, b)
        if isinstance(b, int) and z.through_zero and first.through_zero:
            return _elu(builder, x, z.x, first.factor, line(builder, b))
    return None


def _of(builder: Builder, operand: Operand, x: int) -> Line | None:
    """An operand as a line of node x; a constant zero is one."""
    if isinstance(operand, Constant):
        zero = operand.error is None and bool((operand.value == 0).all())
        return Line(x, Constant.of(0.0), Constant.of(0.0)) if zero else None
    found = line(builder, operand)
    return found if found.x == x else None


def _plainly(a: Line) -> bool:
    return a.through_zero and a.factor.error is None and a.factor.value.item() == 1


def _bend(builder: Builder, z: Line, first: Line, second: Line, shape: tuple[int, ...]) -> int | None:
    """Two lines that meet at zero, where they are chosen."""
    exact = first.factor.error is None and second.factor.error is None
    if not (first.through_zero and second.through_zero and exact) or z.factor.value == 0:
        return None
    plain = Line(z.x, _ONE, Constant.of(0.0))
    more = first.factor - second.factor
    return bent(builder, plain, second.factor, more, bool(z.factor.value > 0), shape)


def _threshold(builder: Builder, x: int, limit: Constant, other: Constant) -> int | None:
    """`x` above a limit, else a number."""
    if other.error is not None or bool((other.value != other.value.reshape(-1)[0]).any()):
        return None
    return builder.add(Threshold(float(limit.value), float(other.value.reshape(-1)[0])), x)


def _elu(builder: Builder, x: int, node: int, scale: Constant, below: Line) -> int | None:
    """z above zero, else `s (exp(z) - 1)`."""
    inner = builder.node(below.x)
    inside = line(builder, inner.inputs[0]) if isinstance(inner.op, Exp) else None
    if inside is None or inside.x != node or not _plainly(inside):
        return None
    exact = all(c.error is None for c in (scale, below.factor, below.shift))
    if not exact or below.factor.value != -below.shift.value or not float(scale.value) > 0:
        return None
    alpha = below.factor / scale
    if alpha.error is not None or not float(alpha.value) > 0:
        return None
    return builder.add(ELU(float(alpha.value), float(scale.value)), x)
