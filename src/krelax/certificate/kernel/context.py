"""What a lemma may rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from krelax.certificate.format.lemmas import Slot
from krelax.certificate.kernel.activations import Ends
from krelax.certificate.kernel.arithmetic import Floats
from krelax.certificate.kernel.bands import Bands
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.clipping import Lines
from krelax.certificate.kernel.contraction import contractions
from krelax.certificate.kernel.groups import Groups
from krelax.certificate.kernel.network import Network
from krelax.certificate.kernel.saddles import Saddles

# So many times as many entries fit a node that is seldom laid out.
_SELDOM = 32


@dataclass(frozen=True, eq=False)
class Context:
    """Bounds of all nodes so far, the sets of groups of the activations so far, and affine bounds of pre-activations,
    for clips. `rows` and `offsets` are the forms of lemmas about margins. All paths of trees begin with the side
    `z <= 0` of the neuron `assumed`, if there is one."""

    bounds: LayerBounds
    rows: Floats
    offsets: Floats
    groups: tuple[tuple[Groups | Bands | Saddles, ...], ...] = ()
    lines: Mapping[int, Lines] = field(default_factory=dict)
    assumed: int | None = None

    @property
    def network(self) -> Network:
        return self.bounds.network

    def ends(self, j: int) -> Ends:
        """Bounds of activation j's pre-activation."""
        z = self.network.before(j)
        return self.bounds.lower[z], self.bounds.upper[z]

    @cached_property
    def portion(self) -> int:
        """How many rows fit the memory: each has a number for every entry of a node, and so have groups. Products that
        are hardly ever laid out may take more."""
        network, entries = self.network, self.bounds.ar.entries
        sizes = np.array([network.size(i) for i in range(len(network.nodes))])
        rows = [len(s.members) * s.width for sets in self.groups for s in sets]
        for contraction in contractions(network, self.bounds.ar).values():
            product = network.activations[contraction.activation]
            sizes[[product, network.before(contraction.activation)]] //= _SELDOM
        return max(1, entries // max([*sizes.tolist(), *rows]))

    def batches(self, rows: int) -> list[slice]:
        """So many rows, a portion at a time."""
        return [slice(i, min(i + self.portion, rows)) for i in range(0, rows, self.portion)]


def slots_of(network: Network, groups: Sequence[Sequence[Groups | Bands | Saddles]]) -> list[Slot]:
    """What choices at the first activations, those with these sets of groups, must fit."""
    nodes = map(network.activation, range(len(groups)))
    shapes = [tuple(s.members.shape for s in sets) for sets in groups]
    return [
        Slot(network.size(a.inputs[0]), a.rule.pieces is not None, s, a.rule.elementwise, a.rule.members, a.rule.paired)
        for a, s in zip(nodes, shapes, strict=True)
    ]
