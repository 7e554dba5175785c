"""Does a network compute what the model it was read from computes?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.network.linear import Within

Head = Sequence[Callable[[Tensor], Tensor]]


def import_error(network: Network, count: int = 3, head: Head = ()) -> float:
    """Largest difference between a network, followed by the functions of a `head`, and its `replay` at random inputs,
    relative to the largest output.

    Infinite if the outputs do not even have the same shape or are not numbers.
    """
    assert network.replay is not None
    x = samples(network, count)
    values = network.values(torch.from_numpy(x.astype(np.float64)))
    result = values[-1]
    for function in head:
        result = function(result.flatten(1)).reshape(result.shape)
    ours = result.numpy()
    theirs = np.stack([network.replay(sample) for sample in x]).astype(np.float64)
    if ours.shape != theirs.shape:
        return float("inf")
    kept = within(network, values)
    ours, theirs = ours[kept], theirs[kept]
    scale = max(float(np.abs(theirs).max(initial=0)), 1e-30)
    worst = float(np.abs(ours - theirs).max(initial=0)) / scale
    return worst if np.isfinite(worst) else float("inf")


def samples(network: Network, count: int) -> NDArray[Any]:
    """Random inputs, `(count, *input_shape)`: numbers between zero and one, and zeros and ones where they are whole."""
    generator = torch.Generator().manual_seed(0)
    double = network.elements.holder is np.float64 and not network.elements.any_whole
    own = torch.float64 if double else torch.float32
    x = torch.rand(count, *network.input_shape, generator=generator, dtype=own).numpy()
    return np.stack([network.elements.nearest(sample) for sample in x])


def within(network: Network, values: Sequence[Tensor]) -> NDArray[np.bool_]:
    """At which of some inputs, of which the values of all nodes are given, the network is that of its model: where
    nothing is larger than its type holds."""
    kept = torch.ones(len(values[0]), dtype=torch.bool)
    for node in network.nodes:
        if isinstance(node.op, Within):
            kept &= (values[node.inputs[0]].abs() <= node.op.limit).reshape(len(kept), -1).all(1)
    return kept.numpy()


# How far results may be off the model's, in units of the coarsest type in which it computes.
_UNITS = 32
TOLERANCE = 1e-4


def tolerance(precisions: Iterable[float]) -> float:
    """How far results may be off those of a model that computes in types of these precisions."""
    return max([TOLERANCE, *(_UNITS * p for p in precisions if p > 2.0**-20)])


def check_import(network: Network, name: str, most: float = TOLERANCE, head: Head = ()) -> None:
    """Raises InputError if a network and the model called `name` differ by more than `most`."""
    worst = import_error(network, head=head)
    if worst > most:
        raise InputError(
            f"{name}: import check failed: at random inputs the model's outputs are off by {worst:.2g} of the largest; "
            "its own arithmetic overflows or loses digits, or krelax misreads it (then please report it)"
        )
