"""Verdicts about regions of images: what holds does so at every point tried, what is violated is such a point."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.marks import at_night_after
from tests.search.asking import replayed
from tests.search.small import PIECEWISE
from torch import nn

from krelax.api.bounding import bound
from krelax.errors import InputError, UnsupportedError
from krelax.network.graph import Network
from krelax.problem.regions import Pixels, Transformed, read_region
from krelax.problem.scaling import Scaling
from krelax.run.certify import CertifyOptions
from krelax.run.regions import asked, check_certificates, decide_image
from krelax.search.pipeline import Plan
from krelax.search.transformed import Surroundings
from krelax.search.verdict import Outcome, Verdict

torch.set_num_threads(1)
Image = NDArray[np.float32]
UNIT = (Fraction(0), Fraction(1))
SCALED = Scaling((Fraction(1, 3),), (Fraction(3, 10),))


def network(seed: int) -> Network:
    return replayed(PIECEWISE["conv"](np.random.default_rng(seed)))


def image(seed: int) -> Image:
    found = np.random.default_rng(seed).random((1, 1, 4, 4), dtype=np.float32)
    return np.where(found < 0.3, np.float32(0), found)


def given(x: Image, scaling: Scaling | None) -> Image:
    return x if scaling is None else scaling.nearest(x, x.shape[1:])


def predicted(model: Network, x: Image) -> int:
    assert model.replay is not None
    return int(np.argmax(model.replay(x)))


def options(**changes: Any) -> CertifyOptions:
    return replace(CertifyOptions(Fraction(0), clip=UNIT, timeout=5.0), **changes)


def transformed(surroundings: Surroundings, parameters: torch.Tensor) -> NDArray[np.float64]:
    """The transformed images at parameters `(points, count)`, before any noise."""
    op = surroundings.op
    z = parameters[:, None, None, None].expand(-1, *op.picture.pixels.shape, -1)
    return np.asarray(op.forward(z).numpy())


REGIONS: dict[str, Any] = {
    "rotate:20": 0,
    "rotate:-40:40": 0,
    "translate:1": 0,
    "translate-x:0.3": 0,
    "scale:0.3+shear:0.1": 0,
    "brightness:0.3": 0,
    "contrast:0.5": 0,
    "gamma:0.4": 0,
    "blur:0.8": 0,
    "rotate:10+blur:0.5+brightness:0.1": 0,
    "rotate:10+brightness:0.05": Fraction(1, 50),
    "contrast:0.2": Fraction(1, 10),
}


# every region always, scaled or not
ALTERNATELY = [(text, (None, SCALED)[(i + j) % 2]) for j in range(2) for i, text in enumerate(REGIONS)]


@pytest.mark.parametrize(("text", "scaling"), at_night_after(len(REGIONS), ALTERNATELY))
def test_verdicts_are_those_of_dense_samples(text: str, scaling: Scaling | None) -> None:
    """Both with noise and without; the image that is replayed is one that the transformation makes."""
    spec = read_region(text)
    assert isinstance(spec, Transformed)
    noise, seen = Fraction(REGIONS[text]), set[Verdict]()
    generator = torch.Generator().manual_seed(0)
    for seed in range(2):
        model, x = network(seed), image(seed)
        label = predicted(model, given(x[None], scaling)[0])
        found = decide_image(model, x, label, spec, Plan.of("auto"), options(eps=noise, scaling=scaling))
        seen.add(found.verdict)
        around = Surroundings(model, x, label, spec, noise, UNIT, scaling)
        low, high = (torch.tensor([float(r[i]) for r in spec.ranges], dtype=torch.float64) for i in (0, 1))
        parameters = low + torch.rand(300, len(low), dtype=torch.float64, generator=generator) * (high - low)
        if found.verdict is Verdict.HOLDS:
            made = torch.from_numpy(transformed(around, parameters))
            shift = (2 * torch.rand(made.shape, generator=generator).double() - 1) * float(noise)
            inputs = (made + shift).clamp(0, 1).numpy().reshape(-1, *x.shape)
            inputs = inputs if scaling is None else scaling.apply(inputs, x.shape)
            scores = model(torch.from_numpy(inputs))
            assert bool((scores.argmax(1) == label).all())
        if found.verdict is Verdict.VIOLATED:
            check_counterexample(found, around, model, label)
    assert seen & {Verdict.HOLDS, Verdict.VIOLATED}


def check_counterexample(found: Outcome, around: Surroundings, model: Network, label: int) -> None:
    """It is wrong, its parameters lie in their ranges, and it is the image that they make, but for noise."""
    assert found.counterexample is not None
    x, parameters = found.counterexample.x, found.counterexample.parameters
    assert model.replay is not None
    scores = model.replay(x)
    assert np.delete(scores, label).max() >= scores[label]
    for (low, high), value in zip(around.region.ranges, parameters.values(), strict=True):
        assert low <= Fraction(value) <= high
    point = torch.tensor([list(parameters.values())], dtype=torch.float64)
    made = transformed(around, point).reshape(x.shape)
    pixels = x.astype(np.float64)
    if around.scaling is not None:
        pixels = pixels * 0.3 + 1 / 3
    assert np.abs(pixels - made).max() <= float(around.eps) + 1e-6
    assert around.contains(point[0].numpy(), x.astype(np.float64).flatten())


def test_membership_is_decided_by_the_image_that_parameters_make() -> None:
    spec = read_region("rotate:10")
    assert isinstance(spec, Transformed)
    around = Surroundings(network(0), image(0), 0, spec, Fraction(1, 8), UNIT, None)
    candidate = around.nearest(np.array([7.0]))
    assert candidate is not None
    parameters, x = candidate[:1], candidate[1:]
    assert around.contains(parameters, x)
    assert not around.contains(np.array([10.5]), x)
    assert not around.contains(np.array([-7.0]), x)
    far = x.copy()
    far[5] += 0.5 if far[5] < 0.5 else -0.5
    assert not around.contains(parameters, far)
    edge = np.clip(transformed(around, torch.tensor([[7.0]]).double()).flatten() + 0.125, 0, 1)
    assert around.contains(parameters, edge)
    assert not around.contains(parameters, edge + 2 * around.slack)


@pytest.mark.parametrize("text", ["patch:1", "patch:2x1", "pixels:1", "pixels:2"])
def test_free_pixels_are_those_of_brute_force(text: str) -> None:
    """Corners of every choice of pixels refute, and nothing that holds is refuted by them."""
    spec, seen = read_region(text), set[Verdict]()
    for seed in range(4):
        model, x = network(seed), image(seed)
        label = predicted(model, x)
        found = decide_image(model, x, label, spec, Plan.of("auto"), options())
        seen.add(found.verdict)
        corners = torch.from_numpy(np.stack(list(free_corners(x, text))))
        refuted = bool((model(corners.double()).argmax(1) != label).any())
        assert not (refuted and found.verdict is Verdict.HOLDS)
        if isinstance(spec, Pixels) and spec.count > 1 and found.verdict is Verdict.UNKNOWN:
            continue
        assert found.verdict is not Verdict.UNKNOWN
        if found.verdict is Verdict.VIOLATED:
            assert found.counterexample is not None
            changed = np.argwhere(found.counterexample.x != x)[:, 2:]
            assert len(changed) <= 2
            assert predicted(model, found.counterexample.x) != label
            if text.startswith("patch:2") and len(changed) == 2:
                assert np.abs(changed[0] - changed[1]).tolist() == [1, 0]
    assert Verdict.VIOLATED in seen


def free_corners(x: Image, text: str) -> Any:
    places = [(r, c) for r in range(4) for c in range(4)]
    if text in {"patch:1", "pixels:1"}:
        sets: list[Any] = [(p,) for p in places]
    elif text == "patch:2x1":
        sets = [((r, c), (r + 1, c)) for r in range(3) for c in range(4)]
    else:
        sets = list(combinations(places, 2))
    for free in sets:
        for corner in range(2 ** len(free)):
            other = x.copy()
            for bit, (r, c) in enumerate(free):
                other[0, 0, r, c] = corner >> bit & 1
            yield other


def test_categories_are_one_of_each_group() -> None:
    """Of five inputs three and two are groups; the other inputs of items vary by their radii."""
    model = replayed(PIECEWISE["dense"](np.random.default_rng(3)))
    spec, seen = read_region("categories:0-2,3-4"), set[Verdict]()
    for seed in range(6):
        x = np.zeros(5, np.float32)
        x[seed % 3] = x[3 + seed % 2] = 1
        label = predicted(replayed(PIECEWISE["dense"](np.random.default_rng(seed))), x)
        model = replayed(PIECEWISE["dense"](np.random.default_rng(seed)))
        found = decide_image(model, x, label, spec, Plan.of("auto"), options(eps=(Fraction(0),) * 5))
        choices = [np.eye(5, dtype=np.float32)[a] + np.eye(5, dtype=np.float32)[b] for a in range(3) for b in (3, 4)]
        same = all(predicted(model, choice) == label for choice in choices)
        assert found.verdict is (Verdict.HOLDS if same else Verdict.VIOLATED)
        seen.add(found.verdict)
    assert seen == {Verdict.HOLDS, Verdict.VIOLATED}


@pytest.mark.parametrize("kernel", [1, 3])
def test_windows_of_a_convolution_see_transformed_pixels_where_they_are(kernel: int) -> None:
    """Each pixel is a function of its own, so the cones of windows take all of them."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, kernel), nn.ReLU(), nn.Conv2d(6, 6, kernel), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)]
    module, x = nn.Sequential(*layers).eval(), torch.rand(1, 1, 10, 10)
    module(x)
    found = bound(module, x, [0], region="contrast:0.9", method="crown")
    factors = torch.linspace(0.1, 1.9, 50).reshape(-1, 1, 1, 1)
    scores = module((x.mean() + factors * (x - x.mean())).clamp(0, 1)).detach()
    margins = (scores[:, :1] - scores[:, 1:]).min(0).values
    assert np.all(found.values[0] <= margins.numpy() + 1e-5)
    assert np.all(found.values[0] >= margins.numpy() - 2)


