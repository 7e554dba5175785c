"""Looking for counterexamples: projected gradient descent on the margins (Madry et al. 2018), batched.

An attack proves nothing and decides nothing: what it finds is only a candidate for `krelax.search.replay`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from krelax.bounds.instance import Instance
from krelax.network.graph import Network
from krelax.problem.queries import Queries
from krelax.problem.region import middle
from krelax.search import straight
from krelax.search.blocks import Blocks, moved


@dataclass(frozen=True)
class Attack:
    """Effort of an attack: starting points for each region and gradient steps from each."""

    restarts: int = 8
    steps: int = 40
    samples: int = 64
    first_step: float = 0.5
    last_step: float = 0.005
    seed: int = 0

    @property
    def passes(self) -> int:
        """How many passes through the network it takes, there and back."""
        return self.samples + 3 * self.restarts * self.steps


def search(instance: Instance, queries: Queries, attack: Attack) -> tuple[Tensor, Tensor]:
    """The point of smallest margin found in every region, `(batch, *shape)`, and its margin, `(batch,)`.

    Works in the instance's fast type, which `queries` must have, and ends early at its deadline. Half of the restarts
    descend on the whole property, the others each on one clause; where a clause has several members, every second one
    on the sum of what they lack. Steps are a share of the region's half-widths, shrinking geometrically. Starts are
    drawn on the CPU, so that they are the same on every device. Where functions jump, so that gradients are guesses, as
    much work again goes into moving blocks from the best points.
    """
    x, value = best(*descend(instance, queries, starts(instance, queries, attack), attack))
    if straight.jumping(instance.network):
        x, value = moved(instance, queries, x, Blocks(attack.restarts, attack.steps, attack.seed))
    return x, value


def best(x: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Of points `(batch, points, *shape)` the one of smallest value in every region, and its value."""
    value, place = values.min(1)
    return x[torch.arange(len(x), device=x.device), place], value


def descend(instance: Instance, queries: Queries, x: Tensor, attack: Attack) -> tuple[Tensor, Tensor]:
    """As `search`, from points `(batch, points, *shape)` of the regions; `restarts` and `samples` are not used.

    Returns the best point on the way from each, of the same shape, and their margins, `(batch, points)`.
    """
    network, region = instance.fast_network, instance.fast_region
    best_x, found = x, torch.full(x.shape[:2], torch.inf, dtype=x.dtype, device=x.device)
    radius = (region.upper / 2 - region.lower / 2).unsqueeze(1)
    decay = (attack.last_step / attack.first_step) ** (1 / max(1, attack.steps - 1))
    goals, ramps = _Goals.of(network, queries, x), straight.widths(network, region, attack.seed)
    step = attack.first_step
    for _ in range(attack.steps + 1):
        values, gradient = _descend(network, queries, x, goals, ramps)
        better = values < found
        best_x = torch.where(better.reshape(*better.shape, *[1] * (x.dim() - 2)), x, best_x)
        found = torch.where(better, values, found)
        if bool((found.amin(1) <= 0).all()) or instance.expired():
            break
        x = region.project(x - step * radius * gradient.sign())
        step *= decay
    return best_x, found


def starts(instance: Instance, queries: Queries, attack: Attack) -> Tensor:
    """The most promising of many random points of the regions, `(batch, restarts, *shape)`, with the centre among
    them."""
    region, generator = instance.fast_region, torch.Generator().manual_seed(attack.seed)
    lower, upper = region.lower.unsqueeze(1), region.upper.unsqueeze(1)
    shape = (len(region), attack.samples, *region.lower.shape[1:])
    share = torch.rand(shape, generator=generator, dtype=lower.dtype).to(lower.device)
    x = region.project(torch.cat([middle(lower, upper), lower + share * (upper - lower)], dim=1))
    order = queries.margin(queries.values(straight.evaluate(instance.fast_network, x, {}))).argsort(dim=1)[
        :, : attack.restarts
    ]
    order[:, -1] = 0
    return x.gather(1, order.reshape(*order.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:]))


@dataclass(frozen=True, eq=False)
class _Goals:
    """What restarts are after: a clause each, `(batch, points)`, -1 for whichever is weakest, and whether the sum of
    what its members lack instead of the largest of them, `(points,)`."""

    clause: Tensor
    sums: Tensor

    @classmethod
    def of(cls, network: Network, queries: Queries, x: Tensor) -> _Goals:
        """The goals of descents from points `(batch, points, *shape)`: clauses that are weakest there come first."""
        weakest = queries.clause_values(queries.values(straight.evaluate(network, x, {}))).amin(1).argsort(1)
        number = torch.arange(x.shape[1], device=x.device)
        place = number - x.shape[1] // 2
        joint = queries.rows.shape[1] > queries.clauses
        return cls(torch.where(place >= 0, weakest[:, place % queries.clauses], -1), (number % 2 == 1) & joint)


def _descend(
    network: Network, queries: Queries, x: Tensor, goals: _Goals, ramps: straight.Widths
) -> tuple[Tensor, Tensor]:
    """Margins at the points and the gradient of what each restart is after."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        values = queries.values(straight.evaluate(network, x, ramps))
        largest = queries.clause_values(values)
        loss = _loss(largest, goals.clause)
        if bool(goals.sums.any()):
            loss = torch.where(goals.sums, _loss(queries.clause_sums(values.clamp(min=0)), goals.clause), loss)
        (gradient,) = torch.autograd.grad(loss.sum(), x)
    return largest.detach().amin(-1), gradient


def _loss(clauses: Tensor, goals: Tensor) -> Tensor:
    """The values of the clauses, `(batch, points, clauses)`, that points are after, `(batch, points)`."""
    chosen = clauses.gather(2, goals.clamp(min=0).unsqueeze(2)).squeeze(2)
    return torch.where(goals < 0, clauses.amin(-1), chosen)
