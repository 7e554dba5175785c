"""Comparisons of what depends on the input, and choices by them. A truth is a value of zeros and ones."""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from krelax.certificate.kernel.activations import ELU, ReLU, Rule, Step, Threshold
from krelax.certificate.kernel.activations.exponential import Exp
from krelax.certificate.kernel.network import Activation
from krelax.certificate.onnx.activations import activation
from krelax.certificate.onnx.affine import add, scaled
from krelax.certificate.onnx.constants import compared, logic, negated
from krelax.certificate.onnx.moves import chosen
from krelax.certificate.onnx.operator import Context, Everything, Tensor, Value, broadcast, form, numbers, reads
from krelax.certificate.onnx.products import products
from krelax.certificate.onnx.recognise import Line, bent, line_of
from krelax.errors import InputError, UnsupportedError

_BOOL = np.dtype(np.bool_)


@reads("GreaterOrEqual", "LessOrEqual", forms=[form(12, 2)])
@reads("Greater", "Less", forms=[form(7, 2)])
def _compare(c: Context) -> Tensor:
    a, b = c.operand(0), c.operand(1)
    if not isinstance(a, Value) and not isinstance(b, Value):
        return compared(c)
    first, second = (x if isinstance(x, Value) else c.weight(i) for i, x in enumerate((a, b)))
    one, two = (first, second) if c.call.op.startswith("Greater") else (second, first)
    c.builder.only_real()
    z = add(c, one, two, -1)
    y = activation(c, z, Step(1.0 if c.call.op.endswith("OrEqual") else 0.0), z.shape)
    return Value(y.node, y.shape, _BOOL)


@reads("Not", forms=[form(7, 1)])
def _not(c: Context) -> Tensor:
    x = c.operand(0)
    return _truth(scaled(c, x, -1.0, np.ones(()))) if isinstance(x, Value) else negated(c)


@reads("And", "Or", forms=[form(7, 2)])
def _joined(c: Context) -> Tensor:
    operands = [c.operand(i) for i in range(2)]
    if not any(isinstance(x, Value) for x in operands):
        return logic(c)
    if any(x.dtype != _BOOL for x in operands):
        raise InputError("operands that are no truths")
    a, b = (x if isinstance(x, Value) else x.astype(np.float64) for x in operands)
    total = add(c, a, b, 1)
    if c.call.op == "And":
        return _truth(_act(c, scaled(c, total, 1.0, -np.ones(())), ReLU()))
    neither = _act(c, scaled(c, total, -1.0, np.ones(())), ReLU())
    return _truth(scaled(c, neither, -1.0, np.ones(())))


def _truth(x: Value) -> Value:
    return Value(x.node, x.shape, _BOOL)


def _act(c: Context, x: Value, rule: Rule) -> Value:
    return activation(c, x, rule, x.shape)


@reads("Where", forms=[form(9, 3)])
def _where(c: Context) -> Everything:
    truth = c.operand(0)
    if not isinstance(truth, Value):
        return chosen(c)
    first, second = c.operand(1), c.operand(2)
    if truth.dtype != _BOOL or first.dtype != second.dtype or first.dtype.kind != "f":
        raise UnsupportedError(f"a choice by {truth.dtype} between {first.dtype} and {second.dtype}")
    shape = broadcast(truth.shape, first.shape, second.shape)
    a, b = (x if isinstance(x, Value) else x.astype(np.float64) for x in (first, second))
    truth = Value(truth.node, truth.shape, first.dtype)
    if (known := _known(c, truth, a, b, shape)) is not None:
        return known
    if isinstance(a, Value) or isinstance(b, Value):
        return add(c, products(c, truth, add(c, a, b, -1)), b, 1)
    away, exact = a - b, np.vectorize(_is_difference, otypes=[bool])
    if not exact(a, b, away).all():
        raise UnsupportedError("a choice between constants whose difference rounds")
    whole = c.moved(np.broadcast_to(numbers(truth.shape), shape), truth)
    return scaled(c, whole, away, b)


def _is_difference(a: float, b: float, away: float) -> bool:
    return Fraction(a) - Fraction(b) == Fraction(away)


_Operand = Any


def _known(c: Context, truth: Value, a: _Operand, b: _Operand, shape: tuple[int, ...]) -> Value | None:
    """The choice as a function of the number that is compared, as krelax sees it; None if it is none that is known."""
    side = line_of(c, truth.node)
    step = c.builder.node(side.x)
    if not isinstance(step, Activation) or not isinstance(step.rule, Step) or not side.exact:
        return None
    if (side.factor, side.shift) not in {(1.0, 0.0), (-1.0, 1.0)}:
        return None
    a, b = (a, b) if side.factor > 0 else (b, a)
    z = line_of(c, step.inputs[0])
    if c.builder.size(z.x) != prod(shape) or not z.exact:
        return None
    return _function(c, step.rule, z, a, b, Value(z.x, shape, truth.dtype))


def _function(c: Context, rule: Step, z: Line, a: _Operand, b: _Operand, like: Value) -> Value | None:
    """`a` where a step of z is one, else `b`, as a function of z.x."""
    first, second = _of(c, a, z.x), _of(c, b, z.x)
    if not z.shift and first is not None and second is not None:
        if first.shift or second.shift or not (first.exact and second.exact) or not z.factor:
            return None
        low, high = (second, first) if z.factor > 0 else (first, second)
        return bent(c, Line(z.x, 1.0, 0.0, True), (low.factor,), (high.factor, -low.factor), like)
    if not isinstance(a, Value) or first is None or first.shift or not first.exact or z.factor != 1:
        return None
    if rule.at == 0 and not isinstance(b, Value) and first.factor == 1:
        if (b != b.reshape(-1)[0]).any():
            return None
        return _act(c, like, Threshold(-z.shift, float(b.reshape(-1)[0])))
    return _elu(c, first.factor, b, z, like)


def _of(c: Context, x: _Operand, node: int) -> Line | None:
    """An operand as a line of a node; a constant zero is one."""
    if not isinstance(x, Value):
        return Line(node, 0.0, 0.0, True) if not x.any() else None
    found = line_of(c, x.node)
    return found if found.x == node else None


def _elu(c: Context, scale: float, b: _Operand, z: Line, like: Value) -> Value | None:
    """z above zero, else `s (exp(z) - 1)`."""
    if not isinstance(b, Value) or z.shift or scale != 1:
        return None
    below = line_of(c, b.node)
    inner = c.builder.node(below.x)
    if not isinstance(inner, Activation) or not isinstance(inner.rule, Exp) or not below.exact:
        return None
    inside = line_of(c, inner.inputs[0])
    plain = inside.x == z.x and inside.exact and (inside.factor, inside.shift) == (1.0, 0.0)
    if not plain or below.factor != -below.shift or below.factor <= 0:
        return None
    c.builder.only_real()
    return _act(c, like, ELU(below.factor))