def test_what_does_not_fit_is_said() -> None:
    model, x = network(0), image(0)

    def ask(text: str, **changes: Any) -> None:
        asked(model, x, 0, read_region(text), options(**changes))

    for text, changes, words in (
        ("saturation:0.1", {}, "3 colours"),
        ("patch:5", {}, "larger than the image"),
        ("patch:1", {"clip": None}, "range of values"),
        ("rotate:1", {"clip": (Fraction(1, 4), Fraction(1))}, "zeros come in"),
        ("rotate:1", {"clip": (Fraction(0), Fraction(1, 4))}, "outside the range"),
        ("gamma:0.1", {"clip": None}, "from 0 to 1"),
        ("categories:0-99", {}, "inputs 0 to 15"),
        ("rotate:1", {"norm": "l2"}, "linf"),
        ("rotate:1", {"eps": (Fraction(0),) * 16}, "one radius"),
    ):
        with pytest.raises(InputError, match=words):
            ask(text, **changes)
    flat = replayed(PIECEWISE["dense"](np.random.default_rng(0)))
    with pytest.raises(InputError, match="no images"):
        asked(flat, np.zeros(5, np.float32), 0, read_region("rotate:1"), options())
    for text in ("rotate:1", "pixels:2"):
        with pytest.raises(UnsupportedError, match="certificates"):
            check_certificates(read_region(text))
    check_certificates(read_region("patch:2"))
