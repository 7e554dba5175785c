"""The ONNX operators krelax reads: one small function each, collected in `READERS`.

A reader gets the node with its operands resolved and returns the index of the node it built, or those of all results,
None for one that is not modelled; or a constant, if that is what it is whatever the input. Attributes that became
inputs in later operator sets are accepted in both places. What a node may have at all, and which versions of an
operator are read, says `krelax.network.onnx_schema`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from numpy.typing import NDArray

from krelax.activations import Max
from krelax.errors import InputError, UnsupportedError
from krelax.network import compose, products
from krelax.network import onnx_geometry as geometry
from krelax.network.composites import divide, truncate
from krelax.network.constants import Constant
from krelax.network.contractions import take
from krelax.network.decisions import is_not_zero
from krelax.network.linear import Within
from krelax.network.nonlinear import ONNX
from krelax.network.onnx_moves import MOVES, Move, padding
from krelax.network.onnx_ranges import ENDS, holds, to_half, within
from krelax.network.onnx_reader import FLOATS, Kind, Literal, Reader
from krelax.network.onnx_schema import kind_name
from krelax.network.ops import Reshape, Transpose
from krelax.network.pooling import average_pool, max_pool

# Numbers that a cast to whole ones keeps; nothing is proven of larger ones.
_INT32, _INT64 = 2.0**31 - 1, 2.0**62
Read = Callable[[Reader], int | Literal | list[int | None]]
READERS: dict[str, Read] = {}


def reads(*names: str) -> Callable[[Read], Read]:
    def register(function: Read) -> Read:
        READERS.update(dict.fromkeys(names, function))
        return function

    return register


@reads("Gemm")
def _gemm(r: Reader) -> int:
    shapes = [r.shape(0), r.shape(1)]
    if any(len(s) != 2 for s in shapes):
        raise InputError(f"operands of shapes {list(shapes[0])} and {list(shapes[1])}, not two matrices")
    left, right = (_transposed(r, i, name) for i, name in enumerate(("transA", "transB")))
    alpha, beta, bias = Constant.of(r.attribute("alpha")), Constant.of(r.attribute("beta")), None
    if r.has(2) and r.is_constant(2):
        bias = _multiplied(r.weight(2), beta)
    if isinstance(left, int) and isinstance(right, Constant) and (bias is not None or not r.has(2)):
        return _affine(r, left, _multiplied(right, alpha), bias)
    product = products.matmul(r.builder, left, right)
    product = product if alpha.value == 1 else compose.scale_shift(r.builder, product, alpha, None)
    if not r.has(2):
        return product
    third = bias if bias is not None else compose.scale_shift(r.builder, r.value(2), beta, None)
    _check_third(r, r.shape(2), r.builder.shape(product))
    return compose.add(r.builder, product, third)


def _transposed(r: Reader, position: int, flag: str) -> compose.Operand:
    operand = r.operand(position)
    if not r.attribute(flag):
        return operand
    return operand.mT if isinstance(operand, Constant) else compose.swap_last(r.builder, operand)


def _multiplied(constant: Constant, scale: Constant) -> Constant:
    """Times an attribute, which is 1 almost always."""
    return constant if scale.value == 1 else constant * scale


def _affine(r: Reader, x: int, weight: Constant, bias: Constant | None) -> int:
    """`x @ weight + bias`, with the bias as a vector where it is one."""
    rows, columns = r.builder.shape(x)
    if weight.shape[0] != columns:
        raise InputError(f"product of shapes {[rows, columns]} and {list(weight.shape)}")
    if bias is not None:
        _check_third(r, bias.shape, (rows, weight.shape[1]))
        bias = bias.expand(rows if len(bias.shape) == 2 and bias.shape[0] > 1 else 1, weight.shape[1])
        bias = bias[0] if len(bias.value) == 1 else bias
    return compose.dense(r.builder, x, weight.mT, bias)


def _check_third(r: Reader, given: tuple[int, ...], shape: tuple[int, ...]) -> None:
    padded = (1,) * (2 - len(given)) + given
    if len(given) > 2 or any(n not in {1, m} for n, m in zip(padded, shape, strict=True)):
        raise InputError(f"operand C of shape {list(given)} for a product of shape {list(shape)}")


@reads("MatMul")
def _matmul(r: Reader) -> int:
    return products.matmul(r.builder, r.operand(0), r.operand(1))


@reads("Conv")
def _conv(r: Reader) -> int:
    weight, groups = r.weight(1), r.attribute("group")
    w = geometry.window(r, weight.shape[2:])
    if groups < 1 or r.shape()[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise InputError(f"{r.shape()[1]} channels in {groups} groups for a kernel of shape {list(weight.shape)}")
    return compose.convolution(
        r.builder,
        r.value(),
        weight,
        _bias(r, weight.shape[0]),
        stride=w.stride,
        before=w.before,
        after=w.after,
        dilation=w.dilation,
        groups=groups,
    )


def _bias(r: Reader, channels: int) -> Constant | None:
    bias = r.constant(2)
    if bias is not None and bias.shape != (channels,):
        raise InputError(f"bias of shape {list(bias.shape)} for {channels} channels")
    return bias


@reads("ConvTranspose")
def _conv_transpose(r: Reader) -> int:
    weight, groups = r.weight(1), r.attribute("group")
    if groups < 1 or r.shape()[1] != weight.shape[0] or weight.shape[0] % groups:
        raise InputError(f"{r.shape()[1]} channels in {groups} groups for a kernel of shape {list(weight.shape)}")
    w, extra = geometry.transposed_window(r, weight.shape[2:])
    # crop what asymmetric pads remove beyond the symmetric part
    common = tuple(map(min, w.before, w.after))
    y = compose.transposed_convolution(
        r.builder,
        r.value(),
        weight,
        _bias(r, weight.shape[1] * groups),
        stride=w.stride,
        padding=common,
        dilation=w.dilation,
        output_padding=extra,
        groups=groups,
    )
    crop = [tuple(c - p for c, p in zip(common, side, strict=True)) for side in (w.before, w.after)]
    return compose.pad(r.builder, y, (0, 0, *crop[0]), (0, 0, *crop[1]))


@reads("BatchNormalization")
def _batch_norm(r: Reader) -> int:
    if r.attribute("training_mode") or len(r.node.output) > 1:
        raise UnsupportedError("batch normalisation in training mode; export the network in evaluation mode")
    if r.attribute("spatial") == 0:
        raise UnsupportedError("batch normalisation with statistics for every entry (spatial=0)")
    names = ("weight", "bias", "mean", "var")
    statistics = {name: r.weight(i) for i, name in enumerate(names, start=1)}
    if len(r.shape()) < 2:
        raise InputError("batch normalisation of a tensor without channels")
    return compose.batch_norm(
        r.builder,
        r.value(),
        weight=statistics["weight"],
        bias=statistics["bias"],
        mean=statistics["mean"],
        var=statistics["var"],
        eps=r.attribute("epsilon"),
    )


@reads("Add", "Sub")
def _add(r: Reader) -> int:
    return compose.add(r.builder, r.operand(0), r.operand(1), 1 if r.node.op_type == "Add" else -1)


@reads("Mul")
def _mul(r: Reader) -> int:
    return products.multiply(r.builder, r.operand(0), r.operand(1))


@reads("Div")
def _div(r: Reader) -> int:
    return divide(r.builder, r.operand(0), r.operand(1))


@reads("Neg")
def _neg(r: Reader) -> int:
    return compose.negate(r.builder, r.value())


@reads("Identity")
def _identity(r: Reader) -> int:
    return r.value()


@reads("Dropout")
def _dropout(r: Reader) -> int:
    check_evaluation(r)
    return r.value()


def check_evaluation(r: Reader) -> None:
    """Raises UnsupportedError for a dropout that drops, or may."""
    mode = None if r.version < 12 else r.literal(2)
    if mode is not None and (mode.shape not in {(), (1,)} or mode.integers.any()):
        raise UnsupportedError("dropout in training mode; export the network in evaluation mode")


@reads("Cast", "CastLike")
def _cast(r: Reader) -> int:
    """Whole numbers are exact in any type that holds them; what those of int32 and int64 lose in float32 is rounding
    like any other. Floating-point numbers become whole ones towards zero. Beyond a type's range they wrap around."""
    source, target, build, x = r.known.kinds[r.node.input[0]], target_kind(r), r.builder, r.value()
    if source == target or holds(target, source):
        return x
    if source == Kind.INT64 and target == Kind.INT32:
        return r.add(Within(_INT32), x)
    if source in FLOATS and target in {Kind.INT32, Kind.INT64}:
        return truncate(build, r.add(Within(_INT32 if target == Kind.INT32 else _INT64), x))
    if target == Kind.BOOL:  # of whole numbers jumps are halfway between two
        return is_not_zero(build, x, 0.0 if source in FLOATS else 0.5)
    if target == Kind.FLOAT16:
        return to_half(build, x)
    if target not in ENDS:
        raise UnsupportedError(f"a cast that rounds, from {kind_name(source)} to {kind_name(target)}")
    return within(build, truncate(build, x) if source in FLOATS else x, target)


