"""`krelax.certify`: labelled items in one call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from krelax._version import __version__
from krelax.api.tables import Rows, as_html, as_pandas, as_text
from krelax.api.taking import Items, Labels, Model, Number, as_array, as_scaling, limit, numbers, one_or_each, taken
from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.problem.images import Images
from krelax.problem.regions import Spec, as_region
from krelax.run.certificates import Certificates
from krelax.run.certify import CertifyOptions, identity
from krelax.run.certify import certify as run
from krelax.run.hints import Hints
from krelax.run.journal import digest_of_network
from krelax.run.progress import Progress
from krelax.search.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Norm = Literal["linf", "l2", "l1"]
_MEANS = {
    "holds": "proven robust against any adversary",
    "violated": "a counterexample was replayed",
    "unknown": "neither proven nor refuted",
}


@dataclass(frozen=True, repr=False, eq=False)
class Certified:
    """What became of each item: `krelax.certify` returns it.

    `records` are the results in the order of the items, as docs/jsonl.md describes them, and `images` the items.
    """

    records: tuple[Mapping[str, Any], ...]
    images: Images = field(repr=False)
    settings: Mapping[str, Any] = field(repr=False)
    seconds: float = 0.0
    names: tuple[str, str] = ("model", "x")

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.records)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.records[index]

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdict of every item."""
        return [Verdict(r["verdict"]) for r in self.records]

    @property
    def certified(self) -> NDArray[np.bool_]:
        """Which items are proven robust, `(n,)`."""
        return np.array([r["verdict"] == "holds" for r in self.records])

    @property
    def violated(self) -> NDArray[np.bool_]:
        """Which items have a counterexample, `(n,)`."""
        return np.array([r["verdict"] == "violated" for r in self.records])

    @property
    def margins(self) -> NDArray[np.float64]:
        """The best lower bound of every item's margin, `(n,)`; not a number where nothing was bounded."""
        return np.array([np.nan if r["margin"] is None else r["margin"] for r in self.records])

    @property
    def accuracy(self) -> float:
        """The share of items that the model classifies as labelled."""
        return float(np.mean([r["predicted"] == r["label"] for r in self.records]))

    @property
    def certified_accuracy(self) -> float:
        """The share of items that are proven robust."""
        return float(self.certified.mean())

    @property
    def counterexamples(self) -> dict[int, NDArray[np.float64]]:
        """The counterexample of each violated item, in the shape and on the scale of the model's input."""
        shape = self.images.images.shape[1:]
        found = {r["index"]: r["counterexample"]["x"] for r in self.records if "counterexample" in r}
        return {index: np.array(x).reshape(shape) for index, x in found.items()}

    def _table(self) -> tuple[str, Sequence[str], Rows]:
        ball = f"{self.settings['norm']} ball of radius {self.settings['eps']:g}"
        if "region" in self.settings:
            ball = self.settings["region"] + f", and {ball}" * bool(self.settings["eps"])
        title = f"{len(self)} items, {ball}: {100 * self.accuracy:.1f} % classified as labelled, {self.seconds:.2f} s"
        counts = {name: sum(r["verdict"] == name for r in self.records) for name in _MEANS}
        share = {name: f"{100 * count / len(self):.1f} %" for name, count in counts.items()}
        rows = [(name, str(count), share[name], _MEANS[name]) for name, count in counts.items()]
        return title, ("verdict", "items", "share", "meaning"), rows

    def __repr__(self) -> str:
        return as_text(*self._table())

    def _repr_html_(self) -> str:
        return as_html(*self._table())

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each item. Raises InputError without pandas."""
        names = ("index", "label", "predicted", "verdict", "reason", "margin", "seconds")
        return as_pandas({name: [r[name] for r in self.records] for name in names})

    def report(self, path: str | Path) -> Path:
        """Write a page (HTML) about the results; returns its path. Raises InputError where that is not possible."""
        from krelax.report.writing import write_page

        write_page(Path(path), self.names, self.images.images, self.settings, self.records)
        return Path(path)

    def plot(self) -> Figure:
        """A figure of all margins, by what became of the items. Raises InputError without matplotlib."""
        from krelax.picture.robust import margins

        return margins(self.margins.tolist(), [r["verdict"] for r in self.records])


def certify(
    model: Model,
    x: Items,
    y: Labels | None = None,
    *,
    eps: Number | Sequence[Number] | None = None,
    region: str | Spec | None = None,
    norm: Norm = "linf",
    clip: tuple[Number, Number] | None = (0.0, 1.0),
    mean: Any = None,
    std: Any = None,
    layout: Literal["nchw", "nhwc"] | None = None,
    method: str = "auto",
    timeout: float | None = 60.0,
    device: Literal["cpu", "cuda"] = "cpu",
    deterministic: bool = False,
    counterexamples: Any = None,
    certificates: str | Path | None = None,
    journal: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Certified:
    """Is every input within `eps` of each item, or in a region around it, classified as its label?

    Args:
        model: A torch module in evaluation mode, the path of an ONNX file, or a `krelax.Network`.
        x: Items `(n, *shape)`, an array or a tensor: uint8 is divided by 255, floats are taken in float32. Or a
            DataLoader of pairs `(x, y)`, or the path of a file or folder of labelled images.
        y: Labels `(n,)`, integers from 0, one-hot rows `(n, classes)`, or names.
        eps: The radius, on the scale of `x`, exactly: `8/255` is a float, `Fraction(8, 255)` the fraction. With linf
            there may be one for each entry of an item, in a list.
        region: What may happen to an item instead, or with `eps` of noise on top: "rotate:10+brightness:0.1", "patch:3"
            or the like (docs/regions.md), or one of `krelax.Transformed`, `krelax.Patch`, `krelax.Pixels`,
            `krelax.Categories`.
        norm: `linf`, `l2` or `l1`.
        clip: The range of entries of an input; None for no range.
        mean: The model is given `(x - mean) / std`: a number, or one for each channel.
        std: The same.
        layout: `nchw` or `nhwc`, where the channels of `x` are; found by trying the labels if it is needed.
        method: `auto`, or one of `krelax.METHODS` and an attack.
        timeout: Seconds for each item; None for no limit.
        device: `cpu` or `cuda`.
        deterministic: Count work instead of time, so that answers are the same each time.
        counterexamples: Points `(n, *shape)` on the scale of `x` that another library found, one for each item, or a
            dictionary from the number of an item to such a point. They are replayed first. Of a transformation they
            are its parameters.
        certificates: A folder for proofs of what holds. The model must be the path of an ONNX file.
        journal: A file for each result as it comes.
        resume: Whether to go on with the results in the journal.
        progress: Whether a bar may be shown, in terminals and notebooks, of what takes long.

    Returns:
        The results, which print as a table and have `to_pandas()`, `report(path)` and `plot()`.

    Raises:
        InputError: Something does not fit, in one line.

    Sound: yes. What holds is proven, what is violated has a counterexample that was replayed in the original model.
    Complete: with method `auto` and enough time, for ReLUs and leaky ReLUs, but for margins of exactly zero.
    """
    spec, scaling = as_region(region), as_scaling(mean, std)
    if eps is None and spec is None:
        raise InputError("give the radius of the perturbation, eps, or a region")
    eps = 0.0 if eps is None else eps
    network, images = taken(model, x, y, scaling, layout)
    radius = one_or_each("eps", eps)
    ends = None if clip is None else as_range(clip)
    options = CertifyOptions(radius, norm, ends, method, limit(timeout), device, deterministic, scaling, spec)
    settings = digests(model, network, images)
    records: dict[int, Mapping[str, Any]] = {}
    with Progress(len(images), "certifying", progress) as bar:

        def seen(record: dict[str, Any]) -> None:
            records[record["index"]] = record
            bar.seen(record)

        summary = run(
            network,
            images,
            range(len(images)),
            options,
            journal=None if journal is None else Path(journal),
            resume=resume,
            settings=settings,
            seen=seen,
            certificates=keeper(certificates, model),
            hints=None if counterexamples is None else _hints(counterexamples, images, spec),
            say=_warn,
        )
    if len(records) < len(images):
        from krelax.run.journal import read_journal

        assert journal is not None
        records |= {r["index"]: r for r in read_journal(Path(journal))[1]}
    header = {"krelax": __version__, **identity(options, settings)}
    ordered = tuple(records[i] for i in range(len(images)))
    return Certified(ordered, images, header, summary.seconds, (name_of(model), name_of(x, "x")))


def as_range(clip: Any) -> tuple[Fraction, Fraction]:
    """The two ends of a range. Raises InputError for anything else."""
    ends = numbers("clip", clip)
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise InputError(f"clip must be two numbers, the smaller one first, or None, got {clip!r}")
    return ends[0], ends[1]


def digests(model: Model, network: Network, images: Images) -> dict[str, str]:
    """What a journal says of a model and items."""
    return {"model": _digest(model, network), "images": hashlib.sha256(images.images.tobytes()).hexdigest()}


def _digest(model: Model, network: Network) -> str:
    """Of the files of a model, or of the constants of a network in memory."""
    if isinstance(model, str | Path):
        return digest_of_network(model)
    found = hashlib.sha256()
    for node in network.nodes:
        values = {f.name: getattr(node.op, f.name) for f in fields(node.op)}
        plain = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        found.update(f"{type(node.op).__name__} {plain} {node.inputs} {node.shape}".encode())
        for constant in (value for value in values.values() if isinstance(value, Tensor)):
            found.update(constant.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def name_of(thing: Any, other: str = "model") -> str:
    """What pages call a model, or items: their file, or the type of a model in memory."""
    if isinstance(thing, str | Path):
        return Path(thing).name
    return type(thing).__name__ if other == "model" else other


def keeper(folder: str | Path | None, model: Model) -> Certificates | None:
    """Where proofs go; None where none are asked for. Raises InputError for a model that is no file."""
    if folder is None:
        return None
    if not isinstance(model, str | Path):
        raise InputError("certificates are about the file of a network; give the path of an ONNX file as the model")
    return Certificates(Path(folder), Path(model))


def _hints(given: Any, images: Images, region: Spec | None) -> Hints:
    where = "counterexamples"
    if not isinstance(given, Mapping):
        return Hints.of(as_array(given, where), None, images, where, region)
    if not given:
        return Hints(np.zeros((0, *images.images.shape[1:])), np.zeros(0, int))
    points = [as_array(point, where) for point in given.values()]
    if len({p.shape for p in points}) > 1:
        raise InputError("counterexamples have several shapes; give all of them in the shape of the items")
    return Hints.of(np.stack(points), np.array(list(given)), images, where, region)


def _warn(line: str) -> None:
    import warnings

    warnings.warn(f"counterexamples: {line}", stacklevel=2)
