"""What a specification says of networks: their inputs, hidden nodes and outputs, and how they are related."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from krelax.errors import InputError

Shape = tuple[int, ...]


class Kind(StrEnum):
    """What a variable is to its network."""

    INPUT = "input"
    HIDDEN = "hidden"
    OUTPUT = "output"


@dataclass(frozen=True)
class Variable:
    """A declared tensor of a network.

    Its elements are numbered from `start` on, row-major: among all inputs of the specification if it is one, otherwise
    among all values that networks compute. `shape` is None for numbered scalars, `element` is the only type of a
    network's tensor that fits (None: any), and `label` is what the network's file calls it, where that is said.
    """

    name: str
    kind: Kind
    shape: Shape | None
    size: int
    element: str | None = None
    label: str | None = None
    start: int = 0

    def element_name(self, index: int) -> str:
        """How a specification spells an element: ``X_7``, or ``X[0,7]``."""
        return element_name(self.name, self.shape, index)


@dataclass(frozen=True)
class Declared:
    """A network as a specification declares it; `name` is None where the format has only one.

    With a `relation` to the network `other`, "equal-to" says that both are the same file, "isomorphic-to" that only
    their constants differ.
    """

    name: str | None
    variables: tuple[Variable, ...]
    relation: str | None = None
    other: str | None = None

    def of(self, *kinds: Kind) -> list[Variable]:
        """The variables of these kinds, in order."""
        return [v for v in self.variables if v.kind in kinds]

    @property
    def is_simple(self) -> bool:
        """Whether it has one input, one output and nothing else."""
        return [v.kind for v in self.variables] == [Kind.INPUT, Kind.OUTPUT]


def numbered(networks: Sequence[Declared]) -> tuple[Declared, ...]:
    """The networks with `start` of every variable, in order of declaration."""
    ends = {True: 0, False: 0}
    result = []
    for network in networks:
        variables = []
        for variable in network.variables:
            is_input = variable.kind is Kind.INPUT
            variables.append(replace(variable, start=ends[is_input]))
            ends[is_input] += variable.size
        result.append(replace(network, variables=tuple(variables)))
    return tuple(result)


def element_name(name: str, shape: Shape | None, index: int) -> str:
    """How a specification spells element ``index`` of a flattened tensor: ``X_7``, or ``X[0,7]``."""
    if shape is None:
        return f"{name}_{index}"
    subscript = ",".join(str(int(i)) for i in np.unravel_index(index, shape)) if shape else ""
    return f"{name}[{subscript}]" if shape else name


def fits(declared: Shape | None, own: Sequence[Any]) -> bool:
    """Whether a declared shape is that of a network's tensor, up to axes of size one, wherever they are.

    Axes of size one change no element's place in row-major order; anything else would be a reshape."""
    return declared is None or [n for n in declared if n != 1] == [n for n in own if n != 1]


def check_tensor(variable: Variable, own: Sequence[int], element: str | None) -> None:
    """Raises InputError if a network's tensor, of this shape and type, is not what a variable is declared to be."""
    if not fits(variable.shape, own) or variable.size != int(np.prod(own)):
        shown = [variable.size] if variable.shape is None else list(variable.shape)
        raise InputError(
            f"the specification declares {variable.name} of shape {shown}, the network has {list(own)}; "
            "correct the declaration (axes of size one may differ)"
        )
    if element is not None and variable.element not in {None, element}:
        raise InputError(
            f"the specification declares {variable.name} as {variable.element}, the network has {element} there; "
            "correct the declaration, or write real"
        )
