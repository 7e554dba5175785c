"""Activations with parameters, and those whose name says only part of what they are."""

from __future__ import annotations

from math import prod

import numpy as np

from krelax.certificate.kernel.activations import ELU, GELU, Power, Rule, Shrink, SiLU, Square, TanhGELU, Threshold
from krelax.certificate.kernel.activations.exponential import Exp, Log
from krelax.certificate.kernel.activations.power import Reciprocal, Sqrt
from krelax.certificate.kernel.arithmetic import Floats
from krelax.certificate.onnx import recognise
from krelax.certificate.onnx.activations import activation
from krelax.certificate.onnx.affine import ROUNDED, scaled
from krelax.certificate.onnx.operator import Context, Tensor, Value, broadcast, form, numbers, reads, real, text
from krelax.certificate.onnx.products import products
from krelax.certificate.onnx.shapes import joined
from krelax.errors import UnsupportedError

_MOST_EXPONENTS = 16


def _made(c: Context, rule: Rule) -> Value:
    return activation(c, c.value(), rule, c.value().shape)


def _elu_of(c: Context, alpha: float, scale: float = 1.0, stretch: float = 1.0) -> Value:
    if not all(0 < x < np.inf for x in (alpha, scale, stretch)):
        raise UnsupportedError("an ELU whose parameters are not positive")
    return _made(c, ELU(alpha, scale, stretch))


@reads("Elu", forms=[form(7, 1, alpha=real(1.0))])
def _elu(c: Context) -> Tensor:
    return _elu_of(c, float(c.get("alpha")))


@reads("Selu", forms=[form(7, 1, alpha=real(1.67326319217681884765625), gamma=real(1.05070102214813232421875))])
def _selu(c: Context) -> Tensor:
    return _elu_of(c, float(c.get("alpha")), float(c.get("gamma")))


@reads("Celu", forms=[form(12, 1, alpha=real(1.0))])
def _celu(c: Context) -> Tensor:
    return _elu_of(c, float(c.get("alpha")), 1.0, float(c.get("alpha")))


@reads("Gelu", forms=[form(20, 1, approximate=text("none", "tanh"))])
def _gelu(c: Context) -> Tensor:
    return _made(c, TanhGELU() if c.get("approximate") == "tanh" else GELU())


@reads("Swish", forms=[form(24, 1, alpha=real(1.0))])
def _swish(c: Context) -> Tensor:
    if c.get("alpha") != 1:
        raise UnsupportedError("a swish with an alpha other than 1")
    return _made(c, SiLU())


@reads("ThresholdedRelu", forms=[form(10, 1, alpha=real(1.0))])
def _threshold(c: Context) -> Tensor:
    return _made(c, Threshold(float(c.get("alpha"))))


@reads("Shrink", forms=[form(9, 1, lambd=real(0.5), bias=real(0.0))])
def _shrink(c: Context) -> Tensor:
    limit = float(c.get("lambd"))
    if not 0 <= limit < np.inf:
        raise UnsupportedError(f"a shrinkage with a limit of {limit:g}")
    return _made(c, Shrink(limit, float(c.get("bias"))))


@reads("Pow", forms=[form(7, 2)])
def _power(c: Context) -> Tensor:
    """Powers of constant exponents, of any type; or of two values, `exp(exponent log(base))`."""
    exponent = c.operand(1)
    if not isinstance(exponent, Value):
        return _powers(c, c.value(), exponent.astype(np.float64))
    if not isinstance(c.operand(0), Value):
        return _of_base(c, c.weight(0), exponent)
    base = c.value()
    known = recognise.logarithm(c, base)
    logarithm = activation(c, base, Log(), base.shape) if known is None else known
    c.builder.only_real()
    product = products(c, logarithm, exponent)
    return activation(c, product, Exp(), product.shape)


def _powers(c: Context, x: Value, powers: Floats) -> Value:
    """Each entry by its own exponent: those that have one in common together."""
    shape, different = broadcast(x.shape, powers.shape), np.unique(powers).tolist()
    x = c.moved(np.broadcast_to(numbers(x.shape), shape), x)
    if len(different) > _MOST_EXPONENTS or not np.isfinite(powers).all():
        raise UnsupportedError(f"powers of {len(different)} exponents in one operator")
    if len(different) == 1:
        return power_of(c, x, different[0])
    parts: list[Tensor] = []
    place, begin = np.empty(prod(shape), np.int64), 0
    for number in different:
        (chosen,) = np.nonzero(np.broadcast_to(powers, shape).reshape(-1) == number)
        parts.append(power_of(c, c.moved(chosen, x), number))
        place[chosen] = begin + np.arange(len(chosen))
        begin += len(chosen)
    return c.moved(place.reshape(shape), joined(c, parts, 0))


def power_of(c: Context, x: Value, exponent: float) -> Value:
    """`x ** exponent` by the activation that it is."""
    if exponent == 1:
        return x
    if exponent == 0:
        return scaled(c, x, 0.0, np.ones(()))
    plain: dict[float, Rule] = {2.0: Square(), 0.5: Sqrt(), -1.0: Reciprocal()}
    return activation(c, x, plain.get(exponent) or Power(exponent), x.shape)


def _of_base(c: Context, base: Floats, x: Value) -> Value:
    """`exp(log(base) x)`; logarithms are right but for a few units of rounding, unless they are nearly zero."""
    if not (base > 0).all() or (np.abs(base - 1) < 2.0**-20).any():
        raise UnsupportedError("a power of a constant that is not positive, or nearly one")
    c.builder.only_real()
    z = scaled(c, x, np.log(base), fuzz=ROUNDED, made_of=float(np.max(np.abs(np.log(base)))))
    return activation(c, z, Exp(), z.shape)
