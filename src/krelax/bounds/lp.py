"""The triangle linear program solved by HiGHS, and what its dual solution proves.

The multipliers of the rows that define the pre-activations are slopes: the optimum of the program is the best value
of the backward pass over all slopes (Salman et al. 2019, theorem on strong duality). So the solver proposes slopes
and `value_of` evaluates them; its objective is never a bound.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from krelax.bounds.instance import Instance
from krelax.bounds.intervals import Intervals
from krelax.bounds.lp_model import Entries, Floats, Model, Places, build, joined
from krelax.bounds.rounding import gamma, underflow
from krelax.network.activations import Activation
from krelax.network.graph import Network
from krelax.network.linear import one_hot
from krelax.network.ops import Linear
from krelax.problem.region import dot
from krelax.relaxations import Relaxation, relax

# No solve goes on for ever: one that reaches a limit is not optimal, and its slopes are as sound as any. From a good
# basis the simplex method takes about half as many iterations as there are rows; interior points take 20 to 40.
_SIMPLEX_LIMIT, _INTERIOR_LIMIT = 4, 120  # times the number of rows; iterations


class Status(StrEnum):
    """How a solve ended; none of them says anything about soundness."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"  # the bounds contradict each other: after splits, the region is empty
    UNFINISHED = "unfinished"  # a limit, or numerical trouble


@dataclass(frozen=True, eq=False)
class Solution:
    """What the solver says; nothing of it is trusted.

    `x` holds the value of every column and `duals` the multiplier of every row. `slopes[i]`, `(1, *shape of z)`, are
    the multipliers of the rows that define the pre-activations of activation i, with the sign of the coefficients that
    the backward pass carries on z. `multipliers[handle] >= 0` are those of added rows. Where `status` is infeasible,
    the multipliers are a ray instead: if the value of the zero form with these slopes is positive, the region is empty.
    """

    status: Status
    objective: float
    x: Floats
    duals: Floats
    slopes: dict[int, Tensor]
    multipliers: dict[int, float]


@dataclass(frozen=True, eq=False)
class Cut:
    """An inequality `sum values * x[columns] <= upper`, for `Program.add_rows`."""

    columns: Sequence[int] | Places
    values: Sequence[float] | Floats
    upper: float


