"""Small random networks of every kind, for what looks at them from inside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from krelax.activations import LeakyReLU, ReLU, Tanh
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Conv, Dense
from krelax.network.ops import Reshape
from krelax.network.pooling import Window, max_pool
from krelax.op import Op

OUTPUTS = 3


def _normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.normal(size=shape) / np.sqrt(shape[-1]))


def _dense(rng: np.random.Generator, inputs: int, act: Op, widths: tuple[int, ...] = (12, 12)) -> Network:
    builder, x, before = Builder((inputs,)), 0, inputs
    for width in widths:
        x = builder.add(act, builder.add(Dense(_normal(rng, width, before), _normal(rng, width)), x))
        before = width
    return builder.build(builder.add(Dense(_normal(rng, OUTPUTS, before), _normal(rng, OUTPUTS)), x))


def _residual(rng: np.random.Generator, inputs: int) -> Network:
    builder = Builder((inputs,))
    x = builder.add(Dense(_normal(rng, 8, inputs), _normal(rng, 8)), 0)
    for _ in range(2):
        inner = builder.add(ReLU(), builder.add(Dense(_normal(rng, 8, 8), _normal(rng, 8)), x))
        x = builder.add(Add((1, 1)), x, builder.add(Dense(_normal(rng, 8, 8), None), inner))
    x = builder.add(ReLU(), x)
    return builder.build(builder.add(Dense(_normal(rng, OUTPUTS, 8), None), x))


def _images(rng: np.random.Generator, pooled: bool) -> Network:
    builder = Builder((1, 1, 4, 4))
    weight, bias = torch.from_numpy(rng.normal(size=(3, 1, 2, 2))), _normal(rng, 3) / 8
    x = builder.add(Conv(weight, bias, (1, 1), (0, 0), (1, 1)), 0)
    if pooled:
        x = max_pool(builder, x, Window((2, 2), (1, 1), (0, 0), (0, 0), (1, 1)))
    x = builder.add(ReLU(), x)
    size = int(np.prod(builder.shape(x)))
    x = builder.add(Reshape((size,)), x)
    return builder.build(builder.add(Dense(_normal(rng, OUTPUTS, size), _normal(rng, OUTPUTS)), x))


PIECEWISE: dict[str, Callable[[np.random.Generator], Network]] = {
    "dense": lambda rng: _dense(rng, 5, ReLU()),
    "wide": lambda rng: _dense(rng, 30, ReLU()),
    "leaky": lambda rng: _dense(rng, 4, LeakyReLU(0.125)),
    "residual": lambda rng: _residual(rng, 6),
    "conv": lambda rng: _images(rng, pooled=False),
    "pool": lambda rng: _images(rng, pooled=True),
}
NETWORKS = {**PIECEWISE, "tanh": lambda rng: _dense(rng, 4, Tanh())}
