"""Aten operators of one number or two that are made of others: they join `READERS`."""

from __future__ import annotations

import torch

from krelax.activations import Atan, Erf, Exp, Floor, Round, Softplus, Sqrt, Square
from krelax.errors import UnsupportedError
from krelax.network import compose, composites
from krelax.network.compose import Operand
from krelax.network.constants import Constant
from krelax.network.products import multiply
from krelax.network.torch_operators import reads
from krelax.network.torch_reader import Call


@reads("div")
def _divide(c: Call) -> int:
    quotient, mode = composites.divide(c.builder, *c.pair), c.arguments.get("rounding_mode")
    if mode is None:
        return quotient
    return c.builder.add(Floor(), quotient) if mode == "floor" else composites.truncate(c.builder, quotient)


@reads("floor_divide")
def _floor_divided(c: Call) -> int:
    return c.builder.add(Floor(), composites.divide(c.builder, *c.pair))


@reads("round")
def _round(c: Call) -> int:
    """To whole numbers, or to decimals."""
    scale = Constant.of(10.0 ** c.arguments.get("decimals", 0))
    if scale.value == 1:
        return c.add(Round())
    found = c.builder.add(Round(), compose.scale_shift(c.builder, c.x, scale, None))
    return compose.scale_shift(c.builder, found, scale.reciprocal(), None)


@reads("reciprocal")
def _reciprocal(c: Call) -> int:
    return composites.reciprocal(c.builder, c.x)


@reads("log", "log2", "log10", "log1p")
def _logarithm(c: Call) -> int:
    """Logarithms of another base are divided by that of the base."""
    x = compose.scale_shift(c.builder, c.x, None, Constant.of(1.0)) if c.name == "log1p" else c.x
    y, base = composites.logarithm(c.builder, x), {"log2": 2.0, "log10": 10.0}.get(c.name)
    return (
        y if base is None else compose.scale_shift(c.builder, y, Constant.of(base).function("log").reciprocal(), None)
    )


@reads("exp2", "expm1", "erfc")
def _shifted(c: Call) -> int:
    """`exp(log(2) z)`, `exp(z) - 1`, `1 - erf(z)`."""
    if c.name == "exp2":
        return c.add(Exp(), compose.scale_shift(c.builder, c.x, Constant.of(2.0).function("log"), None))
    if c.name == "expm1":
        return compose.scale_shift(c.builder, c.add(Exp()), None, Constant.of(-1.0))
    return compose.scale_shift(c.builder, c.add(Erf()), Constant.of(-1.0), Constant.of(1.0))


@reads("acos", "arccos")
def _arc_cosine(c: Call) -> int:
    return composites.arc_cosine(c.builder, c.x)


@reads("logaddexp")
def _log_add_exp(c: Call) -> int:
    """`a + log(1 + exp(b - a))`."""
    a, b = c.pair
    away = compose.add(c.builder, b, a, -1)
    return compose.add(c.builder, c.builder.add(Softplus(), away), a)


@reads("logaddexp2")
def _log_add_exp2(c: Call) -> int:
    """`logaddexp(log(2) a, log(2) b) / log(2)`."""
    base = Constant.of(2.0).function("log")
    a, b = (o * base if isinstance(o, Constant) else compose.scale_shift(c.builder, o, base, None) for o in c.pair)
    y = compose.add(c.builder, c.builder.add(Softplus(), compose.add(c.builder, b, a, -1)), a)
    return compose.scale_shift(c.builder, y, base.reciprocal(), None)


@reads("logit")
def _logit(c: Call) -> int:
    """`log(x) - log(1 - x)`, of x within [eps, 1 - eps]."""
    x, eps = c.x, c["eps"]
    if eps is not None:
        x = compose.clip(c.builder, x, *(float(c.number(limit).value.item()) for limit in (eps, 1 - eps)))
    rest = compose.scale_shift(c.builder, x, Constant.of(-1.0), Constant.of(1.0))
    return compose.add(c.builder, composites.logarithm(c.builder, x), composites.logarithm(c.builder, rest), -1)


@reads("nan_to_num")
def _nan_to_num(c: Call) -> int:
    """Of numbers, which is what real arithmetic has."""
    return c.x


@reads("atan2", "arctan2")
def _angle(c: Call) -> int:
    """`2 atan(y / (sqrt(x^2 + y^2) + x))`, of x and y where that divisor is not zero."""
    radius = _radius(c)
    half = c.builder.add(Atan(), composites.divide(c.builder, c.pair[0], compose.add(c.builder, radius, c.pair[1])))
    return compose.scale_shift(c.builder, half, Constant.of(2.0), None)


