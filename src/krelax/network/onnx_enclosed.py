"""Operators on constants that `FOLDS` has no entry for: their readers are given the first floating-point operand as if
it were the input of a network, and what that computes at the constant is enclosed (`krelax.network.enclosing`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx

from krelax.errors import UnsupportedError
from krelax.network.constants import Constant
from krelax.network.enclosing import enclosed
from krelax.network.graph import Builder
from krelax.network.onnx_operators import READERS
from krelax.network.onnx_reader import FLOATS, Known, Literal, Reader

# Their results have another type.
_CASTS = {"Cast", "CastLike"}


def leading(node: onnx.NodeProto, known: Known) -> str | None:
    """The first floating-point operand of a node whose operands are all constant, if its operator is read of
    activations; None otherwise."""
    if node.op_type not in READERS or node.op_type in _CASTS or node.domain not in {"", "ai.onnx"}:
        return None
    return next((n for n in node.input if n and isinstance(known.constants[n].data, Constant)), None)


def folded(r: Reader, name: str, kinds: Sequence[int | None]) -> list[Literal | None]:
    """The results of a node, None for those that have no name, with operand `name` in the place of an input."""
    given = r.known.constants[name]
    if any(kind not in FLOATS for kind in (given.kind, *kinds) if kind is not None):
        raise UnsupportedError("arithmetic of constants that are not float32 or float64; fold it when exporting")
    others = {other: literal for other, literal in r.known.constants.items() if other != name}
    builder = Builder(given.shape)
    known = Known({name: 0}, {name: given.kind}, others, room=r.known.room)
    result = READERS[r.node.op_type](replace(r, builder=builder, known=known))
    several = result if isinstance(result, list) else [result]
    known.values.update((n, v) for n, v in zip(r.node.output, several, strict=False) if n and isinstance(v, int))
    return [_value(r, builder, known.values.get(n), given) for n in r.node.output]


def _value(r: Reader, builder: Builder, place: int | None, given: Literal) -> Literal | None:
    if place is None:
        return None
    r.require(builder.shape(place))
    return Literal(given.kind, enclosed(builder.build(place), given.floats.checked()))
