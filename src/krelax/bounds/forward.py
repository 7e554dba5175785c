"""A quick look at wide layers behind few inputs, before backward passes bound their neurons one by one.

One affine form for each neuron, pushed forward, costs as much as a backward pass for each of its symbols. It decides
most neurons of a wide layer, so that passes are left for those that it does not decide.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from krelax.activations import Rule
from krelax.bounds.copies import shared
from krelax.bounds.forms import Form, absolutes, activate, affine, band_of, inputs, interval, spread_of
from krelax.bounds.instance import Instance
from krelax.bounds.intermediate import interval_is_exact, undecided
from krelax.bounds.layers import LayerBounds, Lemmas
from krelax.bounds.recording import chosen, record_entries
from krelax.bounds.steps import Single, Witness
from krelax.network.graph import products
from krelax.network.linear import Dense
from krelax.network.ops import Linear, Reshape
from krelax.problem.queries import Queries
from krelax.problem.region import Box, bounding

# A look is taken where passes would make so many products, with so many symbols that it makes so many times fewer of
# them; those of one node take at most so many bytes.
_DEAR, _MANY, _BYTES = 1e8, 8, 256 << 20


class Forward:
    """Forms of the nodes of an instance's network over bounds that grow, as far as they have been asked for."""

    def __init__(self, instance: Instance) -> None:
        self._instance, region = instance, instance.region
        self._varied = (region.upper > region.lower).any(0).flatten().nonzero()[:, 0]
        self._forms: dict[int, Form] = {}
        self._symbols, self._known = len(self._varied), 0
        self._last_use = {j: i for i, node in enumerate(instance.network.nodes) for j in node.inputs}

    def tighten(self, bounds: LayerBounds, node: int) -> None:
        """Tighten a pre-activation, behind which nothing is bounded yet, if that is worth it.

        Sound: forms enclose the nodes wherever the bounds of those before do, rounding included.
        """
        if node < self._known:  # several activations read it
            return
        if interval_is_exact(self._instance.network, self._instance.region, node):
            return
        form = self._form(bounds, node, int(undecided(self._instance, bounds, node).sum(1).max()))
        if form is None:
            return
        lower, upper = interval(form, self._spread(form))
        lemmas = record_parallel(self._instance, bounds, node, lower, upper)
        bounds.tighten(node, lower, upper, lemmas)

    def margins(self, bounds: LayerBounds, queries: Queries) -> Tensor | None:
        """Lower bounds of the margins of one region, `(1, queries)`, where bounds of all nodes are known, if they are
        worth it; sound as `tighten`. A backward pass on the lines `parallel` proves them."""
        nodes = self._instance.network.nodes
        form = self._form(bounds, len(nodes) - 1, queries.rows.shape[1]) if len(queries) == 1 else None
        if form is None:
            return None
        rows, flat = Dense(queries.rows[0], queries.offsets[0]), Reshape((queries.rows.shape[2],))
        for op in (flat, rows):
            form = affine(op, op.absolute(), None, [form])
        return bounding(interval(form, self._spread(form))[0])

    def _form(self, bounds: LayerBounds, node: int, entries: int) -> Form | None:
        """The form of a node, if it is worth it for so many entries, both sides of each."""
        room = self._room(node, entries)
        if room == 0 or room < len(self._varied):
            return None
        for i in range(self._known, node + 1):
            self._instance.check()
            self._forms[i] = self._next(bounds, i, room)
            self._known = i + 1
            for j in {j for j in self._instance.network.nodes[i].inputs if self._last_use[j] == i}:
                del self._forms[j]
        return self._forms[node]

    def _room(self, node: int, entries: int) -> int:
        """How many symbols are worth it for so many entries of a node; zero where passes are not dear."""
        network, region = self._instance.network, self._instance.region
        if not isinstance(region, Box):
            return 0
        nodes = network.nodes[: node + 1]
        passes, ahead = 2 * entries * products(nodes), nodes[self._known :]
        if passes < _DEAR:
            return 0
        worth = passes // (_MANY * max(1, products(ahead)))
        return min(worth, _BYTES // (8 * len(region) * max([prod(n.shape) for n in ahead], default=1)))

    def _next(self, bounds: LayerBounds, i: int, room: int) -> Form:
        """The form of a node, from those before, with about so many symbols at most."""
        if i == 0:
            return inputs(bounds.lower[0], bounds.upper[0], self._varied)
        node = self._instance.network.nodes[i]
        operands = [self._forms[j] for j in node.inputs]
        parts = absolutes(node.op)
        if isinstance(node.op, Linear) and parts is not None:
            return affine(node.op, *parts, operands)
        relaxation = bounds.relaxations[i]
        band, shares = band_of(relaxation.box_lines()[1]), self._none(operands[0])
        spread, origin = spread_of(operands[0], shares)
        free = max(0, room - self._symbols)
        form, shares = activate(operands[0], spread, origin, relaxation, band, shares, free)
        self._symbols = shares.shape[1]
        return form

    def _spread(self, form: Form) -> Tensor:
        return spread_of(form, self._none(form))[0]

    def _none(self, form: Form) -> Tensor:
        """No shares of inputs in the symbols, of which nothing is asked."""
        return form.centre.new_zeros(len(form.centre), self._symbols, 0)


def parallel(instance: Instance, bounds: LayerBounds) -> Witness:
    """The lines that forms are made of: a backward pass on them proves what forms do."""
    steps: Witness = {}
    for i, relaxation in bounds.relaxations.items():
        slope = relaxation.slopes(Rule.PARALLEL)[1].unsqueeze(1)
        steps[i] = Single(relaxation, slope, slope)
    return steps


def record_parallel(instance: Instance, bounds: LayerBounds, node: int, lower: Tensor, upper: Tensor) -> Lemmas | None:
    """Record bounds of the undecided entries of a pre-activation, which forms prove; those of others are not."""
    if not instance.logs:
        return None
    mask, both = undecided(instance, bounds, node), torch.cat([lower.flatten(1), -upper.flatten(1)], 1)
    every = torch.arange(mask.shape[1], device=mask.device).expand(len(mask), -1)
    leaves = chosen(instance, parallel(instance, bounds), 1)
    lemmas = record_entries(instance, node, every, mask, both, leaves)
    assert lemmas is not None
    below, above = (shared(instance.network, node, t.reshape(lower.shape)) for t in lemmas.chunk(2, 1))
    return below, above
