"""The triangle linear program solved by HiGHS, and what its dual solution proves.

The multipliers of the rows that define the pre-activations are slopes: the optimum of the program is the best value
of the backward pass over all slopes (Salman et al. 2019, theorem on strong duality). So the solver proposes slopes
and `value_of` evaluates them; its objective is never a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from krelax.bounds.backward import Form, lower_bound, outputs
from krelax.bounds.bounded import Bounded
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.lp_model import LARGE, Entries, Floats, Model, Places, Rows, build, joined, within_range
from krelax.bounds.multipliers import Cuts, Multipliers
from krelax.bounds.recording import chosen, record
from krelax.bounds.rounding import written
from krelax.bounds.steps import Tapes, Witness
from krelax.errors import InputError
from krelax.problem.queries import Queries
from krelax.proof.log import MARGINS, Forms
from krelax.watch import counts_work, now, tick

# No solve goes on for ever: one that reaches a limit is not optimal, and its slopes are as sound as any. From a good
# basis the simplex method takes about half as many iterations as there are rows; interior points take 20 to 40.
_SIMPLEX_LIMIT, _INTERIOR_LIMIT = 4, 120  # times the number of rows; iterations
# A warm simplex method that has not finished by then often stalls, and interior points are faster.
_WARM_LIMIT = 0.25
# An iteration of the simplex method, for each entry of the matrix, is as much work as so many products; beginning and
# ending, and an iteration of the interior point method, are as much as so many of those.
PIVOTING, _AROUND, _INTERIOR = 80, 5, 50

# Cuts of an activation with their multipliers, (queries, R).
Priced = tuple[Cuts, Tensor]


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
    One thread at a time may use a program; several programs solve side by side in threads. `bounds` must stay as it is.
    Every solve raises OutOfTime if the instance's deadline has passed when it starts.
    See `krelax.bounds.lp_model.build` for `inactive` and for the errors raised.
    """

    def __init__(
        self, instance: Instance, bounds: LayerBounds, image: int = 0, last: int | None = None, inactive: bool = False
    ) -> None:
        self.instance, self.bounds, self.image = instance, bounds, image
        self.last = len(instance.network.nodes) - 1 if last is None else last
        with torch.no_grad():
            self.model = build(instance.network, instance.region, bounds, image, self.last, inactive)
        self._refused = False
        self._solver = self._load(self.model)
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
        cost = np.where(np.abs(cost) < LARGE, cost, 0.0)
        self._expect(self._solver.changeColsCost(len(cost), np.arange(len(cost), dtype=np.int32), cost))
        self._solver.changeObjectiveOffset(float(offset[0]) + constant)
        return self.solve(cold)

    def value(
        self,
        coeff: Tensor,
        constant: Tensor,
        slopes: Mapping[int, Tensor],
        node: int | None = None,
        cuts: Mapping[int, Priced] | None = None,
    ) -> Tensor:
        """`value_of` for this region and node."""
        node = self.last if node is None else node
        return value_of(self.instance, self.bounds, self.image, coeff, constant, slopes, node, cuts)

    def solve(self, cold: bool = False) -> Solution:
        """Solve again, with the objective of the last `minimise` and the rows as they are now."""
        status = self._run("simplex") if self._warm and not cold else Status.UNFINISHED
        for solver in ("ipm", "simplex"):  # afresh
            if status is Status.UNFINISHED:
                self._warm = False
                self._solver.clearSolver()
                status = self._run(solver)
        self._warm = status is Status.OPTIMAL  # from an infeasible basis the simplex method is slow
        return self._read(status)

    def go_on(self) -> Solution:
        """Solve again after small changes of bounds, from the last basis even where that had no solution."""
        status = self._run("simplex")
        if status is Status.UNFINISHED:
            return self.solve(cold=True)
        return self._read(status)

    def bound(self, column: int, lower: float, upper: float) -> None:
        """Change the bounds of a column."""
        self._expect(self._solver.changeColBounds(column, lower, upper))

    def bound_row(self, handle: int, upper: float) -> None:
        """Change the bound of an added row; infinite if it says nothing."""
        row = self.model.rows + self._handles.index(handle)
        self._expect(self._solver.changeRowBounds(row, -np.inf, upper))

    def point(self, solution: Solution) -> Tensor:
        """The input of a solution, `(1, *shape)`, in the region."""
        entries, region = self.after(0), self.instance.region
        x = np.where(entries.column >= 0, solution.x[entries.column] * entries.scale, 0.0)
        return region.project(torch.from_numpy(x).to(region.lower).view_as(region.lower).unsqueeze(1))[:, 0]

    def add_rows(self, cuts: Sequence[Cut]) -> list[int]:
        """Add inequalities and return a handle for each. What follows from them is as sound as they are."""
        if cuts:
            sizes = [len(cut.columns) for cut in cuts]
            start = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
            index = np.concatenate([cut.columns for cut in cuts]).astype(np.int32)
            value = np.concatenate([cut.values for cut in cuts]).astype(np.float64)
            upper = np.array([cut.upper for cut in cuts])
            ends = np.append(start, sum(sizes)).astype(np.int64)
            rows = Rows(ends, index.astype(np.int64), value, np.full(len(cuts), -np.inf), upper).within_range()
            self._expect(self._solver.addRows(len(cuts), rows.lower, rows.upper, sum(sizes), start, index, rows.value))
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

    def _load(self, model: Model) -> Any:  # highspy's annotations lack half of its methods
        import highspy

        lp, rows = highspy.HighsLp(), joined(model.parts).within_range()
        solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
        for option in ("output_flag", "log_to_console"):  # before anything else: some versions greet
            solver.setOptionValue(option, False)
        lp.num_col_, lp.num_row_ = len(model.lower), len(rows)
        lp.col_cost_ = np.zeros(len(model.lower))
        lp.col_lower_, lp.col_upper_ = within_range(model.lower, model.upper)
        lp.row_lower_, lp.row_upper_ = rows.lower, rows.upper
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = rows.start, rows.index, rows.value
        solver.setOptionValue("ipm_iteration_limit", _INTERIOR_LIMIT)
        self._expect(solver.passModel(lp))
        return solver

    def _expect(self, status: Any) -> None:
        """A program that the solver has refused a part of is not solved: that could end the process."""
        from highspy import HighsStatus

        self._refused |= status == HighsStatus.kError

    def _run(self, solver: str) -> Status:
        from highspy import HighsModelStatus

        self.instance.check()
        if self._refused:
            return Status.UNFINISHED
        self._limit()
        self._solver.setOptionValue("solver", solver)
        self._solver.run()  # without the interpreter's lock
        info, size = self._solver.getInfo(), self._solver.getNumNz()
        tick(PIVOTING * size * (_AROUND + info.simplex_iteration_count + _INTERIOR * max(0, info.ipm_iteration_count)))
        status = self._solver.getModelStatus()
        if status == HighsModelStatus.kOptimal:
            return Status.OPTIMAL
        return Status.INFEASIBLE if status == HighsModelStatus.kInfeasible else Status.UNFINISHED

    def _limit(self) -> None:
        """Limit the next run, in iterations and by the deadline; the solver's clock runs on from solve to solve."""
        share, deadline = _WARM_LIMIT if self._warm else _SIMPLEX_LIMIT, self.instance.deadline
        iterations = int(1000 + share * self._solver.getNumRow())
        seconds = np.inf if deadline is None or counts_work() else self._solver.getRunTime() + deadline - now()
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


