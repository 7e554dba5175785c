"""What a call is given, as krelax needs it: a model of any kind, and items with labels in whatever holds them."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from math import prod
from numbers import Rational
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.network.torch import from_torch
from krelax.problem.images import Images, fitted, load_images
from krelax.problem.raw import Raw, as_pixels
from krelax.problem.scaling import Scaling
from krelax.run.certify import agreement

# A torch module in evaluation mode, a network, or the path of an ONNX file.
Model = torch.nn.Module | Network | str | Path
# Arrays or tensors `(n, *shape)`, a DataLoader of `(x, y)`, or the path of a file or a folder.
Items = ArrayLike | Tensor | Iterable[Any] | str | Path
# `(n,)` integers, `(n, classes)` one-hot, or names of classes; the path of a file of labels.
Labels = ArrayLike | Tensor | Sequence[str] | str | Path
# A number exactly as it is: a float is its binary value.
Number = float | Fraction
_FLOATS = (torch.float32, torch.float64)


def as_network(model: Model, shape: Sequence[int], scores: bool = False) -> Network:
    """The network in a model; a module is captured for items of a shape. With `scores` only the order of the
    outputs counts. Raises InputError."""
    if isinstance(model, Network):
        return model
    if isinstance(model, str | Path):
        return load_onnx(model, scores=scores)
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model is a {type(model).__name__}; give a torch module or the path of an ONNX file")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("model is a scripted or traced module; give the module that it was made of")
    example = torch.zeros(1, *shape, dtype=_type_of(model), device=_device_of(model))
    network = from_torch(model, example)
    for note in network.notes:
        warnings.warn(f"the module: {note}", stacklevel=4)
    return network


def _type_of(module: torch.nn.Module) -> torch.dtype:
    """The type of a module's weights, and of its input. Raises InputError for what is not ready."""
    for name, part in module.named_modules():
        if part.training:
            which = f"part {name!r} of the module" if name else "the module"
            raise InputError(f"{which} is in training mode; call model.eval() first")
    types = {p.dtype for p in [*module.parameters(), *module.buffers()] if p.is_floating_point()}
    if len(types) > 1 or not types <= set(_FLOATS):
        held = " and ".join(sorted(str(t).removeprefix("torch.") for t in types))
        raise InputError(f"the module's weights are {held}; krelax reads float32 or float64: call model.float()")
    return types.pop() if types else torch.float32


def _device_of(module: torch.nn.Module) -> torch.device:
    devices = {p.device for p in [*module.parameters(), *module.buffers()]}
    if len(devices) > 1 or torch.device("meta") in devices:
        held = " and ".join(sorted(map(str, devices)))
        raise InputError(f"the module's weights are on {held}; move the model to one device: model.to('cpu')")
    return devices.pop() if devices else torch.device("cpu")


def as_scaling(mean: Any, std: Any) -> Scaling | None:
    """What a model is given for pixels; None if that is the pixels. Raises InputError for what are no numbers."""
    if mean is None and std is None:
        return None
    return Scaling(numbers("mean", 0 if mean is None else mean), numbers("std", 1 if std is None else std))


def numbers(name: str, given: Any) -> tuple[Fraction, ...]:
    """One number or several, as they are. Raises InputError, with the name of the argument, for anything else."""
    return _taken_apart(name, given, "a finite number, or some of them")[0]


def number(name: str, given: Any) -> Fraction:
    """A number as it is. Raises InputError for anything else, as for several."""
    found, several = _taken_apart(name, given, "a finite number")
    if several:
        raise InputError(f"{name} must be one finite number, got {_shown(given)}")
    return found[0]


def one_or_each(name: str, given: Any) -> Fraction | tuple[Fraction, ...]:
    """One number for all inputs, or one for each. Raises InputError for anything else."""
    found, several = _taken_apart(name, given, "a finite number, or one for each input")
    return found if several else found[0]


def _taken_apart(name: str, given: Any, wanted: str) -> tuple[tuple[Fraction, ...], bool]:
    """The numbers in what was given, and whether it is something that holds several."""
    if isinstance(given, Tensor):
        given = np.array(given.detach().cpu().tolist())
    several = isinstance(given, list | tuple)
    try:
        held = np.asarray(given, dtype=object)
        entries = given if several else held.flatten().tolist()
        return tuple(map(_exact, entries)), several or held.ndim > 0
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} must be {wanted}, got {_shown(given)}") from error


def _shown(given: Any) -> str:
    """What was given, in one line."""
    return textwrap.shorten(repr(given), 120, placeholder=" ...")


