"""`krelax.bound`: what one method knows, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.api.certifying import Norm, as_range
from krelax.api.tables import Rows, as_html, as_pandas, as_text
from krelax.api.taking import Items, Labels, Model, Number, as_scaling, one_or_each, taken
from krelax.bounds.bounded import Bounded
from krelax.bounds.instance import Instance, chunk_images, pieces
from krelax.bounds.methods import METHODS, Method
from krelax.bounds.methods import bound as bound_instance
from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.network.scalars import with_axes
from krelax.problem.queries import Queries
from krelax.problem.region import Region
from krelax.problem.regions import Spec, as_region
from krelax.run.certify import CertifyOptions, check_device
from krelax.run.regions import asked
from krelax.search.questions import about_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS = 10


@dataclass(frozen=True, repr=False, eq=False)
class Bounds:
    """Lower bounds of the margins of items, by one method: `krelax.bound` returns it.

    `values` are bounds of the label's output less each other one, `(n, classes - 1)`, in the order of the classes
    without the label; `found` is all that is known of every layer: None of regions that are several questions.
    """

    values: NDArray[np.float64]
    labels: NDArray[np.int64]
    method: str
    found: Bounded | None = field(repr=False)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def margins(self) -> NDArray[np.float64]:
        """The smallest bound of every item, `(n,)`; a positive one is a proof."""
        return np.asarray(self.values.min(1))

    @property
    def certified(self) -> NDArray[np.bool_]:
        """Which items are proven robust, `(n,)`."""
        return self.margins > 0

    def _table(self) -> tuple[str, Sequence[str], Rows]:
        title = f"{self.method}: {int(self.certified.sum())} of {len(self)} items proven robust"
        rival = self.values.argmin(1)
        rival += rival >= self.labels
        shown = range(min(len(self), _MOST_ROWS))
        rows = [(str(i), f"y[{self.labels[i]}] - y[{rival[i]}]", f"{self.margins[i]:.6g}") for i in shown]
        return title, ("item", "worst margin", "lower bound"), rows + [("...", "", "")] * (len(self) > _MOST_ROWS)

    def __repr__(self) -> str:
        return as_text(*self._table())

    def _repr_html_(self) -> str:
        return as_html(*self._table())

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each item. Raises InputError without pandas."""
        return as_pandas({"label": self.labels, "margin": self.margins, "certified": self.certified})

    def plot(self) -> Figure:
        """A figure of the undecided neurons and widths of all layers. Raises InputError without matplotlib."""
        from krelax.picture.layers import layers

        if self.found is None:
            raise InputError("these bounds are of several questions, which no figure shows; bound one item in a ball")
        return layers({self.method: self.found.bounds})


@overload
def bound(model: Instance, x: Queries, y: Method, *, stop: bool = ..., found: Bounded | None = ...) -> Bounded: ...


@overload
def bound(
    model: Model,
    x: Items,
    y: Labels | None = None,
    *,
    eps: Number | Sequence[Number] | None = ...,
    region: str | Spec | None = ...,
    norm: Norm = ...,
    clip: tuple[Number, Number] | None = ...,
    mean: Any = ...,
    std: Any = ...,
    method: str | Method = ...,
    device: Literal["cpu", "cuda"] = ...,
) -> Bounds: ...


def bound(
    model: Model | Instance,
    x: Any,
    y: Any = None,
    *,
    eps: Number | Sequence[Number] | None = None,
    region: str | Spec | None = None,
    norm: Norm = "linf",
    clip: tuple[Number, Number] | None = (0.0, 1.0),
    mean: Any = None,
    std: Any = None,
    method: str | Method = "alpha",
    device: Literal["cpu", "cuda"] = "cpu",
    stop: bool = False,
    found: Bounded | None = None,
) -> Bounds | Bounded:
    """Lower bounds of the margins within `eps` of items, or in a region around them, by one method.

    Args:
        model: A torch module in evaluation mode, the path of an ONNX file, or a `krelax.Network`. Or an `Instance`, the
            network over regions: then `x` are `Queries`, `y` is a `Method`, and no other arguments but `stop` and
            `found` count, those of `krelax.bounds.methods.bound`, which does that.
        x: Items `(n, *shape)`, as for `krelax.certify`.
        y: Their labels.
        eps: The radius, on the scale of `x`.
        region: What may happen to an item instead, or with `eps` of noise on top, as for `krelax.certify`. Of a union
            of boxes the bounds are the smallest of all of them.
        norm: `linf`, `l2` or `l1`.
        clip: The range of entries of an input; None for no range.
        mean: The model is given `(x - mean) / std`: a number, or one for each channel.
        std: The same.
        method: One of `krelax.METHODS`.
        device: `cpu` or `cuda`.
        stop: Whether optimisation ends as soon as every question is settled.
        found: What is known already, of an `Instance`.

    Returns:
        The bounds, which print as a table and have `to_pandas()` and `plot()`; for an `Instance` what
        `krelax.bounds.methods.bound` returns.

    Raises:
        InputError: Something does not fit, in one line.

    Sound: yes. A bound is the value of a witness, less all rounding errors.
    Complete: no.
    """
    if isinstance(model, Instance):
        if not isinstance(x, Queries) or not isinstance(y, Method):
            raise InputError("bounds over an Instance are of Queries, by a Method: krelax.METHODS['alpha']")
        return bound_instance(model, x, y, stop, found)
    spec = as_region(region)
    if eps is None and spec is None:
        raise InputError("give the radius of the perturbation, eps, or a region")
    way = method if isinstance(method, Method) else METHODS.get(method)
    if way is None:
        raise InputError(f"unknown method {method!r}: use one of {', '.join(METHODS)}")
    check_device(device)
    scaling = as_scaling(mean, std)
    network, images = taken(model, x, y, scaling, None)
    whole = one_or_each("eps", 0.0 if eps is None else eps)
    ends = None if clip is None else as_range(clip)
    if spec is not None:
        options = CertifyOptions(whole, norm, ends, device=device, scaling=scaling, region=spec)
        values = [
            _smallest(network, image, label, spec, options, way)
            for image, label in zip(images.images, images.labels.tolist(), strict=True)
        ]
        return Bounds(np.stack(values), images.labels, way.name, None)
    questions = about_images(network, images, whole, norm, ends, scaling)
    result = _bounded(network, questions.region, questions.queries, way, device, stop)
    return Bounds(result.value.cpu().numpy(), images.labels, way.name, result)


def _bounded(
    network: Network, region: Region, queries: Queries, way: Method, device: str, stop: bool = False
) -> Bounded:
    instance = Instance.of(network, region.to(torch.float64, device))
    return bound_instance(instance, queries.to(torch.float64, device), way, stop)


def _smallest(
    network: Network, image: NDArray[np.float32], label: int, spec: Spec, options: CertifyOptions, way: Method
) -> NDArray[np.float64]:
    """The smallest bounds of the margins of an image over all boxes of its region, `(classes - 1,)`."""
    front, questions, _ = asked(network, image, label, spec, options)
    front, device = with_axes(front), options.device
    region, queries = questions.shaped(front.input_shape).region, questions.queries
    size = 1 if way.separate else chunk_images(front, way.copies, torch.device(device))
    parts = pieces(len(questions), size)
    found = [_bounded(front, region.select(part), queries.select(part), way, device).value for part in parts]
    return np.asarray(torch.cat(found).amin(0).cpu().numpy())
