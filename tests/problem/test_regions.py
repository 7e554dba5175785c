"""Regions as they are written, and the one in which few pixels are free."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest
import torch
from torch import Tensor

from krelax.activations.transformations import Blur, Brightness, Rotate, Scale, weight_of
from krelax.errors import InputError
from krelax.problem.few import Few
from krelax.problem.regions import Categories, Patch, Pixels, Transformed, read_region

TENTH = Fraction(1, 10)


def test_regions_are_read_as_they_are_written() -> None:
    both = Transformed((Rotate(), Brightness()), ((Fraction(-10), Fraction(10)), (-TENTH, TENTH)))
    assert read_region("rotate:10+brightness:0.1") == both
    assert read_region(" rotate:-10:10 + brightness:1/10") == both
    assert read_region("scale:0.1") == Transformed((Scale(),), ((1 - TENTH, 1 + TENTH),))
    assert read_region("patch:3") == Patch(3, 3)
    assert read_region("patch:2x4") == Patch(2, 4)
    assert read_region("pixels:1") == Pixels(1)
    assert read_region("categories:7-9,0-3") == Categories(((0, 3), (7, 9)))
    blur = read_region("blur:1.5")
    assert isinstance(blur, Transformed)
    assert blur.steps == (Blur(5),)  # as far as three standard deviations
    assert blur.ranges[0][0] == 0
    assert 0 <= blur.ranges[0][1] - Fraction(weight_of(1.5)) < Fraction(1, 10**9)
    assert str(blur) == "blur 0:0.800737403"
    assert str(read_region("translate-x:1/3")) == "translate-x right -1/3:1/3"
    assert str(both) == "rotate angle -10:10 + brightness -0.1:0.1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "unknown region ''"),
        ("spin:3", "use one of rotate"),
        ("rotate", "rotate says no amount: write rotate:AMOUNT"),
        ("rotate:x", "with numbers"),
        ("rotate:1:2:3", "with numbers"),
        ("rotate:-1", "at least 0"),
        ("rotate:2:1", "empty"),
        ("rotate:1/0", "division by zero"),
        ("rotate:1e9", "at most"),
        ("rotate:nan", "with numbers"),
        ("rotate:1+rotate:2", "twice"),
        ("brightness:0.1+rotate:2", "come before"),
        ("translate:1+rotate:1+scale:0.1+shear:0.1", "5 parameters"),
        ("scale:1", "above 0"),
        ("gamma:2", "above 0"),
        ("blur:9", "0 to 4"),
        ("patch:0", "patch:SIZE"),
        ("patch:3x", "patch:SIZE"),
        ("patch:3+rotate:1", "cannot be combined"),
        ("rotate:1+patch:3", "patch cannot be combined"),
        ("pixels:none", "pixels:COUNT"),
        ("categories:3", "FIRST-LAST"),
        ("categories:3-1", "FIRST-LAST"),
        ("categories:0-3,3-5", "two groups"),
        ("rotate:" + "1" * 500, "characters"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as found:
        read_region(text)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 300


def few(count: int, channels: int = 1) -> Few:
    torch.manual_seed(count)
    centre = torch.rand(2, channels, 2, 3, dtype=torch.float64)
    pixel = torch.arange(6, dtype=torch.float64).reshape(1, 1, 2, 3).expand(2, channels, 2, 3)
    least, most = (centre - 0.125).clamp(min=0), (centre + 0.125).clamp(max=1)
    return Few(torch.zeros_like(centre), torch.ones_like(centre), least, most, pixel, count)


def smallest(region: Few, batch: int, form: Tensor) -> Fraction:
    """The least of a form, exactly, over every choice of pixels."""
    sides = [t[batch].flatten().tolist() for t in (region.lower, region.upper, region.least, region.most)]
    pixel, weights = region.pixel[batch].flatten().tolist(), [Fraction(w) for w in form.flatten().tolist()]
    found = []
    for free in combinations(range(6), region.count):
        parts = [
            min(w * Fraction(end) for end in ((low, high) if p in free else (least, most)))
            for w, p, low, high, least, most in zip(weights, pixel, *sides, strict=True)
        ]
        found.append(sum(parts, Fraction(0)))
    return min(found)


@pytest.mark.parametrize("count", [1, 2, 5, 6])
@pytest.mark.parametrize("channels", [1, 3])
def test_forms_over_few_free_pixels_are_bounded_exactly(count: int, channels: int) -> None:
    region = few(count, channels)
    form = torch.randn(2, 4, channels, 2, 3, dtype=torch.float64)
    proven = region.minimise(form, slack=100 * 2.0**-53)
    near, where = region.minimise(form), region.minimiser(form)
    for batch in range(2):
        for query in range(4):
            least = smallest(region, batch, form[batch, query])
            assert Fraction(float(proven[batch, query])) <= least
            assert abs(float(near[batch, query]) - float(least)) < 1e-12
            attained = (form[batch, query] * where[batch, query]).sum()
            assert abs(float(attained) - float(least)) < 1e-12


def test_points_are_moved_into_the_region() -> None:
    region = few(2, 3)
    x = torch.rand(2, 5, 3, 2, 3, dtype=torch.float64) * 3 - 1
    inside = region.project(x)
    assert bool(((inside >= 0) & (inside <= 1)).all())
    free = ((inside < region.least.unsqueeze(1)) | (inside > region.most.unsqueeze(1))).any(2).flatten(2)
    assert int(free.sum(2).max()) == 2
    assert torch.equal(region.project(inside), inside)
    part = region.select(torch.tensor([1])).shaped((18,)).to(torch.float32)
    assert part.pixel.shape == part.lower.shape == (1, 18)