def target_kind(r: Reader) -> int:
    """The element type that a Cast or a CastLike makes."""
    if r.node.op_type == "Cast":
        return int(r.attribute("to"))
    name = r.node.input[1]
    return r.known.constants[name].kind if r.is_constant(1) else r.known.kinds[name]


@reads("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(r: Reader) -> int:
    return r.add(Reshape(geometry.reshaped(r)), r.value())


@reads("Transpose")
def _transpose(r: Reader) -> int:
    return r.add(Transpose(geometry.permutation(r)), r.value())


@reads("Concat")
def _concat(r: Reader) -> int:
    operands = [r.operand(i) for i in range(len(r.node.input))]
    return compose.concat(r.builder, operands, r.axis(r.attribute("axis"), len(r.shape())))


@reads("Slice")
def _slice(r: Reader) -> int:
    x = r.value()
    for axis, index in geometry.slices(r):
        x = _taken(r, x, axis, index)
    return x


def _taken(r: Reader, x: int, axis: int, index: NDArray[np.int64]) -> int:
    if not index.size:
        raise UnsupportedError("a result without entries")
    return compose.take_slice(r.builder, x, axis, index)


@reads("Gather")
def _gather(r: Reader) -> int:
    shape = r.shape()
    axis, index = geometry.gathered(r)
    x = _taken(r, r.value(), axis, index.flatten())
    return r.add(Reshape((*shape[:axis], *index.shape, *shape[axis + 1 :])), x)


@reads("Split")
def _split(r: Reader) -> list[int | None]:
    axis, sizes = geometry.parts(r)
    results: list[int | None] = []
    start = 0
    for size in sizes:
        results.append(_taken(r, r.value(), axis, np.arange(start, start + size)))
        start += size
    return results


def scalar(r: Reader, position: int) -> float | None:
    """A constant operand of one number, which must be exact; None if it is absent."""
    constant = r.constant(position)
    if constant is None:
        return None
    if constant.shape not in {(), (1,)} or constant.error is not None:
        raise UnsupportedError(f"operand {position} that is not one number of the file")
    return float(constant.value.item())


@reads("Pad")
def _pad(r: Reader) -> int:
    if r.attribute("mode") != "constant":
        return moved(r, padding(r))
    before, after = geometry.padding(r)
    fill = r.attribute("value") if r.version < 11 else scalar(r, 2)
    return compose.pad(r.builder, r.value(), before, after, 0.0 if fill is None else fill)


@reads(*MOVES)
def _moved(r: Reader) -> int:
    return moved(r, MOVES[r.node.op_type](r))


def moved(r: Reader, move: Move) -> int:
    """A move of the first operand."""
    shape, function = move
    if not prod(shape):
        raise UnsupportedError("a result without entries")
    r.builder.require(prod(shape))
    given = r.shape()
    return take(r.builder, r.value(), function(np.arange(prod(given)).reshape(given)))


@reads("Expand")
def _expand(r: Reader) -> int:
    return compose.broadcast(r.builder, r.value(), geometry.expanded(r))


@reads("AveragePool")
def _average_pool(r: Reader) -> int:
    window = geometry.window(r, r.attribute("kernel_shape"))
    counted = bool(r.attribute("count_include_pad"))
    return average_pool(r.builder, r.value(), window, count_padding=counted)


@reads("MaxPool")
def _max_pool(r: Reader) -> int:
    if len(r.node.output) > 1:
        raise UnsupportedError("the indices of a maximum as a second output")
    return max_pool(r.builder, r.value(), geometry.window(r, r.attribute("kernel_shape")))


def _spatial(r: Reader) -> int:
    shape = r.shape()
    if len(shape) < 3:
        raise InputError(f"operand of rank {len(shape)}, which has no axes to pool over")
    return len(shape) - 2


@reads("GlobalAveragePool")
def _global_average(r: Reader) -> int:
    return compose.reduce_mean(r.builder, r.value(), tuple(range(2, 2 + _spatial(r))), True)


@reads("GlobalMaxPool")
def _global_max(r: Reader) -> int:
    shape, rank = r.shape(), _spatial(r)
    flat = r.add(Reshape((*shape[:2], prod(shape[2:]))), r.value())
    return r.add(Reshape((*shape[:2], *[1] * rank)), r.add(Max(), flat))


@reads("ReduceSum")
def _reduce_sum(r: Reader) -> int:
    return compose.reduce_sum(r.builder, r.value(), *geometry.reduced(r))


@reads("ReduceMean")
def _reduce_mean(r: Reader) -> int:
    return compose.reduce_mean(r.builder, r.value(), *geometry.reduced(r))


@reads(*ONNX)
def _activation(r: Reader) -> int:
    return r.add(ONNX[r.node.op_type].read(r), r.value())


@reads("Abs")
def _abs(r: Reader) -> int:
    return compose.absolute(r.builder, r.value())
