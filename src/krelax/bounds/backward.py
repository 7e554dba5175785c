"""The backward pass: a linear form of any node becomes a linear form of the input, plus a constant.

At an affine node the form is pulled back by the adjoint. At an activation a step (`krelax.bounds.steps`) chooses slopes
and pays the support function of the activation's relaxation for them. Whatever the slopes, the result is a lower bound
of the form on the region (weak duality).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from krelax.activations import Lines
from krelax.bounds.contracted import Contraction, contractions, cross, rounding
from krelax.bounds.copies import sources
from krelax.bounds.layers import LayerBounds
from krelax.bounds.rounding import bounding, charge, gamma, underflow
from krelax.bounds.steps import Relaxed, Step, Tapes
from krelax.network.graph import Network, visit
from krelax.network.linear import dense_rows
from krelax.network.ops import Linear, one_hot
from krelax.problem.region import Region, dot


@dataclass
class Form:
    """`sum_i <coeff[i], node i> + constant`, with coefficients `(batch | 1, queries, *shape)` and constants
    `(batch, queries)`."""

    coeff: dict[int, Tensor]
    constant: Tensor

    def take(self, node: int) -> Tensor | None:
        """Remove and return the coefficients of a node."""
        return self.coeff.pop(node, None)

    def give(self, node: int, coeff: Tensor) -> None:
        """Add coefficients to a node."""
        present = self.coeff.get(node)
        self.coeff[node] = coeff if present is None else present + coeff

    def cross(self, node: int, relaxed: Relaxed) -> None:
        """Pay for an activation whose pre-activation is `node`, and carry on its relaxed coefficients."""
        self.constant = self.constant - relaxed.price
        self.give(node, relaxed.slopes)


@dataclass
class Trace:
    """What a backward pass met on its way: coefficients at every activation, the tapes of its steps, and the nodes it
    visited. Of sums of products that were crossed at once it has coefficients, too, and the lines."""

    coeff: dict[int, Tensor] = field(default_factory=dict)
    sums: dict[int, tuple[Tensor, Lines]] = field(default_factory=dict)
    tapes: Tapes = field(default_factory=dict)
    visited: list[int] = field(default_factory=list)


def neurons(network: Network, node: int, index: Tensor) -> Form:
    """The forms that pick entries `index`, `(batch | 1, queries)`, of a flattened node.

    An affine node whose constants are exact is crossed at once: unit coefficients pull its weights back unrounded, and
    passes start behind it. Where they are not, passes start at the node, and charge their errors.
    """
    inner, op = network.nodes[node], network.nodes[node].op
    flat = inner.shape[-1] == prod(inner.shape)
    crossed = isinstance(op, Linear) and op.is_exact
    rows = dense_rows(op, index) if isinstance(op, Linear) and crossed and flat else None
    if rows is not None and isinstance(op, Linear):
        bias = op.constant()
        constant = rows.new_zeros(index.shape) if bias is None else bias.flatten()[index]
        shape = network.nodes[inner.inputs[0]].shape
        return Form({inner.inputs[0]: rows.reshape(*index.shape, *shape)}, constant)
    form = Form({}, torch.zeros(index.shape, dtype=network.dtype, device=index.device))
    for source, unit in _units(network, node, index):
        op = network.nodes[source].op
        if isinstance(op, Linear) and op.is_exact:
            pull(network, source, op, unit, form)
        else:
            form.give(source, unit)
    return form


def _units(network: Network, node: int, index: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Unit coefficients of what entries `index` of a node are: of itself, or, where it only copies, of those nodes
    whose entries it copies."""
    found = sources(network, node)
    for source, places in [(node, None)] if found is None else found.items():
        shape = network.nodes[source].shape
        at = index if places is None else places.to(index.device)[index]
        unit = one_hot(at.clamp(min=0).flatten(), shape, network.dtype).unflatten(0, index.shape)
        if places is not None:
            unit = unit * (at >= 0).to(unit)[(..., *(None,) * len(shape))]
        yield source, unit


def outputs(network: Network, rows: Tensor, offsets: Tensor) -> Form:
    """The forms `rows @ y + offsets` of the network's flattened output y: `(batch | 1, queries, outputs)`."""
    last = len(network.nodes) - 1
    return Form({last: rows.reshape(*rows.shape[:-1], *network.output_shape)}, offsets)


def signed(form: Form) -> Form:
    """The forms and their negatives, joined along the query axis: their lower bounds bound the forms both ways."""
    coeff = {i: torch.cat([a, -a], dim=1) for i, a in form.coeff.items()}
    return Form(coeff, torch.cat([form.constant, -form.constant], dim=1))


def bias_term(op: Linear, coeff: Tensor) -> Tensor | None:
    """`<coeff, bias>`, `(batch, queries)`."""
    bias = op.constant()
    return None if bias is None else dot(coeff, bias.expand(coeff.shape[2:])[None, None])


def pull(network: Network, node: int, op: Linear, coeff: Tensor, form: Form) -> None:
    """Carry the coefficients of an affine node to its inputs."""
    term = bias_term(op, coeff)
    if term is not None:
        form.constant = form.constant + term
    inputs = network.nodes[node].inputs
    parts = op.adjoint(coeff.flatten(0, 1), *(network.nodes[j].shape for j in inputs))
    for j, part in zip(inputs, parts, strict=True):
        form.give(j, part.unflatten(0, coeff.shape[:2]))


