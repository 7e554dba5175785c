"""Entries of a node that are copies of one number, by what becomes of numbers on the way through operators that only
copy; and the members of windows that are such copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from krelax.activations import Max
from krelax.network.ops import Linear

if TYPE_CHECKING:  # which is built with these
    from krelax.network.graph import Node


def moves(node: Node) -> bool:
    """Whether a node has entries of others alone, or zeros."""
    return isinstance(node.op, Linear) and node.op.moves_only and node.op.constant() is None


def numbers(nodes: Sequence[Node], i: int, known: dict[int, Tensor]) -> Tensor:
    """A whole number for every entry of node i, `(1, *shape)`: the same for copies, and zero for zero."""
    if i not in known:
        here = nodes[i]
        if moves(here):
            op = here.op.to(torch.float64, "cpu")
            assert isinstance(op, Linear)
            known[i] = op.linear(*(numbers(nodes, j, known) for j in here.inputs))
        else:
            begin = 1 + sum(prod(n.shape) for n in nodes[:i])
            known[i] = torch.arange(begin, begin + prod(here.shape)).reshape(1, *here.shape)
    return known[i]


def with_copies(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes, with maxima that know which members of their windows are copies of ones before them."""
    return tuple(_with_copies(nodes, node) if isinstance(node.op, Max) else node for node in nodes)


def _with_copies(nodes: Sequence[Node], node: Node) -> Node:
    if not moves(nodes[node.inputs[0]]):
        return node
    copies = _again(numbers(nodes, node.inputs[0], {})[0])
    return node if copies is None else replace(node, op=Max(copies))


def _again(windows: Tensor) -> Tensor | None:
    """Which members of windows are the same as one before them; None if there are none."""
    ordered, place = windows.sort(dim=-1, stable=True)
    again = torch.cat([torch.zeros_like(ordered[..., :1]), ordered[..., 1:] == ordered[..., :-1]], -1).bool()
    return torch.zeros_like(again).scatter(-1, place, again) if bool(again.any()) else None
