"""Counterexamples as VNN-LIB wants them: a tensor for each variable, in the order in which they are declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from krelax.network.onnx_inputs import ELEMENTS, array_type
from krelax.problem.interface import Kind, Shape
from krelax.problem.query import Specification
from krelax.search.verdict import Counterexample

# What is declared where numbers of any type will do.
_REAL = "real"


@dataclass(frozen=True, eq=False)
class Assigned:
    """The value of a variable: whether it is an input, its name and element type as declared, the array in a type of
    its own, and all numbers as text, of which those of an input that lies between the numbers of its type are exact."""

    given: bool
    name: str
    element: str
    array: NDArray[Any]
    numbers: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        return self.array.shape

    def proto(self) -> bytes:
        """As a serialised tensor of ONNX."""
        return numpy_helper.from_array(np.array(self.array, order="C"), self.name).SerializeToString()


def assigned(specification: Specification, found: Counterexample) -> list[Assigned]:
    """The values that a counterexample has for all variables of a specification."""
    result = []
    for variable in (v for network in specification.networks for v in network.variables):
        given = variable.kind is Kind.INPUT
        array = found.x if given else found.y
        if specification.terms is not None:
            array = array.flatten()[variable.start : variable.start + variable.size]
            own = found.x.dtype if np.array_equal(array.astype(found.x.dtype), array) else array.dtype
            array = array.astype(_array_type(variable.element) if variable.element else own)
            array = array.reshape((variable.size,) if variable.shape is None else variable.shape)
        elif variable.shape is not None:
            array = array.reshape(variable.shape)
            array = array.astype(_array_type(variable.element)) if variable.element else array
        texts = found.exact if given else {}
        numbers = tuple(texts.get(variable.start + i, _text(v)) for i, v in enumerate(array.flatten()))
        # tensors of numbered scalars are the model's own, and nobody has declared them
        element = variable.element or (array.dtype.name if variable.shape is None else _REAL)
        result.append(Assigned(given, variable.name, element, array, numbers))
    return result


def _array_type(element: str) -> Any:
    """The type of arrays of a declared type."""
    return array_type(next(kind for kind, name in ELEMENTS.items() if name == element))


def _text(number: Any) -> str:
    """A number as the shortest decimal that gives it back; whole numbers of such types without a point."""
    return repr(int(number)) if np.asarray(number).dtype.kind in "iub" else repr(float(number))
