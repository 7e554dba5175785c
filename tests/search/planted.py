"""Networks with a needle: a bump around one secret input, flat everywhere else, that turns the answer only there.

A needle of k directions is zero unless all k linear forms are within a tiny width of their values at the secret input,
so random inputs miss it and its gradient says nothing about where it is. Away from it the scores keep their order by
construction: they are combinations of non-negative (for tanh: bounded) activations with coefficients of one sign. A
needle that is lowered until it no longer reaches gives a network that is safe by a small margin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tests.search.asking import Question, replayed
from torch import Tensor

from krelax.activations import LeakyReLU, ReLU, Sigmoid, Tanh
from krelax.network.graph import Builder, Network
from krelax.network.linear import Add, Conv, Dense, Scale
from krelax.network.ops import Reshape
from krelax.network.pooling import Window, max_pool
from krelax.op import Op

Array = NDArray[np.float64]

GAP = 0.75  # smallest margin without the needle
DEPTH = 0.25  # how far below zero the planted needle takes it
MISS = 2.0**-6  # how far above zero the lowered one leaves it
SHAPES = {4: (1, 1, 2, 2), 8: (1, 1, 2, 4), 16: (1, 1, 4, 4), 32: (1, 2, 4, 4), 64: (1, 1, 8, 8)}


@dataclass(frozen=True, eq=False)
class Planted:
    """A network, its secret input and questions about boxes around that: violated there, or narrowly not if `safe`."""

    name: str
    network: Network
    secret: Array
    questions: list[Question]
    safe: bool
    linear: bool  # piecewise


@dataclass(frozen=True, eq=False)
class Needle:
    """A bump of height one where every form `directions @ x` is what it is at `secret`; zero further than `width`.

    Its profile is a tent of two ReLUs for each direction, or with `hats` a sum of three that cancels outside.
    """

    directions: Array
    secret: Array
    width: float
    hats: bool

    def taps(self) -> tuple[Array, Array]:
        """Weights and biases of the neurons of the first layer, before their ReLUs."""
        centre = self.directions @ self.secret.flatten()
        if self.hats:
            shifts = (self.width, 0.0, -self.width)
            return np.concatenate([self.directions] * 3), np.concatenate([shift - centre for shift in shifts])
        return np.concatenate([self.directions, -self.directions]), np.concatenate([-centre, centre])

    def summit(self, gain: float = 1.0) -> tuple[Array, float]:
        """Weights of the taps and the bias of the last neuron, if a tap's ReLU only shows the `gain`th part."""
        k = len(self.directions)
        profile = [1.0, -2.0, 1.0] if self.hats else [-1.0, -1.0]
        return np.repeat(profile, k) * gain / self.width, 1.0 - k * self.hats


@dataclass
class _Plan:
    """What a family of networks is built from, with `others` neurons beside the needle in every layer.

    The last feature that a family returns is the needle.
    """

    rng: np.random.Generator
    builder: Builder
    needle: Needle
    others: int = 6

    def dense(self, weight: Array, bias: Array, x: int, act: Op | None = None) -> int:
        y = self.builder.add(Dense(_tensor(weight), _tensor(bias)), x)
        return y if act is None else self.builder.add(act, y)

    def last(self, x: int, row: Array, bias: float) -> int:
        """The needle from weights `row` of the entries of `x`; of the others, half are inactive at the secret input."""
        weight = self.random(self.others, len(row)) * (row == 0)
        at = self.builder.build(x)(_tensor(self.needle.secret)[None])[0].numpy()
        shift = self.random(self.others)
        shift[::2] = -np.abs(shift[::2]) - np.ceil(weight[::2] @ at * 64) / 64
        return self.dense(np.concatenate([weight, [row]]), np.append(shift, bias), x, ReLU())

    def random(self, *shape: int) -> Array:
        """Weights of a plausible size, on a grid so that float32 has them."""
        scale = 1.5 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.5
        return np.round(self.rng.normal(size=shape) * scale * 64) / 64


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _slim(plan: _Plan) -> int:
    """As few neurons as it takes: two layers."""
    row, bias = plan.needle.summit()
    return plan.last(_first(plan, ReLU()), np.concatenate([np.zeros(plan.others), row]), bias)


def _first(plan: _Plan, act: Op, empty: int = 0) -> int:
    """The first layer: other neurons, the needle's taps, and places with nothing in them."""
    taps, shifts = plan.needle.taps()
    weight = np.concatenate([plan.random(plan.others, taps.shape[1]), taps, np.zeros((empty, taps.shape[1]))])
    return plan.dense(weight, np.concatenate([plan.random(plan.others), shifts, np.zeros(empty)]), 0, act)