class Program:
    """The triangle linear program of everything the node `last` (default: the output) depends on, over region `image`.

    Solved many times: for other objectives, and with rows added and dropped, each from the basis of the solve before.
    One thread at a time may use a program; several programs solve side by side in threads. `known` must stay as it is.
    Every solve raises OutOfTime if the instance's deadline has passed when it starts.
    See `krelax.bounds.lp_model.build` for `inactive` and for the errors raised.
    """

    def __init__(
        self, instance: Instance, known: Intervals, image: int = 0, last: int | None = None, inactive: bool = False
    ) -> None:
        self.instance, self.known, self.image = instance, known, image
        self.last = len(instance.network.nodes) - 1 if last is None else last
        with torch.no_grad():
            self.model = build(instance.network, instance.region, known, image, self.last, inactive)
        self._solver = _load(self.model)
        self._handles: list[int] = []
        self._added, self._warm = 0, False

    def before(self, activation: int) -> Places:
        """Columns of the flattened pre-activations of an activation; -1 for those that do not matter."""
        return self.model.before[activation]

    def after(self, node: int) -> Entries:
        """The flattened post-activations of an activation, or the input for node 0, as multiples of columns."""
        return self.model.after[node]

    def minimise(self, coeff: Tensor, constant: float = 0.0, node: int | None = None, cold: bool = False) -> Solution:
        """Minimise `<coeff, node> + constant`; coefficients `(*shape)` of `node` (default: `last`), which lies in what
        `last` depends on. With `cold` the interior point method starts afresh: for large dense networks and unrelated
        objectives that can be faster than the simplex method from the basis of the solve before."""
        node = self.last if node is None else node
        shape = self.model.network.nodes[node].shape
        with torch.no_grad():
            form, offset = self.model.form(node, coeff.detach().cpu().to(torch.float64).reshape(1, *shape))
        cost = np.zeros(len(self.model.lower))
        np.add.at(cost, form.index, form.value)
        self._solver.changeColsCost(len(cost), np.arange(len(cost), dtype=np.int32), cost)
        self._solver.changeObjectiveOffset(float(offset[0]) + constant)
        return self.solve(cold)

    def value(self, coeff: Tensor, constant: Tensor, slopes: Mapping[int, Tensor], node: int | None = None) -> Tensor:
        """`value_of` for this region and node."""
        return value_of(
            self.instance, self.known, self.image, coeff, constant, slopes, self.last if node is None else node
        )

    def solve(self, cold: bool = False) -> Solution:
        """Solve again, with the objective of the last `minimise` and the rows as they are now."""
        status = self._run("simplex") if self._warm and not cold else Status.UNFINISHED
        for solver in ("ipm", "simplex"):  # afresh
            if status is Status.UNFINISHED:
                self._solver.clearSolver()
                status = self._run(solver)
        self._warm = status is Status.OPTIMAL  # from an infeasible basis the simplex method is slow
        return self._read(status)

    def add_rows(self, cuts: Sequence[Cut]) -> list[int]:
        """Add inequalities and return a handle for each. What follows from them is as sound as they are."""
        if cuts:
            sizes = [len(cut.columns) for cut in cuts]
            start = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
            index = np.concatenate([cut.columns for cut in cuts]).astype(np.int32)
            value = np.concatenate([cut.values for cut in cuts]).astype(np.float64)
            upper = np.array([cut.upper for cut in cuts])
            self._solver.addRows(len(cuts), np.full(len(cuts), -np.inf), upper, sum(sizes), start, index, value)
        handles = list(range(self._added, self._added + len(cuts)))
        self._added += len(cuts)
        self._handles += handles
        return handles

    def drop_rows(self, handles: Sequence[int]) -> None:
        """Take added rows away."""
        gone = set(handles)
        rows = [self.model.rows + k for k, handle in enumerate(self._handles) if handle in gone]
        if rows:
            self._solver.deleteRows(len(rows), np.array(rows, dtype=np.int32))
        self._handles = [handle for handle in self._handles if handle not in gone]

    def drop_slack_rows(self, solution: Solution, slack: float = 1e-9) -> list[int]:
        """Take away the added rows whose multiplier in `solution` is at most `slack`; returns their handles."""
        gone = [h for h, multiplier in solution.multipliers.items() if multiplier <= slack and h in self._handles]
        self.drop_rows(gone)
        return gone

    def _run(self, solver: str) -> Status:
        from highspy import HighsModelStatus

        self.instance.check()
        self._limit()
        self._solver.setOptionValue("solver", solver)
        self._solver.run()  # without the interpreter's lock
        status = self._solver.getModelStatus()
        if status == HighsModelStatus.kOptimal:
            return Status.OPTIMAL
        return Status.INFEASIBLE if status == HighsModelStatus.kInfeasible else Status.UNFINISHED

    def _limit(self) -> None:
        """Limit the next run, in iterations and by the deadline; the solver's clock runs on from solve to solve."""
        iterations, deadline = 1000 + _SIMPLEX_LIMIT * self._solver.getNumRow(), self.instance.deadline
        seconds = np.inf if deadline is None else self._solver.getRunTime() + deadline - time.perf_counter()
        self._solver.setOptionValue("simplex_iteration_limit", iterations)
        self._solver.setOptionValue("time_limit", seconds)

    def _read(self, status: Status) -> Solution:
        solution = self._solver.getSolution()
        raw = self._ray() if status is Status.INFEASIBLE else solution.row_dual
        duals = _filled(raw, self.model.rows + len(self._handles))
        x = _filled(solution.col_value, len(self.model.lower))
        added = (-duals[self.model.rows :]).clip(0)
        multipliers = dict(zip(self._handles, added.tolist(), strict=True))
        objective = float(self._solver.getInfo().objective_function_value)
        return Solution(status, objective, x, duals, self._slopes(duals), multipliers)

    def _ray(self) -> Sequence[float] | Floats:
        """Multipliers that prove the program infeasible, scaled to at most one, or none. The interior point method has
        none, nor has presolve."""
        _, found, ray = self._solver.getDualRay()
        if not found:
            self._solver.clearSolver()
            self._solver.setOptionValue("presolve", "off")
            self._run("simplex")
            self._solver.setOptionValue("presolve", "choose")
            _, found, ray = self._solver.getDualRay()
        return ray / max(np.abs(ray).max(initial=0.0), 1e-300) if found else []

    def _slopes(self, duals: Floats) -> dict[int, Tensor]:
        result, padded = {}, np.append(duals, 0.0)  # where row -1, of what has no row, finds zero
        for i, row in self.model.defining.items():
            shape = self.model.network.nodes[self.model.network.nodes[i].inputs[0]].shape
            result[i] = torch.from_numpy(padded[row]).reshape(1, *shape)
        return result