@reads("_trilinear")
def _trilinear(c: Call) -> int:
    """The product of three operands with axes put in, summed up over some."""
    parts = []
    for i in (1, 2, 3):
        x = c.operand(f"i{i}")
        for axis in c[f"expand{i}"]:
            shape = list(x.shape if isinstance(x, Constant) else c.builder.shape(x))
            shape.insert(axis, 1)
            x = x.reshape(*shape) if isinstance(x, Constant) else compose.reshape(c.builder, x, shape)
        parts.append(x)
    total = parts[0]
    for part in parts[1:]:
        both = isinstance(total, Constant) and isinstance(part, Constant)
        total = total * part if both else multiply(c.builder, total, part)  # type: ignore[operator]
    assert isinstance(total, int)
    return compose.reduce_sum(c.builder, total, c["sumdim"], False)


@reads("deg2rad", "rad2deg")
def _degrees(c: Call) -> int:
    """Times the number that PyTorch has for pi / 180, or its reciprocal."""
    factor = c.number(torch.deg2rad(torch.ones((), dtype=torch.float64)).item())
    return compose.scale_shift(c.builder, c.x, factor if c.name == "deg2rad" else factor.reciprocal(), None)


@reads("linalg_cross")
def _cross_product(c: Call) -> int:
    """`a1 b2 - a2 b1`, and so on, along an axis of three."""
    a, b = c.pair
    one, two = (1, 2, 0), (2, 0, 1)
    first, second = (multiply(c.builder, _turned(c, a, p), _turned(c, b, q)) for p, q in ((one, two), (two, one)))
    return compose.add(c.builder, first, second, -1)


def _turned(c: Call, x: Operand, places: tuple[int, ...]) -> Operand:
    axis = c["dim"] % len(c.shape_of(x))
    if isinstance(x, Constant):
        return x.moved(lambda t: t.index_select(axis, torch.tensor(places)))
    return compose.take_slice(c.builder, x, axis, places)


@reads("special_xlog1py", "xlogy", "special_xlogy")
def _times_logarithm(c: Call) -> int:
    """`a log(b)`, or of `1 + b`; both are to depend on the input, or the first to be constant."""
    a, b = c.pair
    if isinstance(b, Constant):
        raise UnsupportedError("a logarithm of a constant; compute it before")
    x = compose.scale_shift(c.builder, b, None, Constant.of(1.0)) if c.name.endswith("1py") else b
    return multiply(c.builder, a, composites.logarithm(c.builder, x))


@reads("hypot")
def _hypotenuse(c: Call) -> int:
    return _radius(c)


def _radius(c: Call) -> int:
    """`sqrt(a^2 + b^2)`."""
    first, second = (o * o if isinstance(o, Constant) else c.builder.add(Square(), o) for o in c.pair)
    return c.builder.add(Sqrt(), compose.add(c.builder, first, second))


@reads("trunc", "fix", "frac")
def _truncated(c: Call) -> int:
    whole = composites.truncate(c.builder, c.x)
    return whole if c.name != "frac" else compose.add(c.builder, c.x, whole, -1)


@reads("remainder", "fmod")
def _remainder(c: Call) -> int:
    return composites.remainder(c.builder, c.x, c.constant("other"), c.name == "fmod")


@reads("pow", "float_power")
def _power(c: Call) -> int:
    return composites.power(c.builder, c.operand("self"), c.operand("exponent"))


@reads("asinh", "arcsinh")
def _inverse_hyperbolic_sine(c: Call) -> int:
    return composites.inverse_hyperbolic_sine(c.builder, c.x)


@reads("cdist", "_cdist_forward")
def _distances(c: Call) -> int:
    """Euclidean distances of all rows of one operand to all rows of the other."""
    if c["p"] != 2:
        raise UnsupportedError(f"distances of order {c['p']}; those of order 2 are supported")
    first, second = c.pair
    one, two = (_with_axis(c, o, place) for o, place in ((first, -2), (second, -3)))
    away = compose.add(c.builder, one, two, -1)
    return composites.norm(c.builder, away, [len(c.builder.shape(away)) - 1], False)


def _with_axis(c: Call, x: Operand, place: int) -> Operand:
    shape = list(x.shape if isinstance(x, Constant) else c.builder.shape(x))
    shape.insert(len(shape) + place + 1, 1)
    return x.reshape(*shape) if isinstance(x, Constant) else compose.reshape(c.builder, x, shape)
