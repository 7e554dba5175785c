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
from krelax.problem.region import Region, middle


@dataclass(frozen=True)
class Attack:
    """Effort of an attack: starting points for each region and gradient steps from each."""

    restarts: int = 8
    steps: int = 40
    samples: int = 64
    first_step: float = 0.5
    last_step: float = 0.005
    seed: int = 0


def search(instance: Instance, queries: Queries, attack: Attack) -> tuple[Tensor, Tensor]:
    """The point of smallest margin found in every region, `(batch, *shape)`, and its margin, `(batch,)`.

    Works in the instance's fast type, which `queries` must have, and ends early at its deadline. Half of the restarts
    descend on the whole property, the others each on one clause. Steps are a share of the region's half-widths,
    shrinking geometrically. Starts are drawn on the CPU, so that they are the same on every device.
    """
    region = instance.fast_region
    generator = torch.Generator().manual_seed(attack.seed)
    return descend(instance, queries, _starts(instance.fast_network, region, queries, attack, generator), attack)


def descend(instance: Instance, queries: Queries, x: Tensor, attack: Attack) -> tuple[Tensor, Tensor]:
    """As `search`, from points `(batch, points, *shape)` of the regions; `restarts` and `samples` are not used."""
    network, region = instance.fast_network, instance.fast_region
    best_x, best = x[:, 0].clone(), torch.full((len(region),), torch.inf, dtype=x.dtype, device=x.device)
    radius = (region.upper / 2 - region.lower / 2).unsqueeze(1)
    decay = (attack.last_step / attack.first_step) ** (1 / max(1, attack.steps - 1))
    goals = _goals(queries, x.shape[1], x.device)
    step = attack.first_step
    for _ in range(attack.steps + 1):
        values, gradient = _descend(network, queries, x, goals)
        best_x, best = _keep(x, values, best_x, best)
        if bool((best <= 0).all()) or instance.expired():
            break
        x = region.project(x - step * radius * gradient.sign())
        step *= decay
    return best_x, best


def _starts(network: Network, region: Region, queries: Queries, attack: Attack, generator: torch.Generator) -> Tensor:
    """The most promising of many random points, with the centre of the region in front."""
    lower, upper = region.lower.unsqueeze(1), region.upper.unsqueeze(1)
    shape = (len(region), attack.samples, *region.lower.shape[1:])
    share = torch.rand(shape, generator=generator, dtype=lower.dtype).to(lower.device)
    x = region.project(torch.cat([middle(lower, upper), lower + share * (upper - lower)], dim=1))
    order = queries.margin(queries.values(_evaluate(network, x))).argsort(dim=1)[:, : attack.restarts]
    order[:, -1] = 0
    return x.gather(1, order.reshape(*order.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:]))


def _evaluate(network: Network, x: Tensor) -> Tensor:
    return network(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _goals(queries: Queries, restarts: int, device: torch.device) -> Tensor:
    """For each restart the clause it attacks, -1 for whichever is weakest."""
    goals = torch.arange(restarts, device=device) - restarts // 2
    return torch.where(goals >= 0, goals % queries.clauses, -1)


def _descend(network: Network, queries: Queries, x: Tensor, goals: Tensor) -> tuple[Tensor, Tensor]:
    """Margins at the points and the gradient of what each restart is after."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        clauses = queries.clause_values(queries.values(_evaluate(network, x)))
        weakest = clauses.amin(-1)
        chosen = clauses[:, torch.arange(len(goals), device=x.device), goals.clamp(min=0)]
        loss = torch.where(goals < 0, weakest, chosen)
        (gradient,) = torch.autograd.grad(loss.sum(), x)
    return weakest.detach(), gradient


def _keep(x: Tensor, values: Tensor, best_x: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
    value, place = values.min(1)
    better = value < best
    found = x[torch.arange(len(x), device=x.device), place]
    mask = better.reshape(-1, *[1] * (best_x.dim() - 1))
    return torch.where(mask, found, best_x), torch.where(better, value, best)