def _exact(given: Any) -> Fraction:
    """A number as it is. Raises TypeError, ValueError or OverflowError for what is none."""
    given = given.item() if isinstance(given, Tensor) else given
    if isinstance(given, bool | np.bool_) or not isinstance(given, Rational | Decimal | float | np.floating):
        raise TypeError
    found = Fraction(given) if isinstance(given, Rational) else Fraction(*given.as_integer_ratio())
    float(found)  # raises OverflowError for what no float64 is near to
    return found


def limit(timeout: float | None) -> float | None:
    """Seconds, or none. Raises InputError for what no limit can be."""
    if timeout is None:
        return None
    seconds = float(number("timeout", timeout))
    if seconds <= 0:
        raise InputError(f"timeout must be a number of seconds above 0, or None for no limit, got {timeout!r}")
    return seconds


def taken(
    model: Model, x: Items, y: Labels | None, scaling: Scaling | None, layout: str | None, scores: bool = True
) -> tuple[Network, Images]:
    """The network and the labelled items of a call; with `scores` only the order of the outputs counts. Raises
    InputError, in one line, for what does not fit."""
    if isinstance(x, str | Path):
        if isinstance(model, torch.nn.Module):
            raise InputError("items from a file need a model with a shape: give krelax.from_torch(module, example)")
        network = as_network(model, (), scores)
        labels = None if y is None else _path(y)
        agree = agreement(network, scaling)
        return network, load_images(x, network.input_shape, prod(network.output_shape), layout, labels, agree=agree)
    items, classes = _arrays(x, y)
    raw = Raw(_pixels(items), classes, [f"item {i}" for i in range(len(items))], labelled="x" if y is None else "y")
    network = as_network(model, items.shape[1:], scores)
    if scores:
        _check_classifier(network)
    agree = agreement(network, scaling)
    return network, fitted([raw], "x", network.input_shape, prod(network.output_shape), layout, agree=agree)


def _check_classifier(network: Network) -> None:
    if prod(network.output_shape) < 2:
        raise InputError(f"the model's output {list(network.output_shape)} is not a vector of class scores")


def _path(y: Labels) -> str | Path:
    if not isinstance(y, str | Path):
        raise InputError("x is a path, so y must be the path of a file of labels, or the name of a column, or nothing")
    return y


def _arrays(x: Any, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Items `(n, *shape)` and labels, of arrays, tensors, or batches of both."""
    if _is_array(x):
        if y is None:
            raise InputError("give the labels of the items, y")
        items, labels = as_array(x, "x"), as_array(y, "y")
        return (items[None], labels[None]) if labels.ndim == 0 else (items, labels)
    if y is not None or not isinstance(x, Iterable):
        raise InputError(f"x is a {type(x).__name__}; give an array, a tensor, a path, or a DataLoader (without y)")
    batches = []
    for batch in x:
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            raise InputError("batches of the DataLoader must be pairs of items and labels")
        batches.append((as_array(batch[0], "x"), np.atleast_1d(as_array(batch[1], "y"))))
    if not batches:
        raise InputError("the DataLoader has no batches")
    try:
        return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])
    except ValueError as error:
        raise InputError(f"the batches of the DataLoader have items of several shapes ({error})") from error


def unlabelled(x: Items) -> NDArray[np.int64] | None:
    """Labels for items that need none; None for those that bring their own. Raises InputError for what are none."""
    if not _is_array(x):
        return None
    items = as_array(x, "x")
    _check_items(items)
    return np.zeros(len(items), np.int64)


def _is_array(x: Any) -> bool:
    return isinstance(x, Tensor | np.ndarray | list | tuple) or hasattr(x, "__array__")


def as_array(values: Any, name: str) -> NDArray[Any]:
    if isinstance(values, Tensor):
        if values.is_sparse or values.is_quantized or values.device.type == "meta":
            raise InputError(f"{name} is a sparse, quantised or meta tensor; give an ordinary one")
        values = values.detach().cpu()
        return (values.float() if values.dtype in (torch.float16, torch.bfloat16) else values).numpy()
    if isinstance(values, list | tuple) and any(isinstance(value, Tensor) for value in values):
        values = [as_array(value, name) for value in values]
    if np.ma.is_masked(values):
        raise InputError(f"{name} is an array with masked entries; give one in which every entry counts")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} is not an array: its rows have different lengths") from error
    if array.dtype == object and array.size and all(isinstance(value, str) for value in array.flat):
        array = array.astype(str)  # names, as data frames hold them
    if array.dtype == object:
        raise InputError(f"{name} is an array of Python objects; give numbers")
    return array


def _pixels(items: NDArray[Any]) -> NDArray[np.float32]:
    _check_items(items)
    return as_pixels(items, "x", "the array")


def _check_items(items: NDArray[Any]) -> None:
    if items.ndim < 2:
        raise InputError(f"x has the shape {list(items.shape)}; it needs one axis for the items, and their own")
