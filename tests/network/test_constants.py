"""Enclosures of constants against rational arithmetic, at every scale float64 has."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from math import isqrt

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from krelax.errors import InputError, UnsupportedError
from krelax.network.constants import SHARE, Constant, product_is_exact, size

# Exponents of numbers at the ends of the range, where float32 ends, and in between.
SCALES = (-1074, -1060, -1022, -970, -540, -149, -20, 0, 20, 120, 500, 960, 1020)


def numbers(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Of all scales, with few bits and with many, equal ones among them, and zeros."""
    bits = rng.integers(1, 54, count)
    whole = rng.integers(0, 2**53, count) >> (53 - bits)
    values = np.ldexp(whole.astype(float), rng.choice(SCALES, count) - bits)
    return np.where(rng.random(count) < 0.05, 0.0, values * rng.choice([-1.0, 1.0], count))


def enclosed(rng: np.random.Generator, count: int) -> tuple[Constant, list[Fraction]]:
    """Constants, half of them with an error, and exact numbers that they enclose."""
    value = numbers(rng, count)
    if rng.random() < 0.5:
        return Constant(torch.from_numpy(value)), [Fraction(v) for v in value]
    error = np.abs(value) * 2.0 ** rng.integers(-60, -2, count).astype(float)
    error = np.where(rng.random(count) < 0.3, 0.0, error)
    exact = [
        Fraction(v) + Fraction(e) * Fraction(int(rng.integers(-8, 9)), 8) for v, e in zip(value, error, strict=True)
    ]
    return Constant(torch.from_numpy(value), torch.from_numpy(error)), exact


def checked(result: Constant, exact: list[Fraction]) -> Iterator[tuple[Fraction, Fraction]]:
    """That the exact results lie within the errors, where there are finite ones; yields errors and true distances."""
    error = result.errors().flatten().tolist()
    for value, bound, true in zip(result.value.flatten().tolist(), error, exact, strict=True):
        if np.isfinite(value) and np.isfinite(bound):
            assert abs(Fraction(value) - true) <= Fraction(bound)
            yield Fraction(bound), abs(Fraction(value) - true)
        else:
            assert not np.isfinite(bound)  # never a wrong bound


PAIRS: dict[str, tuple[Callable[..., Constant], Callable[..., Fraction]]] = {
    "add": (lambda a, b: a + b, lambda a, b: a + b),
    "sub": (lambda a, b: a - b, lambda a, b: a - b),
    "mul": (lambda a, b: a * b, lambda a, b: a * b),
    "maximum": (Constant.maximum, max),
    "minimum": (Constant.minimum, min),
}


@pytest.mark.parametrize("name", PAIRS)
def test_operations_on_two_constants(name: str) -> None:
    ours, theirs = PAIRS[name]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        (a, x), (b, y) = enclosed(rng, 64), enclosed(rng, 64)
        list(checked(ours(a, b), [theirs(p, q) for p, q in zip(x, y, strict=True)]))


def test_quotients() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        (a, x), (b, y) = enclosed(rng, 64), enclosed(rng, 64)
        b = Constant(torch.where(b.value == 0, 1.0, b.value), b.error)
        y = [Fraction(1) if q == 0 else q for q in y]
        list(checked(a / b, [p / q for p, q in zip(x, y, strict=True)]))
        list(checked(b.reciprocal(), [1 / q for q in y]))


def test_roots() -> None:
    for seed in range(20):
        a, x = enclosed(np.random.default_rng(seed), 64)
        root = Constant(a.value.abs(), a.error).sqrt()
        for value, bound, q in zip(root.value.tolist(), root.errors().tolist(), map(abs, x), strict=True):
            low, high = max(Fraction(value) - Fraction(bound), Fraction(0)), Fraction(value) + Fraction(bound)
            assert low * low <= q <= high * high


def test_sums_and_matrix_products() -> None:
    for seed in range(15):
        rng = np.random.default_rng(seed)
        (a, x), (b, y) = enclosed(rng, 12), enclosed(rng, 20)
        p, q = a.reshape(3, 4), b.reshape(4, 5)
        exact = [sum(x[4 * i + k] * y[5 * k + j] for k in range(4)) for i, j in product(range(3), range(5))]
        list(checked(p.matmul(q), [Fraction(v) for v in exact]))
        list(checked(p.sum((1,)), [Fraction(sum(x[4 * i : 4 * i + 4])) for i in range(3)]))


def test_what_is_exact_has_no_error() -> None:
    """Products of float32 numbers, sums of neighbours, quotients and roots that come out even."""
    rng = np.random.default_rng(0)
    a, b = (Constant(torch.from_numpy(rng.normal(size=100).astype(np.float32).astype(float))) for _ in range(2))
    eighths = Constant(torch.arange(1, 100).double() / 8)
    assert (a * b).error is None
    assert ((a * b) / b).error is None
    assert (eighths + eighths).error is None
    assert (eighths * eighths).sqrt().error is None
    assert Constant.of(4.0).reciprocal().error is None


