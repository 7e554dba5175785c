"""The activations that the view of one neuron knows, and their graphs for a page that has no server to ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from krelax.activations import GELU, Activation, Exp, LeakyReLU, ReLU, Sigmoid, SiLU, Sin, Square, Tanh

# Sliders go from -REACH to REACH; graphs have so many points for each unit.
REACH, DENSITY = 3, 100


@dataclass(frozen=True)
class Curve:
    """An activation under the name and the formula that the page shows."""

    op: Activation
    formula: str


CURVES = {
    "ReLU": Curve(ReLU(), "a = max(z, 0)"),
    "leaky ReLU": Curve(LeakyReLU(0.1), "a = max(z, 0.1 z)"),
    "sigmoid": Curve(Sigmoid(), "a = 1 / (1 + e⁻ᶻ)"),
    "tanh": Curve(Tanh(), "a = tanh z"),
    "GELU": Curve(GELU(), "a = z Φ(z)"),
    "SiLU": Curve(SiLU(), "a = z / (1 + e⁻ᶻ)"),
    "sine": Curve(Sin(), "a = sin z"),
    "square": Curve(Square(), "a = z²"),
    "exponential": Curve(Exp(), "a = eᶻ"),
}


def tables() -> dict[str, dict[str, Any]]:
    """The formula, the graph from -REACH to REACH, the least and the largest slope of each activation, and whether it
    is flat at both ends: then bands have the smaller slope of both, and the lines of CROWN go through an end."""
    z = torch.linspace(-REACH, REACH, 2 * REACH * DENSITY + 1, dtype=torch.float64)
    found = {}
    for name, curve in CURVES.items():
        a = curve.op.forward(z[None])[0]
        slopes = a.diff() * DENSITY
        ends = [round(float(t), 1) for t in (slopes.min(), slopes.max())]
        values = [round(v, 6) for v in a.tolist()]
        flat = isinstance(curve.op, Sigmoid | Tanh)
        found[name] = {"formula": curve.formula, "values": values, "slopes": ends, "flat": flat}
    return found
