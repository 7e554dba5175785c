"""Element types of a model's inputs, and the numbers that they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from krelax.errors import UnsupportedError

Floats = NDArray[np.float64]
Way = Literal["down", "up", "nearest"]
# The type of an array of numbers, which holds those of a model's own types.
Element = type[np.float16] | type[np.float32] | type[np.float64]

# The least and the largest number of every type of whole numbers.
WHOLE: dict[str, tuple[int, int]] = {
    "bool": (0, 1),
    **{f"int{n}": (-(2 ** (n - 1)), 2 ** (n - 1) - 1) for n in (8, 16, 32, 64)},
    **{f"uint{n}": (0, 2**n - 1) for n in (8, 16, 32, 64)},
}
_LARGEST = {
    "float16": float(np.finfo(np.float16).max),
    "bfloat16": float.fromhex("0x1.fep127"),
    "float32": float(np.finfo(np.float32).max),
    "float64": float(np.finfo(np.float64).max),
}
_PLAIN: dict[str, Element] = {"float16": np.float16, "float32": np.float32, "float64": np.float64}
# Relative distances of numbers; of whole ones, which are exact, those of the floats that hold them.
PRECISION = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}
# In float32 whole numbers of these types are exact.
_NARROW = {"bool", "int8", "uint8", "int16", "uint16", "float16", "bfloat16", "float32"}


@dataclass(frozen=True, eq=False)
class Elements:
    """The types of all entries of a model's input, in order: `names[index[i]]` is that of entry i; of all entries, if
    there is no index."""

    names: tuple[str, ...]
    index: NDArray[np.int64] | None = None

    @classmethod
    def joined(cls, parts: Sequence[tuple[str, int]]) -> Elements:
        """Of so many entries of each type, one after the other."""
        names = tuple(dict.fromkeys(name for name, _ in parts))
        if len(names) == 1:
            return cls(names)
        return cls(names, np.repeat([names.index(name) for name, _ in parts], [count for _, count in parts]))

    def merged(self, places: Sequence[int]) -> Elements:
        """Of entries that several of these are: `places` has the number of it for each. Raises UnsupportedError where
        one would have two floating-point types neither of which holds the other."""
        if self.index is None:
            return self
        sets: dict[int, set[str]] = {}
        for place, kind in zip(places, self.kinds(len(places)), strict=True):
            sets.setdefault(place, set()).add(kind)
        return Elements.joined([(_common(sets[i]), 1) for i in range(len(sets))])

    def kinds(self, count: int) -> list[str]:
        """The type of each of `count` entries."""
        return [self.names[0]] * count if self.index is None else [self.names[kind] for kind in self.index]

    @property
    def holder(self) -> Element:
        """The type of arrays that hold the numbers."""
        if self.names == ("float16",):
            return np.float16
        return np.float32 if set(self.names) <= _NARROW else np.float64

    @property
    def precision(self) -> float:
        """The largest relative distance of two numbers that are next to each other."""
        return max((PRECISION[name] for name in self.names if name in PRECISION), default=2.0**-52)

    @property
    def title(self) -> str:
        """The types, for messages."""
        return " or ".join(self.names)

    def whole(self, count: int) -> NDArray[np.bool_]:
        """Which of `count` entries are whole numbers."""
        flags = np.array([_parts(name)[1] for name in self.names])
        return np.full(count, flags[0]) if self.index is None else np.asarray(flags[self.index])

    @property
    def any_whole(self) -> bool:
        """Whether some entries are whole numbers."""
        return any(_parts(name)[1] for name in self.names)

    def rounded(self, x: Floats, way: Way) -> Floats:
        """The numbers next to those of an array, whose entries in order are the input's: infinite where there is none
        on that side, or where they are."""
        if self.index is None:
            return _rounded(x, self.names[0], way)
        flat = x.reshape(-1)
        result = np.empty_like(flat)
        for kind, name in enumerate(self.names):
            result[self.index == kind] = _rounded(flat[self.index == kind], name, way)
        return result.reshape(x.shape)

    def nearest(self, x: NDArray[Any]) -> NDArray[Any]:
        """The numbers next to those of an array, in a type that holds them."""
        return np.asarray(self.rounded(x.astype(np.float64), "nearest"), self.holder)

    def spacing(self, x: Floats) -> Floats:
        """How far numbers are from the next larger ones."""
        return self.rounded(np.nextafter(x, np.inf), "up") - x

    def ends(self, count: int) -> tuple[Floats, Floats, Floats, Floats]:
        """What bounds entries by their types alone, outward and inward: `lower`, `upper`, `least`, `most`."""
        sides = np.array([_range(name) for name in self.names]).T
        chosen = np.zeros(count, dtype=np.int64) if self.index is None else self.index
        lower, upper, least, most = (side[chosen] for side in sides)
        return lower, upper, least, most


def _parts(name: str) -> tuple[str | None, bool]:
    """The floating-point type of a name, and whether it is one of whole numbers, too: `int8` has none, and `int8 in
    float16` has both, where inputs of two types are equal."""
    whole, _, other = name.partition(" in ")
    if other:
        return other, True
    return (None, True) if whole in WHOLE else (whole, False)


def _common(names: set[str]) -> str:
    """What numbers are that are of several types."""
    floats = {f for f in (_parts(n)[0] for n in names) if f is not None}
    if {"float16", "bfloat16"} <= floats:
        raise UnsupportedError("an input of type float16 that equals one of type bfloat16; state the bounds of each")
    narrow = min(floats, key=lambda f: -{**PRECISION, "float64": 2.0**-52}[f], default=None)
    whole = [n.partition(" in ")[0] for n in names if _parts(n)[1]]
    if not whole:
        assert narrow is not None
        return narrow
    # their ranges are bounds of the region already
    kind = min(whole, key=lambda n: WHOLE[n][1] - WHOLE[n][0])
    return kind if narrow is None else f"{kind} in {narrow}"


def _range(name: str) -> tuple[float, float, float, float]:
    if not _parts(name)[1]:
        return -np.inf, np.inf, -np.inf, np.inf
    low, high = WHOLE[name.partition(" in ")[0]]
    upper = float(high)  # rounded up, where float64 does not hold it
    most = upper if int(upper) == high else float(np.nextafter(upper, 0.0))
    return float(low), upper, float(low), most


def _rounded(x: Floats, name: str, way: Way) -> Floats:
    floating, is_whole = _parts(name)
    if not is_whole:
        assert floating is not None
        return _float(x, floating, way)
    result = {"down": np.floor, "up": np.ceil, "nearest": np.rint}[way](x)
    _, _, low, high = _range(name)
    result = np.where(result < low, low if way != "down" else -np.inf, result)
    result = np.where(result > high, high if way != "up" else np.inf, result)
    if floating is None:
        return result
    # whole numbers that the type does not hold are far apart, and so are those next to them
    return _float(np.asarray(result), floating, way)


def _float(x: Floats, name: str, way: Way) -> Floats:
    if name == "float64":
        return x
    if way == "nearest":
        down, up = _float(x, name, "down"), _float(x, name, "up")
        with np.errstate(invalid="ignore"):
            below = np.isneginf(up) | ~np.isfinite(up) | ((x - down) <= (up - x))
        return np.where(below & np.isfinite(down), down, up)
    if way == "up":
        return -_float(-x, name, "down")
    kind = np.float32 if name == "bfloat16" else _PLAIN[name]
    with np.errstate(over="ignore"):
        near: NDArray[Any] = x.astype(kind)
    near = np.where(near > x, np.nextafter(near, kind(-np.inf)), near)
    result = (_leading(near) if name == "bfloat16" else near).astype(np.float64)
    result = np.where((result > _LARGEST[name]) & np.isfinite(x), _LARGEST[name], result)
    return np.where(result < -_LARGEST[name], -np.inf, result)


def _leading(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest bfloat16 numbers that are not above float32 ones: their leading 16 bits, downward."""
    bits = x.view(np.uint32)
    cut = bits & np.uint32(0xFFFF0000)
    away = (bits != cut) & (x < 0)
    return np.asarray(np.where(away, cut + np.uint32(0x10000), cut).astype(np.uint32)).view(np.float32)


FLOAT32, FLOAT64 = Elements(("float32",)), Elements(("float64",))
