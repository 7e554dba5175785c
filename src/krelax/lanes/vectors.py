"""Machine vectors for code that is written down instruction by instruction: arithmetic on one number of each lane."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from krelax.hull.jit import has_wide_registers, llvm_tools

# Leaves in a register.
LANES = 16

_ZERO = (0,) * LANES


class Vector:
    """A number in each lane. No operation supposes that there are no infinities or NaN."""

    def __init__(self, code: Code, value: Any) -> None:
        self.code, self.value = code, value

    def _as_vector(self, other: Vector | float) -> Any:
        return other.value if isinstance(other, Vector) else self.code.constant(other).value

    def __add__(self, other: Vector | float) -> Vector:
        return Vector(self.code, self.code.builder.fadd(self.value, self._as_vector(other)))

    def __sub__(self, other: Vector | float) -> Vector:
        return Vector(self.code, self.code.builder.fsub(self.value, self._as_vector(other)))

    def __mul__(self, other: Vector | float) -> Vector:
        return Vector(self.code, self.code.builder.fmul(self.value, self._as_vector(other)))

    def times_plus(self, factor: Vector | float, more: Vector | float) -> Vector:
        """`self * factor + more`, rounded once."""
        return self.code.call("fma", self.value, self._as_vector(factor), self._as_vector(more))

    def over_root(self, square: Vector) -> Vector:
        """Divided by a square root, perhaps off by a few units: for what only proposes."""
        builder, flags = self.code.builder, ("arcp", "afn", "reassoc")
        root = builder.call(self.code.function("sqrt", 1), [square.value], fastmath=flags)
        return Vector(self.code, builder.fdiv(self.value, root, flags=flags))

    def magnitude(self) -> Vector:
        """The absolute value."""
        return self.code.call("fabs", self.value)

    def above(self, other: Vector | float) -> Any:
        """Where this is the larger one: a mask."""
        return self.code.builder.fcmp_ordered(">", self.value, self._as_vector(other))

    def where(self, mask: Any, other: Vector | float) -> Vector:
        """This where the mask says so, the other elsewhere."""
        return Vector(self.code, self.code.builder.select(mask, self.value, self._as_vector(other)))

    def at_least(self, other: Vector | float) -> Vector:
        """The larger one."""
        return self.where(self.above(other), other)

    def at_most(self, other: Vector | float) -> Vector:
        """The smaller one."""
        other = other if isinstance(other, Vector) else self.code.constant(other)
        return other.where(self.above(other), self)


class Code:
    """What a function is written with: `given` are its arguments, arrays as their first number's address. Rows of
    arrays have 16 numbers. All reals have the type of the first argument."""

    def __init__(self, context: Any, builder: Any, signature: Any, given: Any) -> None:
        self._ir, self._cgutils, types = llvm_tools()
        ir = self._ir
        self.builder, self._whole = builder, ir.IntType(64)
        self.double = signature.args[0].dtype == types.float64
        self.reals = ir.VectorType(ir.DoubleType() if self.double else ir.FloatType(), LANES)
        self.codes = ir.VectorType(ir.IntType(32), LANES)
        self.given = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, given, strict=True)
        ]

    def number(self, n: int) -> Any:
        """A whole number, as places of arrays are."""
        return self._ir.Constant(self._whole, n)

    def whole(self, array: Any, place: Any) -> Any:
        """A whole number of an array."""
        value = self.builder.load(self.builder.gep(array, [place]))
        return value if value.type == self._whole else self.builder.sext(value, self._whole)

    @contextmanager
    def loop(self, begin: Any, end: Any, step: int) -> Iterator[Any]:
        """What is written inside is done for whole numbers from `begin` on, below `end`."""
        with self._cgutils.for_range_slice(self.builder, begin, end, self.number(step), self._whole) as (t, _):
            yield t

    def place(self, base: Any, factor: int, more: int) -> Any:
        """`base * factor + more`."""
        return self.builder.add(self.builder.mul(base, self.number(factor)), self.number(more))

    def constant(self, value: float) -> Vector:
        """One number in every lane."""
        return Vector(self, self._ir.Constant(self.reals, [float(value)] * LANES))

    def whole_constant(self, value: int) -> Any:
        """One whole number in every lane."""
        return self._ir.Constant(self.codes, [value] * LANES)

    def _address(self, array: Any, row: Any, kind: Any) -> Any:
        at = self.builder.gep(array, [self.builder.mul(row, self.number(LANES))])
        return self.builder.bitcast(at, kind.as_pointer())

    def load(self, array: Any, row: Any) -> Vector:
        """A row of numbers."""
        value = self.builder.load(self._address(array, row, self.reals))
        value.align = 8 if self.double else 4
        return Vector(self, value)

    def load_codes(self, array: Any, row: Any) -> Any:
        """A row of whole numbers."""
        value = self.builder.load(self._address(array, row, self.codes))
        value.align = 4
        return value

    def store(self, array: Any, row: Any, vector: Vector) -> None:
        """Write a row."""
        self.builder.store(vector.value, self._address(array, row, self.reals)).align = 8 if self.double else 4

    def add(self, array: Any, row: Any, vector: Vector) -> None:
        """Add to a row."""
        self.store(array, row, self.load(array, row) + vector)

    def everywhere(self, scalar: Any) -> Vector:
        """A number that all lanes share."""
        return Vector(self, self._repeated(scalar, self.reals))

    def shared(self, array: Any, place: Any) -> Vector:
        """A number of an array that all lanes share."""
        return self.everywhere(self.builder.load(self.builder.gep(array, [place])))

    def shared_codes(self, array: Any, place: Any) -> Any:
        """A whole number of an array that all lanes share."""
        return self._repeated(self.builder.load(self.builder.gep(array, [place])), self.codes)

    def _repeated(self, scalar: Any, kind: Any) -> Any:
        nothing = self._ir.Constant(kind, self._ir.Undefined)
        first = self.builder.insert_element(nothing, scalar, self._ir.IntType(32)(0))
        return self.builder.shuffle_vector(first, nothing, self._ir.Constant(self.codes, _ZERO))

    def any(self, codes: Any) -> Any:
        """Whether any lane has another whole number than zero."""
        some = self.builder.icmp_signed("!=", codes, self.whole_constant(0))
        return self.builder.icmp_unsigned("!=", self.builder.bitcast(some, self._ir.IntType(LANES)),
                                          self._ir.Constant(self._ir.IntType(LANES), 0))  # fmt: skip

    def variable(self, kind: Any) -> Any:
        """Room for a vector."""
        return self._cgutils.alloca_once(self.builder, kind)

    def begun(self, value: float) -> Any:
        """Room for a vector, with one number in every lane."""
        room = self._cgutils.alloca_once_value(self.builder, self.constant(value).value)
        self.builder.store(self.constant(value).value, room)
        return room

    def chosen(self, table: Vector, place: Any, count: int) -> Vector:
        """For each lane the number in the lane of a table, of `count` at most, that `place` says."""
        if has_wide_registers() and not self.double:
            kind = self._ir.FunctionType(self.reals, [self.reals, self.codes])
            name = "llvm.x86.avx512.permvar.sf.512"
            function = self._cgutils.get_or_insert_function(self.builder.module, kind, name)
            return Vector(self, self.builder.call(function, [table.value, place]))
        result = self.constant(0.0)
        for n in range(count):
            mine = self.builder.icmp_signed("==", place, self.whole_constant(n))
            one = self.builder.extract_element(table.value, self._ir.IntType(32)(n))
            result = self.everywhere(one).where(mine, result)
        return result

    def function(self, name: str, arguments: int) -> Any:
        """A function of LLVM on vectors of reals."""
        kind = self._ir.FunctionType(self.reals, [self.reals] * arguments)
        full = f"llvm.{name}.v{LANES}f{64 if self.double else 32}"
        return self._cgutils.get_or_insert_function(self.builder.module, kind, full)

    def call(self, name: str, *arguments: Any) -> Vector:
        """The same, called."""
        return Vector(self, self.builder.call(self.function(name, len(arguments)), arguments))
