"""Bilinear interpolation of an image at points that depend on parameters, and what is true of it over boxes of these.

Between four pixels the value is linear along either axis. Outside of the image all pixels are zero. So the value is
continuous everywhere, and smooth in every cell between four pixels. Over a box of points, values and derivatives are
hulls of those in the cells that the box touches: the largest of a rectangle of cells are found in four looks at a table
of the largest in rectangles whose sides are powers of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from krelax.activations.spans import Jet, Span, outward

# Zeros around the image, so that there are cells of nothing but zeros on every side.
_FRAME = 2
# More than what a sum of four products can lose, relative to the largest pixel.
_ROUNDING = 2.0**-47


@dataclass(frozen=True, eq=False)
class Picture:
    """An image `(channels, height, width)`, float64, to be looked at between its pixels."""

    pixels: Tensor

    @cached_property
    def _framed(self) -> Tensor:
        return torch.nn.functional.pad(self.pixels, [_FRAME] * 4)

    def _cell(self, at: Tensor, axis: int) -> Tensor:
        """The cell of each place along an axis, counted from the frame on."""
        return at.floor().nan_to_num(0.0).clamp(-_FRAME, self.pixels.shape[axis]).long() + _FRAME

    def at(self, row: Tensor, column: Tensor) -> Tensor:
        """The values at points, `(points, 1, height, width) -> (points, channels, height, width)`."""
        row, column = (t[:, 0] for t in torch.broadcast_tensors(row, column))
        framed = self._framed.to(row)
        top, left = self._cell(row, 1), self._cell(column, 2)
        down, right = row - (top - _FRAME), column - (left - _FRAME)
        wide = framed.shape[2]
        flat = framed.flatten(1)
        corner = [flat[:, top * wide + left + step] for step in (0, 1, wide, wide + 1)]
        above, below = corner[0] + right * (corner[1] - corner[0]), corner[2] + right * (corner[3] - corner[2])
        return (above + down * (below - above)).movedim(0, 1)

    @cached_property
    def _largest(self) -> Tensor:
        """For every cell, and every rectangle of `2^a x 2^b` cells from there on, the largest of `-value, value` at a
        corner, and of `-slope, slope` along both axes: `(a, b, rows, columns, 6 * channels)`, flattened but for the
        last axis."""
        f = self._framed
        along, across = f.diff(dim=2), f.diff(dim=1)
        corners = torch.stack([f[:, :-1, :-1], f[:, :-1, 1:], f[:, 1:, :-1], f[:, 1:, 1:]])
        ends = [corners, torch.stack([along[:, :-1], along[:, 1:]]), torch.stack([across[:, :, :-1], across[:, :, 1:]])]
        cells = torch.cat([part for end in ends for part in ((-end).amax(0), end.amax(0))])
        rows = [cells]
        while 2 ** len(rows) <= cells.shape[1]:
            rows.append(torch.maximum(rows[-1], _shifted(rows[-1], 1, 2 ** (len(rows) - 1))))
        table = []
        for level in rows:
            columns = [level]
            while 2 ** len(columns) <= cells.shape[2]:
                columns.append(torch.maximum(columns[-1], _shifted(columns[-1], 2, 2 ** (len(columns) - 1))))
            table.append(torch.stack(columns))
        return torch.stack(table).movedim(2, -1).flatten(0, 3).contiguous()

    def _touched(self, row: Span, column: Span) -> list[Span]:
        """Values, and derivatives along columns and rows, in all cells that boxes touch: `(boxes, channels, height,
        width)` each."""
        high, wide = (n - 1 for n in self._framed.shape[1:])
        (top, rows, tall), (left, columns, broad) = (
            _cover(*(self._cell(end[:, 0], axis) for end in (s.lower, s.upper))) for s, axis in ((row, 1), (column, 2))
        )
        levels = wide.bit_length()
        place = (tall * levels + broad) * high
        found = None
        for y in (top, rows):
            for x in (left, columns):
                seen = self._largest.index_select(0, ((place + y) * wide + x).flatten())
                found = seen if found is None else torch.maximum(found, seen)
        assert found is not None
        parts = found.unflatten(0, top.shape).movedim(-1, 1).chunk(6, dim=1)
        return [Span(-parts[i], parts[i + 1]) for i in (0, 2, 4)]

    def over(self, row: Jet, column: Jet) -> Jet:
        """The same at points that depend on parameters, `(boxes, 1, height, width)`."""
        shape = np.broadcast_shapes(row.value.lower.shape, column.value.lower.shape)
        y, x = (Span(*(t.expand(shape) for t in (j.value.lower, j.value.upper))) for j in (row, column))
        values, along, across = self._touched(y, x)
        middle_y, middle_x = (s.lower / 2 + s.upper / 2 for s in (y, x))
        reach_y, reach_x = (_reach(s, m) for s, m in ((y, middle_y), (x, middle_x)))
        off = across.magnitude * reach_y + along.magnitude * reach_x
        off = off * (1 + 2.0**-50) + _ROUNDING * (float(self.pixels.abs().max()) + off)
        off = torch.where(off.isnan(), torch.inf, off)
        near = self.at(middle_y, middle_x)
        slopes = []
        for by_row, by_column in zip(row.slopes, column.slopes, strict=True):
            parts = [d * s for d, s in ((across, by_row), (along, by_column)) if s is not None]
            slopes.append(None if not parts else parts[0] if len(parts) == 1 else parts[0] + parts[1])
        return Jet(values.meet(Span(near - off, near + off)), tuple(slopes))


def _reach(span: Span, middle: Tensor) -> Tensor:
    """How far the ends are from the middle, rounded up."""
    return outward(middle, torch.maximum(span.upper - middle, middle - span.lower)).upper


def _shifted(t: Tensor, axis: int, by: int) -> Tensor:
    """What is so many entries further along an axis; the last one where there is none."""
    index = (torch.arange(t.shape[axis]) + by).clamp(max=t.shape[axis] - 1)
    return t.index_select(axis, index)


def _cover(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where two runs of cells begin that cover those from the first to the last, and the power of two they are long."""
    count = last - first + 1
    level = torch.frexp(count.double())[1].long() - 1
    return first, last + 1 - (1 << level), level
