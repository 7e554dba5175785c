"""The ONNX operators krelax reads: one small function each, collected in `READERS`.

A reader gets the node with its operands resolved and returns the index of the node it built. Attributes that became
inputs in later operator sets are accepted in both places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from torch import Tensor

from krelax.errors import InputError, UnsupportedError
from krelax.network import compose
from krelax.network.activations import LeakyReLU, Max, ReLU, Sigmoid, Tanh
from krelax.network.linear import ConvTranspose, Dense
from krelax.network.onnx_reader import Reader
from krelax.network.ops import Reshape, Transpose, normal_axes

READERS: dict[str, Callable[[Reader], int]] = {}


def _reads(*names: str) -> Callable[[Callable[[Reader], int]], Callable[[Reader], int]]:
    def register(function: Callable[[Reader], int]) -> Callable[[Reader], int]:
        READERS.update(dict.fromkeys(names, function))
        return function

    return register


@_reads("Gemm")
def _gemm(r: Reader) -> int:
    if r.attribute("transA", 0):
        raise UnsupportedError("transposed left operand")
    weight, bias = r.weight(1), r.tensor(2)
    if weight.dim() != 2 or len(r.shape()) != 2:
        raise InputError(f"operands of shapes {list(r.shape())} and {list(weight.shape)}, not two matrices")
    weight = weight if r.attribute("transB", 0) else weight.T
    weight = weight * r.attribute("alpha", 1.0)
    bias = None if bias is None else bias * r.attribute("beta", 1.0)
    if bias is not None and bias.dim() != 1:
        bias = bias.expand(r.shape()[0], weight.shape[0])
        bias = bias[0] if len(bias) == 1 else bias
    if bias is not None and bias.shape[-1] != weight.shape[0]:
        bias = bias.expand(weight.shape[0])
    return r.add(Dense(weight.contiguous(), bias), r.value())


@_reads("MatMul")
def _matmul(r: Reader) -> int:
    return compose.matmul(r.builder, r.operand(0), r.operand(1))


def _window(r: Reader, kernel: Sequence[int]) -> compose.Window:
    """Geometry of a convolution or a pool, from the node's attributes."""
    rank = len(kernel)
    if list(r.attribute("kernel_shape", kernel)) != list(kernel):
        raise InputError(f"kernel_shape {list(r.attribute('kernel_shape'))} for a kernel of shape {list(kernel)}")
    if len(r.shape()) != rank + 2:
        raise InputError(f"operand of rank {len(r.shape())} for a window over {rank} axes")
    stride = tuple(r.attribute("strides", [1] * rank))
    dilation = tuple(r.attribute("dilations", [1] * rank))
    pads = list(r.attribute("pads", [0] * 2 * rank))
    auto = r.attribute("auto_pad", "NOTSET")
    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        extent = zip(r.shape()[2:], kernel, stride, dilation, strict=True)
        total = [max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0) for n, k, s, d in extent]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = small + large if auto == "SAME_UPPER" else large + small
    if len(stride) != rank or len(dilation) != rank or len(pads) != 2 * rank or min(*stride, *dilation) < 1:
        raise InputError("strides, dilations or pads do not fit the kernel")
    ceil = bool(r.attribute("ceil_mode", 0))
    return compose.Window(tuple(kernel), stride, tuple(pads[:rank]), tuple(pads[rank:]), dilation, ceil)


@_reads("Conv")
def _conv(r: Reader) -> int:
    weight, groups = r.weight(1), r.attribute("group", 1)
    if r.shape()[1] != weight.shape[1] * groups:
        raise InputError(f"{r.shape()[1]} channels where the kernel takes {weight.shape[1] * groups}")
    w = _window(r, weight.shape[2:])
    return compose.convolution(
        r.builder,
        r.value(),
        weight,
        r.tensor(2),
        stride=w.stride,
        before=w.before,
        after=w.after,
        dilation=w.dilation,
        groups=groups,
    )


@_reads("ConvTranspose")
def _conv_transpose(r: Reader) -> int:
    weight = r.weight(1)
    w = _window(r, weight.shape[2:])
    rank = len(w.kernel)
    if r.attribute("auto_pad", "NOTSET") not in {"NOTSET", "VALID"} or r.attribute("output_shape") is not None:
        raise UnsupportedError("auto_pad and output_shape; export with explicit pads")
    extra = tuple(r.attribute("output_padding", [0] * rank))
    # crop what asymmetric pads remove beyond the symmetric part
    common = tuple(map(min, w.before, w.after))
    op = ConvTranspose(weight, r.tensor(2), w.stride, common, w.dilation, extra, r.attribute("group", 1))
    y = r.add(op, r.value())
    crop = [tuple(c - p for c, p in zip(common, side, strict=True)) for side in (w.before, w.after)]
    return compose.pad(r.builder, y, (0, 0, *crop[0]), (0, 0, *crop[1]))


