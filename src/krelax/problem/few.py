"""A region in which few pixels may have any values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from krelax.problem.region import FLOOR, Box, Region


@dataclass(frozen=True, eq=False)
class Few(Region):
    """All inputs lie in `least <= x <= most`, `(batch, *shape)`, but for those of `count` pixels at most, whichever
    these are, which lie in `lower <= x <= upper`. `pixel`, `(batch, *shape)`, has the number of every input's pixel.

    A linear form is bounded exactly: the pixels that lower it most are free.
    """

    least: Tensor
    most: Tensor
    pixel: Tensor
    count: int

    @cached_property
    def _kept(self) -> Box:
        return Box(self.least, self.most)

    @cached_property
    def _free(self) -> Box:
        return Box(self.lower, self.upper)

    @cached_property
    def _pixels(self) -> int:
        return int(self.pixel.max()) + 1

    def _gains(self, form: Tensor) -> Tensor:
        """By how much each pixel, if it is free, lowers forms: `(batch, queries, pixels)`, at most zero."""

        def lowest(low: Tensor, high: Tensor) -> Tensor:
            return torch.minimum(form * low.unsqueeze(1), form * high.unsqueeze(1))

        gains = (lowest(self.lower, self.upper) - lowest(self.least, self.most)).flatten(2)
        place = self.pixel.long().flatten(1).unsqueeze(1).expand(gains.shape)
        return gains.new_zeros(*gains.shape[:2], self._pixels).scatter_add(2, place, gains)

    def minimise(self, form: Tensor, slack: float = 0.0) -> Tensor:
        gains = self._gains(form)
        lowest = gains.topk(min(self.count, gains.shape[2]), 2, largest=False).values.sum(2)
        value = self._kept.minimise(form) + lowest
        if not slack:
            return value
        size = (form.abs() * (self.magnitude + FLOOR).unsqueeze(1)).flatten(2).sum(2)
        return value - 8 * slack * size  # what is free is counted with its whole width, and sums are four times as long

    def minimiser(self, form: Tensor) -> Tensor:
        gains = self._gains(form)
        chosen = gains.topk(min(self.count, gains.shape[2]), 2, largest=False).indices
        return torch.where(self._at(chosen, form), self._free.minimiser(form), self._kept.minimiser(form))

    def _at(self, chosen: Tensor, like: Tensor) -> Tensor:
        """Which inputs belong to chosen pixels, `(batch, points, count)`."""
        mask = torch.zeros(*chosen.shape[:2], self._pixels, dtype=torch.bool, device=chosen.device)
        mask = mask.scatter(2, chosen, True)
        place = self.pixel.long().flatten(1).unsqueeze(1).expand(*chosen.shape[:2], -1)
        return mask.gather(2, place).reshape(like.shape)

    def project(self, x: Tensor) -> Tensor:
        inside, kept = self._free.project(x), self._kept.project(x)
        far = (inside - kept).abs().flatten(2)
        place = self.pixel.long().flatten(1).unsqueeze(1).expand(far.shape)
        total = far.new_zeros(*far.shape[:2], self._pixels).scatter_add(2, place, far)
        chosen = total.topk(min(self.count, self._pixels), 2).indices
        return torch.where(self._at(chosen, x), inside, kept)

    def moved(self, move: Callable[[Tensor], Tensor]) -> Self:
        least, most, pixel = move(self.least), move(self.most), move(self.pixel)
        return replace(super().moved(move), least=least, most=most, pixel=pixel)

    def select(self, index: Tensor) -> Self:
        return self.moved(lambda t: t[index])

    def shaped(self, shape: tuple[int, ...]) -> Self:
        return self.moved(lambda t: t.reshape(-1, *shape))

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Self:
        return self.moved(lambda t: t.to(device, dtype))
