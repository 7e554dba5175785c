"""The two arithmetics a certificate is checked in: float64 with bounds of its rounding errors, and exact numbers.

Everything else is written once, for arrays of either kind: NumPy arrays of float64, or `Fixed` ones, which have the
same operators. What rounds must say so by `gamma`, which is zero where numbers are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.errors import TooLarge

Floats = NDArray[np.float64]
# An array of float64 or a Fixed one.
Array = Any
# Which rows of an array: all of them, or those with these numbers.
Rows = slice | NDArray[np.int64]

# Bits of a limb, and terms of sums of products of limbs that are exact in float64.
_LIMB, _MOST_TERMS = 18, 1 << 17
# Columns that are added up one by one.
_FEW = 8
# The largest float64.
_LARGEST = int(np.finfo(np.float64).max)


def gamma(terms: float, unit: float) -> float:
    """Relative error of a sum of `terms` products, in any order, in an arithmetic of unit roundoff `unit`.

    `terms u / (1 - terms u)` (Higham 2002, section 3.1), with a per cent for errors of the sums it multiplies.
    """
    share = terms * unit
    return 1.01 * share / (1 - share) if share < 0.01 else float("inf")


class Fixed:
    """Exact numbers `ints * 2**exponent`: an array of Python integers with one exponent."""

    __array_ufunc__ = None  # so that NumPy leaves mixed operations to us

    def __init__(self, ints: Any, exponent: int) -> None:
        self.ints, self.exponent = ints, exponent

    @classmethod
    def of(cls, x: Array) -> Fixed:
        """Finite floats, exactly. Raises TooLarge for others."""
        if isinstance(x, Fixed):
            return x
        x = np.asarray(x, dtype=np.float64)
        if not np.isfinite(x).all():
            raise TooLarge("numbers too large: one is not finite")
        mantissa, exponent = np.frexp(x)
        whole = np.ldexp(mantissa, 53).astype(np.int64)
        trailing = np.where(whole == 0, 1, whole & -whole)  # the lowest bit that is set
        zeros = np.frexp(trailing.astype(np.float64))[1] - 1
        shift = exponent.astype(np.int64) - 53 + zeros
        least = int(shift.min(initial=1 << 20, where=whole != 0))
        shift = np.where(whole == 0, 0, shift - least)
        return cls((whole >> zeros).astype(object) << shift.astype(object), least if (whole != 0).any() else 0)

    def _over(self, exponent: int) -> Any:
        """The integers over a smaller exponent."""
        return self.ints << (self.exponent - exponent)

    def apply(self, function: Callable[..., Any], *others: Array) -> Fixed:
        """A function of arrays that only picks among, or adds up, their numbers."""
        numbers = [self, *map(Fixed.of, others)]
        exponent = min(x.exponent for x in numbers)
        return Fixed(np.asarray(function(*(x._over(exponent) for x in numbers)), dtype=object), exponent)

    def __add__(self, other: Array) -> Fixed:
        return self.apply(np.add, other)

    def __sub__(self, other: Array) -> Fixed:
        return self.apply(np.subtract, other)

    def __mul__(self, other: Array) -> Fixed:
        other = Fixed.of(other)
        return Fixed(self.ints * other.ints, self.exponent + other.exponent)

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Array) -> Fixed:
        return -self + other

    def __abs__(self) -> Fixed:
        return Fixed(abs(self.ints), self.exponent)

    def __neg__(self) -> Fixed:
        return Fixed(-self.ints, self.exponent)

    def __getitem__(self, key: Any) -> Fixed:
        return Fixed(np.asarray(self.ints[key], dtype=object), self.exponent)

    def __setitem__(self, key: Any, value: Array) -> None:
        value = Fixed.of(value)
        exponent = min(self.exponent, value.exponent)
        self.ints, self.exponent = self._over(exponent), exponent
        self.ints[key] = value._over(exponent)

    def __len__(self) -> int:
        return len(self.ints)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.ints.shape)

    def reshape(self, *shape: int) -> Fixed:
        return Fixed(self.ints.reshape(*shape), self.exponent)

    def swapaxes(self, first: int, second: int) -> Fixed:
        return Fixed(self.ints.swapaxes(first, second), self.exponent)

    def sum(self, axis: int) -> Fixed:
        return Fixed(np.asarray(self.ints.sum(axis), dtype=object), self.exponent)

    @cached_property
    def limbs(self) -> list[Floats]:
        """The numbers' digits in base 2**18, with their signs, the lowest first."""
        size = abs(self.ints)
        bits = int(size.max(initial=1)).bit_length()
        small = bits < 63
        size = size.astype(np.int64) if small else size
        sign = (self.ints.astype(np.int64) if small else self.ints) < 0
        digits = [((size >> place) & ((1 << _LIMB) - 1)).astype(np.float64) for place in range(0, bits, _LIMB)]
        return [np.where(sign, -d, d) for d in digits]