@_reads("BatchNormalization")
def _batch_norm(r: Reader) -> int:
    names = ("weight", "bias", "mean", "var")
    statistics = {name: r.weight(i) for i, name in enumerate(names, start=1)}
    return compose.batch_norm(r.builder, r.value(), **statistics, eps=float(r.attribute("epsilon", 1e-5)))


@_reads("Add", "Sub")
def _add(r: Reader) -> int:
    return compose.add(r.builder, r.operand(0), r.operand(1), 1 if r.node.op_type == "Add" else -1)


@_reads("Mul")
def _mul(r: Reader) -> int:
    constant = 1 if r.is_constant(1) else 0
    if not r.is_constant(constant):
        raise UnsupportedError("product of two activations; only products with constants are affine")
    return compose.scale_shift(r.builder, r.value(1 - constant), r.weight(constant), None)


@_reads("Div")
def _div(r: Reader) -> int:
    if not r.is_constant(1):
        raise UnsupportedError("division by an activation; only division by constants is affine")
    divisor = r.weight(1)
    if bool((divisor == 0).any()):
        raise InputError("division by zero")
    return compose.scale_shift(r.builder, r.value(), 1 / divisor, None)


@_reads("Neg")
def _neg(r: Reader) -> int:
    return compose.negate(r.builder, r.value())


@_reads("Identity", "Dropout")
def _identity(r: Reader) -> int:
    return r.value()


@_reads("Cast")
def _cast(r: Reader) -> int:
    if r.attribute("to") not in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}:
        raise UnsupportedError("a cast that rounds; only float32 and float64 are supported")
    return r.value()


@_reads("Reshape")
def _reshape(r: Reader) -> int:
    target = r.integers("shape", 1)
    shape = r.shape()
    if target is None:
        raise InputError("no target shape")
    if not r.attribute("allowzero", 0):
        target = [shape[i] if n == 0 else n for i, n in enumerate(target)]
    total = int(np.prod(shape))
    if target.count(-1) == 1:
        known = -int(np.prod(target))
        target[target.index(-1)] = total // known if known else 0
    if any(n < 0 for n in target) or int(np.prod(target)) != total:
        raise InputError(f"cannot reshape {list(shape)} to {target}")
    return r.add(Reshape(tuple(target)), r.value())


