"""Questions from images and from specifications."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.problem.images import Images
from krelax.problem.queries import Queries, classification
from krelax.problem.query import Case, Specification
from krelax.problem.region import Box, ball
from krelax.search.pipeline import Questions


def about_images(
    network: Network, images: Images, eps: float, norm: str, clip: tuple[float, float] | None
) -> Questions:
    """Is every image classified as its label within `eps`? One question for each image.

    Raises InputError for images outside `clip` and networks whose output is not a vector of at least two scores.
    """
    classes = int(np.prod(network.output_shape))
    if classes < 2:
        raise InputError(f"the network's output {list(network.output_shape)} is not a vector of class scores")
    centre = torch.tensor(images.images, dtype=torch.float64)
    region = ball(centre, eps, norm, clip)
    queries = classification(torch.tensor(images.labels), classes)

    def violated(i: int, x: NDArray[np.float32], y: NDArray[np.float32]) -> bool:
        scores, label = y.flatten(), int(images.labels[i])
        rivals = np.delete(scores, label)
        inside = _within(x, images.images[i], eps, norm) and (clip is None or clip[0] <= x.min() <= x.max() <= clip[1])
        return bool(inside and rivals.max() >= scores[label])

    return Questions(region, queries, violated, centre)


def _within(x: NDArray[np.float32], centre: NDArray[np.float32], eps: float, norm: str) -> bool:
    """Whether x lies in the ball; differences of float32 numbers are exact in float64 unless they hardly matter."""
    step = (x.astype(np.float64) - centre.astype(np.float64)).flatten()
    return bool(np.linalg.norm(step, ord={"linf": np.inf, "l2": 2, "l1": 1}[norm]) <= eps)


def about_specification(network: Network, specification: Specification) -> Questions:
    """Is every case of a specification impossible? One question for each box; a clause for each case on it.

    Raises InputError if the specification does not fit the network.
    """
    inputs, outputs = (int(np.prod(shape)) for shape in (network.input_shape, network.output_shape))
    if (specification.inputs, specification.outputs) != (inputs, outputs):
        raise InputError(
            f"the specification is about {specification.inputs} inputs and {specification.outputs} outputs, "
            f"the network has {inputs} and {outputs}"
        )
    groups = _by_box(specification.cases)
    shape = (len(groups), *network.input_shape)
    lower, upper = (np.stack([getattr(g[0], side) for g in groups]).reshape(shape) for side in ("lower", "upper"))
    queries = _queries(groups, outputs)

    def violated(i: int, x: NDArray[np.float32], y: NDArray[np.float32]) -> bool:
        return any(case.contains(x.flatten(), y.flatten()) for case in groups[i])

    return Questions(Box(torch.from_numpy(lower), torch.from_numpy(upper)), queries, violated)


def _by_box(cases: tuple[Case, ...]) -> list[list[Case]]:
    groups: dict[tuple[bytes, bytes], list[Case]] = defaultdict(list)
    for case in cases:
        groups[case.lower.tobytes(), case.upper.tobytes()].append(case)
    return list(groups.values())


def _queries(groups: list[list[Case]], outputs: int) -> Queries:
    """Margins of every box, padded to the same number by repeating the last one; the padding changes no clause.

    Boxes with fewer cases than others get their last clause again.
    """
    count = max(len(group) for group in groups)
    filled = [group + group[-1:] * (count - len(group)) for group in groups]
    width = max(len(case.halfspaces) for group in groups for case in group)
    rows = np.zeros((len(groups), count, width, outputs))
    offsets = np.zeros((len(groups), count, width))
    for i, group in enumerate(filled):
        for j, case in enumerate(group):
            matrix, constants = case.matrix(outputs)
            m = len(constants)
            rows[i, j, :m], offsets[i, j, :m] = matrix, constants
            if m:  # without output constraints the margin stays 0: the whole box is unsafe
                rows[i, j, m:], offsets[i, j, m:] = matrix[-1], constants[-1]
    clause = torch.arange(count).repeat_interleave(width).expand(len(groups), -1)
    flat = rows.reshape(len(groups), count * width, outputs)
    return Queries(torch.from_numpy(flat), torch.from_numpy(offsets.reshape(len(groups), -1)), clause, count)
