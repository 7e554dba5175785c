"""Questions about the regions of a batch, and how images and specifications become such."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.problem import query
from krelax.problem.exact import Floats, Numbers
from krelax.problem.images import Images
from krelax.problem.queries import Queries, classification
from krelax.problem.query import Case, Specification
from krelax.problem.region import Ball, Box, Region
from krelax.problem.scaling import Scaling
from krelax.search.around import Around, Number, exact, radii_of
from krelax.search.reals import real_counterexample
from krelax.search.verdict import Counterexample

Violated = Callable[[int, NDArray[Any], NDArray[Any]], bool]
Nearest = Callable[[int, NDArray[np.float64]], NDArray[Any] | None]
Real = Callable[[int, NDArray[np.float64]], Counterexample | None]


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
        return Numbers.of(lower, upper, network.elements).nearest(x)


def about_images(
    network: Network,
    images: Images,
    eps: Number | Sequence[Number],
    norm: str,
    clip: tuple[Number, Number] | None,
    scaling: Scaling | None = None,
) -> Questions:
    """Is every image classified as its label within `eps`? One question for each image.

    The region is exact: the float32 pixels are its centre, `eps` and `clip` are the numbers that are given, fractions
    or floats, on the scale of pixels; `eps` may be one for each input. The network is given what `scaling` makes of
    pixels. Bounds are computed over an enclosure of it, and counterexamples lie in the region itself.
    Raises InputError for images outside `clip` and networks whose output is not a vector of at least two scores.
    """
    ends = None if clip is None else (exact(clip[0]), exact(clip[1]))
    around = Around(images.images, radii_of(eps, len(images)), norm, ends, scaling)
    return about_surroundings(network, images.labels, around)


def about_surroundings(network: Network, labels: NDArray[np.int64], around: Around) -> Questions:
    """As `about_images`, with the regions as they are. Raises InputError for networks whose output is not a vector of
    at least two scores."""
    classes = int(np.prod(network.output_shape))
    if classes < 2:
        raise InputError(f"the network's output {list(network.output_shape)} is not a vector of class scores")

    def nearest(i: int, x: Floats) -> NDArray[Any] | None:
        return around.nearest(i, x, network.elements)

    def violated(i: int, x: NDArray[Any], y: NDArray[Any]) -> bool:
        scores, label = y.flatten(), int(labels[i])
        return around.contains(i, x) and bool(np.delete(scores, label).max() >= scores[label])

    centre = torch.tensor(around.given(), dtype=torch.float64)
    queries = classification(torch.tensor(labels), classes)
    return Questions(around.region(), queries, violated, centre, nearest)


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
        return Numbers.of(least, most, network.elements).nearest(x)

    def violated(i: int, x: NDArray[Any], y: NDArray[Any]) -> bool:
        return any(specification.unsafe(case, x, y) for case in groups[i])

    def real(i: int, x: Floats) -> Counterexample | None:
        return real_counterexample(network, specification, groups[i], x)

    region = _region(groups, *(torch.from_numpy(side) for side in (lower, upper)))
    return Questions(region, queries, violated, nearest=nearest, real=real)


def _region(groups: list[list[Case]], lower: Tensor, upper: Tensor) -> Region:
    """The boxes of the groups; if all have a ball these, of the largest radius."""
    balls = [group[0].around for group in groups if group[0].around is not None]
    if len(balls) < len(groups):
        return Box(lower, upper)
    centre = torch.from_numpy(np.stack([centre for centre, _ in balls])).reshape(lower.shape)
    return Ball(lower, upper, centre, max(radius for _, radius in balls), 2)


def check_fit(network: Network, specification: Specification) -> None:
    """Raises InputError for a specification of another network."""
    if specification.terms is not None:  # the network was made for it
        return
    elements = network.elements.title, network.result
    query.check_fit(specification, network.input_shape, network.output_shape, elements)


def _by_box(cases: Iterable[Case]) -> list[list[Case]]:
    """The cases on each box, and in each ball; what is open and what is closed are different boxes."""
    groups: dict[tuple[bytes | float, ...], list[Case]] = defaultdict(list)
    for case in cases:
        sides = (case.lower, case.upper, case.least, case.most)
        ball = () if case.around is None else (case.around[0].tobytes(), case.around[1])
        groups[*(side.tobytes() for side in sides), *ball].append(case)
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
