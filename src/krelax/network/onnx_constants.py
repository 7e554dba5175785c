"""Constant parts of an ONNX graph: nodes none of whose operands depends on the input.

Integers are computed exactly, in the file's own types; what overflows them is refused. Floating-point constants are
enclosures of what the operators give in real arithmetic (`krelax.network.constants`). The list of operators is closed:
what is not in `FOLDS` must be folded when the network is exported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from krelax.errors import InputError, UnsupportedError
from krelax.network import onnx_geometry as geometry
from krelax.network.constants import Constant
from krelax.network.onnx_operators import check_evaluation, target_kind
from krelax.network.onnx_reader import FLOATS, Kind, Literal, Reader
from krelax.network.onnx_schema import kind_name
from krelax.op import Shape

Result = Literal | list[Literal]
FOLDS: dict[str, Callable[[Reader], Result]] = {}


def folds(*names: str) -> Callable[[Callable[[Reader], Result]], Callable[[Reader], Result]]:
    def register(function: Callable[[Reader], Result]) -> Callable[[Reader], Result]:
        FOLDS.update(dict.fromkeys(names, function))
        return function

    return register


def _whole(values: Any) -> Literal:
    return Literal.whole(np.asarray(values, dtype=object))


@folds("Constant")
def _constant(r: Reader) -> Literal:
    if len(r.node.attribute) != 1:
        raise InputError(f"{len(r.node.attribute)} values of one constant")
    item = r.node.attribute[0]
    if item.name == "value":
        return Literal.read(item.t)
    value = onnx.helper.get_attribute_value(item)
    if item.name in {"value_int", "value_ints"}:
        return _whole(value if isinstance(value, int) else list(value))
    if item.name in {"value_float", "value_floats"}:
        return Literal.of(np.array(value, np.float64), Kind.FLOAT)
    raise UnsupportedError(f"a constant given by {item.name}")


@folds("Shape")
def _shape(r: Reader) -> Literal:
    return _whole(list(r.shape()[r.attribute("start") or 0 : r.attribute("end")]))


@folds("Size")
def _size(r: Reader) -> Literal:
    return _whole(prod(r.shape()))


@folds("ConstantOfShape")
def _constant_of_shape(r: Reader) -> Literal:
    item = next((a.t for a in r.node.attribute if a.name == "value"), None)
    fill = Literal(Kind.FLOAT, Constant.of(torch.zeros(1).double())) if item is None else Literal.read(item)
    shape = r.given(0).integers.flatten().tolist()
    if prod(fill.shape) != 1:
        raise InputError(f"a value of shape {list(fill.shape)} where one number is expected")
    r.require(shape)
    return fill.moved(lambda a: np.broadcast_to(a.reshape(()), shape))


@folds("Identity")
def _identity(r: Reader) -> Literal:
    return r.given(0)


@folds("Dropout")
def _dropout(r: Reader) -> Literal:
    check_evaluation(r)
    return r.given(0)


def _moved(r: Reader, shape: Sequence[int], move: Callable[[NDArray[Any]], NDArray[Any]]) -> Literal:
    r.require(shape)
    return r.given(0).moved(move)


@folds("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(r: Reader) -> Literal:
    shape = geometry.reshaped(r)
    return _moved(r, shape, lambda a: a.reshape(shape))


@folds("Transpose")
def _transpose(r: Reader) -> Literal:
    order = geometry.permutation(r)
    return _moved(r, r.shape(), lambda a: a.transpose(order))


@folds("Expand")
def _expand(r: Reader) -> Literal:
    shape = geometry.expanded(r)
    return _moved(r, shape, lambda a: np.broadcast_to(a, shape))


@folds("Slice")
def _slice(r: Reader) -> Literal:
    result = r.given(0)
    r.require(result.shape)
    for axis, index in geometry.slices(r):
        result = _picked(result, axis, index)
    return result


def _picked(literal: Literal, axis: int, index: NDArray[np.int64]) -> Literal:
    return literal.moved(lambda a: np.take(a, index, axis))


@folds("Gather")
def _gather(r: Reader) -> Literal:
    axis, index = geometry.gathered(r)
    shape = r.shape()
    r.require((*shape[:axis], *index.shape, *shape[axis + 1 :]))
    return _picked(r.given(0), axis, index)


@folds("Split")
def _split(r: Reader) -> list[Literal]:
    r.require(r.shape())
    axis, sizes = geometry.parts(r)
    ends = np.cumsum(sizes)
    return [_picked(r.given(0), axis, np.arange(end - n, end)) for n, end in zip(sizes, ends, strict=True)]


@folds("Concat")
def _concat(r: Reader) -> Literal:
    operands = [r.given(i) for i in range(len(r.node.input))]
    axis = r.axis(r.attribute("axis"), len(operands[0].shape))
    shapes = [o.shape for o in operands]
    if len({(*s[:axis], *s[axis + 1 :], len(s)) for s in shapes}) > 1:
        raise InputError(f"shapes {', '.join(map(str, shapes))} cannot be joined along axis {axis}")
    r.require((*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :]))
    if not isinstance(operands[0].data, Constant):
        return Literal(operands[0].kind, np.concatenate([o.integers for o in operands], axis))
    parts = [o.floats for o in operands]
    error = None if all(p.error is None for p in parts) else torch.cat([p.errors() for p in parts], axis)
    return Literal(operands[0].kind, Constant(torch.cat([p.value for p in parts], axis), error))


@folds("Cast", "CastLike")
def _cast(r: Reader) -> Literal:
    literal, kind = r.given(0), target_kind(r)
    if isinstance(literal.data, Constant) and kind in {literal.kind, Kind.DOUBLE}:
        return Literal(kind, literal.data)
    if isinstance(literal.data, Constant) and literal.data.error is not None:
        raise UnsupportedError("a cast of a computed constant, which rounds")
    number = literal.data.value.numpy() if isinstance(literal.data, Constant) else literal.data
    if not isinstance(literal.data, Constant):
        number = number.astype(object)
    if kind == Kind.BOOL:
        return Literal(kind, (number != 0).astype(np.bool_))
    if kind in _HOLDS:
        return Literal(kind, _held(number, kind))
    if isinstance(literal.data, Constant):
        number = np.array([int(v) for v in number.flatten()], dtype=object).reshape(number.shape)  # truncates
    try:
        return Literal.whole(number, kind)
    except KeyError:
        raise UnsupportedError(f"a cast to {kind_name(kind)}") from None


_HOLDS: dict[int, torch.dtype] = {
    Kind.FLOAT: torch.float32,
    Kind.DOUBLE: torch.float64,
    Kind.FLOAT16: torch.float16,
    Kind.BFLOAT16: torch.bfloat16,
}


def _held(number: NDArray[Any], kind: int) -> Constant:
    """Numbers as constants of a floating-point type, which must hold them exactly."""
    constant = Constant.of(torch.from_numpy(np.array(number, np.float64)))
    changed = (constant.value.numpy().astype(object) != number).any()  # integers, by Python's exact comparison
    if changed or not torch.equal(constant.value.to(_HOLDS[kind]).double(), constant.value):
        raise UnsupportedError(f"a cast that rounds: {kind_name(kind)} does not hold the constant")
    return constant


@folds("Range")
def _range(r: Reader) -> Literal:
    start, limit, delta = (int(r.given(i).integers.item()) for i in range(3))
    if delta == 0:
        raise InputError("a range with steps of zero")
    places = range(start, limit, delta)
    r.require([len(places)])
    return Literal.whole(list(places), r.given(0).kind)


@folds("Where")
def _where(r: Reader) -> Literal:
    condition, (x, y) = r.given(0).integers, (r.given(1), r.given(2))
    r.require(joint(condition.shape, x.shape, y.shape))
    if not isinstance(x.data, Constant):
        return Literal(x.kind, np.where(condition, x.integers, y.integers))
    mask, a, b = torch.from_numpy(condition.copy()), x.floats, y.floats
    error = None if a.error is None and b.error is None else torch.where(mask, a.errors(), b.errors())
    return Literal(x.kind, Constant(torch.where(mask, a.value, b.value), error))


def joint(*shapes: Shape) -> Shape:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise InputError(f"shapes {', '.join(map(str, shapes))} do not broadcast to one another") from None


@folds("Equal", "And", "Or")
def _compare(r: Reader) -> Literal:
    a, b = (exact(r.given(i)) for i in range(2))
    r.require(joint(a.shape, b.shape))
    compare: dict[str, Callable[..., Any]] = {
        "Equal": np.equal,
        "And": np.logical_and,
        "Or": np.logical_or,
    }
    return Literal(Kind.BOOL, np.asarray(compare[r.node.op_type](a, b), np.bool_))


def exact(literal: Literal) -> NDArray[Any]:
    """Entries to compare, which no rounding may have changed."""
    if not isinstance(literal.data, Constant):
        return literal.data
    if literal.data.error is not None:
        raise UnsupportedError("a comparison of a computed constant, which may be rounded")
    return literal.data.value.numpy()


@folds("Not")
def _not(r: Reader) -> Literal:
    return Literal(Kind.BOOL, ~r.given(0).integers)


@folds("ReduceSum", "ReduceMean", "ReduceProd")
def _reduce(r: Reader) -> Literal:
    given = r.given(0)
    axes, keep = geometry.reduced(r)
    if not isinstance(given.data, Constant):
        if r.node.op_type == "ReduceMean":
            raise UnsupportedError("a mean of integers")
        reduce: Any = np.sum if r.node.op_type == "ReduceSum" else np.prod
        return Literal.whole(reduce(given.integers.astype(object), tuple(axes), keepdims=keep), given.kind)
    if r.node.op_type == "ReduceProd":
        raise UnsupportedError("a product of floating-point constants; fold it when exporting")
    require_full(r)
    total = given.floats.sum(tuple(axes))
    if r.node.op_type == "ReduceMean":
        total = total / Constant.of(float(prod(given.shape[a] for a in axes)))
    shape = tuple(n for i, n in enumerate(total.shape) if keep or i not in axes)
    return Literal(given.kind, total.reshape(*shape).checked())


def require_full(r: Reader) -> None:
    """Real arithmetic is what a float32 or float64 graph means; in narrower types it would not be."""
    if r.given(0).kind not in FLOATS:
        raise UnsupportedError(f"arithmetic of {kind_name(r.given(0).kind)} constants; fold it when exporting")


def _divided(a: NDArray[Any], b: NDArray[Any]) -> Any:
    """Quotients of Python integers, rounded toward zero, as ONNX has them."""
    if (b == 0).any():
        raise InputError("division by zero")
    size = abs(a) // abs(b)
    return np.where((a < 0) != (b < 0), -size, size)


_INTEGERS: dict[str, Callable[..., Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _divided,
    "Max": np.maximum,
    "Min": np.minimum,
    "Neg": lambda a: -a,
    "Abs": abs,
}
_FLOATS: dict[str, Callable[..., Constant]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "Max": Constant.maximum,
    "Min": Constant.minimum,
    "Neg": lambda a: -a,
    "Abs": abs,
    "Relu": Constant.relu,
    "Sqrt": Constant.sqrt,
    "Reciprocal": Constant.reciprocal,
}


@folds(*_FLOATS)
def _arithmetic(r: Reader) -> Literal:
    operands = [r.given(i) for i in range(len(r.node.input))]
    r.require(joint(*(o.shape for o in operands)))
    floats, op = isinstance(operands[0].data, Constant), r.node.op_type
    if floats:
        require_full(r)
    compute: Callable[..., Any] | None = _FLOATS[op] if floats else _INTEGERS.get(op)
    if compute is None:
        raise UnsupportedError("arithmetic of integers that krelax does not know; fold it when exporting")
    entries: list[Any] = [o.floats if floats else o.integers.astype(object) for o in operands]
    # only Max and Min have more operands than two, or one
    result = entries[0] if op in {"Max", "Min"} else compute(*entries)
    for other in entries[1:] if op in {"Max", "Min"} else []:
        result = compute(result, other)
    return Literal(operands[0].kind, result.checked()) if floats else Literal.whole(result, operands[0].kind)


@folds("MatMul")
def _matmul(r: Reader) -> Literal:
    a, b = r.weight(0), r.weight(1)
    require_full(r)
    if not a.shape or not b.shape or a.shape[-1] != b.shape[-2 if len(b.shape) > 1 else 0]:
        raise InputError(f"product of shapes {list(a.shape)} and {list(b.shape)}")
    rows, columns = (s[:-2] for s in (a.shape, b.shape))
    r.require((*joint(rows, columns), *a.shape[-2:-1], *b.shape[-1:]))
    return Literal(r.given(0).kind, a.matmul(b).checked())