def _dense(plan: _Plan, act: Op | None = None, gain: float = 1.0) -> int:
    """Three layers; the second one's other neurons see the needle's parts too, the third carries it on."""
    row, bias = plan.needle.summit(gain)
    m, x = plan.others, _first(plan, act or ReLU())
    second = np.concatenate([plan.random(m, m + len(row)), [np.concatenate([np.zeros(m), row])]])
    x = plan.dense(second, np.append(plan.random(m), bias), x, ReLU())
    return plan.last(x, np.eye(m + 1)[-1], 0.0)


def _leaky(plan: _Plan) -> int:
    return _dense(plan, LeakyReLU(0.5), 2.0)


def _residual(plan: _Plan) -> int:
    """Two blocks `a + relu(W a + b)`. The first fills a place that was empty, the second hands it on."""
    row, bias = plan.needle.summit()
    m, t, x = plan.others, len(row), _first(plan, ReLU(), empty=1)
    for block in range(2):
        weight, shift = np.zeros((m + t + 1, m + t + 1)), np.zeros(m + t + 1)
        weight[:m], shift[:m] = plan.random(m, m + t + 1), plan.random(m)
        if block == 0:
            weight[-1, m:-1], shift[-1] = row, bias
        x = plan.builder.add(Add((1, 1)), x, plan.dense(weight, shift, x, ReLU()))
    return plan.last(x, np.eye(m + t + 1)[-1], 0.0)


def _taps_of_pixels(plan: _Plan) -> int:
    """A convolution after the secret image has been subtracted: two other channels, then the needle's parts."""
    channels = plan.needle.secret.shape[1]
    x = plan.builder.add(Scale(None, _tensor(-plan.needle.secret)), 0)
    signs, shifts = ([1, 1, 1], np.array([1, 0, -1]) * plan.needle.width) if plan.needle.hats else ([1, -1], [0, 0])
    weight = np.zeros((2 + channels * len(signs), channels, 3, 3))
    weight[:2] = plan.random(2, channels, 3, 3)
    for i, sign in enumerate(signs):
        for c in range(channels):
            weight[2 + i * channels + c, c, 1, 1] = sign
    bias = np.concatenate([plan.random(2), np.repeat(shifts, channels)])
    return plan.builder.add(ReLU(), plan.builder.add(Conv(_tensor(weight), _tensor(bias), (1, 1), (1, 1), (1, 1)), x))


def _conv(plan: _Plan) -> int:
    """Two convolutions and a dense layer. The second one sums the needle's parts over its windows."""
    x = _taps_of_pixels(plan)
    channels, k = plan.builder.shape(x)[1], plan.needle.secret.size
    weight = np.zeros((3, channels, 2, 2))
    weight[:2] = plan.random(2, channels, 2, 2)
    profile = np.array([1.0, -2.0, 1.0] if plan.needle.hats else [1.0, 1.0]) / plan.needle.width
    weight[2, 2:] = np.repeat(profile, plan.needle.secret.shape[1])[:, None, None]
    bias = np.append(plan.random(2), 0.0)
    x = plan.builder.add(ReLU(), plan.builder.add(Conv(_tensor(weight), _tensor(bias), (2, 2), (0, 0), (1, 1)), x))
    row = np.zeros(plan.builder.shape(x))
    row[:, 2] = 1.0 if plan.needle.hats else -1.0
    flat = plan.builder.add(Reshape((row.size,)), x)
    return plan.last(flat, row.flatten(), 1.0 - k if plan.needle.hats else 1.0)


def _pool(plan: _Plan) -> int:
    """A convolution, a max pool and a dense layer: the largest distance of each window counts."""
    x = max_pool(plan.builder, _taps_of_pixels(plan), Window((2, 2), (2, 2), (0, 0), (0, 0), (1, 1)))
    row = np.zeros(plan.builder.shape(x))
    row[:, 2:] = -1.0 / plan.needle.width
    return plan.last(plan.builder.add(Reshape((row.size,)), x), row.flatten(), 1.0)


def _smooth(plan: _Plan, act: Op, size: float) -> int:
    """Steps up and down again for each direction, then a step where all are up; `act` rises by `size` around zero."""
    k, steep = len(plan.needle.directions), 8 / plan.needle.width / size
    forms = steep * plan.needle.directions
    centre = forms @ plan.needle.secret.flatten()
    m, start = plan.others, 3 / size  # from there to its mirror image a sigmoid rises by 0.905, 14.5 / 16
    first = np.concatenate([plan.random(m, forms.shape[1]), forms, forms])
    x = plan.dense(first, np.concatenate([plan.random(m), start - centre, -start - centre]), 0, act)
    row = np.concatenate([np.zeros(m), np.repeat([16.0, -16.0], k)]) / size**2
    second = np.concatenate([plan.random(m, m + 2 * k), [row]])
    return plan.dense(second, np.append(plan.random(m), -14.5 * (k - 0.5) / size), x, act)


