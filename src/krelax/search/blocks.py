"""Looking for counterexamples where gradients are guesses: whole blocks of an input go to an end of the region.

Between jumps there is no gradient, and that of ramps stops helping where each step flips as much as it mends. Random
search over blocks of constant sign at the ends of a region needs none (the Square Attack of Andriushchenko et al. 2020,
here for inputs of any shape and blocks of any size at any time). Margins of such networks take few values, so what is
compared is their sum with margins of which the last jumps are ramps: a move across a plateau counts by how near it
comes to the next flip.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import torch
from torch import Tensor

from krelax.bounds.instance import Instance
from krelax.op import Shape
from krelax.problem.queries import Queries
from krelax.problem.region import Region
from krelax.search import straight

# The largest blocks are such a part of an input.
_LARGEST = 1 / 4


@dataclass(frozen=True)
class Blocks:
    """Effort of a search: so many blocks are tried at a time, so often."""

    tries: int = 32
    rounds: int = 100
    seed: int = 0


def moved(instance: Instance, queries: Queries, x: Tensor, effort: Blocks) -> tuple[Tensor, Tensor]:
    """Points that are as good as those given, one for each region, `(batch, *shape)`, or better, and their margins.

    Works in the instance's fast type, which `queries` must have, and ends early at its deadline, or when each region
    has a candidate. Moves of one round that help, or do not harm, are made together: the best one, the best two, ...,
    whichever are best.
    """
    network, region, rng = instance.fast_network, instance.fast_region, np.random.default_rng(effort.seed)
    ramps = straight.widths(network, region, effort.seed)
    last = {i: ramps[i] for i in straight.last(network)}
    least, value = (t[:, 0] for t in _values(instance, queries, x.unsqueeze(1), last))
    found, rows = x, torch.arange(len(x), device=x.device)
    for _ in range(effort.rounds):
        if bool((least <= 0).all()) or instance.expired():
            break
        tried = region.project(_tried(region, x, effort.tries, rng))
        values = _values(instance, queries, tried, last)[1]
        tried = region.project(_together(x, tried, values, value))
        margins, values = _values(instance, queries, tried, last)
        best = values.argmin(1)
        taken = values[rows, best] <= value
        x = torch.where(_by_region(taken, x), tried[rows, best], x)
        value = torch.where(taken, values[rows, best], value)
        margin, place = margins.min(1)
        found = torch.where(_by_region(margin < least, x), tried[rows, place], found)
        least = torch.minimum(margin, least)
    return found, least


def _tried(region: Region, x: Tensor, tries: int, rng: np.random.Generator) -> Tensor:
    """Points `(batch, tries, *shape)` with a block each that has gone to one end."""
    tried = x.unsqueeze(1).repeat(1, tries, *[1] * (x.dim() - 1))
    for k in range(tries):
        block = (slice(None), *_block(x.shape[1:], rng))
        tried[:, k][block] = (region.upper if rng.random() < 0.5 else region.lower)[block]
    return tried


def _together(x: Tensor, tried: Tensor, values: Tensor, value: Tensor) -> Tensor:
    """The best of the moves, the best two, and so on, up to all that do not harm."""
    made, points, rows = x, list[Tensor](), torch.arange(len(x), device=x.device)
    for place in values.argsort(1).T[: max(1, int((values <= value[:, None]).sum(1).max()))]:
        harmless = _by_region(values[rows, place] <= value, x)
        made = torch.where(harmless & (tried[rows, place] != x), tried[rows, place], made)
        points.append(made)
    return torch.stack(points, 1)


def _by_region(chosen: Tensor, x: Tensor) -> Tensor:
    """What is chosen for regions, `(batch,)`, beside points `(batch, *shape)`."""
    return chosen.reshape(-1, *[1] * (x.dim() - 1))


def _block(shape: Shape, rng: np.random.Generator) -> tuple[slice, ...]:
    """A random block, of any size between one entry and the largest ones: all orders of magnitude are alike."""
    share, axes = _LARGEST * prod(shape) ** -rng.random(), sum(size > 1 for size in shape)
    lengths = [ceil(size * share ** (1 / max(1, axes))) for size in shape]
    starts = [int(rng.integers(size - length, endpoint=True)) for size, length in zip(shape, lengths, strict=True)]
    return tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True))


def _values(instance: Instance, queries: Queries, x: Tensor, last: straight.Widths) -> tuple[Tensor, Tensor]:
    """Margins at points `(batch, points, *shape)`, and their sums with those of ramps."""
    exact, smeared = straight.smeared(instance.fast_network, x, last)
    margins = queries.margin(queries.values(exact))
    return margins, margins + queries.margin(queries.values(smeared))
