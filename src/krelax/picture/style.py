"""The paper that pictures are drawn on; what their colours and lines are is said in `krelax.looks`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from krelax.errors import InputError
from krelax.looks import PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

_RC = {
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "svg.hashsalt": "krelax",
    "path.simplify": True,
}


def drawn(function: Callable[P, R]) -> Callable[P, R]:
    """Draw with this style, whatever matplotlib's settings are. Raises InputError without matplotlib."""

    @wraps(function)
    def styled(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            matplotlib = import_module("matplotlib")
        except ModuleNotFoundError:
            raise InputError("pictures need matplotlib: pip install 'krelax[pictures]'") from None
        with matplotlib.rc_context(matplotlib.rcParamsDefault | _RC):
            return function(*args, **kwargs)

    return styled


def sheet(width: float, height: float) -> Figure:
    """An empty figure, in inches, outside of pyplot: nothing has to be closed."""
    return _shown()(figsize=(width, height), layout="constrained", facecolor="white")


@cache
def _shown() -> type[Figure]:
    """A figure that a notebook shows where it is the last value of a cell, as pyplot's are."""
    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            stream = BytesIO()
            self.savefig(stream, format="png", dpi=110)
            return stream.getvalue()

    return Shown


def on(axes: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    """The given axes and their figure, or a new figure with one axes."""
    if axes is None:
        figure = sheet(width, height)
        return figure, figure.add_subplot()
    above = axes.get_figure(root=True)
    assert above is not None
    return above, axes


_DATES: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}


@drawn
def check_figure(path: Path) -> None:
    """Raises InputError where `save` cannot write a figure, for those that work long before they draw."""
    if path.suffix.lower() not in _DATES:
        raise InputError(f"{path}: figures are written as .svg, .png or .pdf; give a file that ends so")
    if path.is_dir() or not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise InputError(f"{path}: cannot be written; give a file in a folder that exists for the figure")


@drawn
def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as SVG, PNG (200 dots an inch) or PDF, by the ending of the path. Equal figures are equal files.

    Raises InputError for another ending, and where there is no such folder.
    """
    check_figure(Path(path))
    figure.savefig(path, metadata=_DATES[Path(path).suffix.lower()], dpi=200, facecolor="white")


def number(x: float, digits: int = 4) -> str:
    """So many digits at most, with a real minus sign."""
    return f"{x:.{digits}g}".replace("-", "\N{MINUS SIGN}") if abs(x) > 1e-12 else "0"


def square(axes: Axes, points: Any, room: float) -> None:
    """Equal scales on both axes of a square panel, `room` times as wide as the points `(n, 2)` in its middle."""
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, room / 2 * max((high - low).max(), 1e-9)
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), aspect="equal")
    axes.locator_params(nbins=4)


def cross(axes: Axes) -> None:
    """Pale lines through zero, behind everything."""
    axes.axhline(0, color=PALE, linewidth=0.8, zorder=0)
    axes.axvline(0, color=PALE, linewidth=0.8, zorder=0)
