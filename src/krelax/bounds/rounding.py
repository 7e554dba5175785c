"""How much floating point can have changed a bound: a priori error bounds, valid for any order of summation.

A sum of n products computed in floating point differs from the exact one by at most `gamma_n * sum |products|` with
`gamma_n = n u / (1 - n u)` and u the unit roundoff, whatever the order and with or without fused operations (Higham,
Accuracy and Stability of Numerical Algorithms, section 3.1). Pushing those errors on to the values they multiply
gives one dot product per node: `gamma * <|coefficients|, magnitudes>`, where the magnitude of a node bounds the sum
of absolute terms in it.
"""

from __future__ import annotations

import torch

# Terms added for everything that is not a long sum: slopes, intercepts, scalar additions, and the rounding of the
# error bound itself.
_OVERHEAD = 64
# A margin for the rounding of magnitudes and of the error terms themselves.
_INFLATION = 1.01


def gamma(terms: int, dtype: torch.dtype) -> float:
    """Relative error of a sum of `terms` products in `dtype`, with room for the short operations around it."""
    unit = torch.finfo(dtype).eps / 2
    share = (terms + _OVERHEAD) * unit
    return _INFLATION * share / (1 - share)
