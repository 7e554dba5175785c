"""The tree of a branch and bound: which neurons were split, and how the bound rises from the root to the leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from krelax.bounds.backward import outputs
from krelax.bounds.evaluator import Evaluator
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.optimise import Ascent
from krelax.certificate.format.schema import CLIP, Lemma
from krelax.looks import BLACK, BLUE, GREY, PALE
from krelax.picture.geometry import Array
from krelax.picture.style import drawn, on
from krelax.problem.queries import Queries

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 12  # trees of more leaves are drawn without words


@dataclass(frozen=True)
class Node:
    """A node of a split tree: the neuron that is split, -1 for a leaf; its parent's number, -1 for the root; the splits
    on the way to it, as neurons and sides; its place from left to right, in leaves."""

    neuron: int
    parent: int
    path: tuple[tuple[int, int], ...]
    place: float


def trees(claim: Lemma) -> Iterator[list[Node]]:
    """The trees of a claim, form by form, each in preorder: first the side `z >= 0`, then `z <= 0`. Clips, which have
    one subtree each, are left out."""
    splits, at = claim.tree.tolist(), 0
    while at < len(splits):
        nodes: list[Node] = []
        at = _grow(splits, at, nodes, -1, ())
        yield _placed(nodes)


def _grow(tree: Sequence[int], at: int, nodes: list[Node], parent: int, path: tuple[tuple[int, int], ...]) -> int:
    """Append the subtree that begins at `at`; where the next one begins."""
    while tree[at] == CLIP:
        at += 1
    me, neuron = len(nodes), tree[at]
    nodes.append(Node(neuron, parent, path, 0.0))
    if neuron < 0:
        return at + 1
    middle = _grow(tree, at + 1, nodes, me, (*path, (neuron, 1)))
    return _grow(tree, middle, nodes, me, (*path, (neuron, -1)))


def _placed(nodes: list[Node]) -> list[Node]:
    """Leaves side by side, every split in the middle above its children."""
    place = [0.0] * len(nodes)
    for at, i in enumerate(i for i, node in enumerate(nodes) if node.neuron < 0):
        place[i] = float(at)
    for i in range(len(nodes) - 1, 0, -1):  # children come behind their parents
        place[nodes[i].parent] += place[i] / 2
    return [Node(n.neuron, n.parent, n.path, p) for n, p in zip(nodes, place, strict=True)]


def bounds(
    instance: Instance, queries: Queries, query: int, layers: LayerBounds, nodes: Sequence[Node], ascent: Ascent
) -> Array:
    """A proven lower bound of one margin in every node of a tree, `(nodes,)`: that of its own ascent over what is known
    of the region, or its parent's, whichever is better.

    Raises ValueError for networks with other activations than ReLUs and leaky ReLUs: neurons have other numbers there
    in a search than in a certificate.
    """
    if not all(r.triangle() for r in layers.relaxations.values()):
        raise ValueError("bounds in the nodes of a tree need a network of ReLUs and leaky ReLUs only")
    networks = instance.network, instance.fast_network
    forms = [outputs(n, queries.rows.to(n.dtype), queries.offsets.to(n.dtype)) for n in networks]
    evaluator = Evaluator(instance, layers, forms[0], forms[1])
    depth = max(1, *(len(node.path) for node in nodes))
    leaves = evaluator.roots(torch.full((len(nodes),), query), depth)
    for row, node in enumerate(nodes):
        for column, (neuron, side) in enumerate(node.path):
            leaves.neuron[row, column], leaves.side[row, column] = neuron, side
    with torch.no_grad():
        evaluator.improve(leaves, ascent)
        found: Array = evaluator.prove(leaves).numpy().copy()
    for row, node in enumerate(nodes):
        found[row] = max(found[row], found[node.parent] if node.parent >= 0 else -np.inf)
    return found


@drawn
def tree(nodes: Sequence[Node], values: Array | None = None, axes: Axes | None = None) -> Figure:
    """A split tree, from the root: at the height of the bounds `values`, `(nodes,)`, or, without them, of its depth.

    Solid lines go to `z >= 0`, dashed ones to `z <= 0`. Circles are splits. Leaves are squares, blue if
    their bound is positive, which closes them. Small trees say which neuron is split.
    """
    figure, axes = on(axes, 7.0, 3.8)
    height = -np.array([float(len(n.path)) for n in nodes]) if values is None else values
    _edges(axes, nodes, height)
    leaf = np.array([node.neuron < 0 for node in nodes])
    closed = leaf & (height > 0) & (values is not None)
    for which, mark, fill in ((~leaf, "o", "white"), (leaf & ~closed, "s", PALE), (closed, "s", BLUE)):
        places = [node.place for node, chosen in zip(nodes, which, strict=True) if chosen]
        axes.plot(places, height[which], mark, color=BLACK, markerfacecolor=fill, markersize=6, zorder=2)
    _finish(axes, nodes, height, values is not None)
    return figure


def _edges(axes: Axes, nodes: Sequence[Node], height: Array) -> None:
    """A line from every node to its parent, by the side that the split took."""
    for side, dash in ((1, "-"), (-1, "--")):
        below = [i for i, node in enumerate(nodes) if node.parent >= 0 and node.path[-1][1] == side]
        ends = [(nodes[i].parent, i) for i in below]
        x = [x for a, b in ends for x in (nodes[a].place, nodes[b].place, np.nan)]
        y = [y for a, b in ends for y in (height[a], height[b], np.nan)]
        axes.plot(x, y, color=GREY, linewidth=1.0, linestyle=dash, zorder=1)


def _finish(axes: Axes, nodes: Sequence[Node], height: Array, bounded: bool) -> None:
    """Words, and the line that leaves have to get above."""
    leaves = sum(node.neuron < 0 for node in nodes)
    if leaves <= _NAMED:
        for node, y in zip(nodes, height, strict=True):
            if node.neuron >= 0:
                away = -1 if node.parent >= 0 and nodes[node.parent].place > node.place else 1  # from the parent's line
                style: dict[str, Any] = {"fontsize": 9, "ha": "left" if away > 0 else "right"}
                axes.annotate(str(node.neuron), (node.place, y), (6 * away, -11), textcoords="offset points", **style)
    axes.set(xlabel=f"{leaves} leaves; solid: $z \\geq 0$, dashed: $z \\leq 0$", xticks=(), xlim=(-0.6, leaves - 0.4))
    axes.margins(y=0.08)
    axes.spines["bottom"].set_visible(False)
    if bounded:
        axes.axhline(0, color=BLACK, linewidth=0.8, zorder=0)
        axes.set_ylabel("lower bound of the margin")
    else:
        depth = -int(height.min(initial=0))
        axes.set_yticks(range(-depth, 1), [str(d) for d in range(depth, -1, -1)])
        axes.set_ylabel("splits")
