"""Everything true of an activation, in one place each, and the closed table of them."""

from __future__ import annotations

from krelax.activations.base import Activation, Lines, Relaxation, Rule, Splits, Support
from krelax.activations.bounded import Atan, Erf, Softsign
from krelax.activations.difference import Difference
from krelax.activations.exponential import ELU, Exp, Log, Share, Softplus
from krelax.activations.hyperbolic import Acosh, Asin, Atanh, Cosh, Sinh, Tan
from krelax.activations.leaky_relu import LeakyReLU
from krelax.activations.log_sum_exp import LogSumExp
from krelax.activations.maximum import Max
from krelax.activations.power import Power, Reciprocal, ReciprocalSqrt, Sqrt, Square
from krelax.activations.product import Product
from krelax.activations.relu import ReLU
from krelax.activations.sigmoid import Sigmoid
from krelax.activations.steps import Ceil, Floor, Quantise, Round, Shrink, Sign, Step, Threshold
from krelax.activations.swish import GELU, HardSwish, Mish, SiLU, TanhGELU
from krelax.activations.tanh import Tanh
from krelax.activations.wave import Cos, Sin

_PIECEWISE: tuple[type[Activation], ...] = (ReLU, LeakyReLU, Difference, Max)
_JUMPING: tuple[type[Activation], ...] = (Sign, Threshold, Shrink, Floor, Ceil, Round, Quantise, Step)
_BOUNDED: tuple[type[Activation], ...] = (Sigmoid, Tanh, Erf, Atan, Softsign, Sin, Cos)
_GATED: tuple[type[Activation], ...] = (SiLU, GELU, TanhGELU, Mish, HardSwish)
_HYPERBOLIC: tuple[type[Activation], ...] = (Sinh, Cosh, Tan, Asin, Acosh, Atanh)
_GROWING: tuple[type[Activation], ...] = (Exp, Log, LogSumExp, Share, Softplus, ELU)
_POWERS: tuple[type[Activation], ...] = (Square, Sqrt, Reciprocal, ReciprocalSqrt, Power, Product)

_SMOOTH = (*_BOUNDED, *_GATED, *_GROWING, *_HYPERBOLIC, *_POWERS)

ACTIVATIONS: dict[str, type[Activation]] = {a.name: a for a in (*_PIECEWISE, *_JUMPING, *_SMOOTH)}

__all__ = [
    "ACTIVATIONS",
    "ELU",
    "GELU",
    "Acosh",
    "Activation",
    "Asin",
    "Atan",
    "Atanh",
    "Ceil",
    "Cos",
    "Cosh",
    "Difference",
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
    "Quantise",
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
    "Sinh",
    "Softplus",
    "Softsign",
    "Splits",
    "Sqrt",
    "Square",
    "Step",
    "Support",
    "Tan",
    "Tanh",
    "TanhGELU",
    "Threshold",
]
