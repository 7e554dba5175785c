"""Functions of one number in PyTorch that are made of others: they join the readers of aten operators."""

from __future__ import annotations

from collections.abc import Callable
from math import exp

import torch

from krelax.activations import Round, Softplus
from krelax.errors import UnsupportedError
from krelax.network import compose
from krelax.network.constants import Constant
from krelax.network.contractions import prelu
from krelax.network.torch_reader import Call


def _softplus(c: Call) -> int:
    """Above its threshold the module computes z: that must be softplus to the last digit of its type."""
    if exp(-c["threshold"]) > torch.finfo(c.dtype).eps:
        raise UnsupportedError(f"softplus with a threshold of {c['threshold']:g}, which its type can tell; set 40")
    beta = c.number(c["beta"])
    if beta.value == 1:
        return c.add(Softplus())
    if not bool(beta.value > 0):
        raise UnsupportedError(f"softplus with a beta of {c['beta']:g}; it must be positive")
    y = c.add(Softplus(), compose.scale_shift(c.builder, c.x, beta, None))
    return compose.scale_shift(c.builder, y, beta.reciprocal(), None)


def _log_sigmoid(c: Call) -> int:
    """`-softplus(-z)`."""
    return compose.negate(c.builder, c.add(Softplus(), compose.negate(c.builder, c.x)))


def _leaky_relu(c: Call) -> int:
    return prelu(c.builder, c.x, c.number(c["negative_slope"]))


def _prelu(c: Call) -> int:
    """With one slope, or one for each channel, which lie along the second axis."""
    slope, rank = c.constant("weight"), len(c.input_shape)
    if slope.value.numel() > 1 and rank < 2:
        raise UnsupportedError("slopes for the channels of a tensor that has none")
    return prelu(c.builder, c.x, slope.reshape(-1, *[1] * (rank - 2)) if rank > 1 else slope.reshape(-1))


def _fake_quantize(c: Call) -> int:
    """`(min(max(round(z / scale) + zero, low), high) - zero) * scale`, with limits that are whole numbers."""
    scale, zero = _number(c, "scale"), _number(c, "zero_point")
    low, high = (float(c[name]) - float(zero.value) for name in ("quant_min", "quant_max"))
    if not bool(scale.value > 0):
        raise UnsupportedError(f"quantisation to a grid of {float(scale.value):g}; its scale must be positive")
    y = c.add(Round(), compose.scale_shift(c.builder, c.x, scale.reciprocal(), None))
    return compose.scale_shift(c.builder, compose.clip(c.builder, y, low, high), scale, None)


def _number(c: Call, name: str) -> Constant:
    """A number, or a constant of one."""
    given = c[name]
    constant = c.constant(name) if isinstance(given, torch.Tensor | Constant) else Constant.of(float(given))
    if constant.value.numel() != 1:
        raise UnsupportedError(f"{name} for every channel")
    return constant.reshape()


def _first_of_two(read: Callable[[Call], int]) -> Callable[[Call], list[int]]:
    """Of operators whose second result is for training alone."""
    return lambda c: [read(c)] * 2


FUNCTIONS: dict[str, Callable[[Call], int | list[int]]] = {
    "softplus": _softplus,
    "log_sigmoid": _log_sigmoid,
    "log_sigmoid_forward": _first_of_two(_log_sigmoid),
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "_prelu_kernel": lambda c: prelu(c.builder, c.x, c.constant("weight")),
    "fake_quantize_per_tensor_affine": _fake_quantize,
    "fake_quantize_per_tensor_affine_cachemask": _first_of_two(_fake_quantize),
}