def _largest_at(x: Any, y: Any, places: tuple[NDArray[np.int64], ...]) -> Any:
    result = x.copy()
    np.maximum.at(result, places, y)
    return result


class Arithmetic:
    """What bounding needs beyond operators, on arrays of float64 here; a subclass redefines it.

    `unit` is the unit roundoff, `tiny` what a product can lose by underflow, `entries` how many numbers to work on at a
    time.
    """

    name, unit, tiny, entries = "float64", 2.0**-53, 2.0**-1000, 1 << 17

    def number(self, x: Array) -> Array:
        """Floats as numbers, exactly."""
        return x

    def choice(self, x: Floats) -> Array:
        """Numbers near the given floats, where any would do."""
        return x

    def floats(self, x: Array) -> Floats:
        """Floats near the given numbers."""
        return np.asarray(x)

    def positive(self, x: Array) -> NDArray[np.bool_]:
        """Which numbers are above zero. Floats near them may not tell."""
        return np.asarray(x > 0)

    def down(self, x: Array) -> Floats:
        """Floats that are not larger; minus infinity where there is no number."""
        x = np.where(np.isfinite(x), x, -np.inf)
        return np.nextafter(x, -np.inf)

    def maximum(self, x: Array, y: Array) -> Array:
        return np.maximum(x, y)

    def minimum(self, x: Array, y: Array) -> Array:
        return -self.maximum(-x, -y)

    def where(self, mask: NDArray[np.bool_], x: Array, y: Array) -> Array:
        return np.where(mask, x, y)

    def largest_at(self, x: Array, places: tuple[NDArray[np.int64], ...], y: Array) -> Array:
        """The array x with the largest of the numbers y, `(n,)`, at their places, where those are larger."""
        return _largest_at(x, y, places)

    def join(self, parts: Sequence[Array]) -> Array:
        """Arrays one after the other, of which there is at least one."""
        return np.concatenate(parts)

    def product(self, multiply: Callable[[Floats, Floats], Floats], x: Array, y: Array, terms: int) -> Array:
        """Sums of so many products of numbers of two arrays, as a function of float64 arrays says."""
        return multiply(x, y)

    def dot(self, x: Array, y: Array) -> Array:
        """Sums of products along rows, `(rows, n)` and `(rows | 1, n)`."""
        return x @ y[0] if len(y) == 1 else np.einsum("ij,ij->i", x, y)

    def columns(self, x: Array, index: NDArray[np.int64]) -> Array:
        """Some columns, copied."""
        return np.take(x, index, axis=1)

    def segments(self, x: Array, starts: NDArray[np.intp]) -> Array:
        """Sums of the columns from each start to the next. May be the array itself."""
        if len(starts) == x.shape[1]:
            return x
        width = x.shape[1] // max(1, len(starts))
        if width <= _FEW and np.array_equal(starts, np.arange(0, x.shape[1], width)):
            return sum((x[:, i::width] for i in range(1, width)), x[:, ::width])
        return np.add.reduceat(x, starts, axis=1)

    def largest(self, x: Array) -> Array:
        """Largest number of each row."""
        return np.max(x, axis=1)

    def root(self, x: Array) -> Array:
        """Numbers that are not smaller than the square roots."""
        return np.sqrt(x) * (1 + 2.0**-50) + 2.0**-480


