"""A network behind a transformation of one image: its inputs are the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.activations.transformed import Transformed
from krelax.elements import FLOAT64
from krelax.network import compose
from krelax.network.constants import Constant
from krelax.network.graph import Builder, Network, Replay
from krelax.network.ops import Transpose

Numbers = Sequence[Sequence[Fraction]]


def behind(network: Network, op: Transformed, count: int, last: bool, scaling: Numbers | None) -> Network:
    """The network as a function of the parameters of a transformation.

    Args:
        network: The model.
        op: The transformation, of one image.
        count: How many parameters it has.
        last: Whether channels are last in the model's inputs.
        scaling: For every input of the model its mean and its std; the model is given `(pixel - mean) / std`.

    Returns:
        A network with inputs `(count,)`. What is replayed is a vector of the parameters and, behind them, of the
        model's input, of which the model is given the latter.
    """
    builder = Builder((count,))
    shape = tuple(op.picture.pixels.shape)
    x = compose.broadcast(builder, compose.reshape(builder, 0, (1, 1, 1, count)), (*shape, count))
    x = builder.add(op, x)
    if last:
        x = builder.add(Transpose((1, 2, 0)), x)
    x = compose.reshape(builder, x, network.input_shape)
    if scaling is not None:
        mean, std = (_constant(numbers).reshape(*network.input_shape) for numbers in scaling)
        factor = std.reciprocal()
        x = compose.scale_shift(builder, x, factor, -(mean * factor))
    place = [x]
    for node in network.nodes[1:]:
        place.append(builder.add(node.op, *(place[i] for i in node.inputs), name=node.name))
    found = builder.build(place[-1], _replay(network, count))
    return Network(found.nodes, found.replay, FLOAT64, network.converted, output=network.output)


def _replay(network: Network, count: int) -> Replay | None:
    """What the model says to the input behind the parameters."""
    own = network.replay
    if own is None:
        return None

    def replay(x: NDArray[np.float64]) -> NDArray[np.generic]:
        given = x[count:].astype(network.elements.holder).reshape(network.input_shape)
        return np.asarray(own(given))

    return replay


def _constant(numbers: Sequence[Fraction]) -> Constant:
    """Exact numbers, as floats and how far these are off."""
    near = torch.tensor([float(n) for n in numbers], dtype=torch.float64)
    off = [abs(n - Fraction(float(n))) for n in numbers]
    if not any(off):
        return Constant(near)
    return Constant(near, torch.tensor([float(o) * (1 + 2.0**-40) for o in off], dtype=torch.float64))
