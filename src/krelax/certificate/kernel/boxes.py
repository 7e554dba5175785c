"""Proofs that cut the region into boxes: in each of them every bound is derived anew, by rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice, repeat, takewhile

import numpy as np

from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.questions import UNIT, Box, leaves_of_boxes
from krelax.certificate.format.schema import Boxes
from krelax.certificate.kernel.arithmetic import Floats
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.closed_form import bound_entries, bound_forms
from krelax.certificate.kernel.context import Context
from krelax.certificate.kernel.forms import PushedForms
from krelax.certificate.kernel.linear import Index
from krelax.certificate.kernel.network import Activation, Affine
from krelax.certificate.kernel.region import Region

# Boxes that are cut although the certificate does not: at most so many, and no more than a few beside its own number.
_MOST_CUTS, _FEW_CUTS = 1000, 16
# Affine forms may take so many times the memory of one portion of rows.
_FORMS = 4

# The weakest clause in each region, from what is proven of the margins there, `(regions, margins)`.
Weakest = Callable[[LayerBounds, Floats], Floats]
# Lower bounds of forms, each `rows` and `offsets` over one of the regions.
_Rule = Callable[[Floats, Floats, Index], Floats]
# A box, and the weights of all margins in it, if it has any.
_Leaf = tuple[Box, Floats | None]


def check_boxes(context: Context, boxes: Boxes, weakest: Weakest) -> float:
    """The smallest margin over the leaves of a tree of boxes. Those that prove nothing are cut in halves, unless they
    are too many: their finder may have had other slopes. With weights, the last node has all margins, and the forms of
    the context are sums of those of each clause."""
    root = context.bounds.region.lower[0], context.bounds.region.upper[0]
    cuts = min(_MOST_CUTS, _FEW_CUTS + len(boxes.cut))
    shares: Iterator[Floats | None] = repeat(None) if boxes.weights is None else iter(boxes.weights / UNIT)
    leaves, waiting, worst = zip(leaves_of_boxes(boxes, root), shares, strict=False), list[_Leaf](), np.inf
    portion = portion_of(context)
    while part := waiting[:portion] or list(islice(leaves, portion)):
        del waiting[:portion]
        lower, upper = (np.array(side) for side in zip(*(box for box, _ in part), strict=True))
        weights = None if boxes.weights is None else np.array([w for _, w in part])
        offsets = np.broadcast_to(context.offsets, (len(part), len(context.offsets)))
        margins, _ = in_boxes(context, Region(lower, upper), offsets, weights, weakest)
        failed = np.flatnonzero(~(margins > 0) & (lower < upper).any(1))
        if len(failed) > cuts:
            return float(margins.min())
        waiting += [(half, part[i][1]) for i in failed for half in _halves(part[i][0], root)]
        cuts -= len(failed)
        margins[failed] = np.inf
        worst = float(np.minimum(worst, margins.min()))  # which NaN, that nothing is proven, passes
    return worst


def behind_bottleneck(context: Context, width: int, outputs: int) -> tuple[Context, int]:
    """The network behind the last node with so many entries before the first activation that everything goes through,
    over what interval arithmetic says of that node; and its number. It lies before the node `outputs`, whose values
    errors of margins multiply.

    Raises Malformed if there is none, and Rejected for float32: an execution may compute what is before that node
    together with what is behind, and never the node itself. Sound: values of the node lie in its interval.
    """
    network, bounds = context.network, context.bounds
    if bounds.float32:
        raise Rejected("boxes of a bottleneck in float32 semantics")
    reads = [min(node.inputs, default=0) if node is not None else 0 for node in network.nodes]
    affine = takewhile(lambda i: isinstance(network.nodes[i], Affine), range(1, outputs))
    found = [i for i in affine if network.size(i) == width and min(reads[i + 1 :]) >= i]
    if not found:
        raise Malformed(f"boxes of a bottleneck with {width} entries, which the network does not have")
    node = found[-1]
    for _ in range(node):
        bounds = bounds.advanced()
    rest = (replace(n, inputs=tuple(i - node for i in n.inputs)) for n in network.nodes[node + 1 :] if n is not None)
    behind = replace(network, nodes=(None, *rest), input_size=width)
    region = Region(bounds.lower[node], bounds.upper[node])
    return replace(context, bounds=LayerBounds.of(behind, region, bounds.ar, False)), node


def portion_of(context: Context, symbols: int | None = None) -> int:
    """How many boxes to look at together, if forms have so many symbols; None: if every neuron leaves a gap between its
    lines."""
    network = context.network
    most = network.size(0) + int(network.offsets[-1]) if symbols is None else max(1, symbols)
    return max(1, _FORMS * context.portion // most)


def _halves(box: Box, root: Box) -> tuple[Box, Box]:
    """A box cut across the input that is widest there, compared with the region."""
    (lower, upper), widths = box, (root[1] - root[0]).clip(2.0**-1000)
    i = int(((upper - lower) / widths).argmax())
    at, middle = np.arange(len(lower)) == i, lower[i] / 2 + upper[i] / 2
    return (lower, np.where(at, middle, upper)), (np.where(at, middle, lower), upper)


def in_boxes(
    context: Context,
    boxes: Region,
    constants: Floats,
    weights: Floats | None,
    weakest: Weakest,
    free: int | None = None,
) -> tuple[Floats, int]:
    """What is proven of the weakest clause in each box; `constants`, `(regions, margins)`, are added to the forms. Only
    the first `free` inputs have symbols, if that is given. Also how many symbols there were.

    Each form has the first of four rules that make it positive: what was pushed forward, two backward passes, and that
    to second order."""
    here, pushed = _derived(context, boxes, free)
    count, last, ar = len(here.rows), len(here.network.nodes) - 1, here.bounds.ar
    values = np.empty(len(boxes.lower) * count)
    rules: tuple[_Rule, ...] = (
        partial(pushed.lowest, ar),
        partial(bound_forms, here, last, False),
        partial(bound_forms, here, last, True),
        partial(pushed.to_second_order, ar),
    )
    for batch in here.batches(len(values)):
        regions, form = np.divmod(np.arange(batch.start, batch.stop), count)
        rows, offsets = here.rows[form], constants[regions, form]
        rows = rows if weights is None else rows * weights[regions]
        found = np.full(len(rows), -np.inf)
        for rule in rules:
            open_ = np.flatnonzero(~(found > 0))
            if len(open_):
                found[open_] = np.fmax(found[open_], rule(rows[open_], offsets[open_], regions[open_]))
        values[batch] = found
    return weakest(here.bounds, values.reshape(-1, count)), pushed.count


def _derived(context: Context, boxes: Region, free: int | None = None) -> tuple[Context, PushedForms]:
    """Bounds of all nodes in boxes: of pre-activations what parallel lines say, whether interval arithmetic would say
    more or not, so that lines are those of the search that cut the boxes. What overflows stays as it is."""
    network, ar, float32 = context.network, context.bounds.ar, context.bounds.float32
    here = replace(context, bounds=LayerBounds.of(network, boxes, ar, float32))
    forms = PushedForms(here.bounds, free)
    for i, node in enumerate(network.nodes[1:], start=1):
        if isinstance(node, Activation):
            z = node.inputs[0]
            old, sides = (here.bounds.lower[z], here.bounds.upper[z]), forms.interval(ar, z)
            if sides is None:
                sides = bound_entries(here, z, np.nonzero(np.ones(old[0].shape, bool)), True)
            better = (np.where(np.isfinite(new), new, known) for new, known in zip(sides, old, strict=True))
            here = replace(here, bounds=here.bounds.replaced(z, *better))
        here = replace(here, bounds=here.bounds.advanced())
        forms.push(here.bounds, i)
    return here, forms
