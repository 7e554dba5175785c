"""Functions of one number in PyTorch that are made of others: they join the readers of aten operators."""

from __future__ import annotations

from collections.abc import Callable
from math import exp

import torch

from krelax.activations import Softplus
from krelax.errors import UnsupportedError
from krelax.network import compose, decisions
from krelax.network.constants import Constant
from krelax.network.contractions import prelu
from krelax.network.quantised import dequantise, quantise
from krelax.network.torch_reader import Branch, Call


def _softplus(c: Call) -> int:
    """`softplus(beta z) / beta`, and z where `beta z` is above the threshold, if that is another number."""
    beta = c.number(c["beta"])
    if not bool(beta.value > 0):
        raise UnsupportedError(f"softplus with a beta of {c['beta']:g}; it must be positive")
    x = c.x if beta.value == 1 else compose.scale_shift(c.builder, c.x, beta, None)
    y = c.add(Softplus(), x)
    if exp(-c["threshold"]) > torch.finfo(c.dtype).eps:
        above = decisions.compare(c.builder, "gt", x, c.number(c["threshold"]))
        y = decisions.choose(c.builder, above, x, y)
    return y if beta.value == 1 else compose.scale_shift(c.builder, y, beta.reciprocal(), None)


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
    """`(min(max(round(z / scale + zero), low), high) - zero) * scale`, with one scale or one for each channel."""
    scale, zero = (_parameter(c, name) for name in ("scale", "zero_point"))
    y = quantise(c.builder, c.x, scale, zero, (c["quant_min"], c["quant_max"]), shifted=True)
    return dequantise(c.builder, y, scale, zero)


def _parameter(c: Call, name: str) -> Constant:
    """A number, or one for each channel."""
    given = c[name]
    if isinstance(given, Branch):
        raise UnsupportedError(f"{name} depends on the input")
    constant = c.constant(name) if isinstance(given, torch.Tensor | Constant) else Constant.of(float(given))
    if constant.value.numel() == 1:
        return constant.reshape()
    axis = c["axis"] % len(c.input_shape)
    return constant.reshape(*(-1 if i == axis else 1 for i in range(len(c.input_shape))))


def _first_of_two(read: Callable[[Call], int]) -> Callable[[Call], list[int]]:
    """Of operators whose second result is for training alone."""
    return lambda c: [read(c)] * 2


_FAKE = ("fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine")
FUNCTIONS: dict[str, Callable[[Call], int | list[int]]] = {
    "softplus": _softplus,
    "log_sigmoid": _log_sigmoid,
    "log_sigmoid_forward": _first_of_two(_log_sigmoid),
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "_prelu_kernel": lambda c: prelu(c.builder, c.x, c.constant("weight")),
    **dict.fromkeys(_FAKE, _fake_quantize),
    **{f"{name}_cachemask": _first_of_two(_fake_quantize) for name in _FAKE},
}
