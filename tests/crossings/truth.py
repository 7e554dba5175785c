"""What is true of a tiny network over a region, without krelax's bounds: two numbers around the smallest margin.

From above by samples, evaluated in double precision. From below exactly, by rational arithmetic, where the network is
piecewise linear and few inputs vary; else by samples on a grid and how far the network can move between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tests.exact_cells import count_cells, least_margin

from krelax.activations import Activation, LogSumExp, Max
from krelax.network.graph import Network
from krelax.network.ops import Linear

Floats = NDArray[np.float64]
Clause = tuple[Floats, Floats]  # rows `(m, outputs)` and offsets `(m,)`

# What evaluating in double precision may lose, far more than that.
LOST = 1e-9
# Inputs that vary, vertices of boxes and their cells, for exact arithmetic.
_FEW_INPUTS, _FEW_NEURONS = 3, 14


@dataclass(frozen=True, eq=False)
class Area:
    """The inputs `lower <= x <= upper`, flattened; with `p` 1 or 2 those of them within `eps` of `centre`."""

    lower: Floats
    upper: Floats
    centre: Floats
    eps: float = np.inf
    p: int | None = None

    def contains(self, x: Any) -> bool:
        """Whether an input lies in the region, in rational arithmetic."""
        point = [Fraction(float(v)) for v in np.asarray(x).flatten()]
        faces = zip(point, self.lower.tolist(), self.upper.tolist(), strict=True)
        if not all(Fraction(low) <= v <= Fraction(high) for v, low, high in faces):
            return False
        if self.p is None:
            return True
        step = [abs(v - Fraction(c)) ** self.p for v, c in zip(point, self.centre.tolist(), strict=True)]
        return sum(step) <= Fraction(self.eps) ** self.p

    def samples(self, count: int, seed: int) -> Floats:
        """Points of the region: corners of the box drawn towards the centre as far as they must, and others."""
        rng, varied = np.random.default_rng(seed), np.flatnonzero(self.lower < self.upper)
        share = rng.random((count, len(self.lower)))
        share[: count // 2] = np.round(share[: count // 2])
        if len(varied) <= _FEW_INPUTS:
            axis = np.linspace(0, 1, max(2, round((2 * count) ** (1 / max(1, len(varied))))))
            grid = np.full((len(axis) ** len(varied), len(self.lower)), 0.5)
            grid[:, varied] = np.array(list(product(axis, repeat=len(varied)))).reshape(len(grid), len(varied))
            share = np.concatenate([share, grid])
        axes = np.eye(len(self.lower))[:, None] * np.array([-1.0, 1.0])[:, None] / 2 + 0.5
        share = np.concatenate([share, axes.reshape(-1, len(self.lower))])
        x = np.clip(self.lower + share * (self.upper - self.lower), self.lower, self.upper)
        if self.p is None:
            return x
        step = x - self.centre
        size = np.linalg.norm(step, self.p, axis=1, keepdims=True)
        return self.centre + step * np.minimum(1, (1 - 1e-9) * self.eps / np.maximum(size, 1e-300))


def outputs(network: Network, x: Floats) -> Floats:
    """Flattened outputs, `(points, outputs)`."""
    points = torch.from_numpy(x).reshape(-1, *network.input_shape)
    return network(points).reshape(len(points), -1).numpy()


def margins(y: Floats, clauses: list[Clause]) -> Floats:
    """Margins at outputs, `(points,)`: the smallest clause, each its largest member."""
    return np.min([(y @ rows.T + offsets).max(1) for rows, offsets in clauses], 0)


def bracket(network: Network, area: Area, clauses: list[Clause], seed: int) -> tuple[float, float]:
    """Numbers between which the smallest margin over the region lies, up to `LOST`."""
    above = float(margins(outputs(network, area.samples(600, seed)), clauses).min())
    exact = _exactly(network, area, clauses)
    if exact is not None:
        return float(exact) - LOST, above if area.p is not None else float(exact) + LOST
    return _by_grid(network, area, clauses), above


def _exactly(network: Network, area: Area, clauses: list[Clause]) -> Fraction | None:
    """The smallest margin over the box, if that can be said."""
    neurons = sum(int(np.prod(network.nodes[network.nodes[i].inputs[0]].shape)) for i in network.activations())
    if int((area.lower < area.upper).sum()) > _FEW_INPUTS or neurons > _FEW_NEURONS:
        return None
    lower, upper = (t.reshape(network.input_shape) for t in (area.lower, area.upper))
    try:
        if count_cells(network, lower, upper) > 60:
            return None
        return least_margin(network, lower, upper, clauses).value
    except NotImplementedError:
        return None


def _by_grid(network: Network, area: Area, clauses: list[Clause]) -> float:
    """A lower bound: at the points of a grid, less what the network can move on the way to the next one."""
    varied = np.flatnonzero(area.lower < area.upper)
    steps = {0: 1, 1: 400, 2: 40, 3: 12}.get(len(varied), 1)
    half = (area.upper - area.lower) / (2 * steps)
    axes = [area.lower[i] + half[i] * (2 * np.arange(steps) + 1) for i in varied]
    x = np.tile((area.lower + area.upper) / 2, (steps ** len(varied), 1))
    x[:, varied] = np.array(list(product(*axes))).reshape(len(x), len(varied))
    moves = _moves(network, half)
    lost = max(float((abs(rows) @ moves).max()) for rows, _ in clauses)
    return float(margins(outputs(network, x), clauses).min()) - lost - LOST


def _moves(network: Network, half: Floats) -> Floats:
    """How far each output can be from its value in the middle of a box of these half-widths."""
    reach = [torch.from_numpy(half).reshape(1, *network.input_shape) * (1 + 1e-9)]
    for node in network.nodes[1:]:
        operands = [reach[j] for j in node.inputs]
        if isinstance(node.op, Linear):
            moved = node.op.absolute().linear(*operands)
        elif isinstance(node.op, Max | LogSumExp):
            moved = operands[0].amax(-1)
        else:
            assert isinstance(node.op, Activation)
            moved = steepest(node.op) * operands[0]
        reach.append(moved * (1 + 1e-9) + 1e-12)
    return reach[-1].flatten().numpy()


def steepest(op: Activation) -> float:
    """The largest slope of an elementwise activation, and a little more."""
    z = torch.linspace(-12, 12, 48001, dtype=torch.float64)
    a = op.forward(z[None])[0]
    return float(((a[1:] - a[:-1]).abs() / (z[1] - z[0])).max()) * 1.01