def value_of(
    instance: Instance,
    bounds: LayerBounds,
    image: int,
    coeff: Tensor,
    constant: Tensor,
    slopes: Mapping[int, Tensor],
    node: int | None = None,
    cuts: Mapping[int, Priced] | None = None,
) -> Tensor:
    """Lower bounds `(queries,)` of the forms `<coeff, node> + constant` over region `image`, whatever the slopes.

    Coefficients `(queries, *shape)` of `node` (default: the output), constants `(queries,)`, slopes
    `(queries, *shape of z)` of activations, zero where missing, and cuts with multipliers `(queries, R)`. Every
    rounding error of this computation is subtracted; what overflows or is not a number is no bound (minus infinity).
    """
    network, index = instance.network, torch.tensor([image])
    node = len(network.nodes) - 1 if node is None else node
    with torch.no_grad():
        region, here = instance.region.select(index), bounds.select(index, network)
        form = Form({node: coeff.to(region.lower).unsqueeze(0)}, constant.to(region.lower).unsqueeze(0))
        witness = witness_of(here, len(coeff), {i: s.unsqueeze(0) for i, s in slopes.items()}, cuts)
        return lower_bound(network, region, form, witness, here)[0]


def witness_of(
    bounds: LayerBounds, queries: int, slopes: Mapping[int, Tensor], cuts: Mapping[int, Priced] | None = None
) -> Witness:
    """Slopes `(1, queries, *shape of z)`, zero where missing, and cuts as steps over what is known of one region."""
    steps: Witness = {}
    for i, relaxation in bounds.relaxations.items():
        zeros = relaxation.lower.new_zeros(1, queries, *relaxation.lower.shape[1:])
        cut, multipliers = (None, None) if cuts is None or i not in cuts else cuts[i]
        steps[i] = Multipliers(relaxation, slopes.get(i, zeros), cut, multipliers, bounds.groups.get(i, ()))
    return steps