class Float64(Arithmetic):
    """Double precision: errors are bounded by `gamma`, and by `tiny` for each product that underflows."""


class Unbounded(Arithmetic):
    """Double precision without bounds of its errors. It proves nothing: what a proof lacks in float64 is rounding, and
    worth another look with exact numbers, if it is nothing here."""

    name, unit, tiny = "float64 without error bounds", 0.0, 0.0


class Exact(Arithmetic):
    """Integers times powers of two: nothing rounds."""

    name, unit, tiny = "exact", 0.0, 0.0
    _BITS = 60

    def number(self, x: Array) -> Array:
        return Fixed.of(x)

    def choice(self, x: Floats) -> Array:
        """On a grid of 60 bits below the largest, so that few limbs hold them."""
        largest = np.abs(x).max(initial=0.0)
        if not np.isfinite(largest):
            raise TooLarge("numbers too large: one is not finite")
        exponent = max(int(np.frexp(largest)[1]), -900) - self._BITS
        return Fixed(np.rint(np.ldexp(x, -exponent)).astype(np.int64).astype(object), exponent)

    def floats(self, x: Array) -> Floats:
        above, below = max(x.exponent, 0), max(-x.exponent, 0)
        try:
            return np.asarray((x.ints << above) / (1 << below), dtype=np.float64)
        except OverflowError as error:  # beyond float64
            raise TooLarge("numbers too large: one is beyond float64, which bounds are kept in") from error

    def positive(self, x: Array) -> NDArray[np.bool_]:
        return np.asarray(x.ints > 0, dtype=np.bool_)

    def down(self, x: Array) -> Floats:
        beyond = abs(x.ints << max(x.exponent, 0)) > (_LARGEST << max(-x.exponent, 0))
        if beyond.any():  # the largest float64 is below those that are positive, and only minus infinity below others
            inside = self.down(Fixed(np.where(beyond, 0, x.ints), x.exponent))
            return np.where(beyond, np.where(x.ints > 0, float(_LARGEST), -np.inf), inside)
        near = self.floats(x)
        while (over := Fixed.of(near).apply(np.greater, x).ints.astype(bool)).any():
            near = np.where(over, np.nextafter(near, -np.inf), near)
        return near

    def maximum(self, x: Array, y: Array) -> Array:
        return Fixed.of(x).apply(np.maximum, y)

    def where(self, mask: NDArray[np.bool_], x: Array, y: Array) -> Array:
        return Fixed.of(x).apply(lambda a, b: np.where(mask, a, b), y)

    def largest_at(self, x: Array, places: tuple[NDArray[np.int64], ...], y: Array) -> Array:
        return Fixed.of(x).apply(lambda a, b: _largest_at(a, b, places), y)

    def join(self, parts: Sequence[Array]) -> Array:
        return parts[0].apply(lambda *arrays: np.concatenate(arrays), *parts[1:])

    def product(self, multiply: Callable[[Floats, Floats], Floats], x: Array, y: Array, terms: int) -> Array:
        """By products of limbs, digit by digit."""
        if terms > _MOST_TERMS:
            raise TooLarge(f"numbers too large: sums of {terms} products")
        digits: dict[int, Any] = {}
        for i, left in enumerate(x.limbs):
            for j, right in enumerate(y.limbs):
                digits[i + j] = digits.get(i + j, 0) + multiply(left, right).astype(np.int64)
        total: Any = 0
        for place, digit in digits.items():
            total = total + (digit.astype(object) << (_LIMB * place))
        return Fixed(total, x.exponent + y.exponent)

    def dot(self, x: Array, y: Array) -> Array:
        return (x * y).sum(1)

    def columns(self, x: Array, index: NDArray[np.int64]) -> Array:
        return x[:, index]

    def segments(self, x: Array, starts: NDArray[np.intp]) -> Array:
        return Fixed.of(x).apply(lambda a: np.add.reduceat(a, starts, axis=1))

    def largest(self, x: Array) -> Array:
        return Fixed(x.ints.max(axis=1), x.exponent)

    def root(self, x: Array) -> Array:
        return self.number(np.sqrt(-self.down(-x)) * (1 + 2.0**-50))