def _filled(values: Sequence[float] | Floats, length: int) -> Floats:
    """Values as an array of the given length; zeros where the solver has none."""
    result = np.asarray(values, dtype=np.float64)
    return result if len(result) == length else np.zeros(length)


def _load(model: Model) -> Any:  # highspy's annotations lack half of its methods
    import highspy

    lp, rows = highspy.HighsLp(), joined(model.parts)
    solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    lp.num_col_, lp.num_row_ = len(model.lower), len(rows)
    lp.col_cost_ = np.zeros(len(model.lower))
    lp.col_lower_, lp.col_upper_ = model.lower, model.upper
    lp.row_lower_, lp.row_upper_ = rows.lower, rows.upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = rows.start, rows.index, rows.value
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("ipm_iteration_limit", _INTERIOR_LIMIT)
    solver.passModel(lp)
    return solver


def tighten(program: Program, index: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Bounds `(len(index),)` of entries of the flattened node `last` of a program: its minima and maxima, evaluated by
    `value_of`, and never worse than what was known (optimisation-based bound tightening)."""
    network, node = program.instance.network, program.last
    unit = one_hot(torch.tensor(index, dtype=torch.int64), network.nodes[node].shape, torch.float64)
    forms = torch.cat([unit, -unit])
    found = [program.minimise(form).slopes for form in forms]
    slopes = {i: torch.cat([s[i] for s in found]) for i in (found[0] if found else {})}
    value = program.value(forms, forms.new_zeros(len(forms)), slopes)
    below, above = value.chunk(2)
    lower, upper = (
        side[node][program.image].flatten()[list(index)] for side in (program.known.lower, program.known.upper)
    )
    lower = torch.maximum(lower, below)
    return lower, torch.maximum(torch.minimum(upper, -above), lower)


def value_of(
    instance: Instance,
    known: Intervals,
    image: int,
    coeff: Tensor,
    constant: Tensor,
    slopes: Mapping[int, Tensor],
    node: int | None = None,
) -> Tensor:
    """Lower bounds `(queries,)` of the forms `<coeff, node> + constant` over region `image`, whatever the slopes.

    Coefficients `(queries, *shape)` of `node` (default: the output), constants `(queries,)`, and slopes
    `(queries, *shape of z)` of activations, zero where missing. Every rounding error of this computation is subtracted;
    what overflows or is not a number is no bound (minus infinity).
    """
    network, region = instance.network, instance.region.select(torch.tensor([image]))
    node = len(network.nodes) - 1 if node is None else node
    coeff, constant = coeff.to(region.lower), constant.to(region.lower)
    with torch.no_grad():
        walk = _Walk(network, known, image, {node: coeff.unsqueeze(0)}, constant.unsqueeze(0))
        for i in range(max([node, *slopes]), 0, -1):
            walk.step(i, slopes.get(i))
        value = walk.constant - walk.error - gamma(len(network.nodes), coeff.dtype) * constant.abs()
        if 0 in walk.coeff:
            terms = 2 * walk.coeff[0][0, 0].numel() + len(network.nodes)
            value = value + region.minimise(walk.coeff[0], slack=gamma(terms, coeff.dtype))
            value = value - underflow(terms, region.magnitude)
        return torch.nan_to_num(value, nan=-torch.inf, posinf=-torch.inf)[0]


class _Walk:
    """A backward pass in which the slopes at every activation are given, with its rounding error: coefficients
    `(1, queries, *shape)`, constants and errors `(1, queries)`."""

    def __init__(
        self, network: Network, known: Intervals, image: int, coeff: dict[int, Tensor], constant: Tensor
    ) -> None:
        self.network, self.known, self.image = network, known, slice(image, image + 1)
        self.coeff, self.constant, self.error = coeff, constant, torch.zeros_like(constant)

    def step(self, i: int, slopes: Tensor | None) -> None:
        """Carry the coefficients of node i to its inputs."""
        coeff, inner = self.coeff.pop(i, None), self.network.nodes[i]
        if isinstance(inner.op, Linear):
            if coeff is not None:
                self._affine(i, inner.op, coeff)
        elif coeff is not None or slopes is not None:
            if coeff is None:
                coeff = self.constant.new_zeros(*self.constant.shape, *inner.shape)
            self._activation(i, coeff, slopes)

    def _affine(self, i: int, op: Linear, coeff: Tensor) -> None:
        inputs, bias = self.network.nodes[i].inputs, op.constant()
        if bias is not None:
            self.constant = self.constant + dot(coeff, bias.expand(coeff.shape[2:])[None, None])
        parts = op.adjoint(coeff[0], *(self.network.nodes[j].shape for j in inputs))
        for j, part in zip(inputs, parts, strict=True):
            self._give(j, part.unsqueeze(0))
        if not op.moves_only or op.terms > 1:
            terms = coeff[0, 0].numel() + len(self.network.nodes) + op.terms
            self._charge(terms, coeff, self.known.magnitude[i][self.image])
            for j in (i, *inputs):
                self.error = self.error + underflow(terms, self.known.magnitude[j][self.image])

    def _activation(self, i: int, coeff: Tensor, slopes: Tensor | None) -> None:
        """`coeff * a >= slopes * z - support(slopes, coeff)`; the support is accurate to 8 ulp of its terms, which
        `gamma` has room for."""
        operand = self.network.nodes[i].inputs[0]
        lower, upper = (side[operand][self.image] for side in (self.known.lower, self.known.upper))
        op = self.network.nodes[i].op
        assert isinstance(op, Activation)
        relaxation = relax(op, lower, upper)
        carried = (
            lower.new_zeros(coeff.shape[:2] + lower.shape[1:]) if slopes is None else slopes.unsqueeze(0).to(lower)
        )
        price = _support(relaxation, carried, coeff)
        self.constant = self.constant - price.flatten(2).sum(-1)
        self._give(operand, carried)
        terms = carried[0, 0].numel() + len(self.network.nodes)
        self._charge(terms, carried, relaxation.magnitude)
        self._charge(terms, coeff, self.known.magnitude[i][self.image])
        for j in (i, operand):
            self.error = self.error + underflow(terms, self.known.magnitude[j][self.image])

    def _give(self, node: int, coeff: Tensor) -> None:
        present = self.coeff.get(node)
        self.coeff[node] = coeff if present is None else present + coeff

    def _charge(self, terms: int, coeff: Tensor, magnitude: Tensor) -> None:
        self.error = self.error + gamma(terms, coeff.dtype) * dot(coeff.abs(), magnitude.unsqueeze(1))


def _support(relaxation: Relaxation, slopes: Tensor, coeff: Tensor) -> Tensor:
    """Values of the support function, exact for positive coefficients of maxima too.

    There `max(z) >= sum_j w_j z_j / coeff` for all weights `w >= 0` that sum to `coeff`, and the best ones,
    those with the least `sum_j max (slopes - w)_j z_j`, are found greedily: a member pays u_j for each unit up to its
    slope and l_j beyond, so the largest come first, and what is left goes to the largest lower bound.
    """
    if not relaxation.reduces:
        return relaxation.support(slopes, coeff).value
    lower, upper = relaxation.lower.unsqueeze(1), relaxation.upper.unsqueeze(1)
    leader = lower.argmax(-1, keepdim=True)
    order = upper.argsort(dim=-1, descending=True).expand(slopes.shape)
    worth = torch.where(upper > lower.amax(-1, keepdim=True), slopes.clamp(min=0), 0.0).gather(-1, order)
    total = coeff.clamp(min=0).unsqueeze(-1)
    taken = (total - worth.cumsum(-1) + worth).clamp(min=0).minimum(worth)
    weights = torch.zeros_like(slopes).scatter(-1, order, taken)
    rest = (total - weights.sum(-1, keepdim=True)).clamp(min=0)
    left = slopes - weights.scatter_add(-1, leader.expand(rest.shape), rest)
    positive = torch.maximum(left * lower, left * upper).sum(-1)
    return torch.where(coeff > 0, positive, relaxation.support(slopes, coeff.clamp(max=0)).value)
