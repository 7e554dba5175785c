"""Heads that questions which only compare outputs leave out: the readers look whether they keep the order of scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from krelax.certificate.onnx.graph import Call
from krelax.certificate.onnx.heads import ML
from krelax.certificate.onnx.operator import (
    FLOATS,
    INTS,
    STRINGS,
    Context,
    Form,
    Tensor,
    Value,
    form,
    integer,
    normal_axes,
    text,
)
from krelax.errors import UnsupportedError


class ChangedOrder(UnsupportedError):
    """What looks like a head may change the order of scores, or is of parts of them."""


CLASS_FORM = form(
    7, 1, 1, 2, coefficients=FLOATS, intercepts=FLOATS, classlabels_ints=INTS, classlabels_strings=STRINGS,
    multi_class=integer(0), post_transform=text("NONE", "SOFTMAX", "LOGISTIC"),
)  # fmt: skip


def check_label(call: Call | None, output: Value) -> None:
    """Raises UnsupportedError for the largest of parts of the scores."""
    if call is None:
        return
    kind, axis = call.attributes.get("axis", ("int", 0))
    (place,) = normal_axes([axis if kind == "int" else len(output.shape)], len(output.shape), True)
    if output.shape[place] != prod(output.shape):
        raise UnsupportedError(f"labels of parts of scores of shape {list(output.shape)}")


def _softmax(c: Context) -> Tensor:
    x = c.value()
    (axis,) = normal_axes([c.get("axis")], len(x.shape), c.version >= 11)
    count = x.shape[axis] if c.version >= 13 else prod(x.shape[axis:])
    return _all(c, x, count)


def _normalised(c: Context) -> Tensor:
    x = c.value()
    if c.get("norm") == "MAX":
        raise ChangedOrder("a division by the largest score, which may be negative")
    return _all(c, x, x.shape[-1] if x.shape else 1)


def _all(c: Context, x: Value, count: int) -> Tensor:
    if count != prod(x.shape):
        raise ChangedOrder(f"{c.call.op} of parts of scores of shape {list(x.shape)}")
    c.builder.only_real()  # float32 may round different scores to the same number
    return x


_SOFTMAX = (form(7, 1, axis=integer(1)), form(13, 1, axis=integer(-1)))
HEADS: dict[str, tuple[Callable[[Context], Tensor | Sequence[Tensor | None]], tuple[Form, ...]]] = {
    "Softmax": (_softmax, _SOFTMAX),
    "LogSoftmax": (_softmax, _SOFTMAX),
    f"{ML}Normalizer": (_normalised, (form(7, 1, norm=text("MAX", "L1", "L2")),)),
}
