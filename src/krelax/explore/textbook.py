"""A network small enough to see through, and the bound that its groups give: the textbook's half of the third view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor

from krelax.activations import ReLU
from krelax.bounds.backward import Form, lower_bound, outputs
from krelax.bounds.instance import Instance
from krelax.bounds.intermediate import tighten_by_ascent
from krelax.bounds.layers import LayerBounds, advance, start
from krelax.bounds.optimise import Ascent, ascend
from krelax.bounds.relational import bounded
from krelax.bounds.steps import over
from krelax.errors import InputError
from krelax.hull.polytope import octahedral_rows
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.problem.region import Box

LAYERS: tuple[tuple[Sequence[Sequence[float]], Sequence[float]], ...] = (
    (((2, 2), (-1, 2), (1, -1)), (0, -1, 1)),
    (((0, 1, 0), (1, 1, 1), (-1, -1, 1)), (-1, -1, -1)),
    (((-1, -1, -1),), (4.5,)),
)
"""Weights and biases, found by looking: over [-1, 1]² the output is at least 1/2, triangles say -2.22."""

NEURONS = 3
EXACT = 0.5  # at a corner of the region; a test looks everywhere
_INNER, _OUTER = Ascent(16, 0.5, 0.85), Ascent(60, 0.3, 0.95)
Chosen = Sequence[Sequence[int]]


def network() -> Network:
    """Two inputs, two layers of three ReLUs, one output."""
    builder, node = Builder((2,)), 0
    for weight, bias in LAYERS:
        node = builder.add(ReLU(), node) if node else node
        node = builder.add(Dense(torch.tensor(weight).double(), torch.tensor(bias).double()), node)
    return builder.build(node)


def instance() -> Instance:
    """The network over the square [-1, 1]²."""
    return Instance.of(network(), Box(-torch.ones(1, 2).double(), torch.ones(1, 2).double()))


def certify(chosen: Chosen) -> dict[str, Any]:
    """A proven lower bound of the output with the chosen neurons of each layer, none or at least two, as one group;
    and the bounds of all neurons, layer by layer. Raises InputError for what is no such choice.
    """
    one, groups = instance(), _groups(chosen)
    with torch.no_grad():
        bounds = _bounds(one, groups)
        value = _output(one, bounds)
    sources = [one.network.nodes[i].inputs[0] for i in one.network.activations()]
    layers = [{"lower": bounds.lower[i][0].tolist(), "upper": bounds.upper[i][0].tolist()} for i in sources]
    return {"bound": value, "layers": layers}


def _groups(chosen: Chosen) -> dict[int, list[int]]:
    activations = network().activations()
    if len(chosen) != len(activations):
        raise InputError(f"choose neurons of {len(activations)} layers")
    for members in chosen:
        if not set(members) <= set(range(NEURONS)) or len(set(members)) != len(members):
            raise InputError(f"members of a group are different numbers from 0 to {NEURONS - 1}")
    return {i: sorted(members) for i, members in zip(activations, chosen, strict=True) if len(members) > 1}


def _bounds(one: Instance, groups: Mapping[int, Sequence[int]]) -> LayerBounds:
    """Layer by layer: tighten, bound, group."""
    bounds, activations = start(one.region), one.network.activations()
    for i, node in enumerate(one.network.nodes[1:], start=1):
        if i in activations:
            tighten_by_ascent(one, bounds, node.inputs[0], _INNER)
        advance(one.network, bounds)
        if i in groups:
            members, rows = torch.tensor([[groups[i]]]), torch.from_numpy(octahedral_rows(len(groups[i])))
            bounds.groups[i] = (bounded(one, bounds, node.inputs[0], members, rows, _INNER),)
    return bounds


def _output(one: Instance, bounds: LayerBounds) -> float:
    fast = one.fast_network
    witness = over(ascend(one, _form(fast), bounds.to(fast.dtype, one.network), _OUTER), bounds)
    return float(lower_bound(one.network, one.region, _form(one.network), witness, bounds))


def _form(of: Network) -> Form:
    row: Tensor = torch.ones(1, 1, 1, dtype=of.dtype)
    return outputs(of, row, row[0] * 0)


def choices() -> Iterator[tuple[tuple[int, ...], ...]]:
    """Every choice of groups."""
    one = [(), *(c for size in range(2, NEURONS + 1) for c in combinations(range(NEURONS), size))]
    return product(one, repeat=len(LAYERS) - 1)


def drawing() -> dict[str, Any]:
    """What does not depend on the choice."""
    return {"weights": [w for w, _ in LAYERS], "biases": [b for _, b in LAYERS], "exact": EXACT}
