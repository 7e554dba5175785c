"""The ONNX operators the checker reads: one small function each, collected in `OPERATORS`.

Operators that move entries about are written once, as functions of arrays: applied to the numbers 0, 1, 2, ... of a
tensor's entries they say where every entry comes from, and applied to a constant they evaluate it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.arithmetic import Floats
from krelax.certificate.network import Activation, Affine, Builder, Dense, Index, Map, Network, Pick, Scale, full
from krelax.certificate.onnx import Call, parse
from krelax.errors import InputError, UnsupportedError

# Relative error of a coefficient computed in float64 by a few operations.
_ROUNDED = 2.0**-48
# Smaller numbers added to variances may vanish in float32.
_LEAST_EPSILON = 2.0**-40
Shape = tuple[int, ...]


@dataclass
class Value:
    """A tensor that depends on the input: a node, and its shape."""

    node: int
    shape: Shape


Tensor = Value | NDArray[Any]


@dataclass
class Context:
    """A call with its operands."""

    builder: Builder
    call: Call
    operands: list[Tensor | None]
    version: int

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.call.attributes.get(name, default)

    def value(self, place: int = 0) -> Value:
        """An operand that depends on the input."""
        x = self.operands[place] if place < len(self.operands) else None
        if not isinstance(x, Value):
            raise UnsupportedError(f"operand {place} is constant or missing where an activation is expected")
        return x

    def constant(self, place: int) -> NDArray[Any] | None:
        """A constant operand, None if there is none."""
        x = self.operands[place] if place < len(self.operands) else None
        if isinstance(x, Value):
            raise UnsupportedError(f"operand {place} is not constant")
        return x

    def weight(self, place: int) -> NDArray[Any]:
        """A constant operand that must be there."""
        x = self.constant(place)
        if x is None:
            raise InputError(f"operand {place} is missing")
        return x

    def integers(self, name: str, place: int) -> list[int] | None:
        """Integers given as an attribute, or (in later versions) as an operand."""
        given = self.get(name)
        if given is None:
            given = self.constant(place)
        return None if given is None else [int(i) for i in np.atleast_1d(given)]

    def affine(self, x: Sequence[Value], maps: Sequence[Map], shape: Shape, bias: Any = None, **more: Any) -> Value:
        """The sum of maps of some values, and a bias that is broadcast to the shape."""
        size = more.pop("bias_size", bias)
        flat, largest = (None if b is None else full(b, shape) for b in (bias, size))
        largest = None if largest is None else np.abs(largest)
        node = Affine(tuple(v.node for v in x), tuple(maps), prod(shape), flat, largest, **more)
        return Value(self.builder.add(node), shape)

    def moved(self, index: Index, x: Value) -> Value:
        """Entries of a value, at an array of their numbers."""
        return Value(self.builder.pick(x.node, index), tuple(index.shape))


OPERATORS: dict[str, Callable[[Context], Tensor | list[Tensor]]] = {}


def _reads(*names: str) -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def numbers(shape: Shape) -> Index:
    """The numbers of a tensor's entries, in its shape."""
    return np.arange(prod(shape)).reshape(shape)


def read_network(data: bytes) -> Network:
    """The network in an ONNX file. InputError if it cannot be used, UnsupportedError for unknown operators."""
    model = parse(data)
    builder = Builder(prod(model.shape))
    tensors: dict[str, Tensor] = {**model.constants, model.input: Value(0, model.shape)}
    for call in model.calls:
        place = f"operator {call.op} for {call.outputs[:1]}"
        if call.op not in OPERATORS:
            raise UnsupportedError(f"{place} is not supported by the checker")
        try:
            operands = [tensors[name] if name else None for name in call.inputs]
            results = OPERATORS[call.op](Context(builder, call, operands, model.version))
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, ZeroDivisionError, MemoryError) as error:
            raise InputError(f"{place}: malformed ({error})") from error
        except InputError as error:
            raise type(error)(f"{place}: {error}") from error
        several = results if isinstance(results, list) else [results]
        tensors.update(zip(call.outputs, several, strict=False))
    output = tensors.get(model.output)
    if not isinstance(output, Value):
        raise InputError("the output does not depend on the input")
    return builder.build(output.node)


