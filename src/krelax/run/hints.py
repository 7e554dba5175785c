"""Counterexamples that other programs found: replayed first, as if an attack had found them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.problem.arrays import read_named
from krelax.problem.images import Images
from krelax.problem.regions import Spec, Transformed
from krelax.search.questions import Questions
from krelax.search.replay import replay
from krelax.search.verdict import Counterexample

# By less than this, relative to the numbers, programs that compute in float32 leave the regions that they keep to.
_ROUNDED = 2.0**-20


@dataclass(frozen=True, eq=False)
class Hints:
    """Points `(m, *input_shape)`, float64, on the scale of the images, and which image each is about, `(m,)`. Where
    images are transformed they are parameters, `(m, count)`."""

    points: NDArray[np.float64]
    index: NDArray[np.int64]

    @classmethod
    def of(
        cls, points: NDArray[np.generic], index: NDArray[np.generic] | None, images: Images, where: str,
        region: Spec | None = None,
    ) -> Hints:  # fmt: skip
        """Hints about images. Without an `index` there is a point for each. Raises InputError for what does not fit."""
        shape, count, what = images.images.shape[1:], len(images), "in the shape of the inputs"
        if isinstance(region, Transformed):
            shape, what = (len(region.ranges),), f"the parameters {', '.join(region.parameters)}"
        if points.dtype.kind not in "fiu" or points.ndim < 2 or prod(points.shape[1:]) != prod(shape):
            got = f"{points.dtype} {list(points.shape)}"
            raise InputError(f"{where}: points must be numbers {what}, {list(shape)}, got {got}")
        if index is None and len(points) != count:
            raise InputError(f"{where}: {len(points)} points for {count} images; say in `index` which each is about")
        places = np.arange(count) if index is None else np.asarray(index)
        if places.shape != (len(points),) or not np.issubdtype(places.dtype, np.integer):
            raise InputError(f"{where}: `index` must have a whole number for each point")
        wrong = np.flatnonzero((places < 0) | (places >= count))
        if len(wrong):
            raise InputError(f"{where}: point {wrong[0]} is about image {places[wrong[0]]}, there are only {count}")
        scaled = points.astype(np.float64) / (255.0 if points.dtype == np.uint8 else 1.0)
        return cls(scaled.reshape(len(points), *shape), places.astype(np.int64))


def read_hints(path: Path, images: Images, region: Spec | None = None) -> Hints:
    """Hints in an `.npz` file with `points`, and with `index` if there is not one for each image. Raises InputError."""
    found = read_named(path, ("points", "index"), "an .npz file with `points`", "points")
    if "points" not in found:
        raise InputError(f"{path}: array 'points' is missing; save the points with numpy.savez(..., points=...)")
    return Hints.of(found["points"], found.get("index"), images, str(path), region)


def replayed(
    hints: Hints, wanted: list[int], ask: Callable[[int, NDArray[np.float64]], Counterexample | str],
    say: Callable[[str], None],
) -> Iterator[tuple[int, Counterexample]]:  # fmt: skip
    """The position in `wanted` of each image that a hint refutes, and its counterexample, which `ask` gives for a
    position and a point; `say` is told why others do not."""
    place, done = {index: i for i, index in enumerate(wanted)}, set[int]()
    for number, (point, index) in enumerate(zip(hints.points, hints.index.tolist(), strict=True)):
        i = place.get(index)
        if i is None or i in done:
            continue
        found = ask(i, point)
        if isinstance(found, str):
            say(f"point {number}, about image {index}, is ignored: {found}")
        else:
            done.add(i)
            yield i, found


def tried(network: Network, questions: Questions, i: int, x: NDArray[np.float64]) -> Counterexample | str:
    """A counterexample to question i at x, or why there is none. Of x only what float32 rounds is changed. Where x are
    parameters, what they make of the image comes behind them."""
    near = questions.candidate(network, i, x) if np.isfinite(x).all() else None
    if near is None:
        return "it is not finite, or the region holds no number of the model's type"
    off = float(np.abs(near.flatten()[: x.size] - x.flatten()).max(initial=0.0))
    if off > _ROUNDED * (1 + float(np.abs(x).max(initial=0.0))):
        return f"it lies outside the region, by {off:.3g}"
    found = replay(network, near, partial(questions.violated, i))
    return found or "the model classifies it as labelled"