def test_what_rounds_has_an_error() -> None:
    """A result without an error is exact: no operation above hides a rounding behind `error is None`."""
    third, big, tiny = Constant.of(3.0).reciprocal(), Constant.of(1e10), Constant.of(1e-300)
    for rounded in (third, Constant.of(0.3) + big, tiny * tiny, Constant.of(2.0).sqrt(), Constant.of(0.1) * third):
        assert rounded.error is not None
        assert float(rounded.error) > 0


def test_exact_products_are_told_from_others() -> None:
    rng = np.random.default_rng(1)
    a, b = (numbers(rng, 4000) for _ in range(2))
    with np.errstate(all="ignore"):
        result = a * b
    claimed = product_is_exact(*(torch.from_numpy(t) for t in (a, b, result))).tolist()
    exact = [np.isfinite(r) and Fraction(p) * Fraction(q) == Fraction(r) for p, q, r in zip(a, b, result, strict=True)]
    assert all(e or not c for c, e in zip(claimed, exact, strict=True))
    inside = [2.0**-800 < abs(v) < 2.0**800 for v in result]
    assert sum(c and i for c, i in zip(claimed, inside, strict=True)) > 300
    near = [0.5 < abs(np.frexp(p)[1] - np.frexp(q)[1]) < 400 for p, q in zip(a, b, strict=True)]
    assert all(c for c, e, i, n in zip(claimed, exact, inside, near, strict=True) if e and i and n)


def test_errors_are_close_to_the_truth() -> None:
    """Within a small factor of the rounding unit: sizes, and so charges, stay as they were."""
    rng = np.random.default_rng(2)
    a, b = (Constant(torch.from_numpy(rng.normal(size=200))) for _ in range(2))
    result = (a + b) * b
    assert bool((size(result.value, result.error) <= 1.1 * result.value.abs() + 0.1 * (b.value * b.value)).all())


def test_the_share_of_a_size_covers_the_error() -> None:
    for seed in range(20):
        a, _ = enclosed(np.random.default_rng(seed), 64)
        for s, v, e in zip(size(a.value, a.error).tolist(), a.value.tolist(), a.errors().tolist(), strict=True):
            assert s == np.inf or (Fraction(s) * Fraction(SHARE) >= Fraction(e) and s >= abs(v))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant.of(1e200) * Constant.of(1e200),
        lambda: Constant.of(1.7e308) + Constant.of(1.7e308),
        lambda: Constant.of(1e200) / Constant.of(1e-200),
        lambda: Constant.of(float("nan")),
        lambda: Constant.of(1.0) / Constant.of(0.0),
        lambda: Constant.of(1.0) / Constant(torch.tensor(1.0).double(), torch.tensor(1.0).double()),
        lambda: Constant.of(-1.0).sqrt(),
        lambda: Constant(torch.tensor(1.0).double(), torch.tensor(2.0).double()).sqrt(),
        lambda: Constant.of(torch.tensor(2**53 + 1)),
    ],
)
def test_what_is_no_number_is_refused(make: Callable[[], Constant]) -> None:
    with pytest.raises(InputError):
        make().checked()


def test_python_numbers_are_read_in_double_precision() -> None:
    assert Constant.of(0.1).value.item() == 0.1
    assert Constant.of(torch.tensor(0.1)).value.item() == float(np.float32(0.1))
    assert isqrt(2**52) == int(Constant.of(2.0**52).sqrt().value.item())


@pytest.mark.parametrize("name", ["exp", "log", "sin", "cos", "tanh", "sigmoid"])
def test_functions_of_what_is_enclosed_are_enclosed(name: str) -> None:
    """At both ends of enclosures, and in the middle."""
    value = torch.tensor([0.25, 1.0, 3.5], dtype=torch.float64)
    error = torch.tensor([2.0**-10, 2.0**-40, 2.0**-3], dtype=torch.float64)
    found = Constant(value, error).function(name)
    for side in (-1, 0, 1):
        away = (getattr(torch, name)(value + side * error) - found.value).abs()
        assert bool((away <= found.errors()).all())
    assert bool((found.errors() < 20 * error * getattr(torch, name)(value).abs().clamp(min=1)).all())


def test_a_logarithm_of_what_may_be_zero_is_refused() -> None:
    with pytest.raises(InputError):
        Constant(torch.tensor([0.25]).double(), torch.tensor([0.25]).double()).function("log")


def test_signs_and_whole_numbers_are_known_or_refused() -> None:
    sure, unsure = Constant(torch.tensor([-1.5]).double(), torch.tensor([0.25]).double()), torch.tensor([1.75]).double()
    assert sure.sign().value.tolist() == [-1.0]
    assert sure.floor().value.tolist() == [-2.0]
    assert sure.floor().error is None
    with pytest.raises(UnsupportedError, match="may be zero"):
        Constant(sure.value, unsure).sign()
    with pytest.raises(UnsupportedError, match="next to a whole number"):
        Constant(sure.value, unsure).floor()
