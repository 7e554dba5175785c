"""What a system of networks is made of: its outputs as products, its inputs, and the same values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from krelax.certificate.errors import Malformed
from krelax.certificate.format.schema import System

# Variables that are multiplied: 2i for entry i of all inputs, 2j + 1 for entry j of all values.
Term = tuple[int, ...]


def terms_of(system: System) -> list[Term]:
    """The variables whose product each output is. Raises Malformed where outputs are not numbered from 0."""
    first = np.flatnonzero(np.diff(system.output, prepend=-1))
    if not np.array_equal(system.output[first], np.arange(len(first))):
        raise Malformed("outputs of a system that are not numbered from 0 on, in order")
    return [tuple(term.tolist()) for term in np.split(system.variable, first[1:])] if len(first) else []


def factors_of(terms: Sequence[Term]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The fields `output` and `variable` of a system."""
    output = np.repeat(np.arange(len(terms), dtype=np.int32), [len(term) for term in terms])
    return output, np.array([code for term in terms for code in term], np.int32)


def places_of(system: System) -> NDArray[np.int64]:
    """The input of the region that each input of all parts is. Raises Malformed where some of the region's are none, or
    an input is given twice."""
    given = [g.places.astype(np.int64) for part in system.parts for g in part.inputs]
    places = np.concatenate(given) if given else np.zeros(0, np.int64)
    found = np.unique(places)
    if not len(found) or not np.array_equal(found, np.arange(len(found))):
        raise Malformed("inputs of the region that are those of no network")
    if any(len({g.name for g in part.inputs}) < len(part.inputs) for part in system.parts):
        raise Malformed("an input that is given twice")
    return places
