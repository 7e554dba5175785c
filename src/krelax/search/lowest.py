"""The linear program of a step: where in a box the largest of some affine forms is least, under some conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from krelax.bounds.lp import PIVOTING
from krelax.bounds.lp_model import LARGE
from krelax.problem.exact import Floats
from krelax.watch import counts_work, tick

# HiGHS's least one: thin sets are missed by as much, relative to how much the forms vary.
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Forms:
    """`rows @ d + offsets`, `(n, inputs)` and `(n,)`, of a step d."""

    rows: Floats
    offsets: Floats

    def scaled(self, each: bool) -> tuple[Forms, float]:
        """Divided by how much they vary where no entry of d is larger than one, by that of each or of all."""
        size = np.abs(self.rows).sum(1)
        size = np.where(size > 0, size, 1.0) if each else np.full(len(size), size.max(initial=0.0) or 1.0)
        with np.errstate(invalid="ignore"):  # infinite numbers are sorted out later
            return Forms(self.rows / size[:, None], self.offsets / size), float(size.max(initial=0.0))


@dataclass(frozen=True)
class Lowest:
    """A step, `(inputs,)`, the largest form there, and how much lower it would be without each of the conditions,
    relative to others: zero where nothing."""

    step: Floats
    value: float
    prices: Floats


def lowest(goals: Forms, conditions: Forms, lower: Floats, upper: Floats, seconds: float) -> Lowest | None:
    """The step between `lower` and `upper`, which lie between -1 and 1, that makes the largest of the goals least where
    no condition is negative. None if the solver does not say in so many seconds, or numbers are too large for it."""
    import highspy

    (goals, size), (conditions, _) = goals.scaled(each=False), conditions.scaled(each=True)
    (n, m), k = goals.rows.shape, len(conditions.offsets)
    matrix = np.block([[goals.rows, np.full((n, 1), -1.0)], [conditions.rows, np.zeros((k, 1))]])
    free = highspy.kHighsInf
    sides = np.concatenate([np.full(n, -free), -conditions.offsets]), np.concatenate([-goals.offsets, np.full(k, free)])
    if not all((np.abs(t) < LARGE).all() for t in (matrix, goals.offsets, conditions.offsets)):
        return None
    row, column = np.nonzero(matrix)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = m + 1, n + k
    lp.col_cost_ = np.append(np.zeros(m), 1.0)
    lp.col_lower_, lp.col_upper_ = np.append(lower, -free), np.append(upper, free)
    lp.row_lower_, lp.row_upper_ = sides
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n + k))])
    lp.a_matrix_.index_, lp.a_matrix_.value_ = column, matrix[row, column]
    solution = _solved(lp, seconds)
    if solution is None:
        return None
    x, duals = (np.asarray(v, dtype=np.float64) for v in (solution.col_value, solution.row_dual))
    return Lowest(np.clip(x[:m], lower, upper), float(x[m]) * size, np.abs(duals[n:]))


def _solved(lp: Any, seconds: float) -> Any:
    """The solution of a program, None without one."""
    import highspy

    solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    for name, value in (
        ("output_flag", False),
        ("log_to_console", False),
        ("time_limit", np.inf if counts_work() else max(0.0, seconds)),
        ("primal_feasibility_tolerance", _TOLERANCE),
        ("dual_feasibility_tolerance", _TOLERANCE),
    ):
        solver.setOptionValue(name, value)
    if solver.passModel(lp) == highspy.HighsStatus.kError:
        return None
    solver.run()
    tick(PIVOTING * len(lp.a_matrix_.value_) * (1 + solver.getInfo().simplex_iteration_count))
    optimal = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return solver.getSolution() if optimal else None
