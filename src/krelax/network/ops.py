"""Affine operators: their contract, and those that only move numbers about. Their batch axis is that of any operator
(`krelax.op`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from krelax.op import Op, Shape


class Source(Op):
    """The input of the network: node 0, and nothing else."""

    def shape(self, *inputs: Shape) -> Shape:
        raise NotImplementedError("the source's shape is given, not computed")

    def forward(self, *inputs: Tensor) -> Tensor:
        raise NotImplementedError("the source's value is given, not computed")


class Linear(Op):
    """An affine operator: `forward(x) = linear(x) + bias`. It knows its adjoint and its absolute value.

    The defaults describe an operator that moves or copies numbers without arithmetic.
    """

    @property
    def moves_only(self) -> bool:
        """True if `forward` copies entries and rounds nothing."""
        return True

    @property
    def terms(self) -> int:
        """Most floating-point terms added up in one entry of `linear` or of `adjoint`; for rounding bounds."""
        return 1

    @abstractmethod
    def linear(self, *inputs: Tensor) -> Tensor:
        """The linear part."""

    @abstractmethod
    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        """Pull `(n, *output)` coefficients back to each input: `<coeff, linear(x)> = sum <adjoint_i, x_i>`."""

    def constant(self) -> Tensor | None:
        """The bias, broadcastable to the result's shape; None for zero."""
        return None

    @property
    def is_exact(self) -> bool:
        """Whether the operator's constants are exactly those of the model."""
        return True

    @property
    def only_adds(self) -> bool:
        """True if it adds up numbers that are not negative for operands that are not, and multiplies nothing."""
        return False

    def absolute(self) -> Linear:
        """The operator with the absolute value of every weight and of the bias."""
        return self

    def sizes(self) -> Linear:
        """The operator whose value at magnitudes of its inputs is the magnitude that its rounding is charged by: the
        absolute values of its constants and what their errors count for (`krelax.network.constants`)."""
        return self.absolute()

    def forward(self, *inputs: Tensor) -> Tensor:
        bias = self.constant()
        result = self.linear(*inputs)
        return result if bias is None else result + bias


@dataclass(frozen=True, eq=False)
class Reshape(Linear):
    """Rows-major reinterpretation of the shape (ONNX Reshape, Flatten, Squeeze, Unsqueeze)."""

    target: Shape

    def shape(self, *inputs: Shape) -> Shape:
        return self.target

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0].reshape(len(inputs[0]), *self.target)

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        return (coeff.reshape(len(coeff), *inputs[0]),)


@dataclass(frozen=True, eq=False)
class Transpose(Linear):
    """Permutation of the axes."""

    permutation: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        return tuple(inputs[0][p] for p in self.permutation)

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0].permute(0, *(p + 1 for p in self.permutation))

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        inverse = sorted(range(len(self.permutation)), key=self.permutation.__getitem__)
        return (coeff.permute(0, *(p + 1 for p in inverse)),)


@dataclass(frozen=True, eq=False)
class Gather(Linear):
    """Entries `index` along `axis`, repeats allowed (ONNX Slice, Split, Gather with constant indices)."""

    axis: int
    index: Tensor

    @property
    def terms(self) -> int:
        return int(torch.bincount(self.index.cpu()).max()) if len(self.index) else 1

    def shape(self, *inputs: Shape) -> Shape:
        return (*inputs[0][: self.axis], len(self.index), *inputs[0][self.axis + 1 :])

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0].index_select(self.axis + 1, self.index)

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        result = coeff.new_zeros(len(coeff), *inputs[0])
        return (result.index_add_(self.axis + 1, self.index, coeff),)


@dataclass(frozen=True, eq=False)
class Take(Linear):
    """Entries of the flattened input at `index`, whose shape is the result's (pooling windows)."""

    index: Tensor

    @property
    def terms(self) -> int:
        return int(torch.bincount(self.index.flatten().cpu()).max()) if self.index.numel() else 1

    def shape(self, *inputs: Shape) -> Shape:
        return tuple(self.index.shape)

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0].flatten(1)[:, self.index]

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        result = coeff.new_zeros(len(coeff), prod(inputs[0]))
        result.index_add_(1, self.index.flatten(), coeff.reshape(len(coeff), self.index.numel()))
        return (result.reshape(len(coeff), *inputs[0]),)


@dataclass(frozen=True, eq=False)
class Concat(Linear):
    """Inputs joined along `axis`."""

    axis: int

    def shape(self, *inputs: Shape) -> Shape:
        first = inputs[0]
        return (*first[: self.axis], sum(s[self.axis] for s in inputs), *first[self.axis + 1 :])

    def linear(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, dim=self.axis + 1)

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        return coeff.split([s[self.axis] for s in inputs], dim=self.axis + 1)


@dataclass(frozen=True, eq=False)
class Pad(Linear):
    """Zero padding; `before` and `after` count the entries added on each axis (negative ones crop)."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        return tuple(n + b + a for n, b, a in zip(inputs[0], self.before, self.after, strict=True))

    def _pads(self, sign: int) -> list[int]:
        pairs = zip(reversed(self.before), reversed(self.after), strict=True)
        return [sign * p for pair in pairs for p in pair]

    def linear(self, *inputs: Tensor) -> Tensor:
        return torch.nn.functional.pad(inputs[0], self._pads(1))

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        return (torch.nn.functional.pad(coeff, self._pads(-1)),)


@dataclass(frozen=True, eq=False)
class Expand(Linear):
    """Broadcast to a larger shape of the same rank (axes of size one are repeated)."""

    target: Shape

    def _repeated(self, given: Shape) -> list[int]:
        return [i + 1 for i, (n, m) in enumerate(zip(given, self.target, strict=True)) if n != m]

    @property
    def terms(self) -> int:
        return prod(self.target)

    def shape(self, *inputs: Shape) -> Shape:
        return self.target

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0].expand(len(inputs[0]), *self.target)

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        axes = self._repeated(inputs[0])
        return (coeff.sum(axes, keepdim=True) if axes else coeff,)


def normal_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes with negative values counted from the end, sorted, each once."""
    return tuple(sorted({a % rank for a in axes}))


def one_hot(index: Tensor, shape: Shape, dtype: torch.dtype) -> Tensor:
    """Unit coefficients `(n, *shape)` for the flat positions `index` of shape `(n,)`."""
    result = torch.zeros(len(index), prod(shape), dtype=dtype, device=index.device)
    result.scatter_(1, index[:, None], 1.0)
    return result.reshape(len(index), *shape)
