"""What the checker's networks compute, in float64, rounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from krelax.certificate.arithmetic import Float64
from krelax.certificate.network import Activation, Affine, Network

ACTIVATIONS: dict[str, Callable[[Activation, Any], Any]] = {
    "relu": lambda node, z: np.maximum(z, node.negative_slope * z),
    "sigmoid": lambda node, z: 0.5 + 0.5 * np.tanh(z / 2),
    "tanh": lambda node, z: np.tanh(z),
    "max": lambda node, z: z.reshape(len(z), node.size, node.window).max(2),
}


def evaluate(network: Network, x: Any) -> list[Any]:
    """Values of all nodes for inputs `(batch, size)`."""
    values = [x]
    for node in network.nodes[1:]:
        assert node is not None
        inputs = [values[j] for j in node.inputs]
        if isinstance(node, Affine):
            values.append(node.forward(Float64(), inputs))
        else:
            values.append(ACTIVATIONS[node.kind](node, *inputs))
    return values
