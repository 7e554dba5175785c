"""`krelax.monotone`: does an output rise with an input, in one call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from krelax.api.certifying import as_range, name_of
from krelax.api.tables import Rows, as_html, as_pandas, as_text
from krelax.api.taking import Items, Model, Number, limit, number, one_or_each, taken, unlabelled
from krelax.errors import InputError
from krelax.report.shown import shown
from krelax.run.monotone import Answer, MonotoneOptions
from krelax.run.monotone import monotone as run
from krelax.search.around import Around, radii_of
from krelax.search.verdict import Verdict

_MOST_ROWS = 10


@dataclass(frozen=True, repr=False, eq=False)
class Monotone:
    """Whether an output is monotone around each item: `krelax.monotone` returns it. `answers` are in the order of the
    items; the `title` says what was asked."""

    answers: tuple[Answer, ...]
    title: str

    def __len__(self) -> int:
        return len(self.answers)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self.answers)

    @property
    def verdicts(self) -> list[Verdict]:
        """Of every item, whether the output is monotone around it."""
        return [a.verdict for a in self.answers]

    @property
    def slopes(self) -> NDArray[np.float64]:
        """How much the output gains at least for each unit of the input, in the direction that was asked about, `(n,)`:
        proven. Minus infinity where nothing is."""
        return np.array([-np.inf if a.slope is None else a.slope for a in self.answers])

    @property
    def pairs(self) -> dict[int, NDArray[Any]]:
        """By item, two inputs `(2, *shape)` that the model answers in the wrong order."""
        return {i: a.pair.x for i, a in enumerate(self.answers) if a.pair is not None}

    def _table(self) -> tuple[str, Sequence[str], Rows]:
        rows = [
            (
                str(i),
                a.verdict.value,
                "-" if a.slope is None else shown(a.slope, up=False),
                a.reason,
                f"{a.seconds:.2f}",
            )
            for i, a in enumerate(self.answers[:_MOST_ROWS])
        ]
        header = ("item", "verdict", "slope at least", "why it ended", "seconds")
        return self.title, header, rows + [("...", *[""] * 4)] * (len(self) > _MOST_ROWS)

    def __repr__(self) -> str:
        return as_text(*self._table())

    def _repr_html_(self) -> str:
        return as_html(*self._table())

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each item. Raises InputError without pandas."""
        names = ("verdict", "slope", "reason", "seconds")
        return as_pandas({name: [getattr(a, name) for a in self.answers] for name in names})


def monotone(
    model: Model,
    x: Items,
    *,
    eps: Number | Sequence[Number],
    feature: int,
    output: int = 0,
    rising: bool = True,
    slack: Number = 0.0,
    clip: tuple[Number, Number] | None = None,
    method: str = "auto",
    timeout: float | None = 60.0,
    device: Literal["cpu", "cuda"] = "cpu",
    deterministic: bool = False,
) -> Monotone:
    """Does an output rise with one input, whatever the others are, everywhere within `eps` of each item?

    That is, of every two inputs in the region that differ in nothing but the feature, does the one with more of it get
    at least as large an output?

    Args:
        model: A torch module in evaluation mode, an ONNX file's path, or a `krelax.Network`. Where signs of weights
            do not decide, its operators must be affine, ReLU, leaky ReLU, sigmoid, tanh, exp and squares.
        x: Items `(n, *shape)`, an array or a tensor, or the path of a file.
        eps: The radius, the same for all inputs, or one for each.
        feature: The input's place in a flattened item, from 0.
        output: The output's place, from 0.
        rising: False asks whether the output falls.
        slack: The output may go the other way by no more than this times the change of the feature. Where it stays the
            same, only a slack above 0 can be proven, unless signs of weights say that it does not go the other way.
        clip: The range of inputs; None for no range.
        method: `auto`, or one of `krelax.METHODS` and an attack.
        timeout: Seconds for each item; None for no limit.
        device: `cpu` or `cuda`.
        deterministic: Count work instead of time.

    Returns:
        The answers, which print as a table and have `verdicts`, `slopes`, `pairs` and `to_pandas()`.

    Raises:
        InputError: Something does not fit, in one line.
        UnsupportedError: The slope of an operator is not known.

    Sound: yes. HOLDS is proven of real numbers; VIOLATED has a pair of inputs, of which that is proven, too, and which
        was replayed in the model.
    Complete: for slopes that are above, or somewhere below, what is asked, and where signs of weights decide.
    """
    network, images = taken(model, x, unlabelled(x), None, None, scores=False)
    size = prod(network.input_shape)
    place, end = _place("feature", feature, size), _place("output", output, prod(network.output_shape))
    ends = None if clip is None else as_range(clip)
    whole = radii_of(one_or_each("eps", eps), len(images))
    around = Around(images.images, whole, "linf", ends)
    options = MonotoneOptions(place, end, rising, number("slack", slack), method, limit(timeout), device, deterministic)
    word = "rises" if rising else "falls"
    title = f"{name_of(model)}: whether output {end} {word} with input {place}, {len(images)} items"
    return Monotone(tuple(run(network, around, options)), title)


def _place(name: str, given: int, count: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or not 0 <= given < count:
        raise InputError(f"{name} must be a whole number from 0 to {count - 1}, got {given!r}"[:200])
    return int(given)
