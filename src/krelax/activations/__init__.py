"""Everything true of an activation, in one place each, and the closed table of them."""

from __future__ import annotations

from krelax.activations.base import Activation, Lines, Relaxation, Rule, Splits, Support
from krelax.activations.bounded import Atan, Erf, Softsign
from krelax.activations.exponential import ELU, Exp, Log, Share, Softplus
from krelax.activations.leaky_relu import LeakyReLU
from krelax.activations.log_sum_exp import LogSumExp
from krelax.activations.maximum import Max
from krelax.activations.power import Power, Reciprocal, ReciprocalSqrt, Sqrt, Square
from krelax.activations.product import Product
from krelax.activations.relu import ReLU
from krelax.activations.sigmoid import Sigmoid
from krelax.activations.steps import Ceil, Floor, Round, Shrink, Sign, Threshold
from krelax.activations.swish import GELU, HardSwish, Mish, SiLU, TanhGELU
from krelax.activations.tanh import Tanh
from krelax.activations.wave import Cos, Sin

_PIECEWISE: tuple[type[Activation], ...] = (ReLU, LeakyReLU, Max, Product, Sign, Threshold, Shrink, Floor, Ceil, Round)
_BOUNDED: tuple[type[Activation], ...] = (Sigmoid, Tanh, Erf, Atan, Softsign, Sin, Cos)
_GATED: tuple[type[Activation], ...] = (SiLU, GELU, TanhGELU, Mish, HardSwish)
_GROWING: tuple[type[Activation], ...] = (Exp, Log, LogSumExp, Share, Softplus, ELU)
_POWERS: tuple[type[Activation], ...] = (Square, Sqrt, Reciprocal, ReciprocalSqrt, Power)

ACTIVATIONS: dict[str, type[Activation]] = {a.name: a for a in (*_PIECEWISE, *_BOUNDED, *_GATED, *_GROWING, *_POWERS)}

__all__ = [
    "ACTIVATIONS",
    "ELU",
    "GELU",
    "Activation",
    "Atan",
    "Ceil",
    "Cos",
    "Erf",
    "Exp",
    "Floor",
    "HardSwish",
    "LeakyReLU",
    "Lines",
    "Log",
    "LogSumExp",
    "Max",
    "Mish",
    "Power",
    "Product",
    "ReLU",
    "Reciprocal",
    "ReciprocalSqrt",
    "Relaxation",
    "Round",
    "Rule",
    "Share",
    "Shrink",
    "SiLU",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Softsign",
    "Splits",
    "Sqrt",
    "Square",
    "Support",
    "Tanh",
    "TanhGELU",
    "Threshold",
]
