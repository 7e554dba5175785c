"""What a method found for a batch of regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from krelax.bounds.layers import LayerBounds
from krelax.bounds.steps import Tapes, Witness
from krelax.network.graph import Network
from krelax.proof.log import DERIVED, UNSTATED, Conclusion


@dataclass
class Bounded:
    """What a method found for a batch: lower bounds of the queries, `(batch, queries)`, over bounds of layers, and the
    last witness with its tapes. `lemmas`, of the same shape, prove them, `DERIVED` where none does; None where no
    proofs are recorded. Each of the clauses `joint` has one query, behind those of the others."""

    value: Tensor
    bounds: LayerBounds
    witness: Witness = field(default_factory=dict)
    tapes: Tapes = field(default_factory=dict)
    lemmas: Tensor | None = None
    joint: tuple[int, ...] = ()

    @classmethod
    def of(cls, value: Tensor, bounds: LayerBounds, lemmas: Tensor | None) -> Bounded:
        """Bounds with their lemmas, for the first time."""
        nothing = cls(torch.full_like(value, -torch.inf), bounds)
        if lemmas is not None:
            nothing.lemmas = torch.full_like(lemmas, DERIVED)
        return nothing.improved(value, lemmas)

    def improved(self, value: Tensor, lemmas: Tensor | None) -> Bounded:
        """With the better of these bounds and others, which count where they have lemmas, if proofs are recorded.
        Raises ValueError where there are none at all."""
        if self.lemmas is None:
            return replace(self, value=torch.maximum(value, self.value))
        if lemmas is None:
            raise ValueError("bounds without the lemmas that prove them, where proofs are recorded")
        better = (value > self.value) & (lemmas != UNSTATED)
        value, lemmas = (torch.where(better, *pair) for pair in ((value, self.value), (lemmas, self.lemmas)))
        return replace(self, value=value, lemmas=lemmas)

    def conclusion(self, region: int = 0) -> Conclusion | None:
        """What the bounds of one region rest on; None where no proofs are recorded."""
        if self.lemmas is None or self.bounds.lemmas is None:
            return None
        every = ((i, torch.stack([t[region] for t in sides])) for i, sides in self.bounds.lemmas.items())
        layers = {i: np.unique(numbers[numbers > DERIVED].cpu().numpy()) for i, numbers in every}
        return Conclusion(self.lemmas[region].cpu().numpy(), layers, self.joint)

    def select(self, index: Tensor, network: Network) -> Bounded:
        """What was found for some of the regions, without the witness."""
        lemmas = None if self.lemmas is None else self.lemmas[index]
        return Bounded(self.value[index], self.bounds.select(index, network), lemmas=lemmas, joint=self.joint)

    @classmethod
    def join(cls, parts: Sequence[Bounded], network: Network) -> Bounded:
        """What was found for one region after the other, with the same queries; of several without witnesses and
        groups, which differ."""
        if len(parts) == 1:
            return parts[0]
        found = [p.lemmas for p in parts if p.lemmas is not None]
        lemmas = torch.cat(found) if found else None
        bounds = LayerBounds.join([p.bounds for p in parts], network)
        return cls(torch.cat([p.value for p in parts]), bounds, lemmas=lemmas, joint=parts[0].joint)
