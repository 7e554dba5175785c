"""The nearest counterexamples that attacks find, batched over images that each have a radius of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.bounds.instance import Instance, chunk_images, one_core_each, pieces, side_by_side, workers
from krelax.network.graph import Network
from krelax.network.scalars import with_axes
from krelax.search.around import Around
from krelax.search.attack import Attack, best, descend, starts
from krelax.search.questions import Questions, about_surroundings
from krelax.search.replay import replay
from krelax.search.verdict import Counterexample
from krelax.watch import now

# The next attack is at such a part of the radius that is refuted: a smaller part while that succeeds.
_PARTS = (Fraction(4, 5), Fraction(19, 20))
_ATTACK, _LAST = Attack(), Attack(restarts=16, steps=60, seed=1)
_MOST_ROUNDS, _BISECTIONS = 24, 12


class Asked(Protocol):
    """What of the options matters here."""

    @property
    def accuracy(self) -> Fraction: ...
    @property
    def norm(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def digits(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Refuted:
    """A counterexample, and a radius of few digits at which it is one: its distance, rounded up."""

    radius: Fraction
    found: Counterexample


Surrounding = Callable[[Sequence[int], Sequence[Fraction]], Around]


def from_counterexample(around: Around, i: int, found: Counterexample, digits: int) -> Refuted:
    """How far a counterexample to question i is from its image."""
    steps = [abs(step) for step in around.steps(i, found.x)]
    if around.norm == "l2":
        square = sum(step * step for step in steps)
        scale = 10**40
        distance = Fraction(math.isqrt(math.ceil(square * scale)) + (square > 0), 10**20)
    else:
        distance = sum(steps, Fraction(0)) if around.norm == "l1" else max(steps)
    return Refuted(rounded(distance, digits, up=True), found)


def attacked(
    network: Network,
    labels: NDArray[np.int64],
    around: Surrounding,
    known: Sequence[Refuted | None],
    certified: Sequence[Fraction | None],
    limits: tuple[Fraction, Fraction | None],
    options: Asked,
    seconds: float | None = None,
) -> list[Refuted | None]:
    """The nearest counterexample that is found to the question about each image; `known` ones are where to begin.

    `around` has the regions of some images at radii; below those that are `certified`, and outside the `limits`,
    nothing is looked for. No attack begins after so many `seconds`, and none goes on for longer than one step.
    """
    least, largest = limits
    deadline = None if seconds is None else now() + seconds
    search = _Search(with_axes(network), labels, around, list(known), options, deadline)
    with torch.no_grad(), one_core_each(torch.device(options.device)):
        search.look()
        guesses = search.guesses()
        parts = (*_PARTS, 1 / (1 + options.accuracy / 2))
        level = [0 if refuted is None else len(parts) - 1 for refuted in known]
        active = [i for i, refuted in enumerate(search.found) if refuted is None or refuted.radius > least]
        for _ in range(_MOST_ROUNDS):
            radii = {}
            for i in active:
                refuted = search.found[i]
                wanted = (
                    guesses[i] if refuted is None else rounded(refuted.radius * parts[level[i]], options.digits, False)
                )
                if largest is not None and refuted is None and guesses[i] < 2 * largest:
                    wanted = min(wanted, largest)
                low, high = certified[i] or Fraction(0), largest if refuted is None else refuted.radius
                if wanted > low and (high is None or wanted <= high) and wanted < 10**6:
                    radii[i] = wanted
            active = list(radii)
            if not active or (deadline is not None and now() > deadline):
                break
            hit = search.attack(radii, _LAST if all(level[i] for i in active) else _ATTACK)
            for i in active:
                if search.found[i] is None:
                    guesses[i] *= 2
                elif i not in hit:
                    level[i] += 1
            active = [i for i in active if level[i] < len(parts)]
    return search.found


@dataclass
class _Search:
    """Attacks on questions about images, and the nearest counterexamples so far."""

    network: Network
    labels: NDArray[np.int64]
    around: Surrounding
    found: list[Refuted | None]
    options: Asked
    deadline: float | None = None

    def look(self) -> None:
        """Replay the images themselves of which nothing is known, as the model is given them."""
        index = [i for i, refuted in enumerate(self.found) if refuted is None]
        if not index:
            return
        given = self.around(index, [Fraction(0)] * len(index)).given()
        given = self.network.elements.nearest(given)
        for i, x in zip(index, given, strict=True):
            own = self.around([i], [Fraction(0)])
            near = from_counterexample(own, 0, Counterexample(x, x), self.options.digits)
            questions = about_surroundings(self.network, self.labels[[i]], self.around([i], [near.radius]))
            found = replay(self.network, x, partial(questions.violated, 0))
            self.found[i] = None if found is None else Refuted(near.radius, found)

    def guesses(self) -> list[Fraction]:
        """Radii at which a linear model of the network would have counterexamples: first guesses, no more."""
        index = list(range(len(self.labels)))
        regions = self.around(index, [Fraction(0)] * len(index))
        x = torch.from_numpy(regions.given().astype(np.float64)).reshape(-1, *self.network.input_shape)
        found = []
        for part in pieces(len(x), 64):
            with torch.enable_grad():
                point = x[part].requires_grad_(True)
                scores = self.network(point).flatten(1)
                own = scores.gather(1, torch.from_numpy(self.labels)[part, None])
                rivals = scores.scatter(1, torch.from_numpy(self.labels)[part, None], -torch.inf)
                margin = own[:, 0] - rivals.amax(1)
                (slope,) = torch.autograd.grad(margin.sum(), point)
            order = {"linf": 1, "l2": 2, "l1": torch.inf}[self.options.norm]
            size = torch.linalg.vector_norm(slope.flatten(1), ord=order, dim=1)
            scale = 1.0 if regions.scaling is None else float(max(regions.scaling.std))
            found += (scale * margin.detach().clamp(min=0) / size.clamp(min=1e-12)).tolist()
        return [rounded(Fraction(min(max(g, 1e-4), 1e3)), self.options.digits, up=True) for g in found]

    def attack(self, radii: dict[int, Fraction], effort: Attack) -> set[int]:
        """Attack each image at its radius; those of which a nearer counterexample was found."""
        index, device = list(radii), torch.device(self.options.device)
        points = max(effort.restarts, effort.samples)
        size = 1 if self.options.norm != "linf" else chunk_images(self.network, points, device, 1)
        size = min(size, -(-len(index) // workers(device)))
        parts = [[index[j] for j in part.tolist()] for part in pieces(len(index), size)]
        hit: set[int] = set()
        for found in side_by_side(partial(self._attack, radii, effort), parts, device):
            for i, refuted in found.items():
                self.found[i] = refuted
                hit.add(i)
        return hit

    def _attack(self, radii: dict[int, Fraction], effort: Attack, part: list[int]) -> dict[int, Refuted]:
        around = self.around(part, [radii[i] for i in part])
        questions = about_surroundings(self.network, self.labels[part], around)
        questions = questions.shaped(self.network.input_shape)
        device = torch.device(self.options.device)
        instance = Instance.of(self.network, questions.region.to(torch.float64, device), deadline=self.deadline)
        queries = questions.queries.to(instance.fast_network.dtype, device)
        x = starts(instance, queries, effort)
        for j, i in enumerate(part):  # the nearest one so far, moved into the region, in the place of a random start
            refuted = self.found[i]
            if refuted is not None:
                x[j, 0] = torch.from_numpy(refuted.found.x.astype(np.float64)).to(x).reshape(x.shape[2:])
        point, value = best(*descend(instance, queries, instance.fast_region.project(x), effort))
        near = self._nearer(instance, questions, point, value)
        return self._confirmed(around, questions, part, near, point, value)

    def _nearer(self, instance: Instance, questions: Questions, point: Tensor, value: Tensor) -> Tensor:
        """Points on the way from the images, near to where the margin is zero on it."""
        assert questions.anchors is not None
        queries = questions.queries.to(instance.fast_network.dtype, point.device)
        anchor = questions.anchors.to(point)
        low = torch.zeros(len(point), dtype=point.dtype, device=point.device)
        high = torch.ones_like(low)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            share = middle.reshape(-1, *[1] * (point.dim() - 1))
            y = instance.fast_network(anchor + share * (point - anchor)).unsqueeze(1)
            wrong = queries.margin(queries.values(y))[:, 0] <= 0
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
        return anchor + high.reshape(-1, *[1] * (point.dim() - 1)) * (point - anchor)

    def _confirmed(
        self, around: Around, questions: Questions, part: list[int], near: Tensor, point: Tensor, value: Tensor
    ) -> dict[int, Refuted]:
        """The first of the points that is a counterexample, replayed in the original model, for each image."""
        result: dict[int, Refuted] = {}
        for j, i in enumerate(part):
            if value[j] > 0:
                continue
            for x in (near[j], point[j]):
                candidate = questions.candidate(self.network, j, x.double().cpu().numpy())
                if candidate is None:
                    continue
                found = replay(self.network, candidate, partial(questions.violated, j))
                if found is not None:
                    plain = replace(found, x=found.x.reshape(around.shape))
                    result[i] = from_counterexample(around, j, plain, self.options.digits)
                    break
        return result


def between(low: Fraction, high: Fraction, digits: int) -> Fraction:
    """A radius in the middle of two, as factors count."""
    return rounded(Fraction(math.sqrt(float(low) * float(high))), digits, up=False)


def rounded(number: Fraction, digits: int, up: bool) -> Fraction:
    """A number of so many significant decimal digits next to a positive one; zero stays zero."""
    if number <= 0:
        return Fraction(0)
    scale = Fraction(10) ** (digits - 1 - math.floor(math.log10(number)))
    return Fraction(math.ceil(number * scale) if up else math.floor(number * scale)) / scale
