"""Linear models of scikit-learn's converters, of the domain `ai.onnx.ml`."""

from __future__ import annotations

from math import prod

import numpy as np

from krelax.certificate.kernel.activations import RULES
from krelax.certificate.kernel.linear import Scale
from krelax.certificate.onnx.activations import activation
from krelax.certificate.onnx.affine import ROUNDED, computed, matrix
from krelax.certificate.onnx.builder import full
from krelax.certificate.onnx.composites import softmax
from krelax.certificate.onnx.heads import CLASSIFIER, ML
from krelax.certificate.onnx.operator import FLOATS, Context, Tensor, Value, form, integer, numbers, reads, text
from krelax.certificate.onnx.outputs import CLASS_FORM, HEADS
from krelax.errors import InputError, UnsupportedError


def _floats(c: Context, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    given = c.get(name)
    return np.zeros(0) if given is None else np.asarray(given, np.float64)


@reads(f"{ML}Scaler", forms=[form(7, 1, offset=FLOATS, scale=FLOATS)])
def _scaler(c: Context) -> Tensor:
    """`(x - offset) * scale`, as `scale * x - scale * offset`."""
    x, offset, scale = c.value(), _floats(c, "offset"), _floats(c, "scale")
    count = x.shape[-1] if x.shape else 0
    if len(x.shape) > 2 or not {offset.size, scale.size} <= {1, count} or not count:
        raise InputError(f"offsets {offset.size} and scales {scale.size} for features of shape {list(x.shape)}")
    moved = computed(-scale * offset, (scale == 0) | (offset == 0))
    c.builder.only_real()  # an execution subtracts first
    return c.affine([x], [Scale(full(scale, x.shape))], x.shape, moved, fuzz=ROUNDED)


def _rows(c: Context, outputs: int) -> Value:
    """`x @ coefficients.T + intercepts`."""
    x, given, shift = c.value(), _floats(c, "coefficients"), _floats(c, "intercepts")
    if not 1 <= len(x.shape) <= 2 or given.size != outputs * x.shape[-1] or shift.size not in {0, outputs}:
        raise InputError(f"{given.size} coefficients and {shift.size} intercepts for features of shape {list(x.shape)}")
    x = c.moved(numbers(x.shape).reshape(prod(x.shape[:-1]), x.shape[-1]), x)
    return matrix(c, x, given.reshape(outputs, -1).T, shift if shift.size else None)


_TARGETS = integer(1)


@reads(f"{ML}LinearRegressor", forms=[
    form(7, 1, coefficients=FLOATS, intercepts=FLOATS, targets=_TARGETS, post_transform=text("NONE")),
])  # fmt: skip
def _regressor(c: Context) -> Tensor:
    return _rows(c, c.get("targets"))


def _scores(c: Context) -> Value:
    labels = c.get("classlabels_ints") or c.get("classlabels_strings") or []
    shift = _floats(c, "intercepts")
    if shift.size not in {0, len(labels)} or not labels:
        raise UnsupportedError(f"{shift.size} scores for {len(labels)} labels")
    return _rows(c, len(labels))


@reads(CLASSIFIER, forms=[CLASS_FORM])
def _classifier(c: Context) -> list[Tensor | None]:
    scores = _scores(c)
    if c.get("post_transform") == "SOFTMAX":
        return [None, softmax(c, scores)]
    if c.get("post_transform") == "LOGISTIC":
        scores = activation(c, scores, RULES["Sigmoid"](), scores.shape)
    return [None, scores]


def _head(c: Context) -> list[Tensor | None]:
    """Transforms that keep the order of scores are left out."""
    if c.get("post_transform") != "NONE":
        c.builder.only_real()
    return [None, _scores(c)]


HEADS[CLASSIFIER] = (_head, (CLASS_FORM,))
