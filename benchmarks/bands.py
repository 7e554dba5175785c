"""How near the bands of pairs of curves are to exact hulls, on the polytopes of the hull benchmarks.

    python benchmarks/bands.py

The gap of a relaxation in a direction is what it allows beyond the exact hull, as a share of what single neurons over
the same octagon allow beyond it: 0 is exact, 1 is no better than single neurons. The exact maximum is that over some
20,000 points of each octagon, so gaps are a little too large. Sums over groups and directions. Slopes are near those
of the activation, as backward passes choose them. CPU microseconds of one thread for each direction.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from common import benchmark_folder
from krelax.activations import GELU, Activation, Exp, Sigmoid, SiLU, Softplus, Tanh
from krelax.activations.banded import Banded
from krelax.cli.printing import table
from krelax.hull.octagon import ROWS, tighten

CURVES: tuple[Activation, ...] = (Sigmoid(), Tanh(), Exp(), Softplus(), GELU(), SiLU())
NORMALS = torch.tensor(ROWS, dtype=torch.float64)
_GRID, _GROUPS, _DIRECTIONS = 129, 10, 10


def polytopes(name: str) -> Tensor:
    """Octagons `(groups, 8)`, in the order of their rows."""
    stored = np.load(benchmark_folder() / "hull" / f"{name}_k2.npz")
    place = [int(np.flatnonzero((stored["A"] == row).all(1))[0]) for row in np.array(ROWS)]
    return tighten(torch.from_numpy(stored["B"][:, place]).double())


def points(octagon: Tensor) -> Tensor:
    """Points of an octagon, those on its edges included."""
    low, high = -octagon[[1, 3]], octagon[[6, 4]]
    share = torch.linspace(0, 1, _GRID, dtype=torch.float64)
    first = torch.lerp(low[0], high[0], torch.linspace(0, 1, 8 * _GRID, dtype=torch.float64))
    edges = [torch.stack([first, r[1] * (b - r[0] * first)], 1) for r, b in zip(ROWS, octagon, strict=True) if all(r)]
    z = torch.cat([low + torch.cartesian_prod(share, share) * (high - low), *edges])
    return z[(z @ NORMALS.T <= octagon + 1e-12).all(1)]


def envelope(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """The least concave function above the points (x, y), x increasing, at other points."""
    chain: list[int] = []
    for i in range(len(x)):
        while len(chain) > 1:
            a, b = chain[-2], chain[-1]
            if (y[b] - y[a]) * (x[i] - x[a]) > (y[i] - y[a]) * (x[b] - x[a]):
                break
            chain.pop()
        chain.append(i)
    return torch.from_numpy(np.interp(at.numpy(), x[chain].numpy(), y[chain].numpy()))


def gap(op: Activation, octagons: Tensor, slope: Tensor, coeff: Tensor) -> tuple[float, float]:
    """The gap of pairs, and microseconds for a direction, of directions `(2, d)`."""
    count, directions = len(octagons), slope.shape[1]
    wide = (t.expand(1, count, 2, directions) for t in (slope, coeff))
    pairs, given = Banded(op, NORMALS, octagons[None]), tuple(t.contiguous() for t in wide)
    pairs.support(*given)
    start = time.process_time()
    value = pairs.support(*given).value[0]
    micro = (time.process_time() - start) / (count * directions) * 1e6
    excess = torch.zeros(2, dtype=torch.float64)
    for g in range(count):
        z, low, high = points(octagons[g]), -octagons[g, [1, 3]], octagons[g, [6, 4]]
        exact = (z @ slope - op.forward(z) @ coeff).amax(0)
        alone = torch.zeros(directions, dtype=torch.float64)
        for d in range(directions):
            total = torch.zeros(len(z), dtype=torch.float64)
            for i in range(2):
                x = torch.linspace(float(low[i]), float(high[i]), 150, dtype=torch.float64)
                total += envelope(x, slope[i, d] * x - coeff[i, d] * op.forward(x), z[:, i])
            alone[d] = total.max()
        excess += torch.stack([value[g] - exact, alone - exact]).sum(1)
    return float(excess[0] / excess[1]), micro


def main() -> None:
    """Print a line for each activation."""
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    rows = []
    for op in CURVES:
        row = [op.name]
        for name in ("zono", "wralu"):
            octagons = polytopes(name)[:_GROUPS]
            coeff = torch.randn(2, _DIRECTIONS, generator=draw, dtype=torch.float64)
            # lines near those of the activation, as backward passes choose them
            slope = coeff * (0.25 + 0.5 * torch.rand(2, _DIRECTIONS, generator=draw, dtype=torch.float64))
            share, micro = gap(op, octagons, slope, coeff)
            row += [f"{share:.4f}", f"{micro:.1f}"]
        rows.append(row)
        print(*row, flush=True)
    print(table(["activation", "zono", "µs", "wralu", "µs"], rows))


if __name__ == "__main__":
    main()