@_reads("Constant")
def _constant(c: Context) -> Tensor:
    return np.asarray(c.call.attributes["value"])


@_reads("Shape")
def _shape(c: Context) -> Tensor:
    x = c.operands[0]
    assert x is not None
    return np.array(x.shape[c.get("start", 0) : c.get("end")], np.int64)


@_reads("Identity", "Dropout")
def _identity(c: Context) -> Tensor:
    if c.call.op == "Dropout" and (training := c.constant(2)) is not None and training.any():
        raise UnsupportedError("dropout in training")
    x = c.operands[0]
    assert x is not None
    return x


def _moves(*names: str) -> Callable[[Any], Any]:
    """Register an operator that moves entries about: from a context to a function of arrays."""

    def register(function: Callable[[Context], Callable[[Any], Any]]) -> Any:
        def operator(c: Context) -> Tensor | list[Tensor]:
            x, move = c.operands[0], function(c)
            if isinstance(x, Value):
                result = move(numbers(x.shape))
                return [c.moved(r, x) for r in result] if isinstance(result, list) else c.moved(result, x)
            return move(x)

        return _reads(*names)(operator)

    return register


@_moves("Reshape")
def _reshape(c: Context) -> Callable[[Any], Any]:
    target = c.integers("shape", 1) or []

    def move(x: Any) -> Any:
        copied = [x.shape[i] if n == 0 and not c.get("allowzero", 0) else n for i, n in enumerate(target)]
        return x.reshape(copied)

    return move


@_moves("Flatten")
def _flatten(c: Context) -> Callable[[Any], Any]:
    axis = c.get("axis", 1)
    return lambda x: x.reshape(prod(x.shape[:axis]), -1)


@_moves("Squeeze")
def _squeeze(c: Context) -> Callable[[Any], Any]:
    axes = c.integers("axes", 1)
    return lambda x: x.squeeze(None if axes is None else tuple(axes))


@_moves("Unsqueeze")
def _unsqueeze(c: Context) -> Callable[[Any], Any]:
    axes = tuple(c.integers("axes", 1) or ())
    return lambda x: np.expand_dims(x, axes)


@_moves("Transpose")
def _transpose(c: Context) -> Callable[[Any], Any]:
    return lambda x: x.transpose(c.get("perm"))


@_moves("Gather")
def _gather(c: Context) -> Callable[[Any], Any]:
    index = c.weight(1).astype(np.int64)
    return lambda x: x.take(index, c.get("axis", 0))


@_moves("Slice")
def _slice(c: Context) -> Callable[[Any], Any]:
    starts, ends = c.integers("starts", 1) or [], c.integers("ends", 2) or []
    axes, steps = c.integers("axes", 3) or range(len(starts)), c.integers("steps", 4) or [1] * len(starts)

    def move(x: Any) -> Any:
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            x = x.take(range(x.shape[axis])[start:end:step], axis)
        return x

    return move