def contract(network: Network, form: Form, sums: Contraction, coeff: Tensor, lines: Lines) -> None:
    """Carry the coefficients of a node that sums up products to the operands of these."""
    first, second = sums.operands
    crossed = cross(sums, (network.nodes[first].shape, network.nodes[second].shape), coeff, lines)
    form.constant = form.constant - crossed.price
    form.give(first, crossed.coeff[0])
    form.give(second, crossed.coeff[1])


def _charged(
    network: Network,
    bounds: LayerBounds,
    sums: Contraction,
    lines: Lines,
    coeff: Tensor,
    node: int,
    trace: Trace | None,
) -> Tensor | float:
    """What rounding may change where sums of products are crossed; nothing where there is a trace, which gets them."""
    if trace is None:
        return rounding(sums, bounds, lines, coeff, node, len(network.nodes))
    trace.visited.append(node)
    trace.sums[node] = coeff, lines
    return 0.0


def rounding_of(network: Network, bounds: LayerBounds, node: int, coeff: Tensor, terms: int) -> Tensor:
    """What the rounding of sums of so many terms at a node with these coefficients may change, `(batch, queries)`;
    what products lose that underflow included."""
    error = charge(coeff, bounds.magnitude[node], terms)
    for j in (node, *network.nodes[node].inputs):
        error = error + underflow(terms, bounds.magnitude[j])
    return error


def back_substitute(
    network: Network,
    form: Form,
    witness: Mapping[int, Step],
    bounds: LayerBounds,
    trace: Trace | None = None,
    tapes: Tapes | None = None,
) -> tuple[Form, Tensor | float]:
    """Rewrite a form over the network as one over its input.

    Returns the form (with coefficients of node 0 only) and a bound of its rounding error,
    `(batch, queries)`, so that `form(x) - error` is a lower bound of the given form at every x of the region.
    With a `trace` nothing is charged for rounding (the pass proposes, it does not prove). The tapes of steps go into
    `tapes`, if they are asked for, and into a trace.
    """
    tapes = tapes if trace is None else trace.tapes
    form = Form(dict(form.coeff), form.constant)
    error: Tensor | float = 0.0
    sums = contractions(network) if tapes is None or trace is not None else {}
    visits = {i for i, step in witness.items() if step.wants_a_visit}
    for i in range(max([*form.coeff, *visits]), 0, -1):
        coeff = form.take(i)
        if coeff is None and i in visits:
            coeff = form.constant.new_zeros(*form.constant.shape, *network.nodes[i].shape)
        if coeff is None:
            continue
        node, op = network.nodes[i], network.nodes[i].op
        visit(op, node.shape, coeff.shape[0] * coeff.shape[1])
        if i in sums and (lines := witness[sums[i].product].shared()) is not None:
            contract(network, form, sums[i], coeff, lines)
            error = error + _charged(network, bounds, sums[i], lines, coeff, i, trace)
            continue
        terms = coeff[0, 0].numel() + len(network.nodes) + (op.terms if isinstance(op, Linear) else 0)
        if isinstance(op, Linear):
            pull(network, i, op, coeff, form)
            rounds = not op.moves_only or op.terms > 1
        else:
            step, coeff = witness[i], coeff.contiguous()
            relaxed = step.backward(coeff)
            form.cross(node.inputs[0], relaxed)
            rounds = True
            if tapes is not None:
                tapes[i] = relaxed.tape
            if trace is None:
                terms += relaxed.slopes[0, 0].numel() * step.relaxation.reduces
                error = error + charge(relaxed.slopes, step.relaxation.magnitude, terms)
                if relaxed.absolute is not None:
                    error = error + gamma(terms, coeff.dtype) * relaxed.absolute
        if trace is not None:
            trace.visited.append(i)
            if not isinstance(op, Linear):
                trace.coeff[i] = coeff
        elif rounds:
            error = error + rounding_of(network, bounds, i, coeff, terms)
    return form, error


def lower_bound(
    network: Network,
    region: Region,
    form: Form,
    witness: Mapping[int, Step],
    bounds: LayerBounds,
    tapes: Tapes | None = None,
) -> Tensor:
    """Lower bound of a form over the region, `(batch, queries)`: the value of the witness.

    Sound for the network as a function of real numbers whatever the witness: every rounding error of this very
    computation is bounded and subtracted; what overflows is no bound (minus infinity). This is the only way a backward
    bound comes to be. The tapes of its steps, which say what groups chose, go into `tapes`.
    """
    return least(network, region, *over_inputs(network, form, witness, bounds, tapes))


def over_inputs(
    network: Network, form: Form, witness: Mapping[int, Step], bounds: LayerBounds, tapes: Tapes | None = None
) -> tuple[Tensor | None, Tensor]:
    """An affine bound of a form, `coeff @ x + constant`, that is not above it at any x of the region: coefficients
    `(batch, queries, *input_shape)`, None if there are none, and constants `(batch, queries)`. Sound as `lower_bound`.
    """
    result, error = back_substitute(network, form, witness, bounds, tapes=tapes)
    value = result.constant - error
    # the constant itself: starting offset and sums of scalars
    value = value - gamma(len(network.nodes), value.dtype) * form.constant.abs()
    return result.take(0), value


def least(network: Network, region: Region, coeff: Tensor | None, constant: Tensor) -> Tensor:
    """The minima of what `over_inputs` gives, `(batch, queries)`; minus infinity for what overflows."""
    value = constant
    if coeff is not None:
        terms = 2 * coeff[0, 0].numel() + len(network.nodes)
        value = value + region.minimise(coeff, slack=gamma(terms, coeff.dtype)) - underflow(terms, region.magnitude)
    return bounding(value)
