"""What sorts, chooses the largest, multiplies along an axis, or puts entries at places: they join `READERS`."""

from __future__ import annotations

import numpy as np
import torch

from krelax.errors import InputError, UnsupportedError
from krelax.network import compose, composites, orders, scattered
from krelax.network import onnx_geometry as geometry
from krelax.network.constants import Constant
from krelax.network.contractions import transpose
from krelax.network.onnx_constants import exact, folds
from krelax.network.onnx_operators import reads
from krelax.network.onnx_reader import Kind, Literal, Reader


@reads("ReduceProd")
def _product(r: Reader) -> int:
    axes, keep = geometry.reduced(r)
    return orders.product_over(r.builder, r.value(), axes, keep)


@reads("TopK")
def _largest(r: Reader) -> list[int | None]:
    """The largest entries along an axis, or the smallest, in order; their places are not read."""
    axis, x = r.axis(r.attribute("axis"), len(r.shape())), r.value()
    count = r.attribute("k") if r.version < 10 else (r.integers("", 1) or [0])[0]
    largest, ordered = r.attribute("largest") in {None, 1}, r.attribute("sorted") in {None, 1}
    if not 1 <= count <= r.shape()[axis] or not ordered:
        raise UnsupportedError(f"{count} of {r.shape()[axis]} entries, or entries in no order")
    y = orders.sorted_along(r.builder, x, axis, largest)
    return [compose.take_slice(r.builder, y, axis, range(count)), None]


@reads("ArgMax", "ArgMin")
def _place(r: Reader) -> int:
    axis, sign = r.axis(r.attribute("axis"), len(r.shape())), 1 if r.node.op_type == "ArgMax" else -1
    last = bool(r.attribute("select_last_index"))
    return orders.place_of_largest(r.builder, r.value(), axis, bool(r.attribute("keepdims")), sign, last)


@reads("Hardmax")
def _hard_maximum(r: Reader) -> int:
    """Before version 13 along all axes from one on, as if they were one."""
    shape, axis = r.shape(), r.axis(r.attribute("axis"), len(r.shape()))
    if r.version < 13:
        flat = compose.reshape(r.builder, r.value(), (int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))))
        return compose.reshape(r.builder, orders.winners(r.builder, flat), shape)
    order = [*(a for a in range(len(shape)) if a != axis), axis]
    won = orders.winners(r.builder, transpose(r.builder, r.value(), order))
    return transpose(r.builder, won, [order.index(a) for a in range(len(shape))])


@reads("ScatterElements", "Scatter", "ScatterND")
def _scattered(r: Reader) -> int:
    shape, index = r.shape(), r.given(1).integers.astype(np.int64)
    if not shape or not index.ndim:
        raise InputError(f"indices of shape {list(index.shape)} for a tensor of shape {list(shape)}")
    if r.node.op_type == "ScatterND":
        places = scattered.places_of_blocks(index, shape)
    else:
        places = scattered.places_of_elements(index, shape, r.axis(r.attribute("axis"), len(shape)))
    how = r.attribute("reduction") or "none"
    if how not in {"none", "add"}:
        raise UnsupportedError(f"reduction {how}; none and add are supported")
    put = scattered.put if how == "none" else scattered.added
    return put(r.builder, r.operand(0), places, r.operand(2))


@folds("OneHot")
def _one_hot(r: Reader) -> Literal:
    """Indices beyond the depth have no place."""
    index, depth, values = r.given(0), r.given(1), r.given(2)
    if depth.shape not in {(), (1,)} or values.shape != (2,):
        raise InputError("a depth that is not one number, or not two values")
    count = int(_whole(depth).item())
    axis = r.axis(r.attribute("axis"), len(index.shape) + 1)
    r.require((*index.shape, count))
    given = _whole(index)
    places = np.where(given < 0, given + count, given)
    numbers = np.arange(count).reshape([-1 if a == axis else 1 for a in range(given.ndim + 1)])
    hit = np.expand_dims(places, axis) == numbers
    return values.moved(lambda v: np.where(hit, v[1], v[0]))


def _whole(literal: Literal) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Whole numbers, of whatever type."""
    if not isinstance(literal.data, Constant):
        return literal.integers.astype(np.int64)
    number = literal.data
    if number.error is not None or not torch.equal(number.value, number.value.round()):
        raise UnsupportedError("indices that are no whole numbers")
    return np.asarray(number.value.numpy(), np.int64)


@reads("Asinh")
def _inverse_hyperbolic_sine(r: Reader) -> int:
    return composites.inverse_hyperbolic_sine(r.builder, r.value())


@reads("Mod")
def _remainder(r: Reader) -> int:
    """With the sign of what is divided, which is what ONNX has for floating-point numbers."""
    if not r.attribute("fmod"):
        raise InputError("a remainder of floating-point numbers without fmod")
    return composites.remainder(r.builder, r.value(), r.weight(1), True)


@reads("IsNaN", "IsInf")
def _is_no_number(r: Reader) -> Literal:
    """Nothing is, in real arithmetic."""
    if r.builder.shown(r.value())[1] is not None:
        raise UnsupportedError("a question about minus infinity in a mask")
    r.require(r.shape())
    return Literal(Kind.BOOL, np.zeros(r.shape(), np.bool_))


@folds("IsNaN", "IsInf")
def _constant_is_no_number(r: Reader) -> Literal:
    values = r.weight(0).value.numpy()
    up, down = (r.attribute(name) in {None, 1} for name in ("detect_positive", "detect_negative"))
    endless = (np.isposinf(values) & up) | (np.isneginf(values) & down)
    return Literal(Kind.BOOL, endless if r.node.op_type == "IsInf" else np.isnan(values))


@folds("ArgMax", "ArgMin")
def _constant_place(r: Reader) -> Literal:
    axis, values = r.axis(r.attribute("axis"), len(r.shape())), exact(r.given(0))
    pick = np.argmax if r.node.op_type == "ArgMax" else np.argmin
    last = bool(r.attribute("select_last_index"))
    found = pick(np.flip(values, axis) if last else values, axis, keepdims=bool(r.attribute("keepdims")))
    return Literal.whole(r.shape()[axis] - 1 - found if last else found)


@folds("CumSum")
def _sums(r: Reader) -> Literal:
    (axis,) = r.axes(r.integers("", 1) or [], len(r.shape()))
    given = r.given(0)
    if isinstance(given.data, Constant):
        weight = np.tril(np.ones([r.shape()[axis]] * 2), -1 if r.attribute("exclusive") else 0)
        matrix = Constant.of(torch.from_numpy(np.ascontiguousarray(weight.T if r.attribute("reverse") else weight)))
        moved = given.data.moved(lambda t: t.movedim(axis, -1))
        return Literal(given.kind, moved.matmul(matrix.mT).moved(lambda t: t.movedim(-1, axis)).checked())
    values = exact(given).astype(object)
    values = np.flip(values, axis) if r.attribute("reverse") else values
    sums = np.cumsum(values, axis)
    sums = sums - values if r.attribute("exclusive") else sums
    return Literal.whole(np.flip(sums, axis) if r.attribute("reverse") else sums, given.kind)
