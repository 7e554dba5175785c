"""Planes around transformed pixels, against images made pixel by pixel in 40-digit arithmetic: no tolerance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

from krelax.activations import Rule
from krelax.activations.transformations import (
    Blur,
    Brightness,
    Contrast,
    Gamma,
    Rotate,
    Saturation,
    Scale,
    Shear,
    Transformation,
    Translate,
    TranslateX,
    TranslateY,
)
from krelax.activations.transformed import Planes, Transformed
from krelax.activations.warp import Picture

Image = list[list[list[Any]]]  # channels, rows, columns
Number = Any
Box = tuple[tuple[float, float], ...]

torch.manual_seed(0)
GREY = torch.rand(1, 5, 6, dtype=torch.float64)
GREY[GREY < 0.3] = 0.0
COLOURS = torch.rand(3, 4, 4, dtype=torch.float64)


def hat(t: Number) -> Number:
    return max(mpmath.mpf(0), 1 - abs(t))


def moved(source: Callable[..., tuple[Number, Number]]) -> Callable[..., Image]:
    """The image whose place `(x, y)` shows what the old one has at `source(x, y)`."""

    def make(image: Image, *p: Number) -> Image:
        high, wide = len(image[0]), len(image[0][0])
        middle = mpmath.mpf(high - 1) / 2, mpmath.mpf(wide - 1) / 2

        def value(channel: Any, row: int, column: int) -> Number:
            x, y = source(column - middle[1], row - middle[0], *p)
            x, y = x + middle[1], y + middle[0]
            return sum(channel[r][c] * hat(y - r) * hat(x - c) for r in range(high) for c in range(wide))

        return [[[value(ch, r, c) for c in range(wide)] for r in range(high)] for ch in image]

    return make


def each(change: Callable[..., Number]) -> Callable[..., Image]:
    def make(image: Image, *p: Number) -> Image:
        flat = [v for ch in image for row in ch for v in row]
        mean = sum(flat) / len(flat)
        return [[[min(max(change(v, mean, *p), 0), 1) for v in row] for row in ch] for ch in image]

    return make


def turned(x: Number, y: Number, degrees: Number) -> tuple[Number, Number]:
    angle = degrees * mpmath.pi / 180
    return mpmath.cos(angle) * x - mpmath.sin(angle) * y, mpmath.sin(angle) * x + mpmath.cos(angle) * y


def saturated(image: Image, factor: Number) -> Image:
    weights = [mpmath.mpf(w) for w in (0.299, 0.587, 0.114)]
    result = [[list(row) for row in ch] for ch in image]
    for r in range(len(image[0])):
        for c in range(len(image[0][0])):
            grey = sum(w * ch[r][c] for w, ch in zip(weights, image, strict=True))
            for out, ch in zip(result, image, strict=True):
                out[r][c] = min(max(grey + factor * (ch[r][c] - grey), 0), 1)
    return result


def blurred(image: Image, weight: Number) -> Image:
    high, wide = len(image[0]), len(image[0][0])
    powers = {d: weight ** (d * d) for d in (-2, -1, 0, 1, 2)}
    total = sum(powers.values())

    def value(ch: Any, r: int, c: int) -> Number:
        inside = [(i, j) for i in powers for j in powers if 0 <= r + i < high and 0 <= c + j < wide]
        return sum(powers[i] * powers[j] * ch[r + i][c + j] for i, j in inside) / total**2

    return [[[value(ch, r, c) for c in range(wide)] for r in range(high)] for ch in image]


ROTATE, BRIGHTER = moved(turned), each(lambda v, m, p: v + p)
Step = tuple[Transformation, Callable[..., Image]]
CASES: dict[str, tuple[Sequence[Step], Box, Tensor]] = {
    "rotate": ([(Rotate(), ROTATE)], ((-30.0, 50.0),), GREY),
    "translate": ([(Translate(), moved(lambda x, y, a, b: (x - a, y - b)))], ((-1.5, 2.0), (-3.0, 0.5)), COLOURS),
    "translate-x": ([(TranslateX(), moved(lambda x, y, a: (x - a, y)))], ((-1.5, 9.0),), GREY),
    "translate-y": ([(TranslateY(), moved(lambda x, y, a: (x, y - a)))], ((-1.0, 1.0),), GREY),
    "scale": ([(Scale(), moved(lambda x, y, s: (x / s, y / s)))], ((0.5, 1.7),), GREY),
    "shear": ([(Shear(), moved(lambda x, y, m: (x - m * y, y)))], ((-0.6, 0.4),), GREY),
    "brightness": ([(Brightness(), BRIGHTER)], ((-0.4, 0.3),), GREY),
    "contrast": ([(Contrast(), each(lambda v, m, p: m + p * (v - m)))], ((0.3, 1.9),), COLOURS),
    "gamma": ([(Gamma(), each(lambda v, m, p: v**p if v > 0 else v))], ((0.3, 1.9),), GREY),
    "saturation": ([(Saturation(), saturated)], ((0.2, 1.9),), COLOURS),
    "blur": ([(Blur(2), blurred)], ((0.0, 0.8),), GREY),
    "several": (
        [(Rotate(), ROTATE), (Gamma(), each(lambda v, m, p: v**p if v > 0 else v)), (Brightness(), BRIGHTER)],
        ((-9.0, 4.0), (0.7, 1.2), (-0.1, 0.2)),
        GREY,
    ),
}


def exactly(steps: Sequence[Step], image: Tensor, p: Sequence[float]) -> list[Number]:
    """The transformed pixels; the range of values is 0 to 1."""
    made: Image = [[[mpmath.mpf(v) for v in row] for row in ch] for ch in image.tolist()]
    rest = [mpmath.mpf(v) for v in p]
    for step, make in steps:
        made = make(made, *rest[: len(step.parameters)])
        rest = rest[len(step.parameters) :]
    return [v for ch in made for row in ch for v in row]


def planes(op: Transformed, lower: Tensor, upper: Tensor) -> Planes:
    shape = (*op.picture.pixels.shape, len(lower))
    return op.relax(lower.expand(1, *shape), upper.expand(1, *shape))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("share", [1.0, 0.1, 1e-3, 0.0])
def test_every_pixel_is_between_its_planes(name: str, share: float) -> None:
    cases, box, image = CASES[name]
    op = Transformed(Picture(image), tuple(step for step, _ in cases), (0.0, 1.0))
    ends = torch.tensor(box, dtype=torch.float64).mT
    lower = ends[0] + 0.37 * (1 - share) * (ends[1] - ends[0])
    upper = lower + share * (ends[1] - ends[0])
    relaxation = planes(op, lower, upper)
    slope = relaxation.slopes(Rule.ADAPTIVE)[0].unsqueeze(1)
    lines = relaxation.lines(slope, slope)
    assert lines.below is not None
    below, above = (t[0, 0].flatten().tolist() for t in (lines.below, lines.above))
    low, high = (t[0].flatten().tolist() for t in relaxation.interval())
    torch.manual_seed(1)
    rows = slope[0, 0].flatten(0, -2).tolist()
    points = [lower, upper, *(lower + torch.rand(len(box)) * (upper - lower) for _ in range(4))]
    with mpmath.workdps(40):
        for point in (p.clamp(lower, upper) for p in points):
            values = exactly(cases, image, point.tolist())
            z = [mpmath.mpf(v) for v in point.tolist()]
            own = op.forward(point.expand(1, *image.shape, len(box))).flatten().tolist()
            for k, value in enumerate(values):
                assert abs(own[k] - value) < 1e-12  # of the function itself, which only proposes
                assert low[k] <= value <= high[k]
                plane = sum(mpmath.mpf(s) * v for s, v in zip(rows[k], z, strict=True))
                assert plane - mpmath.mpf(below[k]) <= value <= plane + mpmath.mpf(above[k])


@pytest.mark.parametrize("name", CASES)
def test_planes_are_near_one_another(name: str) -> None:
    """Of a box a hundredth as wide, planes are at least twenty times nearer, and nearly as near as samples allow."""
    cases, box, image = CASES[name]
    op = Transformed(Picture(image), tuple(step for step, _ in cases), (0.0, 1.0))
    ends = torch.tensor(box, dtype=torch.float64).mT
    middle = ends[0] + 0.43 * (ends[1] - ends[0])
    gaps = []
    for share in (1.0, 0.01):
        relaxation = planes(op, middle + share * (ends[0] - middle), middle + share * (ends[1] - middle))
        gaps.append(float(relaxation.losses()[0][0][..., 0].mean()))
        assert gaps[-1] < 1.0
    assert gaps[1] < gaps[0] / 20 + 1e-12


def test_slack_and_rounding_are_beside_the_image() -> None:
    """Noise is cut off at the range, rounding is not."""
    op = Transformed(Picture(GREY), (Brightness(),), (0.0, 1.0), slack=0.125, rounding=2.0**-10)
    point = torch.tensor([0.25], dtype=torch.float64)
    low, high = planes(op, point, point).interval()
    least, most = ((GREY + 0.25).clamp(0, 1) + s for s in (-0.125, 0.125))
    assert bool((low <= least.clamp(0, 1) - 2.0**-10).all())
    assert bool((high >= most.clamp(0, 1) + 2.0**-10).all())
    assert float((low - least.clamp(0, 1)).abs().max()) < 2.0**-10 + 1e-12
    assert float((high - most.clamp(0, 1)).abs().max()) < 2.0**-10 + 1e-12


def test_support_of_any_slope_is_not_below_the_graph() -> None:
    cases, box, image = CASES["translate"]
    op = Transformed(Picture(image), tuple(step for step, _ in cases), None)
    ends = torch.tensor(box, dtype=torch.float64).mT
    relaxation = planes(op, *ends)
    torch.manual_seed(2)
    slope = torch.randn(1, 7, *image.shape, 2, dtype=torch.float64)
    coeff = torch.randn(1, 7, *image.shape, dtype=torch.float64)
    found = relaxation.support(slope, coeff).value
    z = ends[0] + torch.rand(200, 2, dtype=torch.float64) * (ends[1] - ends[0])
    a = op.forward(z[:, None, None, None].expand(-1, *image.shape, -1))
    for point, value in zip(z, a, strict=True):
        assert bool(((slope * point).sum(-1) - coeff * value <= found + 1e-14).all())  # values themselves are rounded


def test_batches_are_their_members() -> None:
    cases, _, image = CASES["rotate"]
    op = Transformed(Picture(image), tuple(step for step, _ in cases), (0.0, 1.0))
    shape = (*image.shape, 1)
    lower = torch.tensor([[-3.0], [4.0], [10.0]], dtype=torch.float64)
    sides = (t.reshape(3, 1, 1, 1, 1).expand(3, *shape) for t in (lower, lower + 2))
    together = op.relax(*sides)
    for i in range(3):
        alone = planes(op, lower[i], lower[i] + 2)
        for one, all_of_them in zip(alone.interval(), together.interval(), strict=True):
            assert torch.equal(one[0], all_of_them[i])
        assert torch.equal(alone.slopes(Rule.ADAPTIVE)[0][0], together.slopes(Rule.ADAPTIVE)[0][i])
