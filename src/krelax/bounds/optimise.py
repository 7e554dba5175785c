"""Optimised slopes: dual ascent on the bound of every query at once (alpha-CROWN, Xu et al. 2021).

The gradient is written down, not traced. By Danskin's theorem the derivative of the bound with respect to the
coefficients at a node is a *primal point*: start at the minimiser of the final linear form over the region, run it
forward through the affine nodes, and at an activation follow the line the backward pass used. The derivative with
respect to a slope is then `coeff * (q - z)`, with q the primal point and z where the line touches the relaxation. One
iteration is one pass down and one pass up, without a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from krelax.bounds.backward import Form, Trace, back_substitute
from krelax.bounds.instance import Instance
from krelax.bounds.intervals import Intervals
from krelax.network.ops import Linear
from krelax.relaxations import Lines, Relaxation, Rule


@dataclass(frozen=True)
class Ascent:
    """How long and how fast slopes are optimised."""

    steps: int = 20
    rate: float = 0.1
    decay: float = 0.98


@dataclass
class Slopes:
    """Slopes of one activation, `(batch, queries, *shape)` where optimised, `(batch, 1, *shape)` where shared.

    Any values are sound; this is the witness.
    """

    lower: Tensor
    upper: Tensor

    def to(self, dtype: torch.dtype) -> Slopes:
        """The same slopes in another type."""
        return Slopes(self.lower.to(dtype), self.upper.to(dtype))


Witness = dict[int, Slopes]


def initial(known: Intervals, nodes: list[int], queries: int) -> Witness:
    """CROWN's adaptive slopes, one copy per query where they will be optimised."""
    result: Witness = {}
    for i in nodes:
        relaxation = known.relaxations[i]
        pair = zip(relaxation.slopes(Rule.ADAPTIVE), relaxation.optimised, strict=True)
        lower, upper = (
            s.unsqueeze(1).repeat(1, queries, *[1] * (s.dim() - 1)) if free else s.unsqueeze(1) for s, free in pair
        )
        result[i] = Slopes(lower, upper)
    return result


def lines_of(known: Intervals, witness: Witness) -> dict[int, Lines]:
    """Sound lines with the slopes of a witness."""
    return {i: known.relaxations[i].lines(s.lower, s.upper) for i, s in witness.items()}


class _Lines:
    """Lines of the current witness, recomputing only what changes from step to step."""

    def __init__(self, known: Intervals, witness: Witness) -> None:
        self._known, self._witness = known, witness
        self._fixed = lines_of(known, witness)

    def now(self) -> dict[int, Lines]:
        return {i: self._line(i, s) for i, s in self._witness.items()}

    def _line(self, node: int, slopes: Slopes) -> Lines:
        fixed, relaxation = self._fixed[node], self._known.relaxations[node]
        if relaxation.optimised[1] or (relaxation.optimised[0] and fixed.below is not None):
            return relaxation.lines(slopes.lower, slopes.upper)
        return Lines(slopes.lower, fixed.upper, fixed.below, fixed.above, fixed.lower_at, fixed.upper_at)


def _parameters(known: Intervals, witness: Witness) -> list[tuple[Tensor, Relaxation]]:
    result = []
    for i, slopes in witness.items():
        relaxation = known.relaxations[i]
        for tensor, free in zip((slopes.lower, slopes.upper), relaxation.optimised, strict=True):
            if free:
                result.append((tensor, relaxation))
    return result


def ascend(
    instance: Instance, form: Form, known: Intervals, ascent: Ascent, done: Callable[[Tensor], bool] | None = None
) -> Witness:
    """Slopes that raise the lower bound of every query of `form`; stops early when `done` says so of the bounds.

    A proposal in the fast type of the instance, in which `form` and `known` are given; the bound is whatever
    `lower_bound` makes of it.
    """
    nodes = [i for i in known.relaxations if i <= max(form.coeff)]
    witness = initial(known, nodes, form.constant.shape[1])
    parameters = _parameters(known, witness)
    if not parameters or ascent.steps == 0:
        return witness
    climbers = [_Climber(tensor, relaxation) for tensor, relaxation in parameters]
    lines = _Lines(known, witness)
    for step in range(ascent.steps):
        instance.check()
        current = lines.now()
        trace = Trace()
        result, _ = back_substitute(instance.fast_network, form, current, known, trace)
        if done is not None and done(result.constant + instance.fast_region.minimise(result.coeff[0])):
            break
        _differentiate(instance, result.coeff[0], known, witness, current, trace)
        for climber in climbers:
            climber.climb(step, ascent.rate * ascent.decay**step)
    return witness


