"""Optimised slopes: dual ascent on the bound of every query at once (alpha-CROWN, Xu et al. 2021).

The gradient is written down, not traced. By Danskin's theorem the derivative of the bound with respect to the
coefficients at a node is a *primal point*: start at the minimiser of the final linear form over the region, run it
forward through the affine nodes, and at an activation follow the line the backward pass used. The derivative with
respect to a slope is then `coeff * (q - z)`, with q the primal point and z where the line touches the relaxation. One
iteration is one pass down and one pass up, without a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from krelax.activations import Activation, Rule
from krelax.bounds.backward import Form, Trace, back_substitute
from krelax.bounds.contracted import contractions, follow, gradients
from krelax.bounds.grouped import grouped
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.octagons import Joined
from krelax.bounds.steps import Parameter, Single, Step, Witness
from krelax.network.graph import Network, visit
from krelax.network.ops import Linear
from krelax.watch import now

# Coefficients that all steps of the ascents of one region's layers may meet, and steps to take anyway:
# the first four are worth 95 to 98 % of what twenty-four are.
WORK, _FEWEST = 6e8, 4


@dataclass(frozen=True)
class Ascent:
    """How long and how fast slopes are optimised; with `seconds`, not longer than that."""

    steps: int = 20
    rate: float = 0.1
    decay: float = 0.98
    seconds: float | None = None

    def affordable(self, network: Network, times: float = 1.0) -> Ascent:
        """Fewer steps, that shrink faster, for the pre-activations of a network where every step is dear; `times` as
        many as without groups."""
        steps = min(self.steps, max(_FEWEST, int(times * WORK / max(1, _work(network)))))
        return replace(self, steps=steps, decay=self.decay ** (self.steps / steps) ** 0.5)


def _work(network: Network) -> int:
    """Entries of coefficients that backward passes of all pre-activations meet."""
    total, below = 0, 0
    for node in network.nodes:
        if isinstance(node.op, Activation):
            total += prod(network.nodes[node.inputs[0]].shape) * below
        below += prod(node.shape)
    return total


def initial(bounds: LayerBounds, nodes: list[int], queries: int) -> Witness:
    """CROWN's adaptive slopes, one copy per query where they will be optimised."""
    result: Witness = {}
    for i in nodes:
        relaxation = bounds.relaxations[i]
        pair = zip(relaxation.slopes(Rule.ADAPTIVE), relaxation.optimised, strict=True)
        lower, upper = (
            s.unsqueeze(1).repeat(1, queries, *[1] * (s.dim() - 1)) if free else s.unsqueeze(1) for s, free in pair
        )
        groups = bounds.groups.get(i, ())
        if groups and not groups[0].joint.shared:
            result[i] = Joined(relaxation, groups[0], lower, upper)
            continue
        single = Single(relaxation, lower, upper)
        result[i] = grouped(single, groups, queries) if groups else single
    return result


def ascend(
    instance: Instance, form: Form, bounds: LayerBounds, ascent: Ascent, done: Callable[[Tensor], bool] | None = None
) -> Witness:
    """Slopes that raise the lower bound of every query of `form`; stops early when `done` says so of the bounds.

    A proposal in the fast type of the instance, in which `form` and `bounds` are given; the bound is whatever
    `lower_bound` makes of it.
    """
    nodes = [i for i in bounds.relaxations if i <= max(form.coeff)]
    witness = initial(bounds, nodes, form.constant.shape[1])
    climb(instance, form, bounds, witness, ascent, done)
    return witness


def climb(
    instance: Instance,
    form: Form,
    bounds: LayerBounds,
    witness: Witness,
    ascent: Ascent,
    done: Callable[[Tensor], bool] | None = None,
) -> None:
    """Optimise the parameters of a witness in place, from where they are."""
    climbers = [_Climber(p) for step in witness.values() for p in step.parameters()]
    if not climbers:
        return
    until = None if ascent.seconds is None else now() + ascent.seconds
    for step in range(ascent.steps):
        instance.check()
        if until is not None and now() > until:
            break
        trace = Trace()
        result, _ = back_substitute(instance.fast_network, form, witness, bounds, trace)
        if done is not None and done(result.constant + instance.fast_region.minimise(result.coeff[0])):
            break
        differentiate(instance, result.coeff[0], witness, trace)
        for climber in climbers:
            climber.climb(step, ascent.rate * ascent.decay**step)


class _Climber:
    """Adam (Kingma and Ba 2015) upwards on one tensor, in place, kept inside the relaxation's slope range.

    `torch.optim` would do the same, and takes a second to import.
    """

    # shorter memories than usual: these runs are short, and signs of coefficients flip on the way
    _MEAN, _SQUARE, _LEAST = 0.5, 0.9, 1e-20

    def __init__(self, parameter: Parameter) -> None:
        self._parameter = parameter
        # the least square keeps subnormal numbers, which are slow, out of the root
        self._first = torch.zeros_like(parameter.value)
        self._second = torch.full_like(parameter.value, self._LEAST)
        self._width = parameter.high - parameter.low if parameter.relative else None
        self._settle()

    def _settle(self) -> None:
        """Move to values that are worth having."""
        p = self._parameter
        nearest = p.value if p.nearest is None else p.nearest(p.value)
        if nearest.data_ptr() != p.value.data_ptr():
            p.value.copy_(nearest)

    def climb(self, step: int, rate: float) -> None:
        """One step along the gradient, if the tensor has one."""
        p, gradient = self._parameter, self._parameter.gradient
        if gradient is None:
            return
        self._first.lerp_(gradient, 1 - self._MEAN)
        self._second.mul_(self._SQUARE).addcmul_(gradient, gradient, value=1 - self._SQUARE)
        first, second = 1 - self._MEAN ** (step + 1), 1 - self._SQUARE ** (step + 1)
        spread = torch.sqrt(self._second, out=gradient)
        along = self._first if self._width is None else self._first * self._width
        p.value.addcdiv_(along, spread, value=p.scale * rate * second**0.5 / first)
        torch.clamp(p.value, p.low, p.high, out=p.value)
        self._settle()
        p.gradient = None


def differentiate(instance: Instance, coeff: Tensor, witness: Mapping[int, Step], trace: Trace) -> None:
    """Put the gradients of the bounds into the parameters: one pass up, from the minimiser over the region."""
    network = instance.fast_network
    points = {0: instance.fast_region.minimiser(coeff)}
    for i in reversed(trace.visited):
        node, op = network.nodes[i], network.nodes[i].op
        visit(op, node.shape, coeff.shape[0] * coeff.shape[1])
        if i in trace.sums:
            _follow_sums(network, i, points, witness, trace)
        elif isinstance(op, Linear):
            operands = [points[j] for j in node.inputs]
            value = op.forward(*(x.flatten(0, 1) for x in operands))
            points[i] = value.unflatten(0, operands[0].shape[:2])
        else:
            before = points[node.inputs[0]].contiguous()
            points[i] = witness[i].forward(trace.coeff[i], before, trace.tapes[i])


def _follow_sums(
    network: Network, i: int, points: dict[int, Tensor], witness: Mapping[int, Step], trace: Trace
) -> None:
    """The same for a node of sums of products that were crossed at once, whose lines may be optimised for all queries
    together."""
    sums, (coeff, lines) = contractions(network)[i], trace.sums[i]
    first, second = (points[j] for j in sums.operands)
    points[i] = follow(sums, coeff, (first, second), lines)
    step = witness[sums.product]
    if isinstance(step, Single) and step.parameters():
        step.learn(*gradients(sums, coeff, (first, second), lines))
