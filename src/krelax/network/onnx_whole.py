"""Whole numbers and truths that depend on the input: operators on them, by which `READERS` is not asked.

They are nodes like others, whose values are whole numbers, zeros and ones for truths. What a type does not hold wraps
around in a runtime. So results that could grow beyond their type stand behind a `Within`, which lets no bound pass that
is larger. Comparisons have their jumps halfway between whole numbers, where rounding decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import torch

from krelax.activations import Step
from krelax.errors import InputError, UnsupportedError
from krelax.network import compose, decisions
from krelax.network.compose import Operand, reshape, scale_shift
from krelax.network.composites import rounded_down
from krelax.network.constants import Constant
from krelax.network.contractions import transpose
from krelax.network.linear import Within
from krelax.network.onnx_operators import READERS, Read
from krelax.network.onnx_quantised import whole_numbers
from krelax.network.onnx_ranges import within
from krelax.network.onnx_reader import FLOATS, Kind, Literal, Reader

# Readers for nodes with an operand of whole numbers, or of truths, that depends on the input.
INTEGERS: dict[str, Read] = {}
_UNSIGNED = {Kind.UINT8, Kind.UINT16, Kind.UINT32, Kind.UINT64}
_ONE, _HALF = Constant.of(1.0), Constant.of(0.5)
# Entries of tables times places in them, and of one-hot vectors.
_MOST_CHOICES = 1 << 20
# Larger exponents make numbers that no type holds.
_MOST_POWER = 8


def _whole(*names: str) -> Callable[[Read], Read]:
    def register(function: Read) -> Read:
        INTEGERS.update(dict.fromkeys(names, function))
        return function

    return register


def _kind(r: Reader, position: int = 0) -> int:
    name = r.node.input[position]
    return r.known.constants[name].kind if r.is_constant(position) else r.known.kinds[name]


def _number(r: Reader, position: int) -> Operand:
    return whole_numbers(r.given(position)) if r.is_constant(position) else r.value(position)


def _read(r: Reader, positions: Sequence[int]) -> int:
    """What the reader of floating-point numbers makes of the operands, those in some positions being numbers."""
    names = {r.node.input[i] for i in positions if r.is_constant(i)}
    numbers = {name: Literal(Kind.DOUBLE, whole_numbers(r.known.constants[name])) for name in names}
    found = READERS[r.node.op_type](replace(r, known=replace(r.known, constants={**r.known.constants, **numbers})))
    if not isinstance(found, int):
        raise UnsupportedError("a result that is not one tensor of whole numbers")
    return found


@_whole("Add", "Sub", "Mul", "Neg", "Abs", "MatMul", "ReduceSum", "ReduceProd", "ReduceSumSquare", "CumSum")
def _growing(r: Reader) -> int:
    """What has larger numbers than its operands. Sums and products that wrap around on the way to a number of the type
    are right in the end."""
    data = [0] if r.node.op_type in {"ReduceSum", "ReduceProd", "CumSum"} else range(len(r.node.input))
    return within(r.builder, _read(r, data), _kind(r))


@_whole("Max", "Min", "Relu", "Clip", "Sign", "ReduceMax", "ReduceMin", "Concat")
def _staying(r: Reader) -> int:
    """What has no larger numbers than its operands."""
    data = [0] if r.node.op_type in {"ReduceMax", "ReduceMin"} else range(len(r.node.input))
    return _read(r, data)


@_whole("Pad")
def _padded(r: Reader) -> int:
    return _read(r, [2])


@_whole("Where")
def _chosen(r: Reader) -> int:
    whole = [i for i in (1, 2) if r.is_constant(i) and not isinstance(r.given(i).data, Constant)]
    return _read(r, whole)


@_whole("Pow")
def _power(r: Reader) -> int:
    """Of floating-point numbers by whole ones it is one of these; else exponents are constant."""
    if _kind(r) in FLOATS:
        return _read(r, [])
    exponent = r.given(1)
    numbers = whole_numbers(exponent) if not isinstance(exponent.data, Constant) else exponent.data
    if numbers.error is not None or not bool(
        ((numbers.value >= 0) & (numbers.value <= _MOST_POWER) & (numbers.value == numbers.value.round())).all()
    ):
        raise UnsupportedError(f"powers of whole numbers other than 0 to {_MOST_POWER}")
    return within(r.builder, _read(r, [0]), _kind(r))


@_whole("Div")
def _divided(r: Reader) -> int:
    return quotient(r)


def quotient(r: Reader) -> int:
    """Quotients by a constant, towards zero. Half a unit is added to what is divided: then no quotient of a whole
    number is near to a jump."""
    divisor = _divisor(r)
    x, build = r.value(), r.builder
    size, sign = abs(divisor), divisor.sign()
    parts = (compose.negate(build, x), x) if _kind(r) not in _UNSIGNED else (x,)
    found = [rounded_down(build, compose.clip(build, part, 0.0, None), size) for part in parts]
    total = found[0] if len(found) == 1 else compose.add(build, found[1], found[0], -1)
    if bool((sign.value == 1).all()):
        return total
    return within(build, scale_shift(build, total, sign, None), _kind(r))  # the least number has no opposite


@_whole("Mod")
def _remainder(r: Reader) -> int:
    """With the sign of the divisor, or with `fmod` of what is divided."""
    divisor = _divisor(r)
    if bool((divisor.value < 0).any()):
        raise UnsupportedError("a remainder of a division by a negative number")
    x, build = r.value(), r.builder
    towards_zero = r.attribute("fmod") and _kind(r) not in _UNSIGNED
    whole = quotient(r) if towards_zero else rounded_down(build, x, divisor)
    return compose.add(build, x, scale_shift(build, whole, divisor, None), -1)


def _divisor(r: Reader) -> Constant:
    if not r.is_constant(1) or r.is_constant(0):
        raise UnsupportedError("a division of whole numbers by what depends on the input; divide by a constant")
    divisor = whole_numbers(r.given(1))
    if bool((divisor.value == 0).any()):
        raise InputError("division by zero")
    shape = compose.joint_shape(r.shape(), divisor.shape)
    if shape != r.shape():
        raise UnsupportedError(
            f"a division of a tensor of shape {list(r.shape())} by one of shape {list(divisor.shape)}"
        )
    return divisor


@_whole("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
def _compared(r: Reader) -> int:
    first, second = (0, 1) if r.node.op_type.startswith("Greater") else (1, 0)
    return _above(r, first, second, "Equal" in r.node.op_type)


def _above(r: Reader, first: int, second: int, or_equal: bool) -> int:
    """Whether a whole number is larger than another one, or as large: by more than half less, or than half."""
    apart = compose.add(r.builder, _number(r, first), _number(r, second), -1)
    return r.builder.add(Step(), scale_shift(r.builder, apart, None, _HALF if or_equal else -_HALF))


@_whole("Equal")
def _equal(r: Reader) -> int:
    """Neither is larger: both are at least as large, and one of these is always so."""
    both = compose.add(r.builder, _above(r, 0, 1, True), _above(r, 1, 0, True))
    return scale_shift(r.builder, both, None, -_ONE)


@_whole("Xor")
def _either(r: Reader) -> int:
    """One truth and not the other."""
    one, other = (_number(r, i) for i in (0, 1))
    both = decisions.both(r.builder, one, other)
    return compose.add(
        r.builder, compose.add(r.builder, one, other), scale_shift(r.builder, both, Constant.of(2.0), None), -1
    )


@_whole("Gather")
def _gathered(r: Reader) -> int:
    """Entries of what is constant in places that depend on the input; what is gathered may depend on it, too, from
    places that do not."""
    if r.is_constant(1):
        return _read(r, [])
    table, build = r.given(0), r.builder
    numbers = table.data if isinstance(table.data, Constant) else whole_numbers(table)
    axis = r.axis(r.attribute("axis"), len(table.shape))
    size, places = table.shape[axis], r.shape(1)
    rest = (*table.shape[:axis], *table.shape[axis + 1 :])
    # from -size to size - 1, for which halves are added
    inside = build.add(Within(size - 0.25), scale_shift(build, r.value(1), None, _HALF))
    chosen = _one_hot(r, scale_shift(build, inside, None, -_HALF), size)  # (*places, size)
    rows = numbers.moved(lambda t: t.movedim(axis, 0).reshape(size, -1))
    found = compose.dense(build, reshape(build, chosen, (prod(places), size)), rows.mT)
    found = reshape(build, found, (*places, *rest))
    # the axes of places stand where the axis was
    n = len(places)
    order = [*range(n, n + axis), *range(n), *range(n + axis, n + len(rest))]
    return transpose(build, found, order)


@_whole("OneHot")
def _one_hot_vectors(r: Reader) -> int:
    depth, values = r.given(1), r.given(2)
    if depth.shape not in {(), (1,)} or values.shape != (2,):
        raise InputError("a depth that is not one number, or not two values")
    numbers = values.data if isinstance(values.data, Constant) else whole_numbers(values)
    count = depth.data.value if isinstance(depth.data, Constant) else whole_numbers(depth).value
    size, axis = int(count.item()), r.axis(r.attribute("axis"), len(r.shape()) + 1)
    chosen = _one_hot(r, r.value(), size)
    last = len(r.shape())
    order = [*range(axis), last, *range(axis, last)]
    found = transpose(r.builder, chosen, order)
    return scale_shift(r.builder, found, numbers[1] - numbers[0], numbers[0])


def _one_hot(r: Reader, index: int, size: int) -> int:
    """For every index a vector with a one in its place, and zeros elsewhere. Indices count from the end if they are
    negative, and those beyond have no place."""
    build = r.builder
    shape = build.shape(index)
    if prod(shape) * size > _MOST_CHOICES:
        raise UnsupportedError(f"{prod(shape)} choices among {size} that depend on the input")
    each = compose.broadcast(build, reshape(build, index, (*shape, 1)), (*shape, size))
    # place k is that of k and of k - size: of all steps up to there less the next one
    ones = []
    for first in (0, -size):
        starts = Constant.of(torch.arange(first, first + size, dtype=torch.float64))
        reached = build.add(Step(), scale_shift(build, each, None, -starts + _HALF))
        left = build.add(Step(), scale_shift(build, each, None, -starts - _HALF))
        ones.append(compose.add(build, reached, left, -1))
    return compose.add(build, ones[0], ones[1])
