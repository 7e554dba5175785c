"""Smaller networks for many passes over the same bounds: neurons known to be inactive are left out.

Where the pre-activation of a ReLU is never positive, its output is exactly zero. Between dense layers such a neuron is
a row of one matrix and a column of the next, and without them the network is the same function on the region: nothing
is rounded, so a bound of the small network is a bound of the large one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from krelax.activations import Relaxation
from krelax.bounds.backward import Form
from krelax.bounds.groups import Groups
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.network.graph import Network, Node
from krelax.network.linear import Dense


def without_inactive(
    instance: Instance, bounds: LayerBounds, forms: tuple[Form, Form], top: int
) -> tuple[Instance, LayerBounds, tuple[Form, Form], dict[int, Tensor]]:
    """The same bounding problem over one region without its inactive neurons, where dense layers surround them, and
    without what lies above node `top`; and the entries that are left of the nodes that lose some. Nodes keep their
    numbers."""
    kept = _kept(instance.network, bounds, forms[0], top)
    exact, fast = (_restricted(n, kept, top) for n in (instance.network, instance.fast_network))
    small = LayerBounds()
    sides = zip(bounds.lower, bounds.upper, bounds.magnitude, strict=True)
    for i, (_, side) in enumerate(zip(exact.nodes, sides, strict=False)):
        small.append(*(_taken(t, kept.get(i)) for t in side))
    for i in bounds.relaxations.keys() & set(range(len(exact.nodes))):
        small.relax(exact, i)
        small.groups[i] = tuple(
            _renumbered(g, bounds.relaxations[i], kept.get(exact.nodes[i].inputs[0])) for g in bounds.groups.get(i, ())
        )
    asked = tuple(Form({i: _taken(a, kept.get(i)) for i, a in f.coeff.items()}, f.constant) for f in forms)
    return replace(instance, network=exact, fast_network=fast), small, (asked[0], asked[1]), kept


def _renumbered(groups: Groups, relaxation: Relaxation, kept: Tensor | None) -> Groups:
    """The groups all of whose members are left, and undecided, with their new places. `relaxation` is over all
    neurons."""
    undecided = relaxation.unstable()[0].flatten()
    whole = undecided[groups.members[0]].all(-1)
    places = groups.members if kept is None else torch.searchsorted(kept, groups.members).clamp(max=len(kept) - 1)
    if kept is not None:
        whole &= (kept[places] == groups.members).all(-1)[0]
    which = whole.nonzero()[:, 0]
    return groups.some(which, places[:, which])


def _kept(network: Network, bounds: LayerBounds, form: Form, top: int) -> dict[int, Tensor]:
    """For pre- and post-activations that lose neurons the entries of their last axis that stay, at least one."""
    readers: dict[int, list[int]] = {}
    for i, node in enumerate(network.nodes[: top + 1]):
        for j in node.inputs:
            readers.setdefault(j, []).append(i)
    kept = {}
    for i, relaxation in bounds.relaxations.items():
        if i > top or relaxation.op.leak != 0:
            continue
        source = network.nodes[i].inputs[0]
        dense = [source, *readers.get(i, ())]
        private = readers[source] == [i] and source not in form.coeff
        if private and _is_flat(network.nodes[i]) and all(isinstance(network.nodes[j].op, Dense) for j in dense):
            stays = ~(relaxation.upper <= 0).flatten()
            stays[0] |= ~stays.any()
            kept[source] = kept[i] = stays.nonzero()[:, 0]
    return kept


def _is_flat(node: Node) -> bool:
    return all(extent == 1 for extent in node.shape[:-1])


def _restricted(network: Network, kept: Mapping[int, Tensor], top: int) -> Network:
    """The nodes up to `top` with only the entries in `kept`."""
    nodes = []
    for i, node in enumerate(network.nodes[: top + 1]):
        op = node.op
        if isinstance(op, Dense):
            op = _submatrix(op, kept.get(i), kept.get(node.inputs[0]))
        shape = (*node.shape[:-1], len(kept[i])) if i in kept else node.shape
        nodes.append(replace(node, op=op, shape=shape))
    return replace(network, nodes=tuple(nodes), replay=None)


def _submatrix(op: Dense, rows: Tensor | None, columns: Tensor | None) -> Dense:
    def weights(t: Tensor | None) -> Tensor | None:
        return None if t is None else _taken(t if rows is None else t[rows], columns).contiguous()

    def biases(t: Tensor | None) -> Tensor | None:
        same = t is None or t.shape[-1:] != op.weight.shape[:1]  # none, or the same for all
        return t if same or t is None else _taken(t, rows)

    weight = weights(op.weight)
    assert weight is not None
    return Dense(weight, biases(op.bias), weights(op.weight_error), biases(op.bias_error))


def _taken(tensor: Tensor, index: Tensor | None) -> Tensor:
    """Entries of the last axis."""
    return tensor if index is None else tensor.index_select(-1, index)
