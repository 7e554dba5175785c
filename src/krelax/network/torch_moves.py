"""Aten operators that only move entries of their operands about, or put constants in their places: they join `READERS`.

Each is run on the positions of the entries of all its operands, counted from one: what it gives says where every entry
of its result comes from, and zero is no entry at all.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from krelax.errors import UnsupportedError
from krelax.network import contractions as of
from krelax.network.compose import Operand
from krelax.network.constants import Constant
from krelax.network.torch_operators import pad_by_number, reads
from krelax.network.torch_reader import Branch, Call

# Arguments that are numbers which stand in the result.
_FILL, _OF_WHERE = {"value"}, {"self", "other"}


@reads(
    "index", "flip", "roll", "rot90", "repeat", "tile", "repeat_interleave", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "unfold", "im2col", "diagonal", "diag_embed", "gather", "take", "take_along_dim", "tril", "triu",
    "hstack", "vstack", "dstack", "column_stack", "scatter", "slice_scatter", "select_scatter",
    "index_put", "index_fill", "index_copy", "copy", "fill", "reflection_pad1d",
    "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
)  # fmt: skip
def move(c: Call) -> int:
    """Entries of the operands, or zero."""
    parts: list[Operand] = []
    count = 1

    def positions(value: Any) -> Any:
        nonlocal count
        if not isinstance(value, Branch | Constant):
            return value
        shape = c.builder.shape(value.index) if isinstance(value, Branch) else value.shape
        c.builder.require(prod(shape))
        parts.append(value.index if isinstance(value, Branch) else value)
        count += prod(shape)
        return torch.arange(count - prod(shape), count, dtype=torch.float64).reshape(shape)

    given = dict(c.arguments)
    fill = (_OF_WHERE if c.name == "where" else _FILL) & given.keys()
    numbers = {name for name in fill if isinstance(given[name], int | float)}
    given |= {name: c.number(given[name]) for name in numbers}
    shown = tree_map(positions, given, is_leaf=lambda v: isinstance(v, Branch | Constant))
    shown |= {name: shown[name].item() for name in numbers}
    target: Any = c.node.target
    result = target(**shown)
    if not isinstance(result, Tensor) or result.numel() == 0:
        raise UnsupportedError("a result without entries, or several")
    places = result.long().numpy()
    zeros = Constant.of(0.0).expand(1) if (places == 0).any() else None
    every = parts if zeros is None else [*parts, zeros]
    return of.choose(c.builder, every, (places - 1) % (count - 1 if zeros is None else count))


@reads("pad")
def _pad(c: Call) -> int | list[int]:
    return pad_by_number(c) if c.arguments.get("mode", "constant") == "constant" else move(c)
