"""ONNX operators that are composed of others (`krelax.network.composites`): they join `READERS`."""

from __future__ import annotations

from math import prod

import numpy as np
import torch

from krelax.activations import Square
from krelax.errors import InputError, UnsupportedError
from krelax.network import compose, composites
from krelax.network import onnx_geometry as geometry
from krelax.network.constants import Constant
from krelax.network.onnx_operators import reads
from krelax.network.onnx_reader import Reader


@reads("Softmax", "LogSoftmax")
def _softmax(r: Reader) -> int:
    """Before version 13 along all axes from one on, as if they were one."""
    x, shape, logarithm = r.value(), r.shape(), r.node.op_type == "LogSoftmax"
    axis = r.axis(r.attribute("axis"), len(shape))
    if r.version >= 13:
        return composites.softmax(r.builder, x, axis, logarithm)
    flat = compose.reshape(r.builder, x, (prod(shape[:axis]), prod(shape[axis:])))
    return compose.reshape(r.builder, composites.softmax(r.builder, flat, 1, logarithm), shape)


@reads("LayerNormalization")
def _layer_norm(r: Reader) -> int:
    if any(r.node.output[1:]):
        raise UnsupportedError("the mean and deviation of a normalisation as further outputs")
    axis = r.axis(r.attribute("axis"), len(r.shape()))
    weight, bias = r.weight(1), r.constant(2)
    for given in (weight, bias):
        if given is not None and compose.joint_shape(given.shape, r.shape()) != r.shape():
            raise InputError(f"a scale or shift of shape {list(given.shape)} for a tensor of shape {list(r.shape())}")
    return composites.layer_norm(r.builder, r.value(), axis, r.attribute("epsilon"), weight, bias)


@reads("InstanceNormalization", "GroupNormalization")
def _group_norm(r: Reader) -> int:
    if len(r.shape()) < 2:
        raise InputError(f"a normalisation of a tensor of shape {list(r.shape())}")
    instances = r.node.op_type == "InstanceNormalization"
    groups = r.shape()[1] if instances else r.attribute("num_groups")
    of_groups = not instances and r.version < 21
    weight, bias = r.weight(1), r.weight(2)
    for given in (weight, bias):
        if given.shape != (groups if of_groups else r.shape()[1],):
            raise InputError(f"a scale or shift of shape {list(given.shape)} for {r.shape()[1]} channels")
    return composites.group_norm(r.builder, r.value(), groups, r.attribute("epsilon"), weight, bias)


@reads("ReduceSumSquare")
def _sum_of_squares(r: Reader) -> int:
    axes, keep = geometry.reduced(r)
    return compose.reduce_sum(r.builder, r.builder.add(Square(), r.value()), axes, keep)


@reads("ReduceL2")
def _norm(r: Reader) -> int:
    axes, keep = geometry.reduced(r)
    return composites.norm(r.builder, r.value(), axes, keep)


@reads("ReduceLogSumExp")
def _log_sum_exp(r: Reader) -> int:
    axes, keep = geometry.reduced(r)
    return composites.log_sum_exp(r.builder, r.value(), axes, keep)


@reads("Reciprocal")
def _reciprocal(r: Reader) -> int:
    return composites.reciprocal(r.builder, r.value())


@reads("Log")
def _logarithm(r: Reader) -> int:
    return composites.logarithm(r.builder, r.value())


@reads("Acos")
def _arc_cosine(r: Reader) -> int:
    return composites.arc_cosine(r.builder, r.value())


@reads("LpNormalization")
def _lp_normalised(r: Reader) -> int:
    """Divided by the sum of absolute values, or the root of the sum of squares, along an axis."""
    axis, x = [r.axis(r.attribute("axis"), len(r.shape()))], r.value()
    if r.attribute("p") == 1:
        total = compose.reduce_sum(r.builder, compose.absolute(r.builder, x), axis, True)
    else:
        total = composites.norm(r.builder, x, axis, True)
    return composites.divide(r.builder, x, total)


@reads("ReduceLogSum")
def _log_sum(r: Reader) -> int:
    return composites.logarithm(r.builder, compose.reduce_sum(r.builder, r.value(), *geometry.reduced(r)))


@reads("Pow")
def _power(r: Reader) -> int:
    """Of what depends on the input, or of a constant, or both do."""
    if not r.is_constant(1):
        return composites.power(r.builder, r.operand(0), r.value(1))
    exponent = r.given(1)
    whole = not isinstance(exponent.data, Constant)
    numbers = Constant.of(torch.from_numpy(exponent.integers.astype(np.float64))) if whole else exponent.floats
    return composites.power(r.builder, r.value(), numbers)
