"""More operators on constants: they join `FOLDS` of `krelax.network.onnx_constants`."""

from __future__ import annotations

from math import prod

import numpy as np
import torch

from krelax.errors import InputError, UnsupportedError
from krelax.network import onnx_geometry as geometry
from krelax.network.constants import Constant
from krelax.network.onnx_affine import triangle
from krelax.network.onnx_constants import exact, folds, joint, require_full
from krelax.network.onnx_moves import MOVES, Move, padding
from krelax.network.onnx_reader import FLOATS, Kind, Literal, Reader
from krelax.network.onnx_schema import kind_name


@folds(*MOVES)
def _moved(r: Reader) -> Literal:
    return _move(r, MOVES[r.node.op_type](r))


def _move(r: Reader, move: Move) -> Literal:
    shape, function = move
    r.require(shape)
    return r.given(0).moved(function)


@folds("Pad")
def _pad(r: Reader) -> Literal:
    if r.attribute("mode") != "constant":
        return _move(r, padding(r))
    before, after = geometry.padding(r)
    shape = [n + b + a for n, b, a in zip(r.shape(), before, after, strict=True)]
    if min(*before, *after, 0) < 0 or r.version < 11:
        raise UnsupportedError("a padding of a constant that crops; fold it when exporting")
    r.require(shape)
    given, fill, pairs = r.given(0), r.literal(2), list(zip(before, after, strict=True))
    if fill is not None and (prod(fill.shape) != 1 or fill.kind != given.kind):
        raise InputError("a padding by what is not one number of the constant's type")
    if not isinstance(given.data, Constant):
        number = 0 if fill is None else fill.integers.item()
        return Literal(given.kind, np.pad(given.integers, pairs, constant_values=number))
    padded = given.moved(lambda a: np.pad(a, pairs)).floats
    outside = np.pad(np.zeros(given.shape), pairs, constant_values=0.0 if fill is None else exact(fill).item())
    return Literal(given.kind, padded + Constant.of(torch.from_numpy(outside)))


@folds("DequantizeLinear")
def _dequantised(r: Reader) -> Literal:
    """`(x - zero_point) * scale` in real arithmetic, with one scale or one for each entry of an axis."""
    given, scale, zero = r.given(0), r.weight(1), r.literal(2)
    if r.attribute("block_size"):
        raise UnsupportedError("scales for blocks of an axis; export with one scale for a channel")
    if r.given(1).kind not in FLOATS or (zero is not None and (zero.shape != scale.shape or zero.kind != given.kind)):
        raise UnsupportedError("scales that are not float32, or zero points of another type or shape")
    shape: tuple[int, ...] = ()
    if scale.shape not in {(), (1,)}:
        axis = r.axis(1 if r.attribute("axis") is None else r.attribute("axis"), len(given.shape))
        shape = tuple(-1 if i == axis else 1 for i in range(len(given.shape)))
        if scale.shape != (given.shape[axis],):
            raise InputError(f"scales of shape {list(scale.shape)} for an axis of {given.shape[axis]} entries")
    r.require(given.shape)
    whole = given.integers.astype(np.int64)
    whole = whole if zero is None else whole - zero.integers.astype(np.int64).reshape(shape)
    return Literal(r.given(1).kind, (Constant.of(torch.from_numpy(whole)) * scale.reshape(*shape)).checked())


@folds("Xor")
def _compare(r: Reader) -> Literal:
    a, b = r.given(0).integers, r.given(1).integers
    r.require(joint(a.shape, b.shape))
    return Literal(Kind.BOOL, np.logical_xor(a, b))


@folds("Sum", "Mean")
def _sum(r: Reader) -> Literal:
    require_full(r)
    operands = [r.weight(i) for i in range(len(r.node.input))]
    r.require(joint(*(o.shape for o in operands)))
    total = operands[0]
    for other in operands[1:]:
        total = total + other
    return Literal(r.given(0).kind, total / Constant.of(float(len(operands))) if r.node.op_type == "Mean" else total)


@folds("Floor", "Ceil")
def _rounded(r: Reader) -> Literal:
    require_full(r)
    number = torch.from_numpy(exact(r.given(0)).copy())
    return Literal(r.given(0).kind, Constant.of(number.floor() if r.node.op_type == "Floor" else number.ceil()))


@folds("Mod")
def _mod(r: Reader) -> Literal:
    a, b = r.given(0).integers, r.given(1).integers
    r.require(joint(a.shape, b.shape))
    if (b == 0).any() or r.attribute("fmod"):
        raise UnsupportedError("a remainder of a division by zero, or with fmod")
    return Literal.whole(a.astype(object) % b.astype(object), r.given(0).kind)


@folds("Trilu")
def _trilu(r: Reader) -> Literal:
    if len(r.shape()) < 2:
        raise InputError(f"a triangle of a tensor of shape {list(r.shape())}")
    r.require(r.shape())
    kept = triangle(r)
    return r.given(0).moved(lambda a: np.where(kept, a, np.zeros((), a.dtype)))


@folds("ReduceMax", "ReduceMin")
def _extremum(r: Reader) -> Literal:
    axes, keep = geometry.reduced(r)
    given, pick = exact(r.given(0)), np.max if r.node.op_type == "ReduceMax" else np.min
    if not axes or not given.size:
        raise UnsupportedError("the largest entry of nothing; fold it when exporting")
    result = pick(given, tuple(axes), keepdims=keep)
    kind = r.given(0).kind
    return Literal(kind, Constant.of(torch.from_numpy(np.asarray(result))) if given.dtype.kind == "f" else result)


@folds("NonZero")
def _nonzero(r: Reader) -> Literal:
    places = np.stack(np.nonzero(np.atleast_1d(exact(r.given(0)))))
    r.require(places.shape)
    return Literal.whole(places)


@folds("EyeLike")
def _eye(r: Reader) -> Literal:
    shape, kind = r.shape(), r.attribute("dtype") or r.given(0).kind
    if len(shape) != 2 or kind not in {*FLOATS, Kind.INT64}:
        raise UnsupportedError(f"an identity of shape {list(shape)} and type {kind_name(kind)}; fold it when exporting")
    r.require(shape)
    eye = np.eye(*shape, r.attribute("k"))
    return Literal.whole(eye.astype(int)) if kind == Kind.INT64 else Literal(kind, Constant.of(torch.from_numpy(eye)))
