"""`krelax.difference`: how far two models are apart, in one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from krelax.api.certifying import Norm, as_range, digests, name_of
from krelax.api.tables import Rows, as_html, as_pandas, as_text
from krelax.api.taking import (
    Items,
    Labels,
    Model,
    Number,
    as_network,
    as_scaling,
    limit,
    number,
    one_or_each,
    taken,
    unlabelled,
)
from krelax.report.shown import shown
from krelax.run.difference import DifferenceOptions
from krelax.run.difference import difference as run
from krelax.run.progress import Progress
from krelax.search.verdict import Verdict

_MOST_ROWS = 10


@dataclass(frozen=True, repr=False, eq=False)
class Differences:
    """How far two models are apart around each item: `krelax.difference` returns it. `records` are what is known of the
    items, in their order."""

    records: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.records)

    @property
    def certified(self) -> NDArray[np.float64]:
        """What outputs around each item differ by at most, `(n,)`: proven. Infinite where nothing is."""
        return np.array([np.inf if r["certified"] is None else r["certified"] for r in self.records])

    @property
    def found(self) -> NDArray[np.float64]:
        """The largest difference found around each item, `(n,)`: replayed in both models."""
        return np.array([r["found"] for r in self.records])

    @property
    def verdicts(self) -> list[Verdict]:
        """Of every item, whether outputs differ by at most `within`; none if that was not asked."""
        return [Verdict(r["verdict"]) for r in self.records if "verdict" in r]

    @property
    def points(self) -> dict[int, NDArray[np.float64]]:
        """Where the largest difference was found, on the scale of the model's input, flattened, by item."""
        return {r["index"]: np.array(r["counterexample"]["x"]) for r in self.records if "counterexample" in r}

    def _table(self) -> tuple[str, Sequence[str], Rows]:
        one, other = self.settings["models"]
        ball = f"{self.settings['norm']} ball of radius {self.settings['eps']:g}"
        title = (
            f"{one} and {other}, {len(self)} items, {ball}: at most {shown(self.certified.max(initial=0.0), up=True)}"
        )
        asked = bool(self.verdicts)
        rows = [
            (
                str(r["index"]),
                "-" if r["certified"] is None else shown(r["certified"], up=True),
                shown(r["found"], up=False),
                *([r["verdict"]] if asked else []),
                r["reason"],
            )
            for r in self.records[:_MOST_ROWS]
        ]
        header = ("item", "at most", "at least", *(["verdict"] if asked else []), "why it ended")
        more = [("...", *[""] * (len(header) - 1))] * (len(self) > _MOST_ROWS)
        return title, header, rows + more

    def __repr__(self) -> str:
        return as_text(*self._table())

    def _repr_html_(self) -> str:
        return as_html(*self._table())

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each item. Raises InputError without pandas."""
        names = ["index", "label", "predicted", "certified", "found", "reason", "seconds"]
        names += ["verdict"] if self.verdicts else []
        return as_pandas({name: [r[name] for r in self.records] for name in names})


def difference(
    a: Model,
    b: Model,
    x: Items,
    y: Labels | None = None,
    *,
    eps: Number | Sequence[Number],
    within: Number | None = None,
    accuracy: Number = 0.1,
    norm: Norm = "linf",
    clip: tuple[Number, Number] | None = (0.0, 1.0),
    mean: Any = None,
    std: Any = None,
    layout: Literal["nchw", "nhwc"] | None = None,
    method: str = "auto",
    timeout: float | None = 60.0,
    device: Literal["cpu", "cuda"] = "cpu",
    deterministic: bool = False,
    journal: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Differences:
    """How far are the outputs of two models apart, for every input within `eps` of each item?

    Both are bounded together, layer by layer, in what they differ by: a copy that was pruned, quantised or trained a
    little more is shown to be near to the original.

    Args:
        a: A torch module in evaluation mode, the path of an ONNX file, or a `krelax.Network`.
        b: Another one, with the same inputs and as many outputs.
        x: Items `(n, *shape)`, as for `krelax.certify`.
        y: Their labels, which only say how the items are laid out; they may be left out for arrays.
        eps: The radius, as for `krelax.certify`: one, or with linf one for each input.
        within: A distance of outputs: is it exceeded anywhere? None asks for the smallest one that can be certified.
        accuracy: Without `within`, how near that is to be to the largest difference found, relative to it.
        norm: `linf`, `l2` or `l1`, of the inputs.
        clip: The range of entries of an input; None for no range.
        mean: Both models are given `(x - mean) / std`: a number, or one for each channel.
        std: The same.
        layout: `nchw` or `nhwc`, where the channels of `x` are; found by trying the labels if it is needed.
        method: `auto`, or one of `krelax.METHODS` and an attack.
        timeout: Seconds for each item; None for no limit.
        device: `cpu` or `cuda`.
        deterministic: Count work instead of time.
        journal: A file for each result as it comes.
        resume: Whether to go on with the results in the journal.
        progress: Whether a bar may be shown, in terminals and notebooks, of what takes long.

    Returns:
        The differences, which print as a table and have `certified`, `found`, `points` and `to_pandas()`.

    Raises:
        InputError: Something does not fit, in one line.

    Sound: yes. What is certified is proven, what is found was replayed in both models.
    Complete: as `krelax.certify`.
    """
    scaling = as_scaling(mean, std)
    network, images = taken(a, x, unlabelled(x) if y is None else y, scaling, layout, scores=False)
    other = as_network(b, network.input_shape[1:])
    radius, ends, share = (
        one_or_each("eps", eps),
        None if clip is None else as_range(clip),
        number("accuracy", accuracy),
    )
    asked = None if within is None else number("within", within)
    options = DifferenceOptions(
        radius, asked, share, norm, ends, method, limit(timeout), device, deterministic, scaling
    )
    with Progress(len(images), "differences", progress) as bar:
        found = run(
            network,
            other,
            images,
            range(len(images)),
            options,
            journal=None if journal is None else Path(journal),
            resume=resume,
            settings={**digests(a, network, images), "other": digests(b, other, images)["model"]},
            seen=lambda record: bar.seen({"verdict": record.get("verdict") or record["reason"]}),
        )
    facts = {
        "norm": norm,
        "eps": float(max(radius) if isinstance(radius, tuple) else radius),
        "method": method,
        "models": (name_of(a), name_of(b)),
    }
    return Differences(tuple(found[i] for i in range(len(images))), facts)
