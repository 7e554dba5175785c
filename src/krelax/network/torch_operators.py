"""One reader for each aten operator that may depend on the input of a network.

A reader gets a `Call` and appends what the operator means to its builder. It returns the node that is the result,
or a list of nodes for an operator with several; what it cannot express raises `UnsupportedError`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isinf

import torch
from torch import Tensor

from krelax.errors import UnsupportedError
from krelax.network import compose, composites, decisions, products
from krelax.network.compose import Operand
from krelax.network.constants import Constant
from krelax.network.graph import Builder
from krelax.network.nonlinear import TORCH
from krelax.network.ops import Transpose
from krelax.network.pooling import Window, average_pool, max_pool
from krelax.network.torch_functions import FUNCTIONS
from krelax.network.torch_reader import Branch, Call
from krelax.op import Shape

_Read = Callable[[Call], int | list[int]]
READERS: dict[str, _Read] = {}


def reads(*names: str) -> Callable[[_Read], _Read]:
    """Register a reader for the aten operators `names`, all their overloads included."""

    def register(read: _Read) -> _Read:
        READERS.update(dict.fromkeys(names, read))
        return read

    return register


READERS.update(FUNCTIONS)


@reads(*TORCH)
def _activation(c: Call) -> int:
    return c.add(TORCH[c.name](c))


_UNARY: dict[str, Callable[[Builder, int], int]] = {
    "abs": compose.absolute,
    "hardsigmoid": compose.hard_sigmoid,
    "neg": compose.negate,
    "relu6": lambda builder, x: compose.clip(builder, x, 0.0, 6.0),
}
_BINARY: dict[str, Callable[[Builder, Operand, Operand], int]] = {
    **dict.fromkeys(("maximum", "fmax"), compose.maximum),
    **dict.fromkeys(("minimum", "fmin"), compose.minimum),
    "mul": products.multiply,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), products.matmul),
}


@reads(*_UNARY)
def _unary(c: Call) -> int:
    return _UNARY[c.name](c.builder, c.x)


@reads(*_BINARY)
def _binary(c: Call) -> int:
    return _BINARY[c.name](c.builder, *c.pair)


@reads("hardtanh")
def _hardtanh(c: Call) -> int:
    return _clipped(c, c["min_val"], c["max_val"])


def _clipped(c: Call, low: float | None, high: float | None) -> int:
    bounds = [None if b is None else _limit(c, b) for b in (low, high)]
    return compose.clip(c.builder, c.x, *bounds)


def _limit(c: Call, bound: float) -> float:
    """A limit in the type of the result; infinite ones are none."""
    return bound if isinf(bound) else float(c.number(bound).value.item())


@reads("clamp", "clip", "clamp_min", "clamp_max")
def _clamp(c: Call) -> int:
    low, high = (c.arguments.get(name) for name in ("min", "max"))
    if not any(isinstance(bound, Tensor | Constant | Branch) for bound in (low, high)):
        return _clipped(c, low, high)
    x = c.x if low is None else compose.maximum(c.builder, c.x, c.operand("min"))
    return x if high is None else compose.minimum(c.builder, x, c.operand("max"))


@reads("add", "sub", "rsub")
def _add(c: Call) -> int:
    a, b = reversed(c.pair) if c.name == "rsub" else c.pair
    return compose.add(c.builder, a, scaled(c, b, c["alpha"]), 1 if c.name == "add" else -1)


def scaled(c: Call, operand: Operand, factor: float) -> Operand:
    """`factor * operand`."""
    if factor == 1:
        return operand
    scale = c.number(factor)
    return scale * operand if isinstance(operand, Constant) else compose.scale_shift(c.builder, operand, scale, None)


@reads("mean", "sum")
def _reduce(c: Call) -> int:
    reduce = compose.reduce_mean if c.name == "mean" else compose.reduce_sum
    axes = c.arguments.get("dim") or range(len(c.input_shape))
    return reduce(c.builder, c.x, axes, c.arguments.get("keepdim", False))


@reads("linear")
def _linear(c: Call) -> int:
    weight = c.operand("weight")
    if isinstance(weight, int):
        turned = compose.swap_last(c.builder, weight) if len(c.builder.shape(weight)) > 1 else weight
        product = products.matmul(c.builder, c.operand("input"), turned)
        return product if c["bias"] is None else compose.add(c.builder, product, c.operand("bias"))
    if weight.dim() == 2:
        return compose.dense(c.builder, c.x, weight, c.optional("bias"))
    return compose.matmul(c.builder, c.x, weight)  # PyTorch allows no bias with a vector


@reads("addmm")
def _addmm(c: Call) -> int:
    product = products.matmul(c.builder, c.operand("mat1"), c.operand("mat2"))
    return compose.add(c.builder, scaled(c, product, c["alpha"]), scaled(c, c.operand("self"), c["beta"]))


@reads("conv1d", "conv2d", "conv3d")
def _convolution(c: Call) -> int:
    weight = c.constant("weight")
    rank = weight.dim() - 2
    dilation = c.sizes("dilation", rank)
    before, after = _padding(c, tuple(weight.shape[2:]), dilation)
    result = compose.convolution(
        c.builder,
        _images(c, rank),
        weight,
        c.optional("bias"),
        stride=c.sizes("stride", rank),
        before=before,
        after=after,
        dilation=dilation,
        groups=c["groups"],
    )
    return compose.reshape(c.builder, result, c.shape)


def _padding(c: Call, kernel: Shape, dilation: Shape) -> tuple[Shape, Shape]:
    """Padding before and after each spatial axis of a convolution."""
    if c["padding"] != "same":
        both = (0,) * len(kernel) if c["padding"] == "valid" else c.sizes("padding", len(kernel))
        return both, both
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)


def _images(c: Call, rank: int) -> int:
    """The first argument with an axis of images, which PyTorch lets a convolution leave out."""
    shape = c.input_shape
    return compose.reshape(c.builder, c.x, shape if len(shape) == rank + 2 else (1, *shape))


@reads("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed_convolution(c: Call) -> int:
    weight = c.constant("weight")
    rank = weight.dim() - 2
    names = ("stride", "padding", "dilation", "output_padding")
    stride, padding, dilation, extra = (c.sizes(name, rank) for name in names)
    if any(e >= s for e, s in zip(extra, stride, strict=True)):
        raise UnsupportedError(f"output_padding {list(extra)} that is not below the stride {list(stride)}")
    x = compose.transposed_convolution(
        c.builder,
        _images(c, rank),
        weight,
        c.optional("bias"),
        stride=stride,
        padding=padding,
        dilation=dilation,
        output_padding=extra,
        groups=c["groups"],
    )
    return compose.reshape(c.builder, x, c.shape)


@reads("_native_batch_norm_legit_no_training")
def _batch_norm(c: Call) -> list[int]:
    result = compose.batch_norm(
        c.builder,
        c.x,
        weight=c.optional("weight"),
        bias=c.optional("bias"),
        mean=c.constant("running_mean"),
        var=c.constant("running_var"),
        eps=c.number(c["eps"]).value.item(),
    )
    return [result]


def pool_rank(c: Call) -> int:
    return int(c.name[c.name.index("pool") + 4])


def window(c: Call) -> Window:
    rank = pool_rank(c)
    kernel, padding = c.sizes("kernel_size", rank), c.sizes("padding", rank)
    stride = c.sizes("stride", rank) if c["stride"] else kernel
    dilation = c.sizes("dilation", rank) if "dilation" in c.arguments else (1,) * rank
    return Window(kernel, stride, padding, padding, dilation, c["ceil_mode"])


def adaptive_window(c: Call) -> Window | None:
    """The window of an adaptive pool, None where windows differ."""
    rank = pool_rank(c)
    given, wanted = c.input_shape[-rank:], c.shape[-rank:]
    if any(n % m for n, m in zip(given, wanted, strict=True)):
        return None
    kernel = tuple(n // m for n, m in zip(given, wanted, strict=True))
    zeros, ones = (0,) * rank, (1,) * rank
    return Window(kernel, kernel, zeros, zeros, ones)


@reads("max_pool1d", "max_pool2d", "max_pool3d")
def _max_pool(c: Call) -> int:
    return max_pool(c.builder, c.x, window(c))


@reads("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _average_pool(c: Call) -> int:
    counted, divisor = c["count_include_pad"], c.arguments.get("divisor_override")
    return average_pool(c.builder, c.x, window(c), count_padding=counted, divisor=divisor)


@reads("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
def _reshape(c: Call) -> int:
    return compose.reshape(c.builder, c.x, c.shape)


@reads(
    "alias",
    "clone",
    "contiguous",
    "detach",
    "lift_fresh_copy",
    "_to_copy",
    "to",
    "type_as",
    "dropout",
    "feature_dropout",
    "alpha_dropout",
    "feature_alpha_dropout",
)
def _same(c: Call) -> int:
    if c.arguments.get("train"):
        raise UnsupportedError("dropout outside evaluation mode")
    given, kind = c.node.all_input_nodes[0].meta["val"].dtype, c.node.meta["val"].dtype
    if kind.is_floating_point or given in (kind, torch.bool):
        return c.x
    return decisions.is_not_zero(c.builder, c.x) if kind == torch.bool else composites.truncate(c.builder, c.x)


@reads("expand")
def _expand(c: Call) -> int:
    return compose.broadcast(c.builder, c.x, c.shape)


@reads("permute", "transpose", "t", "movedim")
def _permute(c: Call) -> int:
    rank = len(c.input_shape)
    # Sizes that name their axis, so that the operator itself says where each one goes.
    moved = c.run(torch.empty(*range(2, rank + 2), device="meta"))
    return c.add(Transpose(tuple(n - 2 for n in moved.shape)))


@reads("slice", "select", "narrow", "split", "split_with_sizes", "chunk", "tensor_split", "unbind", "index_select")
def _along_axis(c: Call) -> int | list[int]:
    shape = c.input_shape
    axis = c["dim"] % len(shape)
    places = c.run(torch.arange(shape[axis]), dim=0)

    def part(index: Tensor) -> int:
        taken = compose.take_slice(c.builder, c.x, axis, index.reshape(-1))
        return compose.reshape(c.builder, taken, (*shape[:axis], *index.shape, *shape[axis + 1 :]))

    return part(places) if isinstance(places, Tensor) else [part(index) for index in places]


@reads("constant_pad_nd")
def pad_by_number(c: Call) -> int:
    """Padding by one number."""
    pads = [*c["pad"], *[0] * (2 * len(c.input_shape) - len(c["pad"]))]  # pairs, last axis first
    return compose.pad(c.builder, c.x, pads[-2::-2], pads[::-2], c.number(c["value"] or 0.0).value.item())


@reads("cat")
def _concat(c: Call) -> int:
    return compose.concat(c.builder, c.operands("tensors"), c["dim"] % len(c.shape))


@reads("stack")
def _stack(c: Call) -> int:
    axis = c["dim"] % len(c.shape)
    shape = (*c.shape[:axis], 1, *c.shape[axis + 1 :])
    parts = [
        o.reshape(*shape) if isinstance(o, Constant) else compose.reshape(c.builder, o, shape)
        for o in c.operands("tensors")
    ]
    return compose.concat(c.builder, parts, axis)
