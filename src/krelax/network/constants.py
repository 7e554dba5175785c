"""Constants whose exact values are known up to a bound: what folding a network's constants is computed with.

A constant of a file is exact. What is computed of constants (a normalisation's factor, a product that is folded) is the
result of real arithmetic, which float64 may not hold. So a constant is a number and a bound of its error. The bound is
None where every operation so far was exact, which is found out, not assumed: sums by their error-free transformation
(Knuth), products by Dekker's. Every other operation adds its rounding (half a unit in the last place, or an underflow)
to what its operands' errors become.

Affine operators keep errors beside their constants. `size` turns them into what bounds charge: rounding errors of every
affine operator are bounded by `gamma * <|coefficients|, sizes>` (`krelax.bounds.rounding`), and `SHARE` of that gamma
is set aside for the errors of constants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from krelax.errors import InputError, UnsupportedError

UNIT = 2.0**-53
TINY = 2.0**-1022
# Units of rounding that library functions are trusted to.
ULPS = 16
# The error of a constant is at most this part of its size: half of what sums are charged beside their terms.
SHARE = 32 * UNIT
# Between these, products of Dekker's parts neither overflow nor lose bits.
_LEAST, _MOST = 2.0**-900, 2.0**900
_SPLIT = 2.0**27 + 1


def _up(error: Tensor) -> Tensor:
    """Room for the few roundings in the computation of an error bound itself; zero stays zero."""
    return torch.where(error == 0, error, error * (1 + 2.0**-48) + 2.0**-1074)


def _errors(*errors: Tensor | None) -> Tensor | None:
    """The sum of error bounds, None if there are none."""
    given = [e for e in errors if e is not None]
    if not given:
        return None
    total = given[0]
    for e in given[1:]:
        total = total + e
    return _up(total)


def _rounding(exact: Tensor, result: Tensor) -> Tensor | None:
    """How far a correctly rounded result is off where it is not exact."""
    if bool(exact.all()):
        return None
    return torch.where(exact, 0.0, result.abs() * UNIT + TINY)


def product_is_exact(a: Tensor, b: Tensor, product: Tensor) -> Tensor:
    """Where `product`, computed as `a * b`, is their exact product; False where that cannot be told."""
    high_a, high_b = (_SPLIT * t - (_SPLIT * t - t) for t in (a, b))
    low_a, low_b = a - high_a, b - high_b
    lost = low_a * low_b - (((product - high_a * high_b) - low_a * high_b) - high_a * low_b)
    inside = torch.ones_like(lost, dtype=torch.bool)
    for t in (a, b, product):
        inside = inside & (t.abs() >= _LEAST) & (t.abs() <= _MOST)
    return ((lost == 0) & inside) | (a == 0) | (b == 0) | (a.abs() == 1) | (b.abs() == 1)


@dataclass(frozen=True, eq=False)
class Constant:
    """Real numbers within `error` of `value`, entry by entry: float64 tensors of one shape, without an error if exact.

    What overflows has an error that is infinite or no number; `checked` refuses it.
    """

    value: Tensor
    error: Tensor | None = None

    @classmethod
    def of(cls, number: float | Tensor) -> Constant:
        """A number or a tensor of floats or integers, exactly. Raises InputError for integers beyond 2**53."""
        given = number if isinstance(number, Tensor) else torch.tensor(number, dtype=torch.float64)
        large = given.dtype == torch.int64 and bool(((given > 2**53) | (given < -(2**53))).any())
        if large:
            raise InputError("a constant holds an integer that float64 does not")
        return cls(given.to(torch.float64))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    def dim(self) -> int:
        return self.value.dim()

    def moved(self, move: Callable[[Tensor], Tensor]) -> Constant:
        """With its entries moved or repeated as a function of tensors says."""
        return Constant(move(self.value), None if self.error is None else move(self.error))

    def reshape(self, *shape: int) -> Constant:
        return self.moved(lambda t: t.reshape(shape))

    def expand(self, *shape: int) -> Constant:
        return self.moved(lambda t: t.expand(shape))

    def __getitem__(self, key: Any) -> Constant:
        return self.moved(lambda t: t[key])

    @property
    def mT(self) -> Constant:
        """With its last two axes exchanged."""
        return self.moved(lambda t: t.mT)

    def errors(self) -> Tensor:
        """Error bounds, zeros where the constant is exact."""
        return torch.zeros_like(self.value) if self.error is None else self.error

    def checked(self) -> Constant:
        """The constant itself. Raises InputError if it is not finite, or its error is not known."""
        for t in (self.value, self.error):
            if t is not None and not bool(t.isfinite().all()):
                raise InputError("a constant overflows float64, divides by zero or is not a number")
        return self

    def __neg__(self) -> Constant:
        return Constant(-self.value, self.error)

    def __abs__(self) -> Constant:
        return Constant(self.value.abs(), self.error)

    def __add__(self, other: Constant) -> Constant:
        a, b = self.value, other.value
        total = a + b
        part = total - a
        lost = ((a - (total - part)) + (b - part)).abs()
        shape = total.shape
        errors = (c.error if c.error is None else c.error.expand(shape) for c in (self, other))
        return Constant(total, _errors(None if bool((lost == 0).all()) else lost, *errors))

    def __sub__(self, other: Constant) -> Constant:
        return self + -other

    def __mul__(self, other: Constant) -> Constant:
        a, b = self.value, other.value
        product = a * b
        parts = [_rounding(product_is_exact(a, b, product), product)]
        if self.error is not None:
            parts.append(self.error * b.abs() + TINY)
        if other.error is not None:
            parts.append(other.error * (a.abs() + self.errors()) + TINY)
        return Constant(product, _errors(*parts))

    def __truediv__(self, other: Constant) -> Constant:
        """The quotient. Raises InputError where the divisor is or may be zero."""
        a, b = self.value, other.value
        least = b.abs() if other.error is None else (b.abs() - other.error) * (1 - 4 * UNIT)
        if not bool((least > 0).all()):
            raise InputError("division by zero")
        quotient = a / b
        back = quotient * b
        parts = [_rounding((back == a) & product_is_exact(quotient, b, back), quotient)]
        if self.error is not None:
            parts.append(self.error / least + TINY)
        if other.error is not None:
            parts.append((quotient.abs() + TINY) * (other.error / least + TINY) + TINY)
        return Constant(quotient, _errors(*parts))

    def reciprocal(self) -> Constant:
        """One divided by it. Raises InputError where it is or may be zero."""
        return Constant(torch.ones((), dtype=torch.float64)) / self

    def sqrt(self) -> Constant:
        """The square root. Raises InputError where the number is or may be negative."""
        a = self.value
        if not bool((a >= self.errors()).all()):
            raise InputError("square root of a negative number")
        root = a.sqrt()
        back = root * root
        parts = [_rounding((back == a) & product_is_exact(root, root, back), root)]
        if self.error is not None:
            # a number in [a - error, a + error] with error <= a, and |sqrt(x) - sqrt(a)| <= |x - a| / sqrt(a)
            parts.append(torch.where(a > 0, self.error / root.clamp(min=TINY), 0.0) + TINY)
        return Constant(root, _errors(*parts))

    def sign(self) -> Constant:
        """-1, 0 or 1. Raises UnsupportedError where the error leaves the sign open."""
        if not bool(((self.value.abs() > self.errors()) | (self.errors() == 0)).all()):
            raise UnsupportedError("the sign of a computed constant that may be zero; compute it before exporting")
        return Constant(self.value.sign())

    def floor(self) -> Constant:
        """The whole number below. Raises UnsupportedError where the error leaves two."""
        ends = [(self.value + side * self.errors()).floor() for side in (-1, 1)]
        if not torch.equal(*ends):
            raise UnsupportedError("a computed constant next to a whole number; round it before exporting")
        return Constant(ends[0])

    def function(self, name: str) -> Constant:
        """An exponential, logarithm, sine, cosine, hyperbolic tangent or logistic function, by its name in PyTorch.

        The library's value is trusted to `ULPS` units of rounding, as everywhere; what the operand's error makes of it
        is at most the steepest slope that is near times that.
        """
        compute: Callable[[Tensor], Tensor] = getattr(torch, name)
        value = compute(self.value)
        parts = [2 * ULPS * UNIT * value.abs() + TINY]
        if self.error is not None:
            if name == "exp":
                parts.append(value * (2 * self.error).expm1() + TINY)
            elif name == "log":
                parts.append(2 * self.error / (self.value - 2 * self.error).clamp(min=0))
            else:
                parts.append(2 * self.error)
        return Constant(value, _errors(*parts)).checked()

    def relu(self) -> Constant:
        return Constant(self.value.clamp(min=0), self.error)

    def maximum(self, other: Constant) -> Constant:
        """The larger of two, elementwise; the difference of two maxima is at most the larger of two differences."""
        result = torch.maximum(self.value, other.value)
        if self.error is None and other.error is None:
            return Constant(result)
        return Constant(result, torch.maximum(self.errors(), other.errors()).expand(result.shape))

    def minimum(self, other: Constant) -> Constant:
        return -((-self).maximum(-other))

    def matmul(self, other: Constant) -> Constant:
        """The matrix product, each sum of n products within `n u / (1 - n u)` of the sum of their absolute values."""
        a, b = self.value, other.value
        terms = a.shape[-1]
        result = a @ b
        size = a.abs() @ b.abs()
        parts = [2 * (terms + 1) * (UNIT * size + TINY)]
        if self.error is not None:
            parts.append((1 + 4 * terms * UNIT) * (self.error @ b.abs()) + 2 * terms * TINY)
        if other.error is not None:
            parts.append((1 + 4 * terms * UNIT) * ((a.abs() + self.errors()) @ other.error) + 2 * terms * TINY)
        return Constant(result, _errors(*parts))

    def sum(self, axes: tuple[int, ...]) -> Constant:
        """The sum over axes, which stay with size one."""
        if not axes:
            return self
        result = self.value.sum(axes, keepdim=True)
        terms = max(1, self.value.numel() // max(1, result.numel()))
        parts = [2 * terms * (UNIT * self.value.abs().sum(axes, keepdim=True))]
        if self.error is not None:
            parts.append((1 + 4 * terms * UNIT) * self.error.sum(axes, keepdim=True))
        return Constant(result, _errors(*parts))


def size(value: Tensor, error: Tensor | None) -> Tensor:
    """What an operator's constant counts for in the magnitude of its result: `SHARE` of it is at least the error."""
    return value.abs() if error is None else value.abs() + error * (1 / SHARE)
