"""Affine operators with arithmetic in them: dense, convolutions, scaling, sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from krelax.network.constants import size
from krelax.network.ops import Linear
from krelax.op import Shape

_FEW_CHANNELS = 4
# The adjoint in double precision works on as many images at a time as have columns of so many bytes: they stay in
# caches. It is a multiple of the second number, because images are innermost.
_COLUMN_BYTES, _IMAGES = 4 << 20, 8


@dataclass(frozen=True, eq=False)
class Arithmetic(Linear):
    """An affine operator whose `forward` computes, and so rounds.

    Beside a constant `name` an operator may have a tensor `name_error` of its shape: how far the model's own constant
    may be from it. The model's function is what is bounded, so whoever uses the constants charges their `sizes`.
    """

    _constants: ClassVar[tuple[str, ...]] = ()

    @property
    def moves_only(self) -> bool:
        return False

    @property
    def is_exact(self) -> bool:
        return all(getattr(self, f"{name}_error") is None for name in self._constants)

    def absolute(self) -> Linear:
        values = {name: getattr(self, name) for name in self._constants}
        return self._with({name: None if t is None else t.abs() for name, t in values.items()})

    def sizes(self) -> Linear:
        pairs = {name: (getattr(self, name), getattr(self, f"{name}_error")) for name in self._constants}
        return self._with({name: None if t is None else size(t, error) for name, (t, error) in pairs.items()})

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Self:
        """The same operator in another type. Only float64 keeps errors: narrower types propose, and prove nothing."""
        kept = self if dtype == torch.float64 else self._with({name: getattr(self, name) for name in self._constants})
        return super(Arithmetic, kept).to(dtype, device)

    def _with(self, constants: Mapping[str, Tensor | None]) -> Self:
        """With other constants, which are exact."""
        return replace(self, **constants, **{f"{name}_error": None for name in self._constants})


def _by_sums(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A convolution that adds up the products it is defined by, in some order, wherever something is proven with it.

    In double precision on a GPU, cuDNN may choose a Fourier transform, which rounds differently.
    """

    def convolve(x: Tensor, *rest: Any) -> Tensor:
        if x.dtype == torch.float64 and x.is_cuda:
            with torch.backends.cudnn.flags(enabled=False):
                return function(x, *rest)
        return function(x, *rest)

    return convolve


_CONVOLVE = {rank: _by_sums(f) for rank, f in enumerate((F.conv1d, F.conv2d, F.conv3d), start=1)}
_TRANSPOSED = {
    rank: _by_sums(f) for rank, f in enumerate((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), start=1)
}


@dataclass(frozen=True, eq=False)
class Dense(Arithmetic):
    """`x @ weight.T + bias` on the last axis; weight `(out, in)`, bias broadcastable to `(..., out)`."""

    weight: Tensor
    bias: Tensor | None = None
    weight_error: Tensor | None = None
    bias_error: Tensor | None = None
    _constants = ("weight", "bias")

    @property
    def terms(self) -> int:
        return max(self.weight.shape)

    def shape(self, *inputs: Shape) -> Shape:
        return (*inputs[0][:-1], self.weight.shape[0])

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0] @ self.weight.T

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.bias is not None and self.bias.dim() == 1:
            return F.linear(inputs[0], self.weight, self.bias)
        return super().forward(*inputs)

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        return (coeff @ self.weight,)

    def constant(self) -> Tensor | None:
        return self.bias