class _Climber:
    """Adam (Kingma and Ba 2015) upwards on one tensor, in place, kept inside the relaxation's slope range.

    `torch.optim` would do the same, and takes a second to import.
    """

    # shorter memories than usual: these runs are short, and signs of coefficients flip on the way
    _MEAN, _SQUARE, _LEAST = 0.5, 0.9, 1e-20

    def __init__(self, tensor: Tensor, relaxation: Relaxation) -> None:
        self._tensor, self._scale = tensor, relaxation.step
        self._low, self._high = (t.unsqueeze(1) for t in relaxation.slope_range())
        # the least square keeps subnormal numbers, which are slow, out of the root
        self._first, self._second = torch.zeros_like(tensor), torch.full_like(tensor, self._LEAST)

    def climb(self, step: int, rate: float) -> None:
        """One step along the gradient, if the tensor has one."""
        gradient = self._tensor.grad
        if gradient is None:
            return
        self._first.lerp_(gradient, 1 - self._MEAN)
        self._second.mul_(self._SQUARE).addcmul_(gradient, gradient, value=1 - self._SQUARE)
        first, second = 1 - self._MEAN ** (step + 1), 1 - self._SQUARE ** (step + 1)
        spread = torch.sqrt(self._second, out=gradient)
        self._tensor.addcdiv_(self._first, spread, value=self._scale * rate * second**0.5 / first)
        torch.clamp(self._tensor, self._low, self._high, out=self._tensor)
        self._tensor.grad = None


def _differentiate(
    instance: Instance, coeff: Tensor, known: Intervals, witness: Witness, lines: Mapping[int, Lines], trace: Trace
) -> None:
    """Put the gradients of the bounds into the slopes: one pass up, from the minimiser over the region."""
    network = instance.fast_network
    points = {0: instance.fast_region.minimiser(coeff)}
    for i in reversed(trace.visited):
        node, op = network.nodes[i], network.nodes[i].op
        operands = [points[j] for j in node.inputs]
        if isinstance(op, Linear):
            value = op.forward(*(x.flatten(0, 1) for x in operands))
            points[i] = value.unflatten(0, operands[0].shape[:2])
        else:
            q, line, relaxation = operands[0], lines[i], known.relaxations[i]
            points[i] = _follow(trace.coeff[i], q, line, relaxation)
            _slope_gradients(trace.coeff[i], q, line, relaxation, witness[i])


def _follow(coeff: Tensor, q: Tensor, line: Lines, relaxation: Relaxation) -> Tensor:
    """Primal point after an activation: on the line that the sign of the coefficient chose."""
    positive = torch.gt(coeff, 0, out=torch.empty_like(coeff))  # a mask of floats: `where` is ten times slower
    if relaxation.reduces:
        along = (torch.lerp(line.upper, line.lower, positive.unsqueeze(-1)) * q).sum(-1)
    else:
        along = torch.lerp(line.upper, line.lower, positive).mul_(q)
    below = line.above.new_zeros(()) if line.below is None else -line.below
    return along.add_(torch.lerp(line.above, below.expand_as(line.above), positive))


def _slope_gradients(coeff: Tensor, q: Tensor, line: Lines, relaxation: Relaxation, slopes: Slopes) -> None:
    """Gradient of the bounds with respect to the optimised slopes of one (elementwise) activation."""
    if relaxation.optimised[0]:
        slopes.lower.grad = coeff.clamp(min=0) * (q if line.lower_at is None else q - line.lower_at)
    if relaxation.optimised[1]:
        slopes.upper.grad = coeff.clamp(max=0) * (q if line.upper_at is None else q - line.upper_at)
