"""`krelax.radius`: how robust each item is, in one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from krelax.api.certifying import Norm, as_range, digests, keeper, name_of
from krelax.api.tables import Rows, as_html, as_pandas, as_text
from krelax.api.taking import Items, Labels, Model, Number, as_scaling, limit, number, taken
from krelax.problem.regions import Spec, transformation
from krelax.report.shown import shown
from krelax.run.progress import Progress
from krelax.run.radius import RadiusOptions
from krelax.run.radius import radius as run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS = 10


@dataclass(frozen=True, repr=False, eq=False)
class Radii:
    """The radius of each item: `krelax.radius` returns it. `records` are what is known of the items, in their order."""

    records: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any] = field(repr=False)
    names: tuple[str, str] = ("model", "x")

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.records)

    @property
    def certified(self) -> NDArray[np.float64]:
        """The largest certified radius of each item, `(n,)`; zero where none is."""
        return np.array([r["certified"] or 0.0 for r in self.records])

    @property
    def refuted(self) -> NDArray[np.float64]:
        """The smallest refuted radius of each item, `(n,)`; infinite where none is."""
        return np.array([np.inf if r["refuted"] is None else r["refuted"] for r in self.records])

    def _table(self) -> tuple[str, Sequence[str], Rows]:
        middle = float(np.median(self.certified))
        title = f"{len(self)} items, {self.settings['norm']} radii: median certified {middle:.6g}"
        rows = [
            (
                str(r["index"]),
                "-" if r["certified"] is None else shown(r["certified"], up=False),
                "-" if r["refuted"] is None else shown(r["refuted"], up=True),
                r["reason"],
            )
            for r in self.records[:_MOST_ROWS]
        ]
        more = [("...", "", "", "")] * (len(self) > _MOST_ROWS)
        return title, ("item", "certified", "refuted", "why it ended"), rows + more

    def __repr__(self) -> str:
        return as_text(*self._table())

    def _repr_html_(self) -> str:
        return as_html(*self._table())

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each item. Raises InputError without pandas."""
        names = ("index", "label", "predicted", "certified", "refuted", "reason", "seconds")
        return as_pandas({name: [r[name] for r in self.records] for name in names})

    def report(self, path: str | Path) -> Path:
        """Write a page (HTML) with the robustness curve; returns its path. Raises InputError where that fails."""
        from krelax.report.radii import write_radii

        write_radii(Path(path), self.names, self.settings, self.records)
        return Path(path)

    def plot(self) -> Figure:
        """The robustness curve as a figure: the certified share against the radius. Raises InputError without
        matplotlib."""
        from krelax.picture.robust import shares
        from krelax.report.radii import lines

        return shares(*lines(self.records, self.settings["method"]), steps=True)


def radius(
    model: Model,
    x: Items,
    y: Labels | None = None,
    *,
    accuracy: Number = 0.01,
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
    certificates: str | Path | None = None,
    journal: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Radii:
    """The radius of each item: the largest that is certified, and the smallest that is refuted.

    Args:
        model: A torch module in evaluation mode, the path of an ONNX file, or a `krelax.Network`.
        x: Items `(n, *shape)`, as for `krelax.certify`.
        y: Their labels.
        accuracy: How near the two radii are to be, relative to them.
        region: A transformation, as "rotate:45" (docs/regions.md), or a `krelax.Transformed`: then radii are how much
            of it items stand, in degrees, pixels or the like; of several together the share.
        norm: `linf`, `l2` or `l1`.
        clip: The range of entries of an input; None for no range.
        mean: The model is given `(x - mean) / std`: a number, or one for each channel.
        std: The same.
        layout: `nchw` or `nhwc`, where the channels of `x` are; found by trying the labels if it is needed.
        method: `auto`, or one of `krelax.METHODS` and an attack.
        timeout: Seconds for each item; None for no limit.
        device: `cpu` or `cuda`.
        deterministic: Count work instead of time.
        certificates: A folder for proofs at the certified radii. The model must be the path of an ONNX file.
        journal: A file for each result as it comes.
        resume: Whether to go on with the results in the journal.
        progress: Whether a bar may be shown, in terminals and notebooks, of what takes long.

    Returns:
        The radii, which print as a table and have `to_pandas()`, `report(path)` and `plot()`.

    Raises:
        InputError: Something does not fit, in one line.

    Sound: yes. What is certified is proven, what is refuted has a counterexample at that distance, which was replayed.
    Complete: as `krelax.certify` at the radius.
    """
    scaling = as_scaling(mean, std)
    network, images = taken(model, x, y, scaling, layout)
    spec = None if region is None else transformation(region)
    ends, share = None if clip is None else as_range(clip), number("accuracy", accuracy)
    options = RadiusOptions(share, norm, ends, method, limit(timeout), device, deterministic, scaling, spec)
    with Progress(len(images), "radii", progress) as bar:

        def seen(record: dict[str, Any]) -> None:
            bar.seen({"verdict": record["reason"]})

        found = run(
            network,
            images,
            range(len(images)),
            options,
            journal=None if journal is None else Path(journal),
            resume=resume,
            settings=digests(model, network, images),
            seen=seen,
            certificates=keeper(certificates, model),
        )
    facts = {"norm": norm if region is None else str(region), "method": method, "accuracy": float(share)}
    return Radii(tuple(found[i] for i in range(len(images))), facts, (name_of(model), name_of(x, "x")))
