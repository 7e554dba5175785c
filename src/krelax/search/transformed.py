"""Questions about images that are transformed: the parameters are what is asked about."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import frexp

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.activations import transformed as op
from krelax.activations.spans import Span
from krelax.activations.warp import Picture
from krelax.elements import FLOAT64
from krelax.errors import InputError, UnsupportedError
from krelax.network.front import behind
from krelax.network.graph import Network
from krelax.problem.exact import Floats, Limit, Numbers, enclosure
from krelax.problem.queries import classification
from krelax.problem.region import Box
from krelax.problem.regions import Transformed
from krelax.problem.scaling import Scaling
from krelax.problem.shown import Shown
from krelax.search.around import outward
from krelax.search.questions import Questions
from krelax.search.verdict import Counterexample

# A model is given numbers in float32: pixels in the region may differ by so much from what the transformation makes,
# relative to the range of values. It is at least four times what rounding does.
_ROUNDING = 2.0**-22
# Steps in which the worst noise on a transformed image is sought, and the first of them as a part of the radius.
_STEPS, _FIRST = 20, 0.5


@dataclass(frozen=True, eq=False)
class Surroundings:
    """All that a model may be given for one image: what transformations make of it, with `eps` of noise on every value,
    in the range `ends`.

    Exactly, `x` is in the region if there are parameters in their ranges so that every value is within `eps` of the
    transformed one, in the range, but for a rounding of `slack`.
    """

    network: Network
    image: NDArray[np.float32]
    label: int
    region: Transformed
    eps: Fraction = Fraction(0)
    ends: tuple[Fraction, Fraction] | None = None
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        names = self.region.parameters
        if "saturation" in names and self._shown.channels != 3:
            raise InputError(f"saturation is about images of 3 colours, these have {self._shown.channels} channels")
        if self.ends is not None and not self.ends[0] <= 0 <= self.ends[1] and self._pads:
            raise InputError(
                "zeros come in from outside of the image, which are not in the range: give --clip LOW:HIGH"
            )
        if "gamma" in names and self.ends != (Fraction(0), Fraction(1)):
            raise UnsupportedError("gamma is about values from 0 to 1; leave --clip out, or give --clip 0:1")
        least, most = (None, None) if self.ends is None else (float(self.ends[0]), float(self.ends[1]))
        if least is not None and not (least <= float(self.image.min()) and float(self.image.max()) <= (most or 0)):
            raise InputError(f"inputs lie outside the range {[least, most]}: scale them, or give another range")

    @property
    def _pads(self) -> bool:
        return any(step.of_places for step in self.region.steps) or "blur" in self.region.parameters

    @cached_property
    def _shown(self) -> Shown:
        return Shown.of(self.image.shape)

    @cached_property
    def slack(self) -> float:
        """What rounding may change of a value."""
        sizes = [1.0, float(np.abs(self.image).max()), *(abs(float(end)) for end in self.ends or ())]
        if self.scaling is not None:
            sizes += [abs(float(mean)) for mean in self.scaling.mean]
        return float(_ROUNDING * 2.0 ** frexp(max(sizes))[1])

    @cached_property
    def op(self) -> op.Transformed:
        """The transformation as an operator."""
        ends = None if self.ends is None else (outward(self.ends[0], up=False), outward(self.ends[1], up=True))
        picture = Picture(torch.from_numpy(np.ascontiguousarray(self._shown.picture(self.image))))
        return op.Transformed(picture, self.region.steps, ends, outward(self.eps, up=True), self.slack)

    def asked(self) -> tuple[Network, Questions]:
        """The model behind the transformation, and whether it says the label for all parameters."""
        classes = int(np.prod(self.network.output_shape))
        if classes < 2:
            raise InputError(f"the network's output {list(self.network.output_shape)} is not a vector of class scores")
        count = len(self.region.ranges)
        front = behind(self.network, self.op, count, self._shown.last, self._scales())
        ends = [enclosure([Limit.of(pair[side]) for pair in self.region.ranges]) for side in (0, 1)]
        box = Box(torch.from_numpy(ends[0].down)[None], torch.from_numpy(ends[1].up)[None])
        usual = torch.tensor([self.region.usual], dtype=torch.float64)
        queries = classification(torch.tensor([self.label]), classes)
        return front, Questions(
            box, queries, lambda i, x, y: self.violated(x, y), box.project(usual[None])[0], lambda i, x: self.nearest(x)
        )

    def _scales(self) -> list[list[Fraction]] | None:
        if self.scaling is None:
            return None
        places = self.scaling.channels(self.image.shape).flatten().tolist()
        numbers = [self.scaling.numbers(c) for c in range(self.scaling.count)]
        return [[numbers[c][i] for c in places] for i in (0, 1)]

    @cached_property
    def _numbers(self) -> Numbers:
        """The float64 parameters in their ranges."""
        ends = [enclosure([Limit.of(pair[side]) for pair in self.region.ranges]) for side in (0, 1)]
        return Numbers.of(ends[0].up, ends[1].down, FLOAT64)

    def _sides(self, parameters: Floats) -> tuple[Span, Span]:
        """Enclosures of the least and the largest value of every input, on the scale of pixels, flattened."""
        point = torch.from_numpy(parameters)[None]
        found = (side.value for side in self.op.near(self.op.over(point, point)))
        shape = self.op.picture.pixels.shape

        def flat(t: Tensor) -> Tensor:
            return torch.from_numpy(np.asarray(self._shown.flat(t.expand(1, *shape)[0].numpy()), dtype=np.float64))

        low, high = (Span(flat(s.lower), flat(s.upper)) for s in found)
        return low, high

    def nearest(self, x: Floats) -> Floats | None:
        """Parameters near `x` and, behind them, the worst input of the model that they give, as far as it is found."""
        parameters = self._numbers.nearest(x)
        if parameters is None:
            return None
        low, high = (s.lower / 2 + s.upper / 2 for s in self._sides(parameters))
        pixels = low if self.eps == 0 else self._worst(low, high)
        given = self.network.elements.nearest(self._scaled(pixels).numpy())
        return np.concatenate([parameters, given.astype(np.float64)])

    def _scaled(self, pixels: Tensor) -> Tensor:
        """What the model is given for values `(..., inputs)`."""
        if self.scaling is None:
            return pixels
        found = self.scaling.apply(pixels.numpy().reshape(self.image.shape), self.image.shape)
        return torch.from_numpy(found).flatten()

    def _worst(self, low: Tensor, high: Tensor) -> Tensor:
        """Values between two others for which the model's margin is small: descent by signs."""
        x, radius, step = low / 2 + high / 2, (high - low) / 2, _FIRST
        scale = torch.ones_like(x)
        if self.scaling is not None:
            scale = self._scaled(torch.ones_like(x)) - self._scaled(torch.zeros_like(x))
        best, least = x, torch.inf
        for _ in range(_STEPS):
            margin, gradient = self._margin(self._scaled(x))
            if margin < least:
                best, least = x, margin
            x = torch.maximum(low, torch.minimum(high, x - step * radius * (gradient * scale).sign()))
            step *= 0.8
        return best

    def _margin(self, given: Tensor) -> tuple[float, Tensor]:
        with torch.enable_grad():
            leaf = given.detach().requires_grad_(True)
            scores = self.network(leaf.reshape(1, *self.network.input_shape)).flatten()
            others = torch.cat([scores[: self.label], scores[self.label + 1 :]])
            margin = scores[self.label] - others.max()
            (gradient,) = torch.autograd.grad(margin, leaf)
        return float(margin.detach()), gradient

    def violated(self, x: NDArray[np.generic], y: NDArray[np.generic]) -> bool:
        """Whether parameters and the model's input behind them are in the region, and the model, which answered `y`,
        is wrong about it."""
        count = len(self.region.ranges)
        scores = y.flatten()
        wrong = bool(np.delete(scores, self.label).max() >= scores[self.label])
        return wrong and self.contains(x[:count].astype(np.float64), x[count:].astype(np.float64))

    def contains(self, parameters: Floats, given: Floats) -> bool:
        """Whether a model's input is in the region by these parameters, decided by interval arithmetic: never if it is
        not, and always but for inputs on the very edge."""
        if not bool(((self._numbers.first <= parameters) & (parameters <= self._numbers.last)).all()):
            return False
        low, high = self._sides(parameters)
        pixels = Span.of(torch.from_numpy(given))
        if (scales := self._scales()) is not None:
            mean, std = (enclosure([Limit.of(n) for n in numbers]) for numbers in scales)
            pixels = pixels * Span(*map(torch.from_numpy, (std.down, std.up)))
            pixels = pixels + Span(*map(torch.from_numpy, (mean.down, mean.up)))
        slack = Span.of(self.slack)
        least, most = low - slack, high + slack
        return bool((pixels.lower >= least.upper).all() and (pixels.upper <= most.lower).all())

    def counterexample(self, found: Counterexample) -> Counterexample:
        """The input of the model, with the parameters beside it."""
        count = len(self.region.ranges)
        names = self.region.parameters
        parameters = dict(zip(names, found.x[:count].tolist(), strict=True))
        x = found.x[count:].astype(self.network.elements.holder).reshape(self.network.input_shape)
        return Counterexample(x, found.y, parameters=parameters)
