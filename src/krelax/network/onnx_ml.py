"""Affine operators of scikit-learn's converters, of the domain `ai.onnx.ml`: they join `READERS` and `HEADS`."""

from __future__ import annotations

import numpy as np
import torch

from krelax.activations import Sigmoid
from krelax.errors import InputError, UnsupportedError
from krelax.network import compose
from krelax.network.composites import softmax
from krelax.network.constants import Constant
from krelax.network.onnx_operators import READERS
from krelax.network.onnx_outputs import HEADS, ML, KeptHeadError
from krelax.network.onnx_reader import Reader


def _floats(r: Reader, name: str) -> Constant:
    return Constant.of(torch.tensor(r.attribute(name) or [], dtype=torch.float64)).checked()


def _features(r: Reader) -> int:
    if not r.shape() or len(r.shape()) > 2:
        raise InputError(f"features of shape {list(r.shape())}, not rows")
    return r.shape()[-1]


def _scaler(r: Reader) -> int:
    """`(x - offset) * scale`."""
    count, (offset, scale) = _features(r), (_floats(r, name) for name in ("offset", "scale"))
    if not {offset.shape, scale.shape} <= {(count,), (1,)}:
        raise InputError(f"offsets {list(offset.shape)} and scales {list(scale.shape)} for {count} features")
    return compose.scale_shift(r.builder, compose.add(r.builder, r.value(), offset, -1), scale, None)


def _affine(r: Reader, outputs: int) -> int:
    """`x @ coefficients.T + intercepts`, in one row for each example."""
    count, given, shift = _features(r), _floats(r, "coefficients"), _floats(r, "intercepts")
    if given.shape != (outputs * count,) or shift.shape not in {(outputs,), (0,)}:
        raise InputError(f"{given.shape[0]} coefficients and {shift.shape[0]} intercepts for {count} features")
    x = compose.reshape(r.builder, r.value(), (int(np.prod(r.shape()[:-1])), count))
    return compose.dense(r.builder, x, given.reshape(outputs, count), shift if shift.shape[0] else None)


def _regressor(r: Reader) -> int:
    if r.attribute("post_transform") != "NONE":
        raise UnsupportedError(f"post_transform {r.attribute('post_transform')}; export without it")
    return _affine(r, r.attribute("targets"))


def _scores(r: Reader) -> int:
    """The scores of a classifier, one for each label, before they are transformed."""
    labels = r.attribute("classlabels_ints") or r.attribute("classlabels_strings") or []
    count = len(r.attribute("intercepts") or labels)
    if count != len(labels):
        raise UnsupportedError(f"{count} scores for {len(labels)} labels; export with a score for each label")
    return _affine(r, count)


def _classifier(r: Reader) -> list[int | None]:
    transform, scores = r.attribute("post_transform"), _scores(r)
    if transform == "SOFTMAX":
        return [None, softmax(r.builder, scores, 1)]
    if transform not in {"NONE", "LOGISTIC"}:
        raise UnsupportedError(f"probabilities by {transform}; NONE, LOGISTIC and SOFTMAX are supported")
    return [None, r.add(Sigmoid(), scores) if transform == "LOGISTIC" else scores]


def _head(r: Reader) -> list[int | None]:
    """A transform that keeps the order of scores is left out."""
    transform = r.attribute("post_transform")
    if transform not in {"NONE", "LOGISTIC", "SOFTMAX"}:
        raise KeptHeadError(f"post_transform {transform}; use SOFTMAX, LOGISTIC or NONE")
    function = {"NONE": None, "LOGISTIC": torch.sigmoid, "SOFTMAX": lambda y: torch.softmax(y, 1)}[transform]
    if function is not None:
        r.known.head.append(function)
    return [None, _scores(r)]


READERS.update({f"{ML}.Scaler": _scaler, f"{ML}.LinearRegressor": _regressor, f"{ML}.LinearClassifier": _classifier})
HEADS[f"{ML}.LinearClassifier"] = _head