@_reads("Flatten")
def _flatten(r: Reader) -> int:
    shape, axis = r.shape(), r.attribute("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return r.add(Reshape((int(np.prod(shape[:axis])), int(np.prod(shape[axis:])))), r.value())


@_reads("Squeeze")
def _squeeze(r: Reader) -> int:
    shape, axes = r.shape(), r.integers("axes", 1)
    drop = normal_axes(axes, len(shape)) if axes is not None else [i for i, n in enumerate(shape) if n == 1]
    return r.add(Reshape(tuple(n for i, n in enumerate(shape) if i not in drop)), r.value())


@_reads("Unsqueeze")
def _unsqueeze(r: Reader) -> int:
    axes = r.integers("axes", 1) or []
    shape = list(r.shape())
    for axis in normal_axes(axes, len(shape) + len(axes)):
        shape.insert(axis, 1)
    return r.add(Reshape(tuple(shape)), r.value())


@_reads("Transpose")
def _transpose(r: Reader) -> int:
    rank = len(r.shape())
    order = tuple(r.attribute("perm", tuple(reversed(range(rank)))))
    if sorted(order) != list(range(rank)):
        raise InputError(f"perm {list(order)} does not permute {rank} axes")
    return r.add(Transpose(order), r.value())


@_reads("Concat")
def _concat(r: Reader) -> int:
    operands = [r.operand(i) for i in range(len(r.node.input))]
    first = operands[0]
    rank = first.dim() if isinstance(first, Tensor) else len(r.builder.shape(first))
    return compose.concat(r.builder, operands, normal_axes([r.attribute("axis", 1)], rank)[0])


@_reads("Slice")
def _slice(r: Reader) -> int:
    starts, ends = r.integers("starts", 1), r.integers("ends", 2)
    if starts is None or ends is None:
        raise InputError("no starts or ends")
    axes = r.integers("axes", 3) or list(range(len(starts)))
    steps = r.integers("steps", 4) or [1] * len(starts)
    x = r.value()
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        shape = r.builder.shape(x)
        place = normal_axes([axis], len(shape))[0]
        x = _gather_axis(r, x, place, list(range(shape[place]))[start:end:step])
    return x


def _gather_axis(r: Reader, x: int, axis: int, index: list[int]) -> int:
    size = r.builder.shape(x)[axis]
    if not index or not all(-size <= i < size for i in index):
        raise InputError(f"indices {index[:5]} on axis {axis} of size {size}")
    return compose.take_slice(r.builder, x, axis, index)


@_reads("Gather")
def _gather(r: Reader) -> int:
    index = r.array(1)
    if index is None:
        raise InputError("no indices")
    shape = r.shape()
    axis = normal_axes([r.attribute("axis", 0)], len(shape))[0]
    x = _gather_axis(r, r.value(), axis, [int(i) for i in index.flatten()])
    return r.add(Reshape((*shape[:axis], *index.shape, *shape[axis + 1 :])), x)


@_reads("Split")
def _split(r: Reader) -> int:
    shape = r.shape()
    axis = normal_axes([r.attribute("axis", 0)], len(shape))[0]
    sizes = r.integers("split", 1)
    if sizes is None:
        part = -(-shape[axis] // len(r.node.output))
        sizes = [min(part, shape[axis] - i * part) for i in range(len(r.node.output))]
    if sum(sizes) != shape[axis] or len(sizes) != len(r.node.output):
        raise InputError(f"parts {sizes} of an axis of size {shape[axis]}")
    start = 0
    for name, size in zip(r.node.output, sizes, strict=True):
        r.values[name] = _gather_axis(r, r.value(), axis, list(range(start, start + size)))
        start += size
    return r.values[r.node.output[0]]


@_reads("Pad")
def _pad(r: Reader) -> int:
    if r.attribute("mode", "constant") != "constant":
        raise UnsupportedError("only constant padding")
    pads = r.integers("pads", 1) or []
    value = r.array(2)
    fill = float(r.attribute("value", 0.0) if value is None else value.item())
    rank = len(r.shape())
    axes = r.integers("", 3) or list(range(rank))
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[i + len(axes)]
    return compose.pad(r.builder, r.value(), before, after, fill)


@_reads("Expand")
def _expand(r: Reader) -> int:
    target = r.integers("shape", 1) or []
    shape = np.broadcast_shapes(r.shape(), tuple(target))
    return compose.broadcast(r.builder, r.value(), shape)


@_reads("AveragePool")
def _average_pool(r: Reader) -> int:
    window = _window(r, r.attribute("kernel_shape"))
    counted = bool(r.attribute("count_include_pad", 0))
    return compose.average_pool(r.builder, r.value(), window, count_padding=counted)


@_reads("MaxPool")
def _max_pool(r: Reader) -> int:
    if len(r.node.output) > 1:
        raise UnsupportedError("the indices of a maximum as a second output")
    return compose.max_pool(r.builder, r.value(), _window(r, r.attribute("kernel_shape")))


@_reads("GlobalAveragePool")
def _global_average(r: Reader) -> int:
    return compose.reduce_mean(r.builder, r.value(), tuple(range(2, len(r.shape()))), True)


@_reads("GlobalMaxPool")
def _global_max(r: Reader) -> int:
    shape = r.shape()
    flat = r.add(Reshape((*shape[:2], int(np.prod(shape[2:])))), r.value())
    return r.add(Reshape((*shape[:2], *[1] * (len(shape) - 2))), r.add(Max(), flat))


def _reduced(r: Reader) -> tuple[tuple[int, ...], bool]:
    rank = len(r.shape())
    axes = r.integers("axes", 1) or range(0 if r.attribute("noop_with_empty_axes", 0) else rank)
    return normal_axes(axes, rank), bool(r.attribute("keepdims", 1))


@_reads("ReduceSum")
def _reduce_sum(r: Reader) -> int:
    return compose.reduce_sum(r.builder, r.value(), *_reduced(r))


@_reads("ReduceMean")
def _reduce_mean(r: Reader) -> int:
    return compose.reduce_mean(r.builder, r.value(), *_reduced(r))


@_reads("Relu")
def _relu(r: Reader) -> int:
    return r.add(ReLU(), r.value())


@_reads("LeakyRelu")
def _leaky(r: Reader) -> int:
    return r.add(LeakyReLU(float(r.attribute("alpha", 0.01))), r.value())


@_reads("Sigmoid")
def _sigmoid(r: Reader) -> int:
    return r.add(Sigmoid(), r.value())


@_reads("Tanh")
def _tanh(r: Reader) -> int:
    return r.add(Tanh(), r.value())


@_reads("Abs")
def _abs(r: Reader) -> int:
    return compose.absolute(r.builder, r.value())


@_reads("Clip")
def _clip(r: Reader) -> int:
    low, high = (
        r.attribute(name, None) if r.attribute(name) is not None else r.array(i) for name, i in (("min", 1), ("max", 2))
    )
    bounds = (None if b is None else float(np.asarray(b).item()) for b in (low, high))
    return compose.clip(r.builder, r.value(), *bounds)


@_reads("Max", "Min")
def _extremum(r: Reader) -> int:
    pick = compose.maximum if r.node.op_type == "Max" else compose.minimum
    operands = [r.operand(i) for i in range(len(r.node.input))]
    result = operands[0]
    for operand in operands[1:]:
        result = pick(r.builder, result, operand)
    if not isinstance(result, int):
        raise UnsupportedError("no operand depends on the input")
    return result
