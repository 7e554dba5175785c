"""Questions about the regions of a batch, and how images and specifications become such."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.problem import query
from krelax.problem.exact import Floats, Limit, Numbers, enclosure, within
from krelax.problem.images import Images
from krelax.problem.queries import Queries, classification
from krelax.problem.query import Case, Specification
from krelax.problem.region import Box, Region, ball
from krelax.search.reals import real_counterexample
from krelax.search.verdict import Counterexample

Number = float | Fraction
Violated = Callable[[int, NDArray[Any], NDArray[Any]], bool]
Nearest = Callable[[int, NDArray[np.float64]], NDArray[Any] | None]
Real = Callable[[int, NDArray[np.float64]], Counterexample | None]

# Boxes of so many questions are remembered, which are asked for again and again while one is being searched.
_REMEMBERED = 64


@dataclass(frozen=True, eq=False)
class Questions:
    """One question for each region of a batch. `violated(i, x, y)` says exactly whether input x with output y is a
    counterexample to question i, membership in the region as it is written included. `anchors`, `(batch, *shape)`, are
    points of the regions to look at before anything else: the images themselves. `nearest(i, x)` is a point of that
    region near x in the type of the original model, None where it holds none; the bounding box, in that type, if it is
    not given. Where that is None, `real(i, x)` may be a counterexample of real numbers near x."""

    region: Region
    queries: Queries
    violated: Violated
    anchors: Tensor | None = None
    nearest: Nearest | None = None
    real: Real | None = None

    def __len__(self) -> int:
        return len(self.region)

    @property
    def compares(self) -> bool:
        """Whether they only ask which of two outputs is larger."""
        rows, offsets = self.queries.rows, self.queries.offsets
        pairs = ((rows != 0).sum(-1) == 2) & (rows.sum(-1) == 0) & (offsets == 0)
        return bool((pairs | ~rows.any(-1)).all())

    def shaped(self, shape: tuple[int, ...]) -> Questions:
        """The same questions about inputs of another shape, with as many entries."""
        anchors = None if self.anchors is None else self.anchors.reshape(-1, *shape)
        return replace(self, region=self.region.shaped(shape), anchors=anchors)

    def candidate(self, network: Network, i: int, x: NDArray[np.float64]) -> NDArray[Any] | None:
        """A point of question i near x, in the type of the original model; None where its region holds none."""
        if self.nearest is not None:
            return self.nearest(i, x)
        lower, upper = (side[i].double().cpu().numpy() for side in (self.region.lower, self.region.upper))
        return Numbers.of(lower, upper, network.replay_dtype).nearest(x)


def about_images(
    network: Network, images: Images, eps: Number, norm: str, clip: tuple[Number, Number] | None
) -> Questions:
    """Is every image classified as its label within `eps`? One question for each image.

    The region is exact: the float32 pixels are its centre, `eps` and `clip` are the numbers that are given, fractions
    or floats. Bounds are computed over an enclosure of it, and counterexamples lie in the region itself.
    Raises InputError for images outside `clip` and networks whose output is not a vector of at least two scores.
    """
    classes = int(np.prod(network.output_shape))
    if classes < 2:
        raise InputError(f"the network's output {list(network.output_shape)} is not a vector of class scores")
    if not 0 <= eps < float("inf"):
        raise InputError(f"eps must be a finite number >= 0, got {float(eps)}")
    radius = _exact(eps)
    ends = None if clip is None else (_exact(clip[0]), _exact(clip[1]))
    centre = torch.tensor(images.images, dtype=torch.float64)
    region = ball(centre, _outward(radius, up=True), norm, _range(images, ends))
    queries = classification(torch.tensor(images.labels), classes)
    p = {"l1": 1, "l2": 2}.get(norm)

    @lru_cache(_REMEMBERED)
    def box(i: int) -> tuple[Floats, Floats]:
        return _box_around(images.images[i], radius, ends)

    def inside(i: int, x: NDArray[Any]) -> bool:
        least, most = box(i)
        return bool(((least <= x) & (x <= most)).all()) and (p is None or within(x, images.images[i], radius, p))

    def nearest(i: int, x: Floats) -> NDArray[Any] | None:
        numbers = Numbers.of(*box(i), network.replay_dtype)
        point = numbers.nearest(x)
        if point is None or p is None or inside(i, point):
            return point
        return numbers.nearest(_towards(images.images[i], x, float(radius), p, network.replay_dtype))

    def violated(i: int, x: NDArray[Any], y: NDArray[Any]) -> bool:
        scores, label = y.flatten(), int(images.labels[i])
        return inside(i, x) and bool(np.delete(scores, label).max() >= scores[label])

    return Questions(region, queries, violated, centre, nearest)


def _exact(number: Number) -> Fraction:
    return number if isinstance(number, Fraction) else Fraction(float(number))


def _outward(number: Fraction, up: bool) -> float:
    """The float64 next to a number, on one side."""
    found = enclosure([Limit.of(number)])
    return float((found.up if up else found.down)[0])


def _range(images: Images, ends: tuple[Fraction, Fraction] | None) -> tuple[float, float] | None:
    """The range of pixels, rounded outward. Raises InputError for images that are not in it."""
    if ends is None:
        return None
    least, most = _outward(ends[0], up=True), _outward(ends[1], up=False)
    pixels = images.images.astype(np.float64)
    if bool(((pixels < least) | (pixels > most)).any()):
        shown = [float(end) for end in ends]
        raise InputError(f"inputs lie outside the range {shown}: scale them, or give another range")
    return _outward(ends[0], up=False), _outward(ends[1], up=True)


def _box_around(
    centre: NDArray[np.float32], eps: Fraction, ends: tuple[Fraction, Fraction] | None
) -> tuple[Floats, Floats]:
    """The least and the largest float64 numbers within `eps` of each pixel and in the range."""
    pixels, place = np.unique(centre, return_inverse=True)
    low, high = ([Fraction(float(v)) + step for v in pixels] for step in (-eps, eps))
    if ends is not None:
        low, high = [max(v, ends[0]) for v in low], [min(v, ends[1]) for v in high]
    least, most = enclosure([Limit.of(v) for v in low]).up, enclosure([Limit.of(v) for v in high]).down
    return np.asarray(least[place]).reshape(centre.shape), np.asarray(most[place]).reshape(centre.shape)


def _towards(centre: NDArray[np.float32], x: Floats, radius: float, p: int, dtype: type[Any]) -> Floats:
    """A point of the ball near `x`, of numbers of a type that has the centre's: moved towards the centre, which is in
    the box as well, and rounded towards it, so that no step grows."""
    step = x - centre
    norm = float(np.linalg.norm(step.flatten(), ord=p))
    aim = centre + step * min(1.0, radius * (1 - 1e-9) / norm if norm > 0 else 0.0)
    near = aim.astype(dtype)
    too_far = np.abs(near - centre.astype(np.float64)) > np.abs(aim - centre)
    return np.where(too_far, np.nextafter(near, centre.astype(dtype)), near)


def about_specification(
    network: Network, specification: Specification, check: Callable[[], None] = lambda: None
) -> Questions:
    """Is every case of a specification impossible? One question for each box; a clause for each case on it.

    `check` is called now and then, and what it raises ends the work. Raises InputError if the specification has no
    case, or does not fit the network: numbers of elements, declared shapes up to axes of size one, the declared type.
    """
    check_fit(network, specification)
    if not specification.cases:
        raise InputError("the specification has no unsafe case, so there is nothing to ask; it holds")
    for case in specification.cases:
        if not case.is_bounded:
            raise InputError(specification.unbounded(case))
    groups = _by_box(specification.cases)
    shape = (len(groups), *network.input_shape)
    lower, upper = (np.stack([getattr(g[0], side) for g in groups]).reshape(shape) for side in ("lower", "upper"))
    check()
    queries = _queries(groups, specification.outputs, check)

    def nearest(i: int, x: Floats) -> NDArray[Any] | None:
        least, most = (side.reshape(network.input_shape) for side in (groups[i][0].least, groups[i][0].most))
        return Numbers.of(least, most, network.replay_dtype).nearest(x)

    def violated(i: int, x: NDArray[Any], y: NDArray[Any]) -> bool:
        return any(specification.unsafe(case, x, y) for case in groups[i])

    def real(i: int, x: Floats) -> Counterexample | None:
        return real_counterexample(network, specification, groups[i], x)

    box = Box(torch.from_numpy(lower), torch.from_numpy(upper))
    return Questions(box, queries, violated, nearest=nearest, real=real)


def check_fit(network: Network, specification: Specification) -> None:
    """Raises InputError for a specification of another network."""
    if specification.terms is not None:  # the network was made for it
        return
    element = np.dtype(network.replay_dtype).name
    query.check_fit(specification, network.input_shape, network.output_shape, element)


def _by_box(cases: Iterable[Case]) -> list[list[Case]]:
    """The cases on each box; what is open and what is closed are different boxes."""
    groups: dict[tuple[bytes, ...], list[Case]] = defaultdict(list)
    for case in cases:
        groups[tuple(side.tobytes() for side in (case.lower, case.upper, case.least, case.most))].append(case)
    return list(groups.values())


def _queries(groups: list[list[Case]], outputs: int, check: Callable[[], None]) -> Queries:
    """Margins of every box, padded to the same number by repeating the last one; the padding changes no clause.

    Boxes with fewer cases than others get their last clause again.
    """
    count = max(len(group) for group in groups)
    filled = [group + group[-1:] * (count - len(group)) for group in groups]
    width = max(1, *(len(case.halfspaces) for group in groups for case in group))
    rows = np.zeros((len(groups), count, width, outputs))
    offsets = np.zeros((len(groups), count, width))
    for i, group in enumerate(filled):
        check()
        for j, case in enumerate(group):
            matrix, constants = case.matrix(outputs)
            m = len(constants)
            rows[i, j, :m], offsets[i, j, :m] = matrix, constants
            if m:  # without output constraints the margin stays 0: the whole box is unsafe
                rows[i, j, m:], offsets[i, j, m:] = matrix[-1], constants[-1]
    clause = torch.arange(count).repeat_interleave(width).expand(len(groups), -1)
    flat = rows.reshape(len(groups), count * width, outputs)
    return Queries(torch.from_numpy(flat), torch.from_numpy(offsets.reshape(len(groups), -1)), clause, count)
