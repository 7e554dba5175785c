"""One call of a captured graph, with its arguments resolved: what the readers of aten operators are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from krelax.errors import UnsupportedError
from krelax.network.compose import Operand
from krelax.network.constants import Constant
from krelax.network.graph import Builder
from krelax.network.torch_constants import number
from krelax.op import Op, Shape


@dataclass(frozen=True)
class Branch:
    """A value that depends on the input: node `index` of the builder."""

    index: int


def name_of(node: torch.fx.Node) -> str:
    """Name of an aten operator without its overload; of others the full name, which no table has."""
    schema = getattr(node.target, "_schema", None)
    return str(node.target) if schema is None else schema.name.removeprefix("aten::")


@dataclass(frozen=True)
class Call:
    """An aten call: its arguments by their names in the operator's schema, defaults filled in."""

    builder: Builder
    node: torch.fx.Node
    arguments: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def name(self) -> str:
        """Name of the operator without its overload: the key of the table."""
        return name_of(self.node)

    @property
    def x(self) -> int:
        """The first argument, which must depend on the input."""
        name, value = next(iter(self.arguments.items()))
        if not isinstance(value, Branch):
            raise UnsupportedError(f"argument {name!r} must depend on the input")
        return value.index

    @property
    def pair(self) -> tuple[Operand, Operand]:
        """The first two arguments."""
        a, b, *_ = self.arguments.values()
        return self._operand(a), self._operand(b)

    @property
    def input_shape(self) -> Shape:
        return self.builder.shape(self.x)

    @property
    def x_size(self) -> int:
        """How many entries the first argument has."""
        return prod(self.input_shape)

    @property
    def shape(self) -> Shape:
        """Shape of the result, or of the first of several."""
        value = self.node.meta["val"]
        return tuple((value if isinstance(value, Tensor) else value[0]).shape)

    def shape_of(self, x: Operand) -> Shape:
        """Shape of a node or a constant."""
        return x.shape if isinstance(x, Constant) else self.builder.shape(x)

    def operand(self, name: str) -> Operand:
        """A node, or a tensor or number as a constant."""
        return self._operand(self.arguments[name])

    def number(self, value: float) -> Constant:
        """A Python number in the type of the result."""
        return number(value, self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the result in the module; of truths, that of what is compared."""
        value = self.node.meta["val"]
        kind: torch.dtype = (value if isinstance(value, Tensor) else value[0]).dtype
        if kind != torch.bool:
            return kind
        operands = [n.meta["val"] for n in self.node.all_input_nodes]
        return next((t.dtype for t in operands if isinstance(t, Tensor) and t.is_floating_point()), kind)

    def constant(self, name: str) -> Constant:
        value = self.operand(name)
        if not isinstance(value, Constant):
            raise UnsupportedError(f"argument {name!r} must not depend on the input")
        return value

    def optional(self, name: str) -> Constant | None:
        return None if self.arguments[name] is None else self.constant(name)

    def operands(self, name: str) -> list[Operand]:
        """A sequence of nodes and constants."""
        return [self._operand(value) for value in self.arguments[name]]

    def _operand(self, value: Any) -> Operand:
        if isinstance(value, Branch):
            return value.index
        if isinstance(value, Constant):
            return value
        return Constant.of(value) if isinstance(value, Tensor) else self.number(value)

    def sizes(self, name: str, rank: int) -> tuple[int, ...]:
        """One number for each of `rank` axes; a single one counts for all."""
        given = self.arguments[name]
        values = list(given) if isinstance(given, Sequence) else [given]
        return tuple(int(v) for v in (values * rank if len(values) == 1 else values))

    def add(self, op: Op, *inputs: int) -> int:
        return self.builder.add(op, *(inputs or (self.x,)), name=self.node.name)

    def run(self, x: Tensor, **changed: Any) -> Any:
        """What the operator itself gives when its first argument is a constant."""
        _, *others = self.arguments
        arguments = {name: self.arguments[name] for name in others} | changed
        if any(isinstance(v, Branch) for v in tree_leaves(arguments)):
            raise UnsupportedError("indices that depend on the input")
        target: Any = self.node.target
        return target(x, **arguments)
