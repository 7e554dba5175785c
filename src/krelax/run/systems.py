"""What certificates say of several networks, or of several tensors of one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from krelax.certificate.format.schema import Given, System
from krelax.certificate.format.schema import Part as Stated
from krelax.certificate.format.systems import factors_of
from krelax.certificate.onnx.model import model_hash
from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.network.onnx_joint import Model, Part
from krelax.problem.query import Specification
from krelax.run.journal import digest


def system_of(parts: Sequence[Part], specification: Specification, apart: bool) -> System:
    """The networks of a specification, as certificates have them: uses of models in the order in which it declares
    them. `apart` says whether proofs are about what two of them differ by. Raises InputError for files that cannot be
    read."""
    places = np.array(specification.places, np.int32)
    stated = []
    for part, network in zip(parts, specification.networks, strict=True):
        sizes = {given.name: prod(given.shape) for given in part.model.inputs}
        inputs = [Given(name, places[start : start + sizes[name]]) for name, start in part.columns.items()]
        stated.append(Stated(hash_of(part.model.path), inputs, list(part.values), network.name))
    return System(stated, *factors_of(specification.terms or ()), apart or None)


def differing(models: Sequence[Path], networks: Sequence[Network], apart: bool) -> System:
    """Two models at the same inputs, as certificates have them; all their outputs, those of the first one first. Raises
    InputError for files that cannot be read."""
    parts = []
    for path, network in zip(models, networks, strict=True):
        model = Model.read(path)
        (given,) = model.inputs if len(model.inputs) == 1 else model.used
        places = np.arange(prod(network.input_shape), dtype=np.int32)
        parts.append(Stated(hash_of(path), [Given(given.name, places)], [network.output]))
    outputs = sum(prod(network.output_shape) for network in networks)
    return System(parts, *factors_of([(2 * i + 1,) for i in range(outputs)]), apart or None)


def hash_of(model: Path) -> str:
    """Of all files of a network; of its own file if the checker does not read it."""
    try:
        return model_hash(model)
    except InputError:
        return digest(model)
