"""Does a network compute what the model it was read from computes?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from krelax.errors import InputError
from krelax.network.graph import Network

Head = Sequence[Callable[[Tensor], Tensor]]


def import_error(network: Network, samples: int = 3, head: Head = ()) -> float:
    """Largest difference between a network, followed by the functions of a `head`, and its `replay` at random inputs,
    relative to the largest output.

    Infinite if the outputs do not even have the same shape or are not numbers.
    """
    assert network.replay is not None
    generator = torch.Generator().manual_seed(0)
    own = torch.float64 if network.replay_dtype is np.float64 else torch.float32
    x = torch.rand(samples, *network.input_shape, generator=generator, dtype=own)
    values = network(x.double())
    for function in head:
        values = function(values.flatten(1)).reshape(values.shape)
    ours = values.numpy()
    theirs = np.stack([network.replay(sample.numpy()) for sample in x])
    if ours.shape != theirs.shape:
        return float("inf")
    scale = max(float(np.abs(theirs).max(initial=0)), 1e-30)
    worst = float(np.abs(ours - theirs).max(initial=0)) / scale
    return worst if np.isfinite(worst) else float("inf")


def check_import(network: Network, name: str, tolerance: float = 1e-4, head: Head = ()) -> None:
    """Raises InputError if a network and the model called `name` differ by more than `tolerance`."""
    worst = import_error(network, head=head)
    if worst > tolerance:
        raise InputError(
            f"{name}: import check failed: at random inputs the model's outputs are off by {worst:.2g} of the largest; "
            "its own arithmetic overflows or loses digits, or krelax misreads it (then please report it)"
        )
