"""Bounds that nobody chose anything for: every activation is relaxed by a rule, over one region or over many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from krelax.certificate.kernel.activations import Ends
from krelax.certificate.kernel.arithmetic import Array, Floats, Rows
from krelax.certificate.kernel.backward import Relaxed, over_inputs
from krelax.certificate.kernel.context import Context
from krelax.certificate.kernel.contraction import Shared
from krelax.certificate.kernel.linear import Index
from krelax.certificate.kernel.relaxation import Choice, relax, shared_lines


@dataclass(frozen=True, eq=False)
class _ByRule:
    """Relaxations that nobody chose, each row over the region named."""

    context: Context
    choice: Choice
    which: Rows

    def __call__(self, j: int, coeff: Array | None) -> Relaxed | None:
        if coeff is None:
            return None
        return relax(self.context.bounds, j, coeff, self.context.ends(j), self.choice, self.which)

    def shared(self, j: int) -> Shared | None:
        return shared_lines(self.context.network.activation(j).rule, self.context.ends(j), self.choice)


def bound_forms(
    context: Context, node: int, parallel: bool, forms: Floats, constants: Floats, regions: Index
) -> Floats:
    """Lower bounds `(rows,)` of forms of a node, each over the region named, "parallel" or "adaptive"."""
    bounds = context.bounds
    which: Rows = slice(None) if len(bounds.lower[0]) == 1 else regions
    by_rule = _ByRule(context, Choice(parallel), which)
    found = over_inputs(bounds, node, bounds.ar.number(forms), bounds.ar.number(constants), by_rule, which)
    return found.minimum(bounds, which)


def bound_entries(context: Context, node: int, entries: Sequence[Index], parallel: bool) -> Ends:
    """Bounds of some entries, `(regions, entries)`, of a node; infinite for the others."""
    shape = context.bounds.lower[node].shape
    found = (np.full(shape, -np.inf), np.full(shape, np.inf))
    for batch in context.batches(len(entries[0])):
        regions, places = (x[batch] for x in entries)
        for sign, side in zip((1.0, -1.0), found, strict=True):
            forms = np.zeros((len(places), shape[1]))
            forms[np.arange(len(places)), places] = sign
            side[regions, places] = sign * bound_forms(context, node, parallel, forms, np.zeros(len(places)), regions)
    return found