@dataclass(frozen=True, eq=False)
class Conv(Arithmetic):
    """Convolution over the last one to three axes; weight `(out, in / groups, *kernel)`, bias `(out,)`.

    The operand is `(*images, channels, *spatial)` with one axis of images. Padding is symmetric: importers put a
    `Pad` in front of anything else.
    """

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    weight_error: Tensor | None = None
    bias_error: Tensor | None = None
    _constants = ("weight", "bias")

    @property
    def _rank(self) -> int:
        return self.weight.dim() - 2

    @property
    def terms(self) -> int:
        kernel = prod(self.weight.shape[2:])
        return kernel * max(self.weight.shape[1], self.weight.shape[0] // self.groups)

    def shape(self, *inputs: Shape) -> Shape:
        extent = zip(inputs[0][2:], self.weight.shape[2:], self.stride, self.padding, self.dilation, strict=True)
        spatial = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in extent)
        return (inputs[0][0], self.weight.shape[0], *spatial)

    def linear(self, *inputs: Tensor) -> Tensor:
        return self._convolve(inputs[0], None)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._convolve(inputs[0], self.bias)

    def _convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        result = _CONVOLVE[self._rank](
            x.flatten(0, 1), self.weight, bias, self.stride, self.padding, self.dilation, self.groups
        )
        return result.unflatten(0, x.shape[:2])

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        rows = coeff.flatten(0, 1)
        return (self._pulled(rows, inputs[0]).unflatten(0, coeff.shape[:2]),)

    def _pulled(self, coeff: Tensor, shape: Shape) -> Tensor:
        """The adjoint of one axis of images, whichever way is fastest."""
        if self._rank == 2 and self.groups == 1:
            # with few input channels, PyTorch's transposed convolution is several times slower than its two halves
            if self.weight.shape[1] <= _FEW_CHANNELS:
                return self._fold(coeff, shape)
            # in double precision it has no fast kernel on a CPU
            if coeff.dtype == torch.float64 and coeff.device.type == "cpu":
                return self._overlap(coeff, shape)
        geometry = zip(
            shape[2:], coeff.shape[2:], self.weight.shape[2:], self.stride, self.padding, self.dilation, strict=True
        )
        lost = [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, k, s, p, d in geometry]
        return _TRANSPOSED[self._rank](
            coeff, self.weight, None, self.stride, self.padding, lost, self.groups, self.dilation
        )

    def _fold(self, coeff: Tensor, shape: Shape) -> Tensor:
        """The adjoint as one matrix product and a sum of overlapping windows."""
        columns = self.weight.flatten(1).T @ coeff.flatten(2)
        return F.fold(columns, shape[2:], self.weight.shape[2:], self.dilation, self.padding, self.stride)

    def _overlap(self, coeff: Tensor, shape: Shape) -> Tensor:
        """The same with the images innermost: large products, and windows that are added as long vectors, for as many
        images at a time as caches hold."""
        (high, wide), (top, left) = shape[2:], self.padding
        result = coeff.new_empty(len(coeff), self.weight.shape[1], high, wide)
        rows = self.weight[0].numel() * prod(coeff.shape[2:]) * coeff.element_size()
        size = max(_IMAGES, min(len(coeff), _COLUMN_BYTES // rows // _IMAGES * _IMAGES))
        columns, image = coeff.new_empty(0), coeff.new_empty(0)
        for part, place in zip(coeff.split(size), result.split(size), strict=True):
            images = part.permute(1, 2, 3, 0).contiguous()
            columns, image = self._padded_images(images, shape, columns, image)
            place.copy_(image[:, top : top + high, left : left + wide].permute(3, 0, 1, 2))
        return result

    def _padded_images(self, coeff: Tensor, shape: Shape, columns: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """`(out, *spatial, images) -> (in, *padded spatial, images)`, in the memory of former ones of the same shape:
        the columns of all windows, and the images."""
        extent, kernel = coeff.shape[1:3], self.weight.shape[2:]
        geometry = zip(shape[2:], extent, kernel, self.stride, self.padding, self.dilation, strict=True)
        padded = [max(n + p, (m - 1) * s + d * (k - 1) + 1) for n, m, k, s, p, d in geometry]
        if image.shape[-1:] != coeff.shape[-1:]:
            columns = coeff.new_empty(self.weight.shape[1], *kernel, *extent, coeff.shape[3])
            image = coeff.new_empty(len(columns), *padded, coeff.shape[3])
        torch.mm(self.weight.flatten(1).T, coeff.flatten(1), out=columns.view(-1, coeff[0].numel()))
        image.zero_()
        for y, x in product(range(kernel[0]), range(kernel[1])):
            reach = zip((y, x), extent, self.stride, self.dilation, strict=True)
            rows, cols = (slice(i * d, i * d + (m - 1) * s + 1, s) for i, m, s, d in reach)
            image[:, rows, cols] += columns[:, y, x]
        return columns, image

    def constant(self) -> Tensor | None:
        return None if self.bias is None else self.bias.reshape(-1, *[1] * self._rank)


@dataclass(frozen=True, eq=False)
class ConvTranspose(Arithmetic):
    """Transposed convolution: the adjoint of `Conv` as an operator; weight `(in, out / groups, *kernel)`."""

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int = 1
    weight_error: Tensor | None = None
    bias_error: Tensor | None = None
    _constants = ("weight", "bias")

    @property
    def _rank(self) -> int:
        return self.weight.dim() - 2

    @property
    def terms(self) -> int:
        kernel = prod(self.weight.shape[2:])
        return kernel * max(self.weight.shape[1], self.weight.shape[0] // self.groups)

    def shape(self, *inputs: Shape) -> Shape:
        extent = zip(
            inputs[0][2:],
            self.weight.shape[2:],
            self.stride,
            self.padding,
            self.dilation,
            self.output_padding,
            strict=True,
        )
        spatial = ((n - 1) * s - 2 * p + d * (k - 1) + o + 1 for n, k, s, p, d, o in extent)
        return (inputs[0][0], self.weight.shape[1] * self.groups, *spatial)

    def linear(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        result = _TRANSPOSED[self._rank](
            x.flatten(0, 1),
            self.weight,
            None,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )
        return result.unflatten(0, x.shape[:2])

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        result = _CONVOLVE[self._rank](
            coeff.flatten(0, 1), self.weight, None, self.stride, self.padding, self.dilation, self.groups
        )
        # an output padding as large as the stride lets the convolution see further than the input
        inside = (slice(None), slice(None), *(slice(n) for n in inputs[0][2:]))
        return (result[inside].unflatten(0, coeff.shape[:2]),)

    def constant(self) -> Tensor | None:
        return None if self.bias is None else self.bias.reshape(-1, *[1] * self._rank)


@dataclass(frozen=True, eq=False)
class Scale(Arithmetic):
    """`x * factor + shift` elementwise; either may be None, both broadcast to the shape of `x`."""

    factor: Tensor | None = None
    shift: Tensor | None = None
    factor_error: Tensor | None = None
    shift_error: Tensor | None = None
    _constants = ("factor", "shift")

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    @property
    def only_adds(self) -> bool:
        return self.factor is None and (self.shift is None or bool((self.shift >= 0).all()))

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0] if self.factor is None else inputs[0] * self.factor

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        return (coeff if self.factor is None else coeff * self.factor,)

    def constant(self) -> Tensor | None:
        return self.shift


@dataclass(frozen=True, eq=False)
class Within(Arithmetic):
    """The identity, of numbers up to `limit` in absolute value: whoever goes beyond is charged without bound.

    It stands for a function that is the identity up to there, and something else beyond.
    """

    limit: float
    charges: bool = False

    @property
    def is_exact(self) -> bool:
        return False

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    def linear(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        return torch.where(x.abs() <= self.limit, x, torch.inf) if self.charges else x

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        return (coeff,)

    def sizes(self) -> Linear:
        return Within(self.limit, charges=True)


@dataclass(frozen=True, eq=False)
class Add(Arithmetic):
    """Signed sum of branches of equal shape; `signs` holds +1 or -1 for each."""

    signs: tuple[int, ...]

    @property
    def terms(self) -> int:
        return len(self.signs)

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    def linear(self, *inputs: Tensor) -> Tensor:
        result = inputs[0] if self.signs[0] > 0 else -inputs[0]
        for sign, x in zip(self.signs[1:], inputs[1:], strict=True):
            result = result + x if sign > 0 else result - x
        return result

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        return tuple(coeff if sign > 0 else -coeff for sign in self.signs)

    @property
    def only_adds(self) -> bool:
        return min(self.signs) > 0

    def absolute(self) -> Linear:
        return Add((1,) * len(self.signs))

    def sizes(self) -> Linear:
        return self.absolute()


@dataclass(frozen=True, eq=False)
class Sum(Arithmetic):
    """Sum over `axes`, which stay with size one."""

    axes: tuple[int, ...]
    count: int

    @property
    def terms(self) -> int:
        return self.count

    @property
    def only_adds(self) -> bool:
        return True

    def shape(self, *inputs: Shape) -> Shape:
        return tuple(1 if i in self.axes else n for i, n in enumerate(inputs[0]))

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sum([a + 1 for a in self.axes], keepdim=True)

    def adjoint(self, coeff: Tensor, *inputs: Shape) -> tuple[Tensor, ...]:
        return (coeff.expand(len(coeff), *inputs[0]),)


def dense_rows(op: Linear, index: Tensor) -> Tensor | None:
    """Rows of a dense operator on vectors, `(..., in)` for integer `index` of shape `(...)`; None for others."""
    return op.weight[index] if isinstance(op, Dense) else None