def bound_by_lp(instance: Instance, queries: Queries, found: Bounded, stop: bool = False) -> Bounded:
    """The triangle linear program of every margin of one region, over the bounds of `found`.

    Returns rigorous lower bounds of the margins `(1, queries)`, never below those of `found`, and the
    witness. With `stop`, a question that is settled is left alone. Over a box no single-neuron slopes prove more,
    up to rounding; over another region the program sees its bounding box. Raises OutOfTime at the deadline, InputError
    for several regions.
    """
    program = margin_program(instance, found)
    solutions = solve_margins(queries, found.value, stop, lambda row, offset: program.minimise(row, offset, cold=True))
    return prove(instance, queries, found, solutions)


def solve_form(instance: Instance, bounds: LayerBounds, form: Form) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
    """Rigorous lower bound `()` of a form of one node, batch and queries 1, over one region, by its linear program:
    above zero if that is proven empty, minus infinity if the solver gives up. And the input, `(1, *shape)`, at which
    the program attains it, and the slopes that prove it."""
    ((node, coeff),) = form.coeff.items()
    program = Program(instance, bounds, last=node, inactive=True)
    solution = program.minimise(coeff[0, 0], float(form.constant))
    slopes = solution.slopes
    if solution.status is Status.INFEASIBLE:
        slopes = _along(program, coeff[0], form.constant[0], slopes)
    return program.value(coeff[0], form.constant[0], slopes).reshape(()), program.point(solution), slopes


def _along(program: Program, coeff: Tensor, constant: Tensor, ray: dict[int, Tensor]) -> dict[int, Tensor]:
    """A ray that proves a program infeasible, scaled so that it lifts the form that it is added to above zero."""
    empty = program.value(0 * coeff, 0 * constant, ray)
    lacking = 1 + program.value(coeff, constant, {}).abs()
    length = torch.where(empty > 0, 2 * lacking / empty, 0.0).nan_to_num(0.0, 0.0, 0.0)
    return {i: length.to(s) * s for i, s in ray.items()}


def margin_program(instance: Instance, found: Bounded) -> Program:
    """The program of one region's margins. Raises InputError for several regions."""
    if len(instance.region) != 1:
        raise InputError(f"the linear program is solved for one region at a time, got {len(instance.region)}")
    return Program(instance, found.bounds)


def solve_margins(
    queries: Queries, value: Tensor, stop: bool, minimise: Callable[[Tensor, float], Solution]
) -> list[Solution | None]:
    """Solutions for the margins `(1, queries)` of bounds `value`: worst clauses first, and their best members first.

    With `stop`, margins of clauses that are settled, or seem to be by the solver's objective, are left out.
    """
    reached, clause = value[0].clone(), queries.clause[0]
    start = queries.clause_values(value)[0, clause].tolist()
    solutions: list[Solution | None] = [None] * len(clause)
    for k in sorted(range(len(clause)), key=lambda k: (start[k], -float(reached[k]))):
        if stop and float(queries.clause_values(reached[None])[0, clause[k]]) > 0:
            continue
        solution = solutions[k] = minimise(queries.rows[0, k], float(queries.offsets[0, k]))
        if solution.status is Status.OPTIMAL:
            reached[k] = max(float(reached[k]), solution.objective)
    return solutions


def prove(
    instance: Instance,
    queries: Queries,
    found: Bounded,
    solutions: Sequence[Solution | None],
    cuts: Mapping[int, Priced] | None = None,
) -> Bounded:
    """What the multipliers of some margins prove, and never less than `found`; with the witness."""
    solved = [s.slopes for s in solutions if s is not None]
    zeros = {i: torch.zeros_like(s) for i, s in solved[0].items()} if solved else {}
    every = [zeros if s is None else s.slopes for s in solutions]
    slopes = {i: written(torch.stack([s[i] for s in every], 1)) for i in zeros}  # as they are recorded
    with torch.no_grad():
        witness = witness_of(found.bounds, len(solutions), slopes, cuts)
        form = outputs(instance.network, queries.rows, queries.offsets)
        tapes: Tapes = {}
        value = lower_bound(instance.network, instance.region, form, witness, found.bounds, tapes)
    count = value.shape[1]
    lemmas = record(instance, MARGINS, Forms.single(range(count)), value, chosen(instance, witness, count, tapes))
    return replace(found.improved(value, lemmas), witness=witness, tapes=tapes)
