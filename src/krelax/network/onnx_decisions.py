"""Comparisons of what depends on the input, and choices by them: they join `READERS`. Truths are zeros and ones."""

from __future__ import annotations

import numpy as np
import torch

from krelax.network import contractions as of
from krelax.network import decisions
from krelax.network.compose import Operand
from krelax.network.constants import Constant
from krelax.network.onnx_operators import reads
from krelax.network.onnx_reader import Reader

_NAMES = {"Greater": "gt", "GreaterOrEqual": "ge", "Less": "lt", "LessOrEqual": "le"}
# Operators whose results are truths.
DECIDING = {*_NAMES, "Not", "And", "Or"}


@reads(*_NAMES)
def _compare(r: Reader) -> int:
    return decisions.compare(r.builder, _NAMES[r.node.op_type], r.operand(0), r.operand(1))


@reads("Not")
def _not(r: Reader) -> int:
    return decisions.opposite(r.builder, r.value())


@reads("And", "Or")
def _joined(r: Reader) -> int:
    join = decisions.both if r.node.op_type == "And" else decisions.either
    return join(r.builder, _truth(r, 0), _truth(r, 1))


def _truth(r: Reader, position: int) -> Operand:
    if not r.is_constant(position):
        return r.value(position)
    return Constant.of(torch.from_numpy(r.given(position).integers.astype(np.float64)))


@reads("Where")
def _where(r: Reader) -> int:
    if r.is_constant(0):
        return of.where(r.builder, r.given(0).integers.astype(bool), r.operand(1), r.operand(2))
    return decisions.choose(r.builder, r.value(), r.operand(1), r.operand(2))