@_moves("Split")
def _split(c: Context) -> Callable[[Any], Any]:
    axis, sizes, parts = c.get("axis", 0), c.integers("split", 1), len(c.call.outputs)

    def move(x: Any) -> Any:
        size = -(-x.shape[axis] // parts)
        ends = np.cumsum(sizes) if sizes else np.arange(1, parts + 1) * size
        if sizes and (len(sizes) != parts or ends[-1] != x.shape[axis]):
            raise InputError(f"parts {sizes} of an axis of size {x.shape[axis]}")
        return np.split(x, ends[:-1], axis)

    return move


@_moves("Expand")
def _expand(c: Context) -> Callable[[Any], Any]:
    target = tuple(c.integers("shape", 1) or ())
    return lambda x: np.broadcast_to(x, np.broadcast_shapes(x.shape, target))


@_reads("Cast")
def _cast(c: Context) -> Tensor:
    x, kind = c.operands[0], c.get("to")
    if isinstance(x, Value):
        if kind not in {1, 11}:
            raise UnsupportedError("a cast that rounds")
        return x
    return c.weight(0).astype(np.float64 if kind in {1, 11} else np.int64)


@_reads("Concat")
def _concat(c: Context) -> Tensor:
    operands, axis = [x for x in c.operands if x is not None], c.get("axis", 1)
    if not any(isinstance(x, Value) for x in operands):
        return np.concatenate(operands, axis)  # type: ignore[arg-type]
    values = [x for x in operands if isinstance(x, Value)]
    nothing = [np.full(x.shape, -1) for x in operands]
    maps: list[Map] = []
    for k, x in enumerate(operands):
        if isinstance(x, Value):
            index = np.concatenate([*nothing[:k], numbers(x.shape), *nothing[k + 1 :]], axis)
            maps.append(Pick(index.reshape(-1), prod(x.shape)))
    shape = np.concatenate(nothing, axis).shape
    bias = None
    if len(values) < len(operands):
        bias = np.concatenate([np.zeros(x.shape) if isinstance(x, Value) else x for x in operands], axis)
    return c.affine(values, maps, shape, bias)


@_reads("Pad")
def _pad(c: Context) -> Tensor:
    x, pads, value = c.value(), c.integers("pads", 1) or [], c.constant(2)
    if c.get("mode", "constant") != "constant" or len(pads) != 2 * len(x.shape):
        raise UnsupportedError("padding of some axes, or not by a constant")
    fill = float(c.get("value", 0.0) if value is None else value.item())
    index = numbers(x.shape)
    for axis, (before, after) in enumerate(zip(pads[: len(x.shape)], pads[len(x.shape) :], strict=True)):
        places = np.arange(-before, index.shape[axis] + after)
        index = _windows(index, axis, places[:, None])[..., 0]
    padded = c.moved(index, x)
    if fill == 0:
        return padded
    return c.affine([padded], [Scale(np.ones(1))], padded.shape, np.where(index < 0, fill, 0.0))


def _linear(c: Context, x: Value, scale: Any, bias: Any = None, **more: Any) -> Value:
    """Every entry scaled and shifted by constants, which are broadcast, and so is the value."""
    scale = np.asarray(scale, np.float64)
    shape = np.broadcast_shapes(x.shape, scale.shape, np.shape(0 if bias is None else bias))
    x = c.moved(np.broadcast_to(numbers(x.shape), shape), x)
    return c.affine([x], [Scale(full(scale, shape) if scale.size > 1 else scale.reshape(1))], shape, bias, **more)


def _integers_only(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        raise UnsupportedError("arithmetic of constants that are not whole numbers; fold them when exporting")


@_reads("Add", "Sub")
def _add(c: Context) -> Tensor:
    (a, b), sign = (c.operands[0], c.operands[1]), 1 if c.call.op == "Add" else -1
    assert a is not None
    assert b is not None
    if isinstance(a, Value) and isinstance(b, Value):
        shape = np.broadcast_shapes(a.shape, b.shape)
        operands = [c.moved(np.broadcast_to(numbers(x.shape), shape), x) for x in (a, b)]
        return c.affine(operands, [Scale(np.ones(1)), Scale(np.full(1, float(sign)))], shape)
    if isinstance(a, Value):
        return _linear(c, a, 1.0, sign * np.asarray(b))
    if isinstance(b, Value):
        return _linear(c, b, float(sign), a)
    _integers_only(a, b)
    return a + sign * b


@_reads("Mul")
def _mul(c: Context) -> Tensor:
    a, b = c.operands[0], c.operands[1]
    if isinstance(a, Value) == isinstance(b, Value):
        x, y = c.weight(0), c.weight(1)
        _integers_only(x, y)
        return x * y
    return _linear(c, c.value(0), b) if isinstance(a, Value) else _linear(c, c.value(1), a)


@_reads("Div")
def _div(c: Context) -> Tensor:
    divisor = c.weight(1)
    if not divisor.all():
        raise InputError("division by zero")
    if isinstance(c.operands[0], Value):
        return _linear(c, c.value(), 1 / divisor, fuzz=_ROUNDED)
    x = c.weight(0)
    _integers_only(x, divisor)
    return (x / divisor).astype(np.int64)


@_reads("Neg")
def _neg(c: Context) -> Tensor:
    return _linear(c, c.value(), -1.0)


@_reads("BatchNormalization")
def _batch_norm(c: Context) -> Tensor:
    if c.get("training_mode", 0):
        raise UnsupportedError("batch normalisation in training")
    x = c.value()
    scale, shift, mean, variance = (c.weight(i).reshape(-1, *[1] * (len(x.shape) - 2)) for i in range(1, 5))
    if (variance < 0).any() or c.get("epsilon", 1e-5) < _LEAST_EPSILON:
        raise UnsupportedError("a batch normalisation that may divide by zero")
    factor = scale / np.sqrt(variance + c.get("epsilon", 1e-5))
    size = np.abs(shift) + np.abs(mean * factor)
    return _linear(c, x, factor, shift - mean * factor, bias_size=size, fuzz=_ROUNDED)


@_reads("Gemm")
def _gemm(c: Context) -> Tensor:
    x, weight, bias, alpha, beta = c.value(), c.weight(1), c.constant(2), c.get("alpha", 1.0), c.get("beta", 1.0)
    if c.get("transA", 0) or len(x.shape) != 2:
        raise UnsupportedError("a transposed left operand, or one that is no matrix")
    weight = weight.T if c.get("transB", 0) else weight
    return _matrix(c, x, alpha * weight, None if bias is None else beta * bias, _ROUNDED * (alpha != 1 or beta != 1))


def _matrix(c: Context, x: Value, weight: Floats, bias: Any = None, fuzz: float = 0.0) -> Value:
    """`x @ weight + bias` for a matrix of constants."""
    if weight.ndim != 2 or x.shape[-1] != weight.shape[0]:
        raise InputError(f"a product of shapes {x.shape} and {weight.shape}")
    dense = Dense(np.ascontiguousarray(weight, np.float64)[None], prod(x.shape[:-1]))
    return c.affine([x], [dense], (*x.shape[:-1], weight.shape[1]), bias, fuzz=fuzz)


@_reads("MatMul")
def _matmul(c: Context) -> Tensor:
    if isinstance(c.operands[0], Value):
        return _matrix(c, c.value(0), c.weight(1))
    x = c.value(1)
    turned = _matrix(c, c.moved(numbers(x.shape).swapaxes(-1, -2), x), c.weight(0).T)
    return c.moved(numbers(turned.shape).swapaxes(-1, -2), turned)


def _windows(index: Index, axis: int, places: Index) -> Index:
    """Entries at `places`, `(windows, kernel)`, of an axis, whose last part comes last; -1 beyond its ends."""
    inside = (places >= 0) & (places < index.shape[axis])
    taken = index.take(np.where(inside, places, 0), axis)
    outside = ~inside.reshape(*inside.shape, *[1] * (index.ndim - axis - 1))
    return np.moveaxis(np.where(outside, -1, taken), axis + 1, -1)


def _geometry(c: Context, kernel: Sequence[int], shape: Shape) -> list[tuple[Index, int, int]]:
    """For every axis where its windows' entries lie, `(windows, kernel)`, and where its padding begins and ends."""
    rank = len(kernel)
    stride, dilation = c.get("strides", [1] * rank), c.get("dilations", [1] * rank)
    pads = c.get("pads", [0] * 2 * rank)
    auto = c.get("auto_pad", "NOTSET")
    result = []
    for n, k, s, d, before, after in zip(shape, kernel, stride, dilation, pads[:rank], pads[rank:], strict=True):
        reach = d * (k - 1) + 1
        if auto.startswith("SAME"):
            total = max((-(-n // s) - 1) * s + reach - n, 0)
            before, after = sorted((total // 2, total - total // 2), reverse=auto == "SAME_LOWER")  # noqa: PLW2901
        room = n + before + after - reach
        count = (-(-room // s) if c.get("ceil_mode", 0) else room // s) + 1
        if c.get("ceil_mode", 0) and (count - 1) * s >= n + before:
            count -= 1  # no window begins in the padding behind
        if count < 1 or s < 1 or d < 1:
            raise InputError(f"a window of {reach} entries on an axis of {n}")
        result.append((np.arange(count)[:, None] * s - before + np.arange(k) * d, -before, n + after))
    return result


def _laid_out(index: Index, places: Sequence[Index]) -> Index:
    """Windows over the last axes: `(*lead, *windows, *kernel)`."""
    lead = index.ndim - len(places)
    for axis, table in enumerate(places):
        index = _windows(index, lead + axis, table)
    return index


def _convolve(c: Context, x: Value, places: Sequence[Index], weight: Floats, bias: Any) -> Value:
    """Products of windows, laid out in groups, with `weight`, `(groups, inputs * kernel, outputs)`."""
    (images, channels), groups, rank = x.shape[:2], len(weight), len(places)
    index = _laid_out(numbers(x.shape), places)
    index = index.reshape(images, groups, channels // groups, *index.shape[2:])
    axes = (1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    spatial = tuple(len(p) for p in places)
    rows = c.moved(index.transpose(axes), x)
    shape = (groups, images, *spatial, weight.shape[2])
    dense = Dense(np.ascontiguousarray(weight), images * prod(spatial))
    if bias is not None:
        bias = bias.reshape(groups, *[1] * (rank + 1), -1)
    y = c.affine([rows], [dense], shape, bias)
    order = numbers(shape).transpose(1, 0, rank + 2, *range(2, rank + 2))
    return c.moved(order.reshape(images, -1, *spatial), y)


@_reads("Conv")
def _conv(c: Context) -> Tensor:
    x, weight, groups = c.value(), c.weight(1), c.get("group", 1)
    if len(x.shape) != weight.ndim or x.shape[1] != weight.shape[1] * groups:
        raise InputError(f"a convolution of {x.shape} by {weight.shape}")
    places = [p for p, _, _ in _geometry(c, weight.shape[2:], x.shape[2:])]
    matrix = weight.reshape(groups, weight.shape[0] // groups, -1).swapaxes(1, 2)
    return _convolve(c, x, places, matrix, c.constant(2))


@_reads("ConvTranspose")
def _conv_transpose(c: Context) -> Tensor:
    x, weight, groups = c.value(), c.weight(1), c.get("group", 1)
    kernel, rank = weight.shape[2:], weight.ndim - 2
    stride, dilation = c.get("strides", [1] * rank), c.get("dilations", [1] * rank)
    pads, extra = c.get("pads", [0] * 2 * rank), c.get("output_padding", [0] * rank)
    if c.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in c.call.attributes or x.shape[1] != len(weight):
        raise UnsupportedError("auto_pad and output_shape; export with explicit pads")
    places = []
    for i, (n, k, s, d) in enumerate(zip(x.shape[2:], kernel, stride, dilation, strict=True)):
        size = s * (n - 1) + extra[i] + d * (k - 1) + 1 - pads[i] - pads[rank + i]
        source = np.arange(size)[:, None] + pads[i] - np.arange(k) * d  # in steps of the stride
        places.append(np.where(source % s == 0, source // s, -1))
    split = weight.reshape(groups, -1, *weight.shape[1:])
    matrix = np.moveaxis(split, 2, -1).reshape(groups, -1, weight.shape[1])
    return _convolve(c, x, places, matrix, c.constant(2))


def _means(c: Context, index: Index, factor: Any, shape: Shape) -> Value:
    """Sums over the last axis of an array of entries, times constants."""
    summed = c.affine([c.moved(index, c.value())], [Dense(np.ones((1, index.shape[-1], 1)), prod(shape))], shape)
    return summed if factor is None else _linear(c, summed, factor, fuzz=_ROUNDED)


@_reads("AveragePool")
def _average_pool(c: Context) -> Tensor:
    x, kernel = c.value(), c.get("kernel_shape")
    rank, factor = len(kernel), np.ones(())
    geometry = _geometry(c, kernel, x.shape[-rank:])
    for (places, first, end), n in zip(geometry, x.shape[-rank:], strict=True):
        low, high = (first, end) if c.get("count_include_pad", 0) else (0, n)
        factor = np.multiply.outer(factor, 1 / ((places >= low) & (places < high)).sum(1))
    index = _laid_out(numbers(x.shape), [p for p, _, _ in geometry])
    shape = index.shape[:-rank]
    return _means(c, index.reshape(*shape, -1), factor, shape)


@_reads("ReduceMean", "ReduceSum", "GlobalAveragePool")
def _reduce(c: Context) -> Tensor:
    x = c.value()
    rank = len(x.shape)
    if c.call.op == "GlobalAveragePool":
        axes: list[int] = list(range(2, rank))
    else:
        axes = c.integers("axes", 1) or list(range(0 if c.get("noop_with_empty_axes", 0) else rank))
    axes = sorted({a % rank for a in axes})
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    shape = kept if c.get("keepdims", 1) else tuple(n for i, n in enumerate(x.shape) if i not in axes)
    index = np.moveaxis(numbers(x.shape), axes, range(rank - len(axes), rank)).reshape(*shape, -1)
    return _means(c, index, None if c.call.op == "ReduceSum" else 1 / index.shape[-1], shape)


@_reads("MaxPool")
def _max_pool(c: Context) -> Tensor:
    if len(c.call.outputs) > 1:
        raise UnsupportedError("the indices of a maximum")
    x, kernel = c.value(), c.get("kernel_shape")
    tables = []
    for (places, _, _), n in zip(_geometry(c, kernel, x.shape[-len(kernel) :]), x.shape[-len(kernel) :], strict=True):
        inside = (places >= 0) & (places < n)
        if not inside.any(1).all():
            raise UnsupportedError("a window that lies wholly in the padding")
        first = np.take_along_axis(places, inside.argmax(1)[:, None], 1)
        tables.append(np.where(inside, places, first))  # padding never is the maximum
    index = _laid_out(numbers(x.shape), tables)
    shape = index.shape[: -len(kernel)]
    z = c.moved(index.reshape(*shape, -1), x)
    return z if z.shape[-1] == 1 else _activation(c, z, "max", shape, window=z.shape[-1])


def _activation(c: Context, x: Value, kind: str, shape: Shape, **more: Any) -> Value:
    return Value(c.builder.add(Activation((x.node,), kind, prod(shape), **more)), shape)


@_reads("Relu", "LeakyRelu")
def _relu(c: Context) -> Tensor:
    slope = float(c.get("alpha", np.float32(0.01))) if c.call.op == "LeakyRelu" else 0.0
    if not 0 <= slope <= 1:
        raise UnsupportedError(f"a leaky ReLU with a negative slope of {slope:g}; it must lie in [0, 1]")
    return _activation(c, c.value(), "relu", c.value().shape, negative_slope=slope)


@_reads("Sigmoid", "Tanh")
def _smooth(c: Context) -> Tensor:
    return _activation(c, c.value(), c.call.op.lower(), c.value().shape)