FAMILIES: dict[str, tuple[Callable[[_Plan], int], tuple[int, ...]]] = {
    "slim": (_slim, (2, 16, 40)),
    "dense": (_dense, (2, 3, 4, 8, 16, 64)),
    "leaky": (_leaky, (2, 4, 8, 32)),
    "residual": (_residual, (2, 3, 8, 16, 64)),
    "conv": (_conv, (4, 8, 16, 32, 64)),
    "pool": (_pool, (4, 16, 32, 64)),
    "sigmoid": (lambda plan: _smooth(plan, Sigmoid(), 1.0), (2, 4, 16)),
    "tanh": (lambda plan: _smooth(plan, Tanh(), 2.0), (2, 4, 16, 64)),
}
SMOOTH, IMAGES = ("sigmoid", "tanh"), ("conv", "pool")
BOXES = 4


def plant(family: str, inputs: int, seed: int, safe: bool = False) -> Planted:
    """A network of the family with `BOXES` questions; with `safe` its twin whose needle is too low."""
    rng = np.random.default_rng([sorted(FAMILIES).index(family), inputs, seed])
    shape = SHAPES[inputs] if family in IMAGES else (inputs,)
    needle = _needle(rng, shape, seed, family)
    plan = _Plan(rng, Builder(shape), needle, 2 if family == "slim" else 6)
    features = FAMILIES[family][0](plan)
    low = -1.0 if family == "tanh" else 0.0
    network = _scored(plan, features, low, 2 + seed % 3, safe)
    boxes = [_box(rng, needle.secret, number) for number in range(BOXES)]
    target = network(_tensor(needle.secret)[None]).flatten()[1].item()
    questions = [Question(*box, _clauses(2 + seed % 3, target, i % 2 == 1)) for i, box in enumerate(boxes)]
    name = f"{family} {inputs} {seed}"
    return Planted(name, network, needle.secret, questions, safe, family not in SMOOTH)


def _needle(rng: np.random.Generator, shape: tuple[int, ...], seed: int, family: str) -> Needle:
    """In all coordinates at once, or with odd seeds and in many dimensions in a few random directions."""
    inputs = int(np.prod(shape))
    secret = rng.integers(256, 3840, size=shape) / 4096
    if seed % 2:  # next to or on faces that halving the unit cube cuts
        secret = rng.integers(2, 15, size=shape) / 16 + rng.integers(-1, 2, size=shape) / 4096
    directions = np.eye(inputs)
    if family not in IMAGES and (inputs > 8 or seed % 2):
        count = 2 if family == "slim" else min(inputs, 3)
        directions = rng.choice([-1.0, -0.5, -0.25, 0.25, 0.5, 1.0], size=(count, inputs))
        directions += np.eye(*directions.shape)  # so that they are not parallel
    width = 2.0**-9 if len(directions) > 2 else 2.0**-16 if family in SMOOTH else 2.0**-12
    return Needle(directions, secret, width, bool(rng.integers(2)) and family != "pool")


def _scored(plan: _Plan, features: int, low: float, classes: int, safe: bool) -> Network:
    """Scores that class 0 wins by `GAP` or more, wherever features are at least `low`, but for the needle in class 1.

    ReLUs that are active at the secret input do not count: margins without the needle fall to `GAP` there.
    """
    at = plan.builder.build(features)(_tensor(plan.needle.secret)[None])[0].numpy() - low
    weight = np.abs(plan.random(classes, len(at)))
    weight[:, -1] = 0.0
    if (at == 0).any():  # never so after a sigmoid
        weight[:, at > 0] = 0.0
    weight[1:] *= -1
    gap = GAP + (weight[0] - weight[1]) @ at
    height = GAP - MISS if safe else np.ceil((gap + DEPTH) * (1 - low) / at[-1] * 1024) / 1024
    weight[1, -1] = height / (1 - low)
    bias = -low * weight.sum(1) + GAP * (np.arange(classes) == 0)
    return replayed(plan.builder.build(plan.dense(weight, bias, features)))


def _box(rng: np.random.Generator, secret: Array, number: int) -> tuple[Array, Array]:
    """The unit cube, then boxes with the secret input somewhere inside, the last one with it on a face."""
    if number == 0:
        return np.zeros_like(secret), np.ones_like(secret)
    below, above = (rng.integers(64, 2048, size=secret.shape) / 4096 for _ in range(2))
    if number == BOXES - 1:
        (below if rng.integers(2) else above).flat[rng.integers(secret.size)] = 0.0
    return np.maximum(secret - below, 0.0), np.minimum(secret + above, 1.0)


def _clauses(classes: int, target: float, joint: bool) -> tuple[tuple[Array, Array], ...]:
    """Class 0 wins against every other one; with `joint`, class 1 must also have a score near `target` to be unsafe."""
    rows = np.eye(classes)[0] - np.eye(classes)[1:]
    clauses = [(row[None], np.zeros(1)) for row in rows]
    if joint:
        clauses[0] = (np.stack([rows[0], -np.eye(classes)[1]]), np.array([0.0, target - DEPTH]))
    return tuple(clauses)
