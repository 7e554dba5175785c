"""Normalisation by neighbours, pools by norms, samples and blocks of images: they join `READERS`."""

from __future__ import annotations

from math import prod

import numpy as np

from krelax.activations import Sqrt
from krelax.errors import InputError, UnsupportedError
from krelax.network import compose, composites, spatial
from krelax.network import onnx_geometry as geometry
from krelax.network.constants import Constant
from krelax.network.onnx_operators import reads
from krelax.network.onnx_reader import Reader
from krelax.network.pooling import average_pool
from krelax.network.products import multiply


@reads("LRN")
def _local_response(r: Reader) -> int:
    size, alpha = r.attribute("size"), Constant.of(r.attribute("alpha"))
    if len(r.shape()) < 2 or size < 1:
        raise InputError(f"a normalisation by {size} channels of a tensor of shape {list(r.shape())}")
    share = alpha * Constant.of(float(size)).reciprocal()
    return spatial.local_response(r.builder, r.value(), size, share, r.attribute("beta"), r.attribute("bias"))


@reads("LpPool")
def _norm_pool(r: Reader) -> int:
    window = geometry.window(r, r.attribute("kernel_shape"))
    order = float(r.attribute("p"))
    return spatial.lp_norm(
        r.builder, r.value(), order, lambda x: average_pool(r.builder, x, window, divisor=1, count_padding=True)
    )


@reads("GlobalLpPool")
def _global_norm_pool(r: Reader) -> int:
    axes = range(2, len(r.shape()))
    if not axes:
        raise InputError(f"operand of rank {len(r.shape())}, which has no axes to pool over")
    order = float(r.attribute("p"))
    return spatial.lp_norm(r.builder, r.value(), order, lambda x: compose.reduce_sum(r.builder, x, axes, True))


@reads("MeanVarianceNormalization")
def _mean_variance(r: Reader) -> int:
    """Less the mean, divided by the deviation and 1e-9."""
    axes, x = r.axes(list(r.attribute("axes") or (0, 2, 3)), len(r.shape())), r.value()
    centred = compose.add(r.builder, x, compose.reduce_mean(r.builder, x, axes, True), -1)
    deviation = r.builder.add(Sqrt(), composites.variance(r.builder, x, axes, True))
    divisor = compose.scale_shift(r.builder, deviation, None, Constant.of(float(np.float32(1e-9))))
    return multiply(r.builder, centred, composites.reciprocal(r.builder, divisor))


@reads("RMSNormalization")
def _root_mean_square(r: Reader) -> int:
    axis = r.axis(r.attribute("axis"), len(r.shape()))
    axes, weight = range(axis, len(r.shape())), r.weight(1)
    if compose.joint_shape(weight.shape, r.shape()) != r.shape():
        raise InputError(f"a scale of shape {list(weight.shape)} for a tensor of shape {list(r.shape())}")
    return composites.normalise(r.builder, r.value(), axes, r.attribute("epsilon"), weight, None, False)


@reads("GridSample")
def _samples(r: Reader) -> int:
    mode, padding = r.attribute("mode"), r.attribute("padding_mode")
    return spatial.grid_sample(r.builder, r.value(), r.weight(1), mode, padding, bool(r.attribute("align_corners")))


@reads("Col2Im")
def _blocks(r: Reader) -> int:
    image, block = r.integers("", 1) or [], r.integers("", 2) or []
    rank = len(image)
    stride, dilation = (list(r.attribute(name) or [1] * rank) for name in ("strides", "dilations"))
    pads = list(r.attribute("pads") or [0] * 2 * rank)
    if not {len(block), len(stride), len(dilation)} == {rank} or len(pads) != 2 * rank or not prod(block):
        raise InputError(f"blocks of shape {block} of an image of shape {image}")
    if rank > 3:
        raise UnsupportedError(f"images of {rank} axes; krelax knows one to three")
    before, after = pads[:rank], pads[rank:]
    return spatial.column_blocks(r.builder, r.value(), image, block, stride, before, after, dilation)
